"""The faces of the demo's characters: what tells a wolf from a fox at 64 pixels, eyes, mouths, marks, accessories.

Here: everything from the neck up, in units of a head about 1 wide. Not here: bodies (`bodies`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.demo.pen import COLOURS, DARK, EYES, mix

if TYPE_CHECKING:
    from ti_pipeline.demo.pen import Colour, Pen
    from ti_pipeline.demo.world import Attributes

__all__ = ["draw_head"]

_CHEEKS = {"overweight": 0.1, "slightly_chubby": 0.05}


def draw_head(pen: Pen, a: Attributes) -> None:
    """Draw ears, face, eyes, mouth, marks and accessory."""
    fur = COLOURS[a.colour]
    dark, pale = mix(fur, DARK, 0.45), mix(fur, (255, 250, 240), 0.65)
    _BEHIND.get(a.species, _nothing)(pen, fur, dark, pale)
    _EARS[a.species](pen, fur, dark, pale)
    pen.ellipse(0, -0.12, 0.52 + _CHEEKS.get(a.body, 0.0), 0.5, fur)
    _MUZZLES[a.species](pen, fur, dark, pale)
    for side in (-1, 1):
        pen.ellipse(side * 0.23, -0.2, 0.16, 0.17, (252, 252, 252))
        pen.ellipse(side * 0.22, -0.19, 0.125, 0.14, EYES[a.eyes])
        pen.ellipse(side * 0.22, -0.19, 0.04, 0.06, (15, 15, 20))
    _EXPRESSIONS[a.expression](pen)
    if a.marking == "star":
        star = [(0, -0.6), (0.06, -0.47), (0.18, -0.46), (0.08, -0.39), (0.12, -0.27), (0, -0.34)]
        pen.both(star, (255, 255, 255) if a.colour not in {"white", "yellow"} else (90, 60, 160))
    elif a.marking == "spots":
        for x, y in ((0.33, -0.48), (-0.4, 0.06), (0.42, 0.02), (-0.12, -0.52)):
            pen.ellipse(x, y, 0.09, 0.08, mix(fur, DARK, 0.7))
    _accessory(pen, a.accessory)


def _neutral(pen: Pen) -> None:
    """Leave the face as the species has it."""


def _smile(pen: Pen) -> None:
    pen.line([(-0.24, 0.26), (-0.13, 0.33), (0.0, 0.35), (0.13, 0.33), (0.24, 0.26)], 0.05, DARK)


def _open_mouth(pen: Pen) -> None:
    pen.ellipse(0, 0.3, 0.15, 0.1, (150, 25, 40))


def _angry(pen: Pen) -> None:
    for side in (-1, 1):
        pen.line([(side * 0.42, -0.46), (side * 0.08, -0.32)], 0.08, DARK)


_EXPRESSIONS = {"neutral": _neutral, "smile": _smile, "open_mouth": _open_mouth, "angry": _angry}


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


def _nose(pen: Pen, y: float, size: float, colour: Colour = DARK) -> None:
    pen.ellipse(0, y, size, size * 0.7, colour)


def _dog(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.17, 0.28, 0.24, pale)
    _nose(pen, 0.06, 0.13)
    pen.polygon([(-0.08, 0.3), (0.08, 0.3), (0.07, 0.44), (-0.07, 0.44)], (240, 120, 140))


def _wolf(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.polygon([(-0.26, 0.0), (0.26, 0.0), (0.14, 0.38), (-0.14, 0.38)], pale)
    _nose(pen, 0.08, 0.11)
    pen.line([(-0.14, 0.27), (0.14, 0.27)], 0.04, DARK)


def _fox(pen: Pen, _fur: Colour, _dark: Colour, _pale: Colour) -> None:
    white = (252, 250, 246)
    pen.both([(0.0, 0.42), (0.0, 0.0), (0.2, 0.02), (0.52, 0.0), (0.3, 0.26)], white)
    _nose(pen, 0.3, 0.08)


def _cat(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(-0.1, 0.14, 0.14, 0.12, pale)
    pen.ellipse(0.1, 0.14, 0.14, 0.12, pale)
    _nose(pen, 0.05, 0.06, (245, 130, 150))
    for y in (0.08, 0.2):
        pen.line([(0.2, 0.14), (0.72, y)], 0.025, DARK)
        pen.line([(-0.2, 0.14), (-0.72, y)], 0.025, DARK)


def _tiger(pen: Pen, _fur: Colour, dark: Colour, _pale: Colour) -> None:
    stripe = mix(dark, (10, 10, 10), 0.6)
    pen.ellipse(0, 0.16, 0.3, 0.2, (250, 246, 238))
    _nose(pen, 0.05, 0.1, (225, 110, 120))
    for y in (-0.12, 0.04, 0.2):
        pen.both([(0.54, y - 0.05), (0.32, y), (0.54, y + 0.05)], stripe)
    pen.polygon([(-0.05, -0.62), (0.05, -0.62), (0, -0.36)], stripe)
    pen.both([(0.12, -0.58), (0.2, -0.55), (0.1, -0.38)], stripe)


def _lion(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.17, 0.27, 0.21, pale)
    pen.polygon([(-0.15, 0.02), (0.15, 0.02), (0, 0.17)], (110, 60, 50))
    pen.line([(0, 0.15), (0, 0.27)], 0.04, DARK)


def _dragon(pen: Pen, _fur: Colour, _dark: Colour, pale: Colour) -> None:
    pen.ellipse(0, 0.16, 0.36, 0.25, pale)
    for side in (-1, 1):
        pen.ellipse(side * 0.14, 0.08, 0.05, 0.06, DARK)
        pen.polygon([(side * 0.24, 0.3), (side * 0.14, 0.3), (side * 0.19, 0.42)], (255, 255, 255))
    pen.line([(-0.26, 0.29), (0.26, 0.29)], 0.04, DARK)


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
