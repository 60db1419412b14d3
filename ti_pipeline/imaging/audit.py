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
    from collections.abc import Callable, Hashable
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.imaging.text_detector import TextDetector

__all__ = ["audit_images", "measured"]

_SIDES = ("left", "top", "right", "bottom")


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

    def audit(image: dict[Hashable, Any]) -> tuple[dict[str, Any], Look | None]:
        post_id = int(image["post_id"])
        if image["status"] != "ok":
            return _failed(post_id, f"no picture: {image['reason']}"), None
        try:
            picture = open_picture(root / image["path"])
        except PictureError as error:
            return _failed(post_id, error.reason), None
        return measured(post_id, picture, text_detector)

    results = list(
        in_threads(
            audit, images[images.status != "dropped"].to_dict("records"), what="pictures audited", progress=progress
        )
    )
    looks = {row["post_id"]: look for row, look in results if look is not None}
    copies = duplicates_of(list(looks), list(looks.values()))
    tags = {} if post_tags is None else post_tags.groupby("post_id").tag.agg(frozenset).to_dict()
    rows = [
        row | {"duplicate_of": copies.get(post_id), "subjects": subjects(tags.get(post_id, frozenset()))}
        for row, _ in results
        for post_id in (row["post_id"],)
    ]
    schema = TABLES["image_audit"].arrow_schema()
    return from_arrow(pa.Table.from_pylist(rows, schema=schema))


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
