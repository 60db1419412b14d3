"""How the demo's characters look: a frontal cartoon bust and scenery, drawn with Pillow.

Here: shapes and colours for given attributes. Not here: which attributes exist and what posts carry (`world`).

Coordinates: a `Pen` draws in units of the bust, which spans about -1 to 1 on both axes, y pointing down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ti_pipeline.demo.world import Attributes

__all__ = ["draw_scene"]

Colour = tuple[int, int, int]

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
_SHOULDERS = {"slim": 0.52, "muscular": 0.88, "overweight": 1.02}
_CHEEKS = {"slim": 0.0, "muscular": 0.02, "overweight": 0.12}
_DARK: Colour = (35, 30, 35)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Pen:
    """Draws in bust units around a centre in pixels."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse given by centre and radii."""
        cx, cy = self.x + x * self.scale, self.y + y * self.scale
        dx, dy = rx * self.scale, ry * self.scale
        self.draw.ellipse((cx - dx, cy - dy, cx + dx, cy + dy), fill=fill)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon([(self.x + x * self.scale, self.y + y * self.scale) for x, y in points], fill=fill)

    def both(self, points: Sequence[tuple[float, float]], fill: Colour) -> None:
        """Fill a polygon and its mirror image."""
        self.polygon(points, fill)
        self.polygon([(-x, y) for x, y in points], fill)

    def line(self, points: Sequence[tuple[float, float]], width: float, fill: Colour) -> None:
        """Draw a line of a width in bust units."""
        placed = [(self.x + x * self.scale, self.y + y * self.scale) for x, y in points]
        self.draw.line(placed, fill=fill, width=max(1, round(width * self.scale)), joint="curve")


def draw_scene(
    attributes: Attributes, size: tuple[int, int], centre: tuple[float, float], scale: float, tint: int = 0
) -> Image.Image:
    """Draw a character before its background.

    `size` in pixels; `centre` of the bust and its unit `scale` in pixels; `tint` (0..11) varies plain backgrounds.
    Returns an RGB picture without smoothing: draw larger and reduce for smooth edges.
    """
    picture = Image.new("RGB", size)
    draw = ImageDraw.Draw(picture)
    _BACKGROUNDS[attributes.background](draw, size, centre, scale, tint)
    pen = Pen(draw, centre[0], centre[1], scale)
    _body(pen, attributes)
    _head(pen, attributes)
    _accessory(pen, attributes.accessory)
    return picture


def _simple(draw: ImageDraw.ImageDraw, size: tuple[int, int], _c: object, _s: float, tint: int) -> None:
    pale = [(250, 250, 250), (235, 240, 250), (250, 238, 225), (232, 248, 235)][tint % 4]
    draw.rectangle((0, 0, *size), fill=pale)


def _city(draw: ImageDraw.ImageDraw, size: tuple[int, int], c: tuple[float, float], s: float, tint: int) -> None:
    draw.rectangle((0, 0, *size), fill=(165, 180, 200))
    step, left = 0.5 * s, c[0] - 0.5 * s * (2 + c[0] // (0.5 * s)) + (tint % 3) * 0.1 * s
    for index in range(int(size[0] / step) + 5):
        x = left + index * step
        top = c[1] - (0.75, 0.35, 0.95, 0.5)[(index + tint) % 4] * s
        draw.rectangle((x, top, x + step * 0.88, size[1]), fill=((95, 100, 115), (120, 105, 110))[index % 2])
        for row in range(4):
            for column in (0.16, 0.52):
                wx, wy = x + column * step, top + (0.12 + 0.26 * row) * s
                draw.rectangle((wx, wy, wx + 0.2 * step, wy + 0.12 * s), fill=(250, 225, 130))


def _sea(draw: ImageDraw.ImageDraw, size: tuple[int, int], c: tuple[float, float], s: float, tint: int) -> None:
    horizon = c[1] - 0.05 * s
    draw.rectangle((0, 0, size[0], horizon), fill=(175, 225, 250))
    draw.rectangle((0, horizon, *size), fill=(30, 110, 180))
    x = c[0] + (0.72 if tint % 2 else -0.72) * s
    draw.ellipse((x - 0.2 * s, c[1] - 0.95 * s, x + 0.2 * s, c[1] - 0.55 * s), fill=(255, 235, 120))
    for row in range(3):
        y = horizon + (0.15 + 0.25 * row) * s
        draw.rectangle((0, y, size[0], y + 0.05 * s), fill=(90, 165, 220))


def _forest(draw: ImageDraw.ImageDraw, size: tuple[int, int], c: tuple[float, float], s: float, tint: int) -> None:
    draw.rectangle((0, 0, *size), fill=(190, 225, 190))
    draw.rectangle((0, c[1] + 0.45 * s, *size), fill=(90, 140, 60))
    step = 0.55 * s
    left = c[0] - step * (2 + c[0] // step) + (tint % 3) * 0.1 * s
    for index in range(int(size[0] / step) + 5):
        x, top = left + index * step, c[1] - (0.95, 0.65)[(index + tint) % 2] * s
        draw.rectangle((x - 0.06 * s, top, x + 0.06 * s, c[1] + 0.6 * s), fill=(95, 65, 40))
        draw.polygon([(x - 0.3 * s, c[1] + 0.2 * s), (x, top), (x + 0.3 * s, c[1] + 0.2 * s)], fill=(35, 100, 50))


def _bedroom(draw: ImageDraw.ImageDraw, size: tuple[int, int], c: tuple[float, float], s: float, tint: int) -> None:
    draw.rectangle((0, 0, *size), fill=(235, 200, 175))
    draw.rectangle((0, c[1] + 0.4 * s, *size), fill=(150, 95, 70))
    side = 1 if tint % 2 else -1
    x = c[0] + side * 0.72 * s
    draw.rectangle((x - 0.27 * s, c[1] - 0.92 * s, x + 0.27 * s, c[1] - 0.3 * s), fill=(250, 250, 245))
    draw.rectangle((x - 0.21 * s, c[1] - 0.86 * s, x + 0.21 * s, c[1] - 0.36 * s), fill=(130, 190, 235))
    bed = c[0] - side * 0.75 * s
    draw.rectangle((bed - 0.4 * s, c[1] + 0.15 * s, bed + 0.4 * s, c[1] + 0.75 * s), fill=(200, 70, 110))
    draw.rectangle((bed - 0.4 * s, c[1] + 0.05 * s, bed + 0.4 * s, c[1] + 0.22 * s), fill=(250, 245, 240))


_BACKGROUNDS = {
    "simple_background": _simple,
    "city": _city,
    "sea": _sea,
    "forest": _forest,
    "bedroom": _bedroom,
}


def _body(pen: Pen, a: Attributes) -> None:
    fur, width = COLOURS[a.colour], _SHOULDERS[a.body]
    bottom = width * (0.72 if a.body == "muscular" else 1.0)
    torso = [(-width, 0.62), (-0.2, 0.38), (0.2, 0.38), (width, 0.62), (bottom, 9.0), (-bottom, 9.0)]
    if a.clothing == "hoodie":
        pen.ellipse(0, 0.32, 0.66, 0.42, (40, 110, 115))
    pen.polygon(torso, fur)
    pen.ellipse(-width * 0.86, 0.78, width * 0.24, 0.24, fur)
    pen.ellipse(width * 0.86, 0.78, width * 0.24, 0.24, fur)
    _GARMENTS[a.clothing](pen, torso, width)


def _covered(pen: Pen, torso: list[tuple[float, float]], width: float, colour: Colour) -> None:
    pen.polygon(torso, colour)
    pen.ellipse(-width * 0.86, 0.78, width * 0.26, 0.26, colour)
    pen.ellipse(width * 0.86, 0.78, width * 0.26, 0.26, colour)


def _shirt(pen: Pen, torso: list[tuple[float, float]], width: float) -> None:
    _covered(pen, torso, width, (250, 250, 255))
    pen.both([(0.0, 0.62), (0.26, 0.42), (0.34, 0.6)], (120, 150, 220))
    pen.line([(0, 0.62), (0, 9.0)], 0.05, (120, 150, 220))


def _tank_top(pen: Pen, _torso: list[tuple[float, float]], width: float) -> None:
    red = (225, 60, 60)
    pen.polygon([(-width * 0.66, 0.8), (width * 0.66, 0.8), (width * 0.7, 9.0), (-width * 0.7, 9.0)], red)
    pen.both([(width * 0.3, 0.42), (width * 0.52, 0.5), (width * 0.66, 0.85), (width * 0.3, 0.85)], red)


def _coat(pen: Pen, torso: list[tuple[float, float]], width: float) -> None:
    _covered(pen, torso, width, (120, 80, 45))
    pen.polygon([(-0.16, 0.42), (0.16, 0.42), (0.1, 9.0), (-0.1, 9.0)], (235, 215, 175))
    pen.both([(0.1, 0.42), (0.42, 0.5), (0.14, 1.0)], (85, 55, 30))


def _hoodie(pen: Pen, torso: list[tuple[float, float]], width: float) -> None:
    _covered(pen, torso, width, (50, 135, 140))
    pen.both([(0.12, 0.5), (0.17, 0.5), (0.17, 0.85), (0.12, 0.85)], (245, 245, 245))


def _suit(pen: Pen, torso: list[tuple[float, float]], width: float) -> None:
    _covered(pen, torso, width, (45, 50, 75))
    pen.polygon([(-0.26, 0.42), (0.26, 0.42), (0, 1.05)], (250, 250, 250))
    pen.polygon([(-0.07, 0.5), (0.07, 0.5), (0.09, 0.95), (0, 1.05), (-0.09, 0.95)], (215, 40, 50))


_GARMENTS = {"shirt": _shirt, "tank_top": _tank_top, "coat": _coat, "hoodie": _hoodie, "suit": _suit}


def _head(pen: Pen, a: Attributes) -> None:
    fur = COLOURS[a.colour]
    dark, pale = _mix(fur, _DARK, 0.45), _mix(fur, (255, 250, 240), 0.65)
    _BEHIND.get(a.species, _nothing)(pen, fur, dark, pale)
    _EARS[a.species](pen, fur, dark, pale)
    pen.ellipse(0, -0.12, 0.52 + _CHEEKS[a.body], 0.5, fur)
    _MUZZLES[a.species](pen, fur, dark, pale)
    for side in (-1, 1):
        pen.ellipse(side * 0.22, -0.2, 0.135, 0.15, (252, 252, 252))
        pen.ellipse(side * 0.21, -0.19, 0.1, 0.12, EYES[a.eyes])
        pen.ellipse(side * 0.21, -0.19, 0.04, 0.06, (15, 15, 20))
    if a.marked:
        star = [(0, -0.56), (0.05, -0.45), (0.15, -0.44), (0.07, -0.38), (0.1, -0.28), (0, -0.34)]
        light = (255, 255, 255) if a.colour not in {"white", "yellow"} else (90, 60, 160)
        pen.both(star, light)


def _nothing(pen: Pen, fur: Colour, dark: Colour, pale: Colour) -> None:
    """Draw nothing behind the head."""


def _mane(pen: Pen, _fur: Colour, dark: Colour, _pale: Colour) -> None:
    pen.ellipse(0, -0.08, 0.78, 0.76, dark)
    for x, y in ((-0.7, -0.4), (0.7, -0.4), (-0.74, 0.2), (0.74, 0.2), (0, -0.78), (-0.4, -0.7), (0.4, -0.7)):
        pen.ellipse(x, y, 0.17, 0.17, dark)


def _ruff(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.both([(0.3, -0.15), (0.74, 0.02), (0.58, 0.12), (0.66, 0.28), (0.42, 0.26), (0.3, 0.4)], pale)


def _horns(pen: Pen, _fur: Colour, dark: Colour, pale: Colour) -> None:
    pen.both([(0.2, -0.5), (0.42, -0.42), (0.62, -0.98)], pale)
    pen.both([(0.45, -0.2), (0.86, -0.36), (0.72, -0.12), (0.84, 0.1), (0.48, 0.1)], dark)


_BEHIND = {"lion": _mane, "wolf": _ruff, "dragon": _horns}


def _pointed(pen: Pen, fur: Colour, dark: Colour, _pale: Colour) -> None:
    pen.both([(0.14, -0.5), (0.5, -0.3), (0.46, -0.92)], fur)
    pen.both([(0.26, -0.5), (0.42, -0.42), (0.42, -0.78)], dark)


def _huge_pointed(pen: Pen, fur: Colour, dark: Colour, _pale: Colour) -> None:
    pen.both([(0.08, -0.5), (0.56, -0.24), (0.62, -1.02)], fur)
    pen.both([(0.42, -0.72), (0.6, -0.66), (0.62, -1.02)], dark)


def _wide_triangles(pen: Pen, fur: Colour, _dark: Colour, _pale: Colour) -> None:
    pen.both([(0.06, -0.55), (0.54, -0.2), (0.5, -0.74)], fur)
    pen.both([(0.22, -0.52), (0.45, -0.36), (0.44, -0.62)], (245, 160, 170))


def _floppy(pen: Pen, fur: Colour, dark: Colour, _pale: Colour) -> None:
    pen.ellipse(0, -0.3, 0.5, 0.34, fur)
    pen.both([(0.3, -0.52), (0.56, -0.42), (0.74, 0.1), (0.62, 0.3), (0.48, 0.18), (0.46, -0.2)], dark)


def _round(pen: Pen, fur: Colour, dark: Colour, _pale: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.4, -0.54, 0.19, 0.19, fur)
        pen.ellipse(side * 0.4, -0.54, 0.1, 0.1, dark)


def _small_round(pen: Pen, fur: Colour, _dark: Colour, pale: Colour) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.4, -0.52, 0.15, 0.15, fur)
        pen.ellipse(side * 0.4, -0.52, 0.08, 0.08, pale)


def _no_ears(pen: Pen, fur: Colour, _dark: Colour, _pale: Colour) -> None:
    pen.ellipse(0, -0.3, 0.48, 0.3, fur)


_EARS = {
    "domestic_dog": _floppy,
    "wolf": _pointed,
    "fox": _huge_pointed,
    "domestic_cat": _wide_triangles,
    "tiger": _small_round,
    "lion": _small_round,
    "bear": _round,
    "dragon": _no_ears,
}


def _nose(pen: Pen, y: float, size: float, colour: Colour = _DARK) -> None:
    pen.ellipse(0, y, size, size * 0.7, colour)


def _dog(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.17, 0.28, 0.24, pale)
    _nose(pen, 0.06, 0.13)
    pen.polygon([(-0.08, 0.3), (0.08, 0.3), (0.07, 0.44), (-0.07, 0.44)], (240, 120, 140))


def _wolf(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.polygon([(-0.26, 0.0), (0.26, 0.0), (0.14, 0.38), (-0.14, 0.38)], pale)
    _nose(pen, 0.08, 0.11)
    pen.line([(-0.14, 0.27), (0.14, 0.27)], 0.04, _DARK)


def _fox(pen: Pen, _fur: Colour, _dark: Colour, _pale: Colour) -> None:
    white = (252, 250, 246)
    pen.both([(0.0, 0.42), (0.0, 0.0), (0.2, 0.02), (0.52, 0.0), (0.3, 0.26)], white)
    _nose(pen, 0.3, 0.08)


def _cat(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(-0.1, 0.14, 0.14, 0.12, pale)
    pen.ellipse(0.1, 0.14, 0.14, 0.12, pale)
    _nose(pen, 0.05, 0.06, (245, 130, 150))
    for y in (0.08, 0.2):
        pen.line([(0.2, 0.14), (0.72, y)], 0.025, _DARK)
        pen.line([(-0.2, 0.14), (-0.72, y)], 0.025, _DARK)


def _tiger(pen: Pen, _fur: Colour, dark: Colour, _pale: Colour) -> None:
    stripe = _mix(dark, (10, 10, 10), 0.6)
    pen.ellipse(0, 0.16, 0.3, 0.2, (250, 246, 238))
    _nose(pen, 0.05, 0.1, (225, 110, 120))
    for y in (-0.12, 0.04, 0.2):
        pen.both([(0.54, y - 0.05), (0.32, y), (0.54, y + 0.05)], stripe)
    pen.polygon([(-0.05, -0.62), (0.05, -0.62), (0, -0.36)], stripe)
    pen.both([(0.12, -0.58), (0.2, -0.55), (0.1, -0.38)], stripe)


def _lion(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.17, 0.27, 0.21, pale)
    pen.polygon([(-0.15, 0.02), (0.15, 0.02), (0, 0.17)], (110, 60, 50))
    pen.line([(0, 0.15), (0, 0.27)], 0.04, _DARK)


def _dragon(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.16, 0.36, 0.25, pale)
    for side in (-1, 1):
        pen.ellipse(side * 0.14, 0.08, 0.05, 0.06, _DARK)
        pen.polygon([(side * 0.24, 0.3), (side * 0.14, 0.3), (side * 0.19, 0.42)], (255, 255, 255))
    pen.line([(-0.26, 0.29), (0.26, 0.29)], 0.04, _DARK)


def _bear(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.14, 0.24, 0.19, pale)
    _nose(pen, 0.05, 0.14)


_MUZZLES = {
    "domestic_dog": _dog,
    "wolf": _wolf,
    "fox": _fox,
    "domestic_cat": _cat,
    "tiger": _tiger,
    "lion": _lion,
    "dragon": _dragon,
    "bear": _bear,
}


def _accessory(pen: Pen, accessory: str) -> None:
    if accessory == "glasses":
        for side in (-1, 1):
            box = [(side * 0.05, -0.36), (side * 0.4, -0.36), (side * 0.4, -0.04), (side * 0.05, -0.04)]
            pen.line([*box, box[0]], 0.05, (20, 20, 25))
        pen.line([(-0.06, -0.22), (0.06, -0.22)], 0.05, (20, 20, 25))
    elif accessory == "hat":
        pen.polygon([(-0.36, -0.52), (-0.3, -0.98), (0.3, -0.98), (0.36, -0.52)], (60, 60, 70))
        pen.polygon([(-0.62, -0.5), (0.62, -0.5), (0.62, -0.6), (-0.62, -0.6)], (60, 60, 70))
        pen.polygon([(-0.36, -0.6), (0.36, -0.6), (0.35, -0.7), (-0.35, -0.7)], (220, 180, 60))
    elif accessory == "scarf":
        pen.ellipse(0, 0.46, 0.42, 0.13, (230, 120, 40))
        pen.polygon([(0.1, 0.5), (0.3, 0.5), (0.32, 0.98), (0.12, 0.98)], (230, 120, 40))
