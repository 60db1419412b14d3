"""The folder source: pictures with tag sidecars as people really have them, nested and mixed.

Here: which files are pictures, ids, what is noted. Not here: which sidecar belongs to which and what is in it
(`sidecars`), the policy, or copying pictures.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.sources.reading import STILLS, Reading, SourceError
from ti_pipeline.sources.sidecars import SidecarError, is_read, read_sidecars, sidecars_by_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_folder"]

_MOVING = frozenset({"webm", "mp4", "swf"})  # listed, so that their posts are rows; never fetched
_NAMED = 5


def read_folder(folder: Path, *, assume_rating: str | None) -> Reading:
    """Return a record per picture below `folder`, ordered by path; hidden files and folders are passed over.

    A picture without a sidecar has no tags, and is noted; one that cannot be read, or with a sidecar that cannot be,
    has a `problem`. Of several sidecars all are read together, and what each gave is noted. Records have beside e621's
    fields `said`: all that the sidecars and the picture's name say, for the policy, and `captions`: texts as they
    stand. The rating is the strictest of the sidecars', else `assume_rating`. Ids are the sidecar's where they are
    whole numbers and unique, else made from the relative path. md5 and size are the file's. Linked folders are read,
    each once. Raises `SourceError` where there is no folder or no picture in it.
    """
    if not folder.is_dir():
        raise SourceError(f"source.path: there is no folder {folder}; set it to the folder with your pictures")
    unreadable: list[str] = []
    files = list(_files(folder, unreadable))
    pictures = [path for path in files if path.suffix.lower().lstrip(".") in STILLS | _MOVING]
    if not pictures:
        raise SourceError(f"source.path: {folder} has no pictures ({', '.join(sorted(STILLS))})")
    sidecars = sidecars_by_picture(pictures, files)
    records, crowded, wordy = [], [], []
    for picture in pictures:
        record, gave = _record(picture, sidecars.get(picture, []), assume_rating)
        records.append(record)
        crowded += [f"{_shown(picture, folder)} ({', '.join(gave)})"] if len(gave) > 1 else []
        wordy += [_shown(picture, folder)] if record.get("captions") and not any(record["tags"].values()) else []
    _give_ids(records, [picture.relative_to(folder).as_posix() for picture in pictures])
    used = {path for paths in sidecars.values() for path in paths}
    orphans = [_shown(path, folder) for path in files if is_read(path) and path not in used]
    notes = [
        *_note("without a tag file, so without tags", [_shown(p, folder) for p in pictures if p not in sidecars]),
        *_note("with several tag files, all of them read", crowded),
        *_note("with sentences instead of tags, which a plan of `source: sidecar` keeps as captions", wordy),
        *_note("tag files that belong to no picture", orphans),
        *_note("that cannot be used", [f"{r['file']['url']}: {r['problem']}" for r in records if "problem" in r]),
        *_note("folders that cannot be read", unreadable),
    ]
    return Reading(records, notes)


def _files(folder: Path, unreadable: list[str]) -> Iterator[Path]:
    """Yield files in the order of their paths; `unreadable` is told of folders that the system does not let us see."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=lambda e: unreadable.append(str(e))):
        there = Path(parent).stat()
        if (there.st_dev, there.st_ino) in seen:  # a link back, or a second one
            folders.clear()
            continue
        seen.add((there.st_dev, there.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent) / name for name in sorted(names) if not name.startswith("."))


def _shown(path: Path, folder: Path) -> str:
    """Return a path for people; bytes of a name that are no text are shown as such."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _record(picture: Path, sidecars: list[Path], assume_rating: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return a picture's record, and what each of its sidecars gave."""
    url = picture.resolve().as_uri()
    try:
        data = _content(picture)
        told, gave = read_sidecars(sidecars)
    except SidecarError as error:
        return {"problem": f"tag file {error}", "file": {"url": url}}, []
    except (OSError, ValueError) as error:
        return {"problem": f"unreadable picture: {error}", "file": {"url": url}}, []
    file = {
        "ext": picture.suffix.lower().lstrip("."),
        "size": len(data),
        "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
        "url": url,
    }
    record = {"rating": assume_rating, **told, "file": told.get("file", {}) | file}
    return record | {"said": list(dict.fromkeys([picture.stem, *told["said"]]))}, gave


def _content(picture: Path) -> bytes:
    """Return a picture's bytes. Raises `ValueError` for what is no plain file (reading a pipe would never end)."""
    try:
        str(picture).encode()
    except UnicodeEncodeError:
        raise ValueError("its name is not UTF-8; rename it") from None
    if not stat.S_ISREG(picture.stat().st_mode):
        raise ValueError("it is no plain file")
    return picture.read_bytes()


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
