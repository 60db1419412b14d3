"""Contact sheets: many pictures as labelled thumbnails in one small JPEG, for the UI and reports.

Not here: X/Y grids of evaluation pictures, whose axes and fonts are another matter (`evaluation.grids`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from ti_pipeline.imaging.decode import PictureError, open_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

__all__ = ["contact_sheet", "kept_and_rejected_sheet"]

_PAPER, _INK, _GAP_COLOUR = (255, 255, 255), (40, 40, 40), (214, 214, 214)
_GAP = 4
_LABEL_HEIGHT = 14
_FONT_SIZE = 11
_HEADING_HEIGHT = 22
_PICTURES_PER_SHEET = 48


def contact_sheet(
    paths: Sequence[Path],
    *,
    labels: Sequence[str] | None = None,
    columns: int = 8,
    tile: int = 96,
    quality: int = 80,
) -> bytes:
    """Return a JPEG of thumbnails, `tile` pixels a side, row by row; `labels` are cut to the tile's width.

    A picture that is gone or cannot be read is a grey tile that says so. Raises ValueError when `labels` are not
    as many as `paths`.
    """
    return _jpeg([_block(paths, labels, columns, tile)], quality)


def kept_and_rejected_sheet(training_set: pd.DataFrame, root: Path) -> bytes:
    """Return a JPEG with an even sample of each curation's kept and left-out pictures, the latter with reasons."""
    blocks = []
    curations = list(training_set.groupby("curation", sort=False))
    each = max(8, _PICTURES_PER_SHEET // (2 * max(1, len(curations))))
    for curation, rows in curations:
        for part, kept in (("kept", True), ("left out", False)):
            group = rows[rows.kept == kept]
            shown = group[group.path.notna()]
            shown = shown.iloc[:: max(1, -(-len(shown) // each))]
            labels = [reason or str(post_id) for reason, post_id in zip(shown.reason, shown.post_id, strict=True)]
            blocks.append(_heading(f"{curation}: {part}, {len(shown)} of {len(group)} shown", 8, 96))
            blocks.append(_block([root / path for path in shown.path], labels, 8, 96))
    return _jpeg(blocks or [_block([], None, 8, 96)], quality=75)


def _block(paths: Sequence[Path], labels: Sequence[str] | None, columns: int, tile: int) -> Image.Image:
    if labels is not None and len(labels) != len(paths):
        raise ValueError(f"{len(labels)} labels for {len(paths)} pictures")
    if not paths:
        return _heading("no pictures", columns, tile)
    columns = min(columns, len(paths))
    rows = -(-len(paths) // columns)
    height = tile + (_LABEL_HEIGHT if labels is not None else 0)
    sheet = Image.new("RGB", (columns * (tile + _GAP) + _GAP, rows * (height + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for number, path in enumerate(paths):
        left = _GAP + number % columns * (tile + _GAP)
        top = _GAP + number // columns * (height + _GAP)
        sheet.paste(_thumbnail(path, tile, font), (left, top))
        if labels is not None:
            draw.text((left, top + tile), _fitting(labels[number], tile, font), fill=_INK, font=font)
    return sheet


_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _thumbnail(path: Path, tile: int, font: _Font) -> Image.Image:
    square = Image.new("RGB", (tile, tile), _GAP_COLOUR)
    try:
        rgb = open_picture(path).rgb
    except PictureError:
        words = "unreadable" if path.exists() else "missing"
        ImageDraw.Draw(square).text((tile // 2, tile // 2), words, fill=_INK, font=font, anchor="mm")
        return square
    rgb.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    square.paste(rgb, ((tile - rgb.width) // 2, (tile - rgb.height) // 2))
    return square


def _fitting(text: str, width: int, font: _Font) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _heading(text: str, columns: int, tile: int) -> Image.Image:
    strip = Image.new("RGB", (columns * (tile + _GAP) + _GAP, _HEADING_HEIGHT), _PAPER)
    font = ImageFont.load_default(_FONT_SIZE + 2)
    ImageDraw.Draw(strip).text((_GAP, _HEADING_HEIGHT // 2), text, fill=_INK, font=font, anchor="lm")
    return strip


def _jpeg(blocks: Sequence[Image.Image], quality: int) -> bytes:
    width, height = max(block.width for block in blocks), sum(block.height for block in blocks)
    sheet = Image.new("RGB", (width, height), _PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    stream = io.BytesIO()
    sheet.save(stream, format="JPEG", quality=quality, optimize=True)
    return stream.getvalue()
