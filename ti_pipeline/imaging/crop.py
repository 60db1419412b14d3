"""Cuts a training set to squares around the focal point, and keeps finished crops as long as they are right.

Here: files of one crop set and their index. Not here: where the square goes (`focal`), or which pictures are used
(`curation`).

A crop set's folder holds `<post_id>.png` (or `.webp`), for transparent pictures `alpha/<post_id>.png`, and
`index.json`. A crop is reused when the index says that it was made from a picture of the same content under the same
settings, and its files still have the recorded sha256. Everything else in the folder is removed.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from PIL import Image

from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.imaging.alpha import alpha_path, write_alpha
from ti_pipeline.imaging.decode import PictureError, open_picture
from ti_pipeline.imaging.focal import interest_map, place_square, square_at
from ti_pipeline.imaging.measures import reduced
from ti_pipeline.imaging.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import CropSet

__all__ = ["crop_pictures", "cut_square", "read_focal_points"]

# Part of every crop's identity: raise it when the same settings would give other pixels.
_VERSION = 2
_INDEX = "index.json"
_SAVE_INDEX_EVERY = 50
_ENCODING: dict[str, dict[str, Any]] = {"png": {}, "webp": {"lossless": True}}


def crop_pictures(
    training_set: pd.DataFrame,
    *,
    root: Path,
    folder: str,
    crop_set: CropSet,
    focal_points: Mapping[int, tuple[float, float]] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Crop the kept pictures of the crop set's curation; return the `crops` table, rows in the training set's order.

    Crops are RGB files, lossless, of exactly `crop_set.size` pixels a side without metadata in `root/folder`, resized
    by Lanczos on gamma-encoded values from the largest square (`focal.place_square`, or around the post's point of
    `focal_points`, given in shares of width and height); nothing is ever padded. A picture that cannot be read any
    more, or would be enlarged more than `max_upscale` times, is a row with status `failed` and the reason. Raises
    ValueError when the training set does not know the curation.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    if crop_set.curation not in set(training_set.curation):
        known = ", ".join(sorted(set(training_set.curation))) or "none"
        raise ValueError(f"the training set has no curation {crop_set.curation!r} (it has: {known})")
    chosen = training_set[training_set.kept & (training_set.curation == crop_set.curation)].to_dict("records")
    index = _read_index(root / folder / _INDEX)

    def crop(picture: dict[Hashable, Any]) -> dict[str, Any]:
        known = index.get(str(picture["post_id"]), {})
        focus = (focal_points or {}).get(int(picture["post_id"]))
        return _crop_one(picture, known, root=root, folder=folder, crop_set=crop_set, focus=focus)

    rows: list[dict[str, Any]] = []
    for row in in_threads(crop, chosen, what="pictures cropped", progress=progress):
        rows.append(row)
        if len(rows) % _SAVE_INDEX_EVERY == 0:  # a killed run goes on from here
            write_json(root / folder / _INDEX, index | _index_of(rows))
    write_json(root / folder / _INDEX, _index_of(rows))
    _remove_others(root / folder, {root / row["path"] for row in rows if row["status"] == "ok"})
    schema = TABLES["crops"].arrow_schema()
    return from_arrow(pa.Table.from_pylist(rows, schema=schema))


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


def _crop_one(
    picture: dict[Hashable, Any],
    known: dict[str, Any],
    *,
    root: Path,
    folder: str,
    crop_set: CropSet,
    focus: tuple[float, float] | None,
) -> dict[str, Any]:
    post_id, source = int(picture["post_id"]), root / picture["path"]
    path = f"{folder}/{post_id}.{crop_set.format}"
    row = {"post_id": post_id, "split": picture["split"], "size": crop_set.size, "detectors": []}
    try:
        identity = _identity(source, crop_set, focus)
        if (
            known.get("identity") == identity
            and (root / path).exists()
            and sha256_of(root / path) == known.get("sha256")
            and known.get("alpha_sha256") == _sha256_if_there(alpha_path(root / path))
        ):
            return row | known | {"status": "ok", "reason": "", "path": path}
        square, facts = cut_square(source, crop_set, focus=focus)
    except PictureError as error:
        return row | {"status": "failed", "reason": error.reason}
    with write_atomically(root / path) as aside:
        square.save(aside, format=crop_set.format.upper(), **_ENCODING[crop_set.format])
    made: dict[str, Any] = {
        "status": "ok",
        "reason": "",
        "path": path,
        "identity": identity,
        "sha256": sha256_of(root / path),
    }
    box = (facts["left"], facts["top"], facts["left"] + facts["side"], facts["top"] + facts["side"])
    made["alpha_sha256"] = write_alpha(source, root / path, box, square.size)
    return row | facts | made


def _sha256_if_there(path: Path) -> str | None:
    return sha256_of(path) if path.exists() else None


def _identity(source: Path, crop_set: CropSet, focus: tuple[float, float] | None) -> str:
    """Return the fingerprint of everything that decides a crop's pixels."""
    try:
        content = sha256_of(source)
    except OSError as error:
        raise PictureError(source, f"cannot be read: {error.strerror}") from error
    settings = crop_set.model_dump(exclude={"curation", "focal_points"})
    return fingerprint([_VERSION, content, settings, focus])


def cut_square(
    source: Path, crop_set: CropSet, *, focus: tuple[float, float] | None = None
) -> tuple[Image.Image, dict[str, Any]]:
    """Return the square at its final size, and the table's facts about where it was cut.

    `focus` (shares of width and height) is a focal point that a person gave; without it the detectors decide.
    Raises `PictureError` for a file that cannot be used or is too small.
    """
    rgb = open_picture(source, under=crop_set.background).rgb
    side = min(rgb.size)
    if crop_set.size > crop_set.max_upscale * side:
        raise PictureError(source, f"too small: needs more than {crop_set.max_upscale:g} times enlargement")
    if focus is not None:
        placed, detectors = square_at(*focus, rgb.width, rgb.height), ["manual"]
    else:
        interest, detectors = interest_map(reduced(rgb), crop_set.focal)
        placed = place_square(interest, rgb.width, rgb.height, headroom=crop_set.headroom)
    box = (placed.left, placed.top, placed.left + side, placed.top + side)
    square = rgb.crop(box).resize((crop_set.size, crop_set.size), Image.Resampling.LANCZOS)
    return square, {
        "left": placed.left,
        "top": placed.top,
        "side": placed.side,
        "focus_x": placed.focus_x,
        "focus_y": placed.focus_y,
        "detectors": detectors,
    }


_REMEMBERED = ("identity", "sha256", "left", "top", "side", "focus_x", "focus_y", "detectors", "alpha_sha256")


def _index_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(row["post_id"]): {name: row[name] for name in _REMEMBERED} for row in rows if row["status"] == "ok"}


def _read_index(path: Path) -> dict[str, Any]:
    """Return the index of earlier crops by post id; a missing or unreadable one means that nothing is reused."""
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return index if isinstance(index, dict) and all(isinstance(v, dict) for v in index.values()) else {}


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """Remove crops of pictures no longer in the set, and what a killed run left half-written."""
    for path in (path for suffix in _ENCODING for path in folder.glob(f"*.{suffix}")):
        if path not in kept:
            path.unlink()
            alpha_path(path).unlink(missing_ok=True)
    for path in (*folder.glob(".*-partial*"), *folder.glob("alpha/.*-partial*")):
        path.unlink()
