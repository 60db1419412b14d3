"""Sidecars: the files that people and programs leave beside a picture, all of them, read into parts of an e621 record.

`.json` of gallery downloaders (`shapes`), `.txt`, `.caption` and `.tags` (`tag_text`), in any case of letters, named
`<picture>.<ext>.txt` or `<stem>.txt`. Other texts of a picture's name (`.xmp`, `.yaml`, ...) are not read, but what
they say is judged like the rest: everything that a sidecar says goes into the record's `said`, before anything is read
from it. Tags are data: control characters, quotes and `..` stay. Not here: finding pictures and making records of them
(`folder`), or which words exclude a picture (`e621.policy`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES
from ti_pipeline.sources.shapes import ShapeError, read_object
from ti_pipeline.sources.shapes.fields import strictest
from ti_pipeline.sources.tag_text import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["SidecarError", "is_read", "read_sidecars", "sidecars_by_picture"]

_READ = frozenset({".json", ".txt", ".caption", ".tags"})
# Nobody reads these for tags, but a picture's own words stand in them.
_JUDGED = frozenset({".xmp", ".xml", ".yaml", ".yml", ".csv", ".tsv", ".md", ".jsonl", ".ini", ".nfo", ".info", ".log"})
_JUDGED |= {".captions", ".tag", ".prompt", ".desc", ".description", ".text", ".keywords", ".html", ".htm"}
_ORDER = (".json", ".txt", ".tags", ".caption")  # those that say most first
_ADDRESS = re.compile(r"\w+://\S+")
# Fields that name people and files, and say nothing of the picture; a whole number of children is no child.
_NAMES = frozenset(
    {"uploader", "uploader_name", "username", "owner", "owner_login", "filename", "file_name", "account"}
)
_USUAL = frozenset({"id", "tags", "rating", "file", "ext", "md5", "size", "width", "height", *CATEGORY_NAMES})
_POSTS = re.compile(r"has_(?:active_|visible_)?children|(?:active_|visible_)?child(?:ren)?_(?:ids?|count)")


class SidecarError(ValueError):
    """A sidecar cannot be read; the message says which and why."""


def is_read(path: Path) -> bool:
    """Tell whether a file is of the kinds that tags and captions are read from."""
    return path.suffix.lower() in _READ


def sidecars_by_picture(pictures: Sequence[Path], others: Iterable[Path]) -> dict[Path, list[Path]]:
    """Return the sidecars of each picture that has any, those that say most first.

    A file belongs to all pictures of its folder that are called like it, with or without the picture's suffix, in any
    case. One that belongs to none so, but whose name goes on behind a picture's and a dot, belongs to that picture.
    """
    named: dict[tuple[Path, str], list[Path]] = {}
    for picture in pictures:
        for name in {picture.name.casefold(), picture.stem.casefold()}:
            named.setdefault((picture.parent, name), []).append(picture)
    found: dict[Path, list[Path]] = {}
    for path in others:
        if path.suffix.lower() not in _READ | _JUDGED:
            continue
        name = path.stem.casefold()
        while (path.parent, name) not in named and "." in name:
            name = name.rpartition(".")[0]
        for picture in named.get((path.parent, name), ()):
            found.setdefault(picture, []).append(path)
    return {picture: sorted(paths, key=_place) for picture, paths in found.items()}


def _place(path: Path) -> tuple[int, int, str]:
    suffix = path.suffix.lower()
    return (_ORDER.index(suffix) if suffix in _ORDER else len(_ORDER), -len(path.name), path.name)


def read_sidecars(paths: Sequence[Path]) -> tuple[dict[str, Any], list[str]]:
    """Return the parts of an e621 record that a picture's sidecars tell together, and what each gave, in words.

    Always `tags`, `said` and `captions`; `rating`, `id`, ... where they are told: the strictest rating, of other fields
    the first. Tags are joined, each in the first category that has it. Raises `SidecarError` if one of them is not
    UTF-8, not JSON, or its tags are not tags.
    """
    whole: dict[str, Any] = {}
    tags: dict[str, list[str]] = {}
    said: list[str] = []
    captions: list[str] = []
    ratings: list[str | None] = []
    gave = []
    for path in paths:
        told, texts = _read(path)
        placed = {tag for names in tags.values() for tag in names}
        own = told.pop("tags", {})
        for category, names in own.items():
            fresh = [tag for tag in dict.fromkeys(names) if tag not in placed]
            if fresh or category not in tags:
                tags.setdefault(category, []).extend(fresh)
        said += texts
        captions += told.pop("captions", [])
        ratings.append(told.pop("rating", None))
        whole = told | whole
        gave.append(f"{path.name}: {sum(map(len, own.values()))} tags")
    rating = strictest(*ratings)
    whole |= {"tags": tags, "said": said, "captions": captions}
    return whole | ({} if rating is None else {"rating": rating}), gave


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return what a sidecar tells of a record, and all that it says."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SidecarError(f"{path.name} is not readable as UTF-8 ({error})") from error
    suffix = path.suffix.lower()
    if suffix == ".json":
        data, said = _object(text, path.name)
        try:
            return read_object(data), said
        except ShapeError as error:
            raise SidecarError(f"{path.name}: {error}") from error
    return (read_text(text) if suffix in _READ else {}), [text]


def _object(text: str, name: str) -> tuple[dict[str, Any], list[str]]:
    """Return a JSON object, and every text in it: values, and names of fields that are no fields of downloaders."""
    said: list[str] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for field, value in pairs:  # all of them: of two fields of one name, JSON's readers drop the first
            said.extend(_said(field, value))
        return dict(pairs)

    try:
        data = json.loads(text, object_pairs_hook=keep)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{name} is not JSON ({error})") from error
    if isinstance(data, list) and data and all(isinstance(entry, str) for entry in data):
        return {"tags": data}, list(data)
    for envelope in ("post", "image", "submission"):  # a site's own answer, saved as it came
        if isinstance(data, dict) and isinstance(data.get(envelope), dict):
            data = data[envelope]
    if not isinstance(data, dict):
        raise SidecarError(f"{name} is not an object of fields")
    return data, said


def _said(field: str, value: object) -> list[str]:
    """Return what a field says: its texts (what it says in objects of its own is theirs), and its name."""
    if field in _NAMES:
        return []
    texts = list(_texts(value))
    if field == "locked_tags":
        return [tag for text in texts for tag in text.split() if not tag.startswith("-")]
    no_name = (
        field in _USUAL or _POSTS.fullmatch(field) or (field == "children" and not texts and isinstance(value, list))
    )
    said = [text for text in texts if not _ADDRESS.fullmatch(text.strip())]
    return said if no_name else [field, *said]


def _texts(value: object) -> Iterator[str]:
    """Yield the texts of a value and of lists in it; objects in it have been asked already."""
    if isinstance(value, str):
        yield value
    for entry in value if isinstance(value, list) else ():
        yield from _texts(entry)
