"""The pen that draws the demo's characters, and its inks.

Here: shapes in units of the character, with or without outlines. Not here: which shapes make a character
(`heads`, `bodies`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import ImageDraw

    from ti_pipeline.demo.styles import Style

__all__ = ["COLOURS", "DARK", "EYES", "Colour", "Pen", "mix"]

Colour = tuple[int, int, int]
DARK: Colour = (35, 30, 35)
_PAPER: Colour = (248, 248, 248)

COLOURS: dict[str, Colour] = {
    "brown": (140, 90, 50),
    "grey": (140, 145, 155),
    "orange": (240, 140, 50),
    "white": (240, 240, 240),
    "black": (55, 52, 60),
    "yellow": (235, 205, 90),
    "red": (205, 60, 55),
    "blue": (70, 120, 220),
    "green": (85, 170, 90),
    "purple": (150, 80, 200),
}
EYES: dict[str, Colour] = {
    "blue": (40, 110, 255),
    "green": (30, 190, 70),
    "red": (240, 30, 40),
    "yellow": (255, 215, 20),
}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Return the colour that is `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Pen:
    """Draws around a centre `x`, `y` in pixels, `scale` pixels a unit, y pointing down, in one artist's style."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    style: Style

    def moved(self, x: float, y: float, scale: float) -> Pen:
        """Return a pen with its centre moved by units of this one, and its unit scaled."""
        return replace(self, x=self.x + x * self.scale, y=self.y + y * self.scale, scale=self.scale * scale)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Draw an ellipse given by centre and radii."""
        cx, cy = self.x + x * self.scale, self.y + y * self.scale
        dx, dy = rx * self.scale, ry * self.scale
        box = (cx - dx, cy - dy, cx + dx, cy + dy)
        self.draw.ellipse(box, fill=self._inside(fill), outline=self._edge(), width=self._width())

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Draw a polygon."""
        placed = [(self.x + x * self.scale, self.y + y * self.scale) for x, y in points]
        self.draw.polygon(placed, fill=self._inside(fill), outline=self._edge(), width=self._width())

    def both(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Draw a polygon and its mirror image."""
        self.polygon(points, fill)
        self.polygon([(-x, y) for x, y in points], fill)

    def line(self, points: Sequence[tuple[float, float]], width: float, fill: Colour) -> None:
        """Draw a line of a width in units."""
        placed = [(self.x + x * self.scale, self.y + y * self.scale) for x, y in points]
        self.draw.line(placed, fill=fill, width=max(1, round(width * self.scale)), joint="curve")

    def limb(self, points: Sequence[tuple[float, float]], width: float, fill: Colour) -> None:
        """Draw a thick line with round ends: an arm, a leg, a tail."""
        if self.style.outline:
            self._limb(points, width + 2 * self.style.outline, DARK)
        self._limb(points, width, self._inside(fill))

    def _limb(self, points: Sequence[tuple[float, float]], width: float, fill: Colour) -> None:
        self.line(points, width, fill)
        for x, y in points:
            cx, cy, r = self.x + x * self.scale, self.y + y * self.scale, width * self.scale / 2
            self.draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    def _inside(self, fill: Colour) -> Colour:
        """Return what fills a shape; a hollow style keeps only what is nearly black."""
        return _PAPER if self.style.hollow and sum(fill) > 150 else fill

    def _edge(self) -> Colour | None:
        return DARK if self.style.outline else None

    def _width(self) -> int:
        return max(1, round(self.style.outline * self.scale)) if self.style.outline else 0
