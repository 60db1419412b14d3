"""The folder source: pictures with tag sidecars as people really have them, nested and mixed.

Three kinds of sidecar: `<picture>.json` of gallery downloaders (tags by category), `<stem>.txt` as kohya's scripts
write it (comma-separated), and `<picture>.txt` as hydrus exports it (one tag a line, `species:wolf`).
Not here: the policy, or copying pictures.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES
from ti_pipeline.sources import STILLS, Reading, SourceError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_folder"]

_NAMESPACES = {name: name for name in CATEGORY_NAMES} | {
    "creator": "artist",
    "series": "copyright",
    "person": "character",
}
_RATINGS = {"safe": "s", "s": "s", "g": "s", "general": "s", "questionable": "q", "q": "q", "explicit": "e", "e": "e"}


class SidecarError(ValueError):
    """A sidecar cannot be read; the message says why."""


def read_folder(folder: Path, *, assume_rating: str | None) -> Reading:
    """Return a record per picture below `folder`, ordered by path.

    A picture without a sidecar has no tags and a note; one whose sidecar cannot be read carries a `problem`. The
    rating is the sidecar's, else `assume_rating`. Ids are the sidecar's where they are whole numbers and unique,
    else made from the relative path. Raises `SourceError` when there is no folder or no picture in it.
    """
    if not folder.is_dir():
        raise SourceError(f"source.path: there is no folder {folder}")
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower().lstrip(".") in STILLS and p.is_file())
    if not pictures:
        raise SourceError(f"source.path: {folder} has no pictures ({', '.join(sorted(STILLS))})")
    notes: list[str] = []
    taken: set[int] = set()
    records = []
    for picture in pictures:
        record = _record(picture, folder, assume_rating, notes)
        if (
            not isinstance(record["id"], int)
            or isinstance(record["id"], bool)
            or record["id"] in taken
            or record["id"] < 0
        ):
            record["id"] = _id_of(picture.relative_to(folder).as_posix())
        taken.add(record["id"])
        records.append(record)
    return Reading(records, notes)


def _record(picture: Path, folder: Path, assume_rating: str | None, notes: list[str]) -> dict[str, Any]:
    data = picture.read_bytes()
    record: dict[str, Any] = {
        "id": None,
        "rating": assume_rating,
        "tags": {},
        "file": {
            "ext": picture.suffix.lower().lstrip("."),
            "size": len(data),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "url": picture.resolve().as_uri(),
        },
    }
    name = picture.relative_to(folder).as_posix()
    try:
        found = _sidecar(picture)
    except SidecarError as error:
        notes.append(f"{name}: {error}")
        return record | {"problem": f"sidecar: {error}"}
    if found is None:
        notes.append(f"{name}: no sidecar, so no tags")
        return record
    return record | {key: value for key, value in found.items() if value is not None}


def _sidecar(picture: Path) -> dict[str, Any] | None:
    """Read the sidecar that says most: downloader, then hydrus, then kohya."""
    for path, read in (
        (picture.with_name(picture.name + ".json"), _downloader),
        (picture.with_suffix(".json"), _downloader),
        (picture.with_name(picture.name + ".txt"), _hydrus),
        (picture.with_suffix(".txt"), _kohya),
    ):
        if path.is_file():
            try:
                text = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise SidecarError(f"{path.name} is not UTF-8 (byte {error.start})") from error
            return read(text, path.name)
    return None


def _downloader(text: str, name: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SidecarError(f"{name} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise SidecarError(f"{name} is not an object of fields")
    rating = data.get("rating")
    kept = {key: data.get(key) for key in ("score", "fav_count", "sources", "created_at", "flags", "locked_tags")}
    if isinstance(kept["score"], int):
        kept["score"] = {"total": kept["score"]}
    return {
        "id": data.get("id"),
        "rating": _RATINGS.get(str(rating).lower(), rating) if rating is not None else None,
        "tags": _categories(data.get("tags"), data, name),
        **kept,
    }


def _categories(tags: Any, data: dict[str, Any], name: str) -> dict[str, list[str]]:
    """Return tags by category from a mapping, a list, a text, or gallery-dl's `tags_<category>` fields."""
    flat = {c: data.get(f"tags_{c}") for c in CATEGORY_NAMES if data.get(f"tags_{c}")}
    if isinstance(tags, dict) or flat:
        mapping = tags if isinstance(tags, dict) else flat
        return {c: _words(mapping.get(c), name) for c in CATEGORY_NAMES if mapping.get(c)}
    return {"general": _words(tags, name)}


def _words(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise SidecarError(f"{name}: tags are neither a list nor a text")


def _hydrus(text: str, _name: str) -> dict[str, Any]:
    tags: dict[str, list[str]] = {}
    rating = None
    for line in text.splitlines():
        space, colon, rest = line.strip().partition(":")
        if colon and space.lower() == "rating":
            rating = _RATINGS.get(rest.strip().lower())
        elif colon and space.lower() in _NAMESPACES:
            tags.setdefault(_NAMESPACES[space.lower()], []).append(_underscored(rest))
        elif line.strip():
            tags.setdefault("general", []).append(_underscored(line))
    return {"rating": rating, "tags": tags}


def _kohya(text: str, _name: str) -> dict[str, Any]:
    plain = re.sub(r"\\([()\[\]])", r"\1", text.replace("\n", ","))
    return {"tags": {"general": [_underscored(tag) for tag in plain.split(",") if tag.strip()]}}


def _underscored(tag: str) -> str:
    return "_".join(tag.strip().split(" "))


def _id_of(relative: str) -> int:
    """Return a stable id of 62 bits from a picture's path below the folder."""
    return int.from_bytes(hashlib.sha256(relative.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 2
