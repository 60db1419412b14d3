"""Crops a training set around the focal point, and keeps finished crops as long as they are right.

Here: files of one crop set and their index. Not here: cutting a picture (`cut`), or which pictures are used
(`curation`).

A crop set's folder holds `<post_id>.png` (or `.webp`), `<post_id>-1.png` and so on for further parts of a long picture,
`-flipped` behind the name of a mirror image, `alpha/` with files of the same names for transparent pictures, and
`index.json`. Crops are reused when the index says that they were made from a picture of the same content under the same
settings, and their files still have the recorded sha256. Everything else in the folder is removed.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.imaging.alpha import alpha_path, write_alpha
from ti_pipeline.imaging.cut import Cut, Source, cut_picture
from ti_pipeline.imaging.decode import PictureError
from ti_pipeline.imaging.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.imaging.head_detector import HeadDetector
    from ti_pipeline.studies import CropSet

__all__ = ["CropJob", "crop_pictures", "read_focal_points"]

# Part of every crop's identity: raise it when the same settings would give other pixels.
_VERSION = 3
_INDEX = "index.json"
_SAVE_INDEX_EVERY = 50
_Made: TypeAlias = "tuple[str, list[dict[str, Any]]]"  # of one picture: its crops' identity, and their rows
# The fastest settings that lose nothing, as encoding is most of the work. Nine pictures of 512 px, mean: PNG's level 1
# 23 ms and 384 kB, the usual 6 78 ms and 340 kB; WebP's method 0 13 ms and 352 kB, the usual 4 134 ms and 263 kB.
_ENCODING: dict[str, dict[str, Any]] = {"png": {"compress_level": 1}, "webp": {"lossless": True, "method": 0}}


@dataclass(frozen=True)
class CropJob:
    """One crop set to make: its folder, its settings, and what a person or a model says of where to look.

    `focal_points` are points by post id, shares of width and height; they win over `head_detector`.
    """

    folder: str
    crop_set: CropSet
    focal_points: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    head_detector: HeadDetector | None = None


def crop_pictures(
    training_set: pd.DataFrame,
    jobs: Sequence[CropJob],
    *,
    root: Path,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[pd.DataFrame]:
    """Crop the kept pictures of each job's curation; return each one's `crops` table, in the training set's order.

    Every picture is decoded once for all jobs that use it. Crops are lossless RGB files without metadata in
    `root/folder`: of exactly `crop_set.size` pixels a side, or of the sides of an aspect bucket of that area. Each is
    the largest box of its shape that the picture has, placed by `focal.place_box` or around the post's point of
    `focal_points`, resized by Lanczos; nothing is ever padded. A picture that cannot be read any more, or would be
    enlarged more than `max_upscale` times, is a row with status `failed` and the reason. Raises ValueError when the
    training set does not know a curation.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    works = [_Work(job, training_set, root) for job in jobs]
    pictures = {row["post_id"]: root / row["path"] for work in works for row in work.chosen.values()}

    def crop(post_id: int) -> list[_Made]:
        source = Source(pictures[post_id])
        return [work.crop(source, work.chosen[post_id]) if post_id in work.chosen else ("", []) for work in works]

    in_turn = in_threads(crop, list(pictures), what="pictures cropped", progress=progress)
    save_at = _SAVE_INDEX_EVERY
    for done, (post_id, made) in enumerate(zip(pictures, in_turn, strict=True), 1):
        for work, (identity, rows) in zip(works, made, strict=True):
            work.rows[post_id] = rows
            work.identities[post_id] = identity
        if done == save_at:  # a killed run goes on from here
            for work in works:
                work.save_index(work.index | work.made())
            save_at += max(_SAVE_INDEX_EVERY, done // 10)  # all of it is written each time: ever more seldom
    tables = []
    for work in works:
        work.save_index(work.made())
        rows = [row for post_id in work.chosen for row in work.rows[post_id]]
        _remove_others(root / work.job.folder, {root / row["path"] for row in rows if row["status"] == "ok"})
        tables.append(from_arrow(pa.Table.from_pylist(rows, schema=TABLES["crops"].arrow_schema())))
    return tables


class _Work:
    """A job while it is done: what it wants, what it knows from earlier runs, and the rows that it has."""

    def __init__(self, job: CropJob, training_set: pd.DataFrame, root: Path) -> None:
        wanted = job.crop_set.curation
        if wanted not in set(training_set.curation):
            known = ", ".join(sorted(set(training_set.curation))) or "none"
            raise ValueError(f"the training set has no curation {wanted!r} (it has: {known})")
        chosen = training_set[training_set.kept & (training_set.curation == wanted)].to_dict("records")
        self.job, self.root = job, root
        self.chosen: dict[int, dict[Hashable, Any]] = {int(row["post_id"]): row for row in chosen}
        self.index = _read_index(root / job.folder / _INDEX)
        self.rows: dict[int, list[dict[str, Any]]] = {}
        self.identities: dict[int, str] = {}

    def made(self) -> dict[str, Any]:
        """Return the index of what was made so far."""
        return {
            str(post_id): {
                "identity": self.identities[post_id],
                "crops": [{name: crop[name] for name in _REMEMBERED} for crop in rows],
            }
            for post_id, rows in self.rows.items()
            if rows and rows[0]["status"] == "ok"
        }

    def save_index(self, index: dict[str, Any]) -> None:
        write_json(self.root / self.job.folder / _INDEX, index)

    def crop(self, source: Source, picture: dict[Hashable, Any]) -> _Made:
        """Return the identity of a picture's crops, and a row for each of them, or one that says why there are none."""
        post_id, crop_set, root = int(picture["post_id"]), self.job.crop_set, self.root
        row = {"post_id": post_id, "part": 0, "flipped": False, "split": picture["split"], "size": crop_set.size}
        known, focus = self.index.get(str(post_id), {}), self.job.focal_points.get(post_id)
        try:
            identity = _identity(source.path, crop_set, focus, self.job.head_detector)
            if known.get("identity") == identity and all(_intact(root, crop) for crop in known["crops"]):
                return identity, [row | crop | {"status": "ok", "reason": ""} for crop in known["crops"]]
            cuts = cut_picture(source, crop_set, focus=focus, head_detector=self.job.head_detector)
        except PictureError as error:
            return "", [row | {"status": "failed", "reason": error.reason, "detectors": []}]
        names = [f"{self.job.folder}/{_stem(post_id, cut)}.{crop_set.format}" for cut in cuts]
        written = [_write(cut, name, root, crop_set.format) for cut, name in zip(cuts, names, strict=True)]
        return identity, [row | crop | {"status": "ok", "reason": ""} for crop in written]


def read_focal_points(path: Path) -> dict[int, tuple[float, float]]:
    """Return the focal points that people gave: a CSV with the columns post_id, x, y (shares of width and height).

    The columns `focus_x` and `focus_y` of the crops table are such shares. Raises ValueError naming file and line.
    """
    points: dict[int, tuple[float, float]] = {}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        if not {"post_id", "x", "y"} <= set(rows.fieldnames or []):
            raise ValueError(f"{path}:1: the first line must name the columns post_id,x,y")
        for row in rows:
            try:
                post_id, x, y = int(row["post_id"]), float(row["x"]), float(row["y"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{rows.line_num}: wants a post's id and two numbers, has {row}") from error
            if not (0 <= x <= 1 and 0 <= y <= 1):
                raise ValueError(f"{path}:{rows.line_num}: x and y are shares, 0 to 1; has {x:g}, {y:g}")
            points[post_id] = (x, y)
    return points


def _stem(post_id: int, cut: Cut) -> str:
    return f"{post_id}{f'-{cut.part}' if cut.part else ''}{'-flipped' if cut.flipped else ''}"


def _write(cut: Cut, path: str, root: Path, form: str) -> dict[str, Any]:
    """Write a crop and its alpha, and return what the table says of them."""
    with write_atomically(root / path) as aside:
        cut.pixels.save(aside, format=form.upper(), **_ENCODING[form])
    return {
        "path": path,
        "part": cut.part,
        "flipped": cut.flipped,
        "width": cut.pixels.width,
        "height": cut.pixels.height,
        "left": cut.placed.left,
        "top": cut.placed.top,
        "box_width": cut.placed.width,
        "box_height": cut.placed.height,
        "focus_x": cut.placed.focus_x,
        "focus_y": cut.placed.focus_y,
        "detectors": cut.detectors,
        "sha256": sha256_of(root / path),
        "alpha_sha256": write_alpha(cut.alpha, root / path),
    }


_REMEMBERED = (
    *("path", "part", "flipped", "width", "height", "left", "top", "box_width", "box_height", "focus_x", "focus_y"),
    *("detectors", "sha256", "alpha_sha256"),
)


def _intact(root: Path, crop: dict[str, Any]) -> bool:
    """Tell whether a crop and its alpha are as they were written."""
    path = root / crop["path"]
    there = (_sha256_if_there(path), _sha256_if_there(alpha_path(path)))
    return there == (crop["sha256"], crop["alpha_sha256"])


def _sha256_if_there(path: Path) -> str | None:
    return sha256_of(path) if path.exists() else None


def _identity(
    source: Path, crop_set: CropSet, focus: tuple[float, float] | None, head_detector: HeadDetector | None
) -> str:
    """Return the fingerprint of everything that decides a crop's pixels."""
    try:
        content = sha256_of(source)
    except OSError as error:
        raise PictureError(source, f"cannot be read: {error.strerror}") from error
    settings = crop_set.model_dump(exclude={"curation", "focal_points", "head_detector", "head_classes"})
    return fingerprint([_VERSION, content, settings, focus, head_detector and head_detector.sha256])


def _read_index(path: Path) -> dict[str, Any]:
    """Return the index of earlier crops by post id; a missing or unreadable one means that nothing is reused."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    usable = isinstance(index, dict) and all(
        isinstance(v, dict) and {"identity", "crops"} <= set(v) for v in index.values()
    )
    return index if usable else {}


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """Remove crops of pictures no longer in the set, and what a killed run left half-written."""
    for path in (path for suffix in _ENCODING for path in folder.glob(f"*.{suffix}")):
        if path not in kept:
            path.unlink()
            alpha_path(path).unlink(missing_ok=True)
    for path in (*folder.glob(".*-partial*"), *folder.glob("alpha/.*-partial*")):
        path.unlink()
