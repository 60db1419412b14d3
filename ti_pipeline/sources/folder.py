"""The folder source: pictures with tag sidecars as people really have them, nested and mixed.

Here: which files are pictures, which sidecar belongs to which, ids. Not here: what is in a sidecar (`sidecars`), the
policy, or copying pictures.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.sources.reading import STILLS, Reading, SourceError
from ti_pipeline.sources.sidecars import SidecarError, read_sidecar, sidecars_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_folder"]

_MOVING = frozenset({"webm", "mp4", "swf"})  # listed, so that their posts are rows; never fetched
_NAMED = 5


def read_folder(folder: Path, *, assume_rating: str | None) -> Reading:
    """Return a record per picture below `folder`, ordered by path; hidden files and folders are passed over.

    A picture without a sidecar has no tags, and is noted; one whose sidecar cannot be read carries a `problem`. The
    rating is the sidecar's, else `assume_rating`. Ids are the sidecar's where they are whole numbers and unique,
    else made from the relative path. md5 and size are the file's. Raises `SourceError` where there is no folder or
    no picture in it.
    """
    if not folder.is_dir():
        raise SourceError(f"source.path: there is no folder {folder}; set it to the folder with your pictures")
    files = list(_files(folder))
    pictures = [path for path in files if path.suffix.lower().lstrip(".") in STILLS | _MOVING]
    if not pictures:
        raise SourceError(f"source.path: {folder} has no pictures ({', '.join(sorted(STILLS))})")
    there = set(files)
    bare, crowded, used, records = [], [], set(), []
    for picture in pictures:
        name = picture.relative_to(folder).as_posix()
        sidecars = [path for path in sidecars_of(picture) if path in there]
        used.update(sidecars)
        bare += [] if sidecars else [name]
        crowded += [f"{name} ({sidecars[0].name} is read)"] if len(sidecars) > 1 else []
        records.append(_record(picture, sidecars, assume_rating))
    _give_ids(records, [picture.relative_to(folder).as_posix() for picture in pictures])
    orphans = [p.relative_to(folder).as_posix() for p in files if p.suffix in {".json", ".txt"} and p not in used]
    notes = [
        *_note("without a tag file, so without tags", bare),
        *_note("with several tag files", crowded),
        *_note("tag files that belong to no picture", orphans),
        *_note("with a tag file that cannot be read", [str(r["problem"]) for r in records if "problem" in r]),
    ]
    return Reading(records, notes)


def _files(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _record(picture: Path, sidecars: list[Path], assume_rating: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {}
    try:
        data = picture.read_bytes()
        told = read_sidecar(sidecars[0], picture) if sidecars else {}
    except (SidecarError, OSError) as error:
        return {"problem": f"tag file {error}" if isinstance(error, SidecarError) else f"unreadable picture: {error}"}
    file = {
        "ext": picture.suffix.lower().lstrip("."),
        "size": len(data),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "url": picture.resolve().as_uri(),
    }
    return {"rating": assume_rating, "tags": {}, **told, "file": told.get("file", {}) | file}


def _give_ids(records: list[dict[str, Any]], names: list[str]) -> None:
    """Keep sidecars' ids that are whole numbers and unique; all others come from the picture's path."""
    told = Counter(record.get("id") for record in records)
    for record, name in zip(records, names, strict=True):
        post_id = record.get("id")
        usable = isinstance(post_id, int) and not isinstance(post_id, bool) and 0 <= post_id < 2**63
        if not usable or told[post_id] > 1:
            record["id"] = _id_of(name)


def _id_of(relative: str) -> int:
    """Return a stable id of 62 bits from a picture's path below the folder."""
    return int.from_bytes(hashlib.sha256(relative.encode("utf-8", "surrogateescape")).digest()[:8], "big") >> 2


def _note(what: str, names: list[str]) -> list[str]:
    """Return one line for all pictures of which the same is to say."""
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{len(names)} {what}: {', '.join(names[:_NAMED])}{more}"]
