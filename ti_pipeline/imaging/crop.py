"""Cuts a training set to squares around the focal point, and keeps finished crops as long as they are right.

Here: files of one crop set and their index. Not here: where the square goes (`focal`), or which pictures are used
(`curation`).

A crop set's folder holds `<post_id>.png`, for transparent pictures `alpha/<post_id>.png`, and `index.json`. A crop is
reused when the index says that it was made from a picture of the same content under the same settings, and its files
still have the recorded sha256. Everything else in the folder is removed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from PIL import Image

from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.imaging.alpha import alpha_path, write_alpha
from ti_pipeline.imaging.decode import PictureError, open_picture
from ti_pipeline.imaging.focal import interest_map, place_square
from ti_pipeline.imaging.measures import reduced
from ti_pipeline.imaging.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import CropSet

__all__ = ["crop_pictures"]

# Part of every crop's identity: raise it when the same settings would give other pixels.
_VERSION = 2
_INDEX = "index.json"
_SAVE_INDEX_EVERY = 50


def crop_pictures(
    training_set: pd.DataFrame,
    *,
    root: Path,
    folder: str,
    crop_set: CropSet,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Crop the kept pictures of the crop set's curation; return the `crops` table, rows in the training set's order.

    Crops are RGB PNG files of exactly `crop_set.size` pixels a side without metadata in `root/folder`, resized by
    Lanczos on gamma-encoded values from the largest square (`focal.place_square`); nothing is ever padded. A picture
    that cannot be read any more, or would be enlarged more than `max_upscale` times, is a row with status `failed`
    and the reason. Raises ValueError when the training set does not know the curation.
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
        return _crop_one(picture, known, root=root, folder=folder, crop_set=crop_set)

    rows: list[dict[str, Any]] = []
    for row in in_threads(crop, chosen, what="pictures cropped", progress=progress):
        rows.append(row)
        if len(rows) % _SAVE_INDEX_EVERY == 0:  # a killed run goes on from here
            write_json(root / folder / _INDEX, index | _index_of(rows))
    write_json(root / folder / _INDEX, _index_of(rows))
    _remove_others(root / folder, {root / row["path"] for row in rows if row["status"] == "ok"})
    schema = TABLES["crops"].arrow_schema()
    return from_arrow(pa.Table.from_pylist(rows, schema=schema))


def _crop_one(
    picture: dict[Hashable, Any], known: dict[str, Any], *, root: Path, folder: str, crop_set: CropSet
) -> dict[str, Any]:
    post_id, source = int(picture["post_id"]), root / picture["path"]
    path = f"{folder}/{post_id}.png"
    row = {"post_id": post_id, "split": picture["split"], "size": crop_set.size, "detectors": []}
    try:
        identity = _identity(source, crop_set)
        if (
            known.get("identity") == identity
            and (root / path).exists()
            and sha256_of(root / path) == known.get("sha256")
            and known.get("alpha_sha256") == _sha256_if_there(alpha_path(root / path))
        ):
            return row | known | {"status": "ok", "reason": "", "path": path}
        square, facts = _cut(source, crop_set)
    except PictureError as error:
        return row | {"status": "failed", "reason": error.reason}
    with write_atomically(root / path) as aside:
        square.save(aside, format="PNG")
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


def _identity(source: Path, crop_set: CropSet) -> str:
    """Return the fingerprint of everything that decides a crop's pixels."""
    try:
        content = sha256_of(source)
    except OSError as error:
        raise PictureError(source, f"cannot be read: {error.strerror}") from error
    return fingerprint([_VERSION, content, crop_set.size, crop_set.focal.model_dump(), crop_set.max_upscale])


def _cut(source: Path, crop_set: CropSet) -> tuple[Image.Image, dict[str, Any]]:
    """Return the square at its final size, and the table's facts about where it was cut."""
    rgb = open_picture(source).rgb
    side = min(rgb.size)
    if crop_set.size > crop_set.max_upscale * side:
        raise PictureError(source, f"too small: needs more than {crop_set.max_upscale:g} times enlargement")
    interest, detectors = interest_map(reduced(rgb), crop_set.focal)
    placed = place_square(interest, rgb.width, rgb.height)
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
    for path in folder.glob("*.png"):
        if path not in kept:
            path.unlink()
            alpha_path(path).unlink(missing_ok=True)
    for path in (*folder.glob(".*-partial*"), *folder.glob("alpha/.*-partial*")):
        path.unlink()
