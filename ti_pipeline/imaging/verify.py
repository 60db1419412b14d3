"""Looks at finished crops as a stranger would: right size, RGB, inside the picture they were cut from.

Not here: how crops are made (`crop`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["crop_problems"]


def crop_problems(crops: pd.DataFrame, audit: pd.DataFrame, root: Path) -> list[str]:
    """Return a sentence per crop that is missing, not RGB, not exactly its size, or reaches outside its picture.

    A box that lies inside the upright picture (`audit`: width, height in pixels) cannot have padding.
    """
    from PIL import Image

    bounds = {row["post_id"]: (row["width"], row["height"]) for row in audit.to_dict("records")}
    problems = []
    for row in crops[crops.status == "ok"].to_dict("records"):
        path, size = root / row["path"], (row["width"], row["height"])
        if not path.exists():
            problems.append(f"{row['path']} is not there")
            continue
        with Image.open(path) as picture:
            if picture.mode != "RGB" or picture.size != size:
                problems.append(f"{row['path']} is {picture.mode} {picture.size}, wants RGB {size}")
        width, height = bounds.get(row["post_id"], (0, 0))
        if row["left"] + row["box_width"] > width or row["top"] + row["box_height"] > height:
            problems.append(f"{row['path']}: the box reaches outside its {width} × {height} picture")
    return problems
