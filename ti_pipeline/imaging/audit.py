"""The audit: one row per picture with what its file really holds, or why it cannot be used.

Not here: decoding (`decode`), the measures themselves (`measures`, `duplicates`), or choosing pictures (`curation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ti_pipeline.imaging.decode import Picture, PictureError, open_picture
from ti_pipeline.imaging.duplicates import Look, duplicates_of, look_at
from ti_pipeline.imaging.measures import (
    LOOK_FOR_BACKGROUND_AT,
    LOOK_FOR_LETTERS_AT,
    averaged,
    detail,
    focal_box,
    grey_levels,
    lettering,
    palette,
    perceptual_hashes,
    reduced,
    sharpness,
    shrunk,
    simple_background,
)
from ti_pipeline.imaging.threads import in_threads
from ti_pipeline.imaging.told_by_tags import subjects

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.imaging.text_detector import TextDetector

__all__ = ["audit_images", "measured"]

_SIDES = ("left", "top", "right", "bottom")
_ROWS_AT_ONCE = 1000  # as Python objects; in columns they take a tenth of that


def audit_images(
    images: pd.DataFrame,
    post_tags: pd.DataFrame | None = None,
    *,
    root: Path,
    text_detector: TextDetector | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Return the `image_audit` table: one row per row of the `images` table, in its order, but for dropped posts.

    A kept post without a picture, or with one that cannot be used, is a row with status `failed` and the reason.
    How many subjects a picture has is told by `post_tags` alone, where they are given. Lettering is measured by
    `text_detector` where there is one, else by the heuristic `measures.lettering`.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    def audit(image: tuple[int, str, str, str]) -> tuple[dict[str, Any], Look | None]:
        post_id, status, reason, path = image
        if status != "ok":
            return _failed(post_id, f"no picture: {reason}"), None
        try:
            picture = open_picture(root / path)
        except PictureError as error:
            return _failed(post_id, error.reason), None
        return measured(post_id, picture, text_detector)

    kept = images[images.status != "dropped"]
    items = list(zip(kept.post_id.astype(int), kept.status, kept.reason, kept.path, strict=True))
    by_post = () if post_tags is None else post_tags.groupby("post_id").tag
    told = {post_id: subjects(frozenset(tags)) for post_id, tags in by_post}
    schema = TABLES["image_audit"].arrow_schema()
    looks: dict[int, Look] = {}
    parts: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for row, look in in_threads(audit, items, what="pictures audited", progress=progress):
        rows.append(row | {"subjects": told.get(row["post_id"])})
        if look is not None:
            looks[row["post_id"]] = look
        if len(rows) == _ROWS_AT_ONCE:
            parts.append(pa.Table.from_pylist(rows, schema=schema))
            rows = []
    table = pa.concat_tables([*parts, pa.Table.from_pylist(rows, schema=schema)])
    copies = duplicates_of(list(looks), list(looks.values()))
    column = schema.get_field_index("duplicate_of")
    originals = [copies.get(post_id) for post_id, *_ in items]
    return from_arrow(table.set_column(column, schema.field(column), pa.array(originals, schema.field(column).type)))


def _failed(post_id: int, reason: str) -> dict[str, Any]:
    return {"post_id": post_id, "status": "failed", "reason": reason}


def measured(post_id: int, picture: Picture, text_detector: TextDetector | None = None) -> tuple[dict[str, Any], Look]:
    """Return the audit row of a decoded picture, and its look for finding duplicates."""
    larger = averaged(picture.rgb, LOOK_FOR_LETTERS_AT)
    pixels = reduced(larger)
    grey = grey_levels(pixels)
    hashes = perceptual_hashes(grey)
    row = {
        "post_id": post_id,
        "status": "ok",
        "reason": "",
        "format": picture.format,
        "width": picture.rgb.width,
        "height": picture.rgb.height,
        "mode": picture.mode,
        "frames": picture.frames,
        "exif_orientation": picture.orientation,
        "has_alpha": picture.alpha is not None,
        "icc_profile": picture.profile,
        "sharpness": sharpness(grey),
        "detail": detail(grey),
        "simple_background": simple_background(shrunk(pixels, LOOK_FOR_BACKGROUND_AT)),
        "lettering": (
            text_detector.share(np.asarray(picture.rgb))
            if text_detector
            else lettering(shrunk(np.asarray(larger.convert("L")), LOOK_FOR_LETTERS_AT))
        ),
        **{f"focal_{side}": share for side, share in zip(_SIDES, focal_box(grey), strict=True)},
        "palette": palette(pixels),
        "phash": f"{hashes[0]:016x}",
    }
    return row, look_at(pixels, hashes)
