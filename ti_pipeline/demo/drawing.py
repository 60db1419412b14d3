"""Composes the demo's pictures: one or two characters before a background, in one artist's style, with Pillow.

Here: order and place. Not here: the parts (`heads`, `bodies`, `scenery`, `styles`), which attributes exist (`world`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from ti_pipeline.demo.bodies import draw_body, draw_tail
from ti_pipeline.demo.heads import draw_head
from ti_pipeline.demo.pen import Pen
from ti_pipeline.demo.scenery import BACKGROUNDS, Stage
from ti_pipeline.demo.styles import STYLES

if TYPE_CHECKING:
    from ti_pipeline.demo.world import Attributes

__all__ = ["draw_scene"]


def draw_scene(
    attributes: Attributes,
    size: tuple[int, int],
    centre: tuple[float, float],
    scale: float,
    tint: int = 0,
    beside: tuple[Attributes, tuple[float, float]] | None = None,
) -> Image.Image:
    """Draw a character, and perhaps another `beside` it at a centre of its own, before the first one's background.

    `size` in pixels; `centre` of the bust and its unit `scale` in pixels; `tint` (0..11) varies backgrounds a little.
    Returns an RGB picture without smoothing: draw larger and reduce for smooth edges.
    """
    style = STYLES[attributes.style]
    picture = Image.new("RGB", size)
    draw = ImageDraw.Draw(picture)
    BACKGROUNDS[attributes.background](Stage(draw, size, *centre, scale, tint))
    if beside is not None:
        _character(Pen(draw, *beside[1], scale, style), beside[0])
    _character(Pen(draw, *centre, scale, style), attributes)
    return picture if style.finish is None else style.finish(picture)


def _character(pen: Pen, attributes: Attributes) -> None:
    draw_tail(pen, attributes)
    draw_body(pen, attributes)
    draw_head(pen.moved(0, -0.24, 0.8), attributes)
