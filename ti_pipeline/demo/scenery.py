"""What stands behind the demo's characters: plain paper, a city, the sea, a bedroom, a hot spring, the sky.

Here: backgrounds, drawn around where the character stands so that a square crop shows them whole. Not here: characters
(`figures`), styles (`styles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import ImageDraw

__all__ = ["BACKGROUNDS", "Stage"]

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Stage:
    """Where to draw: the canvas, its `size` and the figure's centre `x`, `y` in pixels, pixels a bust unit `s`."""

    draw: ImageDraw.ImageDraw
    size: tuple[int, int]
    x: float
    y: float
    s: float
    tint: int

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Fill a rectangle given in bust units."""
        x, y, s = self.x, self.y, self.s
        self.draw.rectangle((x + left * s, y + top * s, x + right * s, y + bottom * s), fill=fill)

    def band(self, top: float, fill: Colour, bottom: float = 99.0) -> None:
        """Fill the whole width from one height down to another."""
        self.draw.rectangle((0, self.y + top * self.s, self.size[0], self.y + bottom * self.s), fill=fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse given by centre and radii in bust units."""
        cx, cy = self.x + x * self.s, self.y + y * self.s
        self.draw.ellipse((cx - rx * self.s, cy - ry * self.s, cx + rx * self.s, cy + ry * self.s), fill=fill)

    def row(self, step: float) -> range:
        """Return the indices of things `step` units apart that fill the width; index 0 stands at the figure."""
        return range(-int(self.x / (step * self.s)) - 2, int((self.size[0] - self.x) / (step * self.s)) + 3)


def _simple(stage: Stage) -> None:
    pale = [(250, 250, 250), (232, 238, 250), (250, 236, 222), (230, 247, 233)][stage.tint % 4]
    stage.band(-99, pale)


def _city(stage: Stage) -> None:
    stage.band(-99, (165, 180, 200))
    shift = (stage.tint % 3) * 0.1
    for index in stage.row(0.5):
        left = (index - 0.5) * 0.5 + shift
        top = -(0.75, 0.4, 0.95, 0.55)[(index + stage.tint) % 4]
        stage.box(left, top, left + 0.44, 99, ((95, 100, 115), (120, 105, 110))[index % 2])
        for floor in range(6):
            for column in (0.08, 0.26):
                y = top + 0.12 + 0.26 * floor
                stage.box(left + column, y, left + column + 0.1, y + 0.12, (250, 225, 130))


def _sea(stage: Stage) -> None:
    stage.band(-99, (190, 232, 250))
    stage.band(-0.2, (25, 95, 175))
    side = 0.74 if stage.tint % 2 else -0.74
    stage.disc(side, -0.72, 0.2, 0.2, (255, 232, 110))
    for row in range(5):
        y = -0.05 + 0.24 * row
        stage.band(y, (95, 170, 225), y + 0.06)


def _bedroom(stage: Stage) -> None:
    stage.band(-99, (238, 205, 180))
    stage.band(0.45, (150, 95, 70))
    side = 1 if stage.tint % 2 else -1
    stage.box(side * 0.74 - 0.27, -0.92, side * 0.74 + 0.27, -0.3, (252, 252, 246))
    stage.box(side * 0.74 - 0.2, -0.85, side * 0.74 + 0.2, -0.37, (120, 185, 235))
    stage.box(-side * 0.78 - 0.4, 0.12, -side * 0.78 + 0.4, 0.85, (205, 70, 115))
    stage.box(-side * 0.78 - 0.4, 0.0, -side * 0.78 + 0.4, 0.2, (250, 245, 240))


def _onsen(stage: Stage) -> None:
    stage.band(-99, (70, 60, 85))
    stage.band(-0.5, (165, 120, 70))
    for index in stage.row(0.24):
        stage.box(index * 0.24, -0.5, index * 0.24 + 0.05, 0.2, (110, 75, 45))
    for index in stage.row(0.4):
        stage.disc(index * 0.4 + (stage.tint % 3) * 0.1, 0.24, 0.22, 0.14, (125, 125, 130))
    stage.band(0.3, (85, 200, 190))
    for x, y in ((-0.75, -0.1), (0.78, -0.3), (-0.85, -0.65), (0.6, 0.1)):
        stage.disc(x, y, 0.17, 0.08, (235, 240, 240))


def _sky(stage: Stage) -> None:
    stage.band(-99, (70, 150, 245))
    stage.band(0.35, (125, 190, 250))
    shift = 0.1 * (stage.tint % 4) - 0.15
    for index in stage.row(1.45):
        for x, y in ((-0.72, -0.62), (0.74, -0.15), (-0.8, 0.45)):
            left, top = x + shift + index * 1.45 * 2, y + 0.06 * (stage.tint % 3)
            stage.disc(left, top, 0.26, 0.1, (255, 255, 255))
            stage.disc(left + 0.04, top - 0.09, 0.14, 0.1, (255, 255, 255))


# By tag. Each covers the whole canvas.
BACKGROUNDS: dict[str, Callable[[Stage], None]] = {
    "simple_background": _simple,
    "city": _city,
    "sea": _sea,
    "bedroom": _bedroom,
    "onsen": _onsen,
    "sky": _sky,
}
