"""Strips: each checkpoint's pictures of one axis and seed side by side, to flick between two checkpoints.

Here: which cells form a strip, and drawing it small enough for the page. Not here: labelled grids (`evaluation.grids`),
or the flicking itself (`templates/report.js.j2`).

Strips of one group have the same cells at the same places, so that what moves between two is what differs.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.publishing.pictures import Picture, picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd
    from PIL import Image

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["StripGroup", "strip_groups"]

_SIDES = (256, 192, 128, 96, 64)  # pixels of a cell; the largest that the budget allows
_ACROSS = 3  # a strip is as wide as half a page, or a phone
_MOST_STRIPS = 600
_SAME_CELL = ("axis", "seed", "sampler", "steps", "cfg", "size")
_PALE = (225, 225, 225)


@dataclass(frozen=True)
class StripGroup:
    """One axis, seed and sampler: the values in reading order, and each checkpoint's strip by its name."""

    title: str
    values: list[str]
    strips: dict[str, Picture]


def strip_groups(results: StudyResults, *, at_most: int) -> tuple[list[StripGroup], list[str]]:
    """Return the groups, all strips together about `at_most` bytes, and a sentence for groups that were left out."""
    import pandas as pd

    tables = list(results.evaluation_images.values())
    if not tables:
        return [], []
    cells = pd.concat(tables, ignore_index=True)
    # Variants have CLIP skips of their own; only where one was drawn with several are these different questions.
    several = cells.groupby("variant").clip_skip.nunique().max() > 1
    same = [*_SAME_CELL, "clip_skip"] if several else list(_SAME_CELL)
    groups = [(_title(key), rows) for key, rows in cells.groupby(same, sort=False)]
    strips = cells.checkpoint.nunique()
    kept = groups[: max(1, _MOST_STRIPS // strips)]
    left = [f"{len(groups) - len(kept)} of {len(groups)} sets of pictures cannot be flicked through on this page"]
    for side in _SIDES:
        made = [_group(title, rows, results.root, side) for title, rows in kept]
        if sum(len(strip.data) for group in made for strip in group.strips.values()) <= at_most:
            break
    return made, left if len(kept) < len(groups) else []


def _title(key: tuple[Any, ...]) -> str:
    axis, seed, sampler, steps, cfg, size, *skips = key
    title = f"{axis}, seed {seed}, {sampler} {steps} steps, CFG {cfg:g}, {size} px"
    return ", ".join([title, *(f"clip skip {skip}" for skip in skips)])


def _group(title: str, rows: pd.DataFrame, root: Path, side: int) -> StripGroup:
    values = list(dict.fromkeys(map(str, rows.value)))
    strips = {}
    for checkpoint, own in rows.groupby("checkpoint", sort=False):
        paths = dict(zip(map(str, own.value), own.path, strict=True))
        drawn = _strip([root / paths[value] if value in paths else None for value in values], side)
        strips[str(checkpoint)] = picture(drawn, f"{checkpoint}: {', '.join(values)} ({title})")
    return StripGroup(title, values, strips)


def _strip(paths: Sequence[Path | None], side: int) -> bytes:
    """Return cells as one WebP, three a row; a cell without a picture is grey."""
    from PIL import Image

    down = -(-len(paths) // _ACROSS)
    side = min(side, max((_side_of(path) for path in paths), default=side))
    strip = Image.new("RGB", (side * min(_ACROSS, len(paths)), side * down), _PALE)
    for at, path in enumerate(paths):
        if path is not None and path.is_file():
            strip.paste(_cell(path, side), (at % _ACROSS * side, at // _ACROSS * side))
    stream = io.BytesIO()
    strip.save(stream, "WEBP", quality=80)
    return stream.getvalue()


def _side_of(path: Path | None) -> int:
    from PIL import Image

    if path is None or not path.is_file():
        return 1
    with Image.open(path) as opened:
        return max(opened.size)


def _cell(path: Path, side: int) -> Image.Image:
    from PIL import Image

    with Image.open(path) as opened:
        return opened.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
