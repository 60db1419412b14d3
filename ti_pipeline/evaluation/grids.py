"""Grids: labelled X/Y pictures that people compare checkpoints by.

Every label has a box of its own that it is wrapped and shortened to fit, so labels never overlap at any count.
Here: layout, drawing, files. Not here: letters (`lettering`), which grids there are (`grid_plans`), or the pictures in
the cells (`sampler`).
"""

from __future__ import annotations

import csv
import functools
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.infotext import infotext_with, write_png
from ti_pipeline.evaluation.lettering import SMALLEST, height_of, line_height, write_label
from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from PIL import Image

    from ti_pipeline.evaluation.grid_plans import GridPlan
    from ti_pipeline.evaluation.lettering import Box

__all__ = ["Labels", "Layout", "draw_grid", "grid_thumbnail", "layout_of", "write_grids"]

_LEAST_TILE = 96  # smaller cells are enlarged, so that labels stay legible
_LEAST_WIDTH = 420  # so that a title has room over a single cell
_MOST_PIXELS = 60_000_000  # larger grids get smaller cells: beyond 89 million, image programs refuse or warn
_TILE_PIXELS = 16_000_000  # of one piece of a large grid in full size
_WEBP_SIDE = 16_383  # of the format
_MOST_LINES = {"title": 5, "column": 6, "note": 4}
_LONGEST_NAME = 60
_GAP = 4
_PAPER, _PALE = (255, 255, 255), (225, 225, 225)
# What A1111's script calls the sides.
_TYPES = {
    "value": "Prompt S/R",
    "checkpoint": "Embedding checkpoint",
    "variant": "Embedding",
    "version": "Embedding version",
    "seed": "Seed",
    "sampler": "Sampler",
    "cfg": "CFG Scale",
    "size": "Size",
    "clip_skip": "Clip skip",
}


@dataclass(frozen=True)
class Labels:
    """All text of a grid: `notes` are texts under the cells [rows][columns], or empty."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    notes: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Layout:
    """Where everything of a grid goes, in pixels: boxes are (left, top, right, bottom)."""

    size: tuple[int, int]
    title: Box
    columns: list[Box]
    rows: list[Box]
    cells: list[list[Box]]
    notes: list[list[Box]]
    font_size: int


def layout_of(labels: Labels, tile: int) -> Layout:
    """Return the layout of a grid of tiles of `tile` pixels, or fewer where there are very many."""
    rows, columns = len(labels.rows), len(labels.columns)
    side = max(min(tile, math.isqrt(_MOST_PIXELS // (rows * columns))), _LEAST_TILE)
    font = max(14, min(22, side // 14))
    left = max(140, side // 2)
    width = max(left + columns * (side + _GAP), _LEAST_WIDTH)
    title = _high("title", [labels.title], width - 2 * _GAP, font) + _GAP
    top = title + _high("column", labels.columns, side, font) + _GAP
    note = _high("note", [text for line in labels.notes for text in line], side, SMALLEST + 1)
    x = [left + index * (side + _GAP) for index in range(columns)]
    y = [top + index * (side + note + _GAP) for index in range(rows)]
    return Layout(
        size=(width, top + rows * (side + note + _GAP)),
        title=(_GAP, 0, width - _GAP, title),
        columns=[(at, title, at + side, top - _GAP) for at in x],
        rows=[(_GAP, at, left - _GAP, at + side) for at in y],
        cells=[[(ax, ay, ax + side, ay + side) for ax in x] for ay in y],
        notes=[[(ax, ay + side, ax + side, ay + side + note) for ax in x] for ay in y] if note else [],
        font_size=font,
    )


def _high(what: str, texts: Sequence[str], width: int, font: int) -> int:
    """Return the height of a row of boxes that hold these texts, up to a number of lines."""
    most = _MOST_LINES[what] * line_height(font)
    return min(most, max((height_of(text, width, font) for text in dict.fromkeys(texts)), default=0))


def draw_grid(pictures: Sequence[Sequence[Path | None]], labels: Labels, *, tile: int) -> Image.Image:
    """Draw a grid of pictures [rows][columns]; a cell without a picture says so."""
    from PIL import Image

    layout = layout_of(labels, tile)
    grid = Image.new("RGB", layout.size, _PAPER)
    write_label(grid, layout.title, labels.title, layout.font_size, left=True)
    for texts, boxes in ((labels.columns, layout.columns), (labels.rows, layout.rows)):
        for text, box in zip(texts, boxes, strict=True):
            write_label(grid, box, text, layout.font_size)
    for paths, cells in zip(pictures, layout.cells, strict=True):
        for path, box in zip(paths, cells, strict=True):
            _put(grid, path, box, layout.font_size)
    for notes, boxes in zip(labels.notes, layout.notes, strict=True):
        for text, box in zip(notes, boxes, strict=True):
            write_label(grid, box, text, SMALLEST + 1)
    return grid


def _put(grid: Image.Image, path: Path | None, box: Box, font_size: int) -> None:
    from PIL import Image

    side = box[2] - box[0]
    if path is None or not path.exists():
        grid.paste(_PALE, box)
        write_label(grid, box, "missing", font_size)
        return
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    grid.paste(rgb if rgb.size == (side, side) else rgb.resize((side, side), Image.Resampling.LANCZOS), box[:2])


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
    plans: Iterator[GridPlan],
    *,
    root: Path,
    folder: str,
    title: str,
    date: str,
    fingerprint: str,
    scores: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Write every grid as PNG and WebP and return the `evaluation_grids` table; grids of earlier runs are removed.

    A grid whose cells had to be made smaller also gets tiles: pieces of it in full size, each with its labels. Titles
    say `title`, what is the same in all cells, the base models and `date`. With `scores`, row labels carry the number
    of mismatches, as people count them over their grids, and cells the scores that the grid asks for. Pictures carry
    A1111's text, with the sides of the grid, every embedding's hash, and the study's `fingerprint`.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    rows, written = [], set()
    for number, plan in enumerate(plans, start=1):
        name = f"xy_grid-{number:04d}-{plan.first.seed}-{_safe(f'{plan.variant} {plan.first.prompt}')}"
        labels = _labels(plan, f"{title} · {plan.fixed} · {_bases(plan)} · {date}", scores)
        paths = _files(plan, root)
        tile = int(plan.images["size"].max())
        whole = _Piece(labels, paths, plan.rows, plan.columns)
        told = functools.partial(_chunks, plan, fingerprint)
        files = [_write(draw_grid(paths, labels, tile=tile), root / folder / f"{name}.png", told(whole))]
        files += _write_tiles(whole, tile, root / folder / name, told)
        webp = root / folder / f"{name}.webp"
        written |= {*files, webp}
        rows.append(
            {
                "grid": name,
                "axis": plan.axis,
                "variant": plan.variant,
                "x": plan.grid.x,
                "y": plan.grid.y,
                "fixed": plan.fixed,
                "seed": int(plan.first.seed),
                "sampler": str(plan.first.sampler),
                "size": tile,
                "rows": len(plan.rows),
                "columns": len(plan.columns),
                "missing": sum(path is None or not path.exists() for line in paths for path in line),
                "path": files[0].relative_to(root).as_posix(),
                "webp_path": webp.relative_to(root).as_posix() if webp.exists() else None,
                "tiles": len(files) - 1,
            }
        )
    for old in (root / folder).glob("*"):
        if old not in written:
            old.unlink()
    columns = [column.name for column in TABLES["evaluation_grids"].columns]
    return pd.DataFrame(rows, columns=columns) if rows else TABLES["evaluation_grids"].empty()


def _files(plan: GridPlan, root: Path) -> list[list[Path | None]]:
    """Return the cells' pictures [rows][columns]."""
    found = {(row.row, row.column): root / str(row.path) for row in plan.images.itertuples()}
    return [[found.get((row, column)) for column in plan.columns] for row in plan.rows]


def _labels(plan: GridPlan, title: str, scores: pd.DataFrame | None) -> Labels:
    of_grid = None if scores is None else scores[scores.cell.isin(plan.images.cell)]
    notes: list[list[str]] = []
    if of_grid is not None and plan.grid.scores:
        said = _notes(of_grid, plan.grid.scores)
        cells = {(row.row, row.column): said.get(str(row.cell), "") for row in plan.images.itertuples()}
        notes = [[cells.get((row, column), "") for column in plan.columns] for row in plan.rows]
    return Labels(title, [row_label(row, plan, of_grid) for row in plan.rows], plan.columns, notes)


def row_label(row: str, plan: GridPlan, scores: pd.DataFrame | None) -> str:
    """Return a row's name, with its number of mismatches where the asked values were judged."""
    if scores is None:
        return row
    cells = plan.images.cell[plan.images.row == row]
    judged = scores[(scores.metric == "match") & scores.cell.isin(cells)]
    return f"{row} mismatches: {int((judged.score < 1).sum())}" if len(judged) else row


def _notes(scores: pd.DataFrame, metrics: Sequence[str]) -> dict[str, str]:
    """Return what is written under each cell: of a match what was seen, of the others a number."""
    said: dict[str, list[str]] = {}
    for metric in metrics:
        for row in scores[scores.metric == metric].itertuples():
            number = f"{metric} {row.score:.2f}"
            text = number if metric != "match" else "right" if row.score == 1 else f"seen: {row.read_as}"
            said.setdefault(str(row.cell), []).append(text)
    return {cell: " · ".join(texts) for cell, texts in said.items()}


def _bases(plan: GridPlan) -> str:
    return "base " + ", ".join(dict.fromkeys(map(str, plan.images.base)))


@dataclass(frozen=True)
class _Piece:
    """A grid or a part of it: its labels, its pictures [rows][columns], and the places of the plan that it shows."""

    labels: Labels
    paths: Sequence[Sequence[Path | None]]
    rows: Sequence[str]
    columns: Sequence[str]


def _chunks(plan: GridPlan, fingerprint: str, piece: _Piece) -> dict[str, str]:
    """Return the texts of a grid or a part of it: those of its first picture, with what differs between its cells."""
    from PIL import Image

    first = next((path for line in piece.paths for path in line if path is not None and path.exists()), None)
    text = ""
    if first is not None:
        with Image.open(first) as picture:
            text = str(picture.info.get("parameters", ""))
    shown = plan.images[plan.images.row.isin(piece.rows) & plan.images.column.isin(piece.columns)]
    hashes = dict(zip(shown.checkpoint, shown.embedding_sha256, strict=True))
    sides = {
        "Script": "X/Y/Z plot",
        "X Type": _TYPES[plan.grid.x],
        "X Values": _line(piece.columns),
        "Y Type": _TYPES[plan.grid.y],
        "Y Values": _line(piece.rows),
        "Embedding hashes": ", ".join(f"{name}: {sha256[:12]}" for name, sha256 in hashes.items()),
    }
    return {"parameters": infotext_with(text, sides), "Title": piece.labels.title, "ti_study": fingerprint}


def _line(values: Sequence[str]) -> str:
    """Return values as one line of CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(values)
    return stream.getvalue()


def _write(grid: Image.Image, path: Path, chunks: Mapping[str, str]) -> Path:
    """Write a PNG, and beside it a WebP with the same text in its EXIF where that format is large enough."""
    from PIL import Image

    webp = path.with_suffix(".webp")
    webp.unlink(missing_ok=True)
    if max(grid.size) <= _WEBP_SIDE:
        exif = Image.Exif()
        # As A1111 does: UserComment of the EXIF part, its text announced as UTF-16.
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + chunks["parameters"].encode("utf-16-be")
        with write_atomically(webp) as aside:
            grid.save(aside, "WEBP", quality=90, exif=exif)
    return write_png(grid, path, chunks)


def _write_tiles(whole: _Piece, tile: int, stem: Path, told: Callable[[_Piece], dict[str, str]]) -> list[Path]:
    """Write a grid whose cells were made smaller in pieces of full size; return their paths."""
    rows, columns = len(whole.rows), len(whole.columns)
    if math.isqrt(_MOST_PIXELS // (rows * columns)) >= tile:
        return []
    across = max(1, min(columns, math.isqrt(_TILE_PIXELS) // tile))
    down = max(1, min(rows, _TILE_PIXELS // (across * tile * tile)))
    corners = [(top, left) for top in range(0, rows, down) for left in range(0, columns, across)]
    written = []
    for number, (top, left) in enumerate(corners, start=1):
        part = _part(whole, number, slice(top, top + down), slice(left, left + across))
        path = stem.with_name(f"{stem.name}-part-{number:02d}.png")
        written.append(write_png(draw_grid(part.paths, part.labels, tile=tile), path, told(part)))
    return written


def _part(whole: _Piece, number: int, down: slice, across: slice) -> _Piece:
    labels = Labels(
        title=f"{whole.labels.title} · part {number}",
        rows=whole.labels.rows[down],
        columns=whole.labels.columns[across],
        notes=[line[across] for line in whole.labels.notes[down]],
    )
    paths = [line[across] for line in whole.paths[down]]
    return _Piece(labels, paths, whole.rows[down], whole.columns[across])


def _safe(text: str) -> str:
    """Return the head of a prompt as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST_NAME].strip("_")
