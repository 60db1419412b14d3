"""Grids: labelled X/Y pictures that people compare checkpoints by.

Every label has a box of its own that it is wrapped and shortened to fit, so labels never overlap at any count. The
font is DejaVu Sans (it ships with matplotlib); letters that it lacks are written as their code, e.g. U+72D7.
Not here: the pictures in the cells (`sampler`).
"""

from __future__ import annotations

import functools
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from PIL import Image, ImageDraw

__all__ = ["Layout", "draw_grid", "grid_thumbnail", "layout_of", "write_grids"]

_LEAST_TILE = 96  # smaller cells are enlarged, so that labels stay legible
_MOST_PIXELS = 60_000_000  # larger grids get smaller cells: beyond 89 million, image programs refuse or warn
_LONGEST_NAME = 60
_INK, _PAPER, _PALE = (20, 20, 20), (255, 255, 255), (225, 225, 225)

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Layout:
    """Where everything of a grid goes, in pixels: boxes are (left, top, right, bottom)."""

    size: tuple[int, int]
    title: Box
    columns: list[Box]
    rows: list[Box]
    cells: list[list[Box]]
    font_size: int


def layout_of(rows: int, columns: int, tile: int) -> Layout:
    """Return the layout of a grid of `rows` × `columns` tiles of `tile` pixels, or fewer where there are very many."""
    side, gap = max(min(tile, math.isqrt(_MOST_PIXELS // (rows * columns))), _LEAST_TILE), 4
    font = max(12, min(20, side // 12))
    left, head = max(110, side // 2), 3 * (font + 6)
    title = font + 14
    width, height = left + columns * (side + gap), title + head + rows * (side + gap)
    x = [left + index * (side + gap) for index in range(columns)]
    y = [title + head + index * (side + gap) for index in range(rows)]
    return Layout(
        size=(width, height),
        title=(4, 2, width - 4, title),
        columns=[(at, title, at + side, title + head) for at in x],
        rows=[(4, at, left - 6, at + side) for at in y],
        cells=[[(ax, ay, ax + side, ay + side) for ax in x] for ay in y],
        font_size=font,
    )


def draw_grid(
    pictures: Sequence[Sequence[Path | None]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str,
    tile: int,
) -> Image.Image:
    """Draw a grid; a cell without a picture says so."""
    from PIL import Image, ImageDraw

    layout = layout_of(len(row_labels), len(column_labels), tile)
    grid = Image.new("RGB", layout.size, _PAPER)
    draw = ImageDraw.Draw(grid)
    write_label(draw, layout.title, title, layout.font_size)
    for labels, boxes in ((column_labels, layout.columns), (row_labels, layout.rows)):
        for label, box in zip(labels, boxes, strict=True):
            write_label(draw, box, label, layout.font_size)
    for paths, boxes in zip(pictures, layout.cells, strict=True):
        for path, box in zip(paths, boxes, strict=True):
            if path is None or not path.exists():
                draw.rectangle(box, fill=_PALE)
                write_label(draw, box, "missing", layout.font_size)
                continue
            with Image.open(path) as picture:
                square = picture.convert("RGB").resize((box[2] - box[0],) * 2, Image.Resampling.LANCZOS)
            grid.paste(square, box[:2])
    return grid


def write_label(draw: ImageDraw.ImageDraw, box: Box, text: str, font_size: int) -> None:
    """Write text centred into a box: wrapped at spaces, in smaller letters if need be, at last shortened."""
    width, height = box[2] - box[0] - 4, box[3] - box[1] - 2
    lines, font = _fitted(_readable(text), width, height, font_size)
    step = _line_height(font)
    y = box[1] + (box[3] - box[1] - step * len(lines)) / 2
    for line in lines:
        x = box[0] + (box[2] - box[0] - font.getlength(line)) / 2
        draw.text((x, y), line, font=font, fill=_INK)
        y += step


def _fitted(text: str, width: int, height: int, font_size: int) -> tuple[list[str], Any]:
    for size in range(font_size, 8, -1):
        font = _font(size)
        lines = list(_wrapped(text, width, font))
        if len(lines) * _line_height(font) <= height:
            return lines, font
    font = _font(9)
    room = max(1, int(height // _line_height(font)))
    lines = list(_wrapped(text, width, font))[:room]
    while lines[-1] and font.getlength(lines[-1] + "…") > width:
        lines[-1] = lines[-1][:-1]
    return [*lines[:-1], lines[-1] + "…"], font


def _wrapped(text: str, width: int, font: Any) -> Iterator[str]:
    """Break text at spaces, and inside words that are longer than a line."""
    line = ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while font.getlength(line) > width and len(line) > 1:
            cut = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or font.getlength(line[:n]) <= width)
            yield line[:cut]
            line = line[cut:]
    yield line


@functools.lru_cache(maxsize=32)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(str(_font_path()), size)


@functools.lru_cache(maxsize=1)
def _font_path() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _line_height(font: Any) -> int:
    return int(sum(font.getmetrics())) + 1


@functools.lru_cache(maxsize=1)
def _known_letters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(_font_path())).get_charmap())


def _readable(text: str) -> str:
    """Write letters that the font lacks as their code, so that a label is never a row of empty boxes."""
    known = _known_letters()
    shown = "".join(
        c if ord(c) in known and c.isprintable() else " " if c.isspace() else f"U+{ord(c):04X}" for c in text
    )
    return shown or " "


def grid_thumbnail(path: Path, longest: int = 700) -> bytes:
    """Return a grid as a small WebP for the UI."""
    from PIL import Image

    with Image.open(path) as grid:
        small = grid.convert("RGB")
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=75)
    return stream.getvalue()


def write_grids(
    study_name: str,
    images: pd.DataFrame,
    *,
    root: Path,
    folder: str,
    title: str,
    scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write every grid of a study and return the `evaluation_grids` table; grids of earlier runs are removed.

    One per variant, axis, seed, sampler with its settings, and size: rows are checkpoints, columns values. And, where
    there are several variants, one for all with each variant's last checkpoint as a row (`variant` = best).
    With `scores`, row labels carry the number of mismatches, as people count them over their grids.
    """
    import pandas as pd
    from PIL.PngImagePlugin import PngInfo

    from ti_pipeline.schemas import TABLES

    rows = []
    for number, plan in enumerate(_plans(images), start=1):
        name = f"xy_grid-{number:04d}-{plan.seed}-{_safe(plan.head)}"
        found = {(row.checkpoint, row.value): root / str(row.path) for row in plan.images.itertuples()}
        pictures = [[found.get((checkpoint, value)) for value in plan.values] for checkpoint in plan.checkpoints]
        path = root / folder / f"{name}.png"
        heading = f"{title} · {plan.axis} · seed {plan.seed} · {plan.settings} · {plan.size} px"
        grid = draw_grid(
            pictures,
            row_labels=[_row_label(checkpoint, plan, scores) for checkpoint in plan.checkpoints],
            column_labels=plan.values,
            title=heading,
            tile=plan.size,
        )
        chunks = PngInfo()
        chunks.add_text("Title", f"{study_name}: {heading}")
        with write_atomically(path) as aside:
            grid.save(aside, "PNG", pnginfo=chunks)
        rows.append(
            {
                "grid": name,
                "axis": plan.axis,
                "variant": plan.variant,
                "seed": plan.seed,
                "sampler": plan.sampler,
                "size": plan.size,
                "rows": len(plan.checkpoints),
                "columns": len(plan.values),
                "missing": sum(p is None or not p.exists() for line in pictures for p in line),
                "path": path.relative_to(root).as_posix(),
            }
        )
    written = {str(row["path"]) for row in rows}
    for old in (root / folder).glob("*.png"):
        if old.relative_to(root).as_posix() not in written:
            old.unlink()
    columns = [column.name for column in TABLES["evaluation_grids"].columns]
    return pd.DataFrame(rows, columns=columns) if rows else TABLES["evaluation_grids"].empty()


@dataclass(frozen=True)
class _Plan:
    """What one grid shows."""

    axis: str
    variant: str
    seed: int
    sampler: str
    settings: str
    size: int
    images: pd.DataFrame
    checkpoints: list[str]
    values: list[str]

    @property
    def head(self) -> str:
        return f"{self.variant} {self.images.prompt.iloc[0]}"


def _plans(images: pd.DataFrame) -> Iterator[_Plan]:
    last = images[images.step == images.groupby("variant").step.transform("max")]
    tables = [(str(variant), rows) for variant, rows in images.groupby("variant", sort=False)]
    if len(tables) > 1:
        tables.append(("best", last))
    for variant, of_variant in tables:
        for key, rows in of_variant.groupby(["axis", "seed", "sampler", "steps", "cfg", "size"], sort=False):
            axis, seed, sampler, steps, cfg, size = key
            ordered = rows if variant == "best" else rows.sort_values("step", kind="stable")
            yield _Plan(
                axis=str(axis),
                variant=variant,
                seed=int(seed),
                sampler=str(sampler),
                settings=f"{sampler}, {steps} steps, CFG {cfg:g}",
                size=int(size),
                images=ordered,
                checkpoints=list(dict.fromkeys(ordered.checkpoint)),
                values=list(dict.fromkeys(of_variant.value[of_variant.axis == axis])),
            )


def _row_label(checkpoint: str, plan: _Plan, scores: pd.DataFrame | None) -> str:
    if scores is None or scores.empty:
        return checkpoint
    judged = scores[(scores.metric == "match") & scores.cell.isin(plan.images.cell)]
    judged = judged[judged.checkpoint == checkpoint]
    return f"{checkpoint} mismatches: {int((judged.score < 1).sum())}" if len(judged) else checkpoint


def _safe(text: str) -> str:
    """Return the head of a prompt as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST_NAME]
