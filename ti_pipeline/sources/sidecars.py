"""Tag sidecars: the three kinds of files that people keep beside pictures, read into parts of an e621 record.

Gallery downloaders' `<picture>.<ext>.json` (tags by category), hydrus' `<picture>.<ext>.txt` (one tag a line,
`species:wolf`) and kohya's `<stem>.txt` (comma-separated). Tags are data: control characters, quotes and `..` stay.
Not here: finding pictures and making records of them (`folder`).
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SidecarError", "read_sidecar", "sidecars_of"]

_NAMESPACES = {name: name for name in CATEGORY_NAMES} | {"creator": "artist", "series": "copyright"}
# Ratings by any of the words in use. Danbooru's `sensitive` is not safe here.
_RATINGS = {"safe": "s", "s": "s", "general": "s", "g": "s"}
_RATINGS |= {"questionable": "q", "q": "q", "sensitive": "q", "explicit": "e", "e": "e"}
_BLANKS = " \t\r\n"  # not str.strip's own choice: the site has a tag that is one control character


class SidecarError(ValueError):
    """A sidecar cannot be read; the message says which and why."""


def sidecars_of(picture: Path) -> list[Path]:
    """Return where a picture's sidecars may lie, those that say most first."""
    return [
        picture.with_name(picture.name + ".json"),
        picture.with_suffix(".json"),
        picture.with_name(picture.name + ".txt"),
        picture.with_suffix(".txt"),
    ]


def read_sidecar(path: Path, picture: Path) -> dict[str, Any]:
    """Return the parts of an e621 record that a sidecar tells: always `tags`, and `rating`, `id`, … where it does.

    Raises `SidecarError` if it is not UTF-8, not JSON, or its tags are not tags.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SidecarError(f"{path.name} is not readable as UTF-8 ({error})") from error
    if path.suffix == ".json":
        return _downloader(_object(text, path.name), path.name)
    return _hydrus(text) if path.name == picture.name + ".txt" else _kohya(text)


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{name} is not JSON ({error})") from error
    if isinstance(data, dict) and isinstance(data.get("post"), dict):
        data = data["post"]  # the site's own answer, saved as it came
    if not isinstance(data, dict):
        raise SidecarError(f"{name} is not an object of fields")
    return data


def _downloader(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Keep what the policy and the tables use; other boorus' fields of the same names may be of other types."""
    rating = data.get("rating")
    found: dict[str, Any] = {"tags": _by_category(data, name)}
    if rating is not None:
        found["rating"] = _RATINGS.get(str(rating).lower(), str(rating))
    if isinstance(data.get("score"), int):
        found["score"] = {"total": data["score"]}
    wanted = {"id": int, "score": dict, "fav_count": int, "sources": list, "flags": dict, "locked_tags": list}
    found |= {field: data[field] for field, kind in wanted.items() if isinstance(data.get(field), kind)}
    if _is_time(data.get("created_at")):
        found["created_at"] = data["created_at"]
    file = data.get("file")
    if isinstance(file, dict):
        found["file"] = {side: file[side] for side in ("width", "height") if isinstance(file.get(side), int)}
    return found


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _by_category(data: dict[str, Any], name: str) -> dict[str, list[str]]:
    """Return tags by category from a mapping, or from flat tags with `tags_<category>` fields beside them."""
    tags = data.get("tags", data.get("tag_string"))
    if isinstance(tags, dict):
        return {str(category): _flat(names, name) for category, names in tags.items()}
    known = {
        category: _flat(data.get(f"tags_{category}", data.get(f"tag_string_{category}")), name)
        for category in CATEGORY_NAMES
    }
    placed = {tag for names in known.values() for tag in names}
    known["general"] += [tag for tag in _flat(tags, name) if tag not in placed]
    return {category: names for category, names in known.items() if names}


def _flat(value: object, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [tag for tag in re.split(f"[{_BLANKS}]+", value) if tag]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [tag for tag in value if tag]
    raise SidecarError(f"{name}: tags are neither a list of texts nor a text")


def _hydrus(text: str) -> dict[str, Any]:
    return _from_names(_underscored(line) for line in text.split("\n"))


def _kohya(text: str) -> dict[str, Any]:
    """Read comma-separated tags, where brackets are escaped so that they do not mean attention."""
    plain = re.sub(r"\\([()\[\]])", r"\1", text)
    return _from_names(_underscored(tag) for tag in re.split(r"[,\n]", plain))


def _underscored(tag: str) -> str:
    return re.sub(" +", "_", tag.strip(_BLANKS)).lower()


def _from_names(names: Any) -> dict[str, Any]:
    """Sort names into categories by their namespaces; a namespace that is none of ours is part of the tag."""
    tags: dict[str, list[str]] = {}
    found: dict[str, Any] = {"tags": tags}
    for name in names:
        space, colon, rest = name.partition(":")
        rest = rest.strip("_")
        if colon and rest and space == "rating":
            found["rating"] = _RATINGS.get(rest, rest)
        elif colon and rest and space in _NAMESPACES:
            tags.setdefault(_NAMESPACES[space], []).append(rest)
        elif name:
            tags.setdefault("general", []).append(name)
    return found
