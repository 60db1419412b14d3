"""The bodies of the demo's characters: five builds, two poses, tails, garments.

Here: everything from the neck down, in bust units: shoulders at y 0.1, hips at 0.62, legs down to wherever the picture
ends. Not here: heads (`heads`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.demo.pen import COLOURS, DARK, mix

if TYPE_CHECKING:
    from ti_pipeline.demo.pen import Colour, Pen
    from ti_pipeline.demo.world import Attributes

__all__ = ["BUILDS", "draw_body", "draw_tail"]

_FLOOR = 9.0  # below every picture's edge


@dataclass(frozen=True)
class Build:
    """Half widths of a body at shoulders, waist and hips, and how thick its arms are, in bust units."""

    shoulders: float
    waist: float
    hips: float
    arms: float


BUILDS: dict[str, Build] = {
    "slim": Build(0.27, 0.17, 0.22, 0.11),
    "muscular": Build(0.54, 0.27, 0.28, 0.22),
    "big_muscles": Build(0.84, 0.40, 0.36, 0.40),
    "slightly_chubby": Build(0.38, 0.47, 0.44, 0.18),
    "overweight": Build(0.56, 0.86, 0.74, 0.24),
}


def _torso(build: Build, grow: float = 0.0) -> list[tuple[float, float]]:
    """Return the torso's outline from the neck to the hips, `grow` units wider all around."""
    s, w, h = build.shoulders + grow, build.waist + grow, build.hips + grow
    right = [(0.12 + grow, 0.02), (s * 0.8, 0.09), (s, 0.2), (0.3 * s + 0.7 * w, 0.36), (w, 0.48), (h, 0.64)]
    return right + [(-x, y) for x, y in reversed(right)]


def _legs(pen: Pen, build: Build, fill: Colour, bottom: float = _FLOOR, grow: float = 0.0) -> None:
    h = build.hips + grow
    pen.both([(0.02, 0.6), (h, 0.6), (h, 0.74), (h * 0.95, bottom), (0.05, bottom)], fill)


def draw_body(pen: Pen, a: Attributes) -> None:
    """Draw legs, torso, garment and arms."""
    build, fur = BUILDS[a.body], COLOURS[a.colour]
    _legs(pen, build, fur)
    pen.polygon(_torso(build), fur)
    _front(pen, a.body, build, fur)
    if a.marking == "spots":
        for x, y in ((-0.5, 0.3), (0.3, 0.2), (0.45, 0.55), (-0.25, 0.62)):
            pen.ellipse(x * build.hips * 1.6, y, 0.07, 0.06, mix(fur, DARK, 0.7))
    sleeves = _GARMENTS[a.clothing](pen, build)
    _muscle_lines(pen, a.body, build, a.clothing)
    _POSES[a.pose](pen, build, fur, sleeves)


def _front(pen: Pen, body: str, build: Build, fur: Colour) -> None:
    """Draw the belly's paler fur on soft builds."""
    pale = mix(fur, (255, 250, 240), 0.5)
    if body == "overweight":
        pen.ellipse(0, 0.5, build.waist * 0.72, 0.3, pale)
    elif body == "slightly_chubby":
        pen.ellipse(0, 0.47, build.waist * 0.62, 0.19, pale)


def _muscle_lines(pen: Pen, body: str, build: Build, clothing: str) -> None:
    """Draw chest and belly lines: on fur, and through whatever is worn over them."""
    if body not in {"muscular", "big_muscles"}:
        return
    ink, width = (40, 25, 30), 0.035 if body == "muscular" else 0.05
    s = build.shoulders
    for side in (-1, 1):
        pen.line([(side * 0.03, 0.3), (side * s * 0.45, 0.34), (side * s * 0.75, 0.24)], width, ink)
    if clothing != "coat":
        pen.line([(0, 0.12), (0, 0.58)], width, ink)
        for y in (0.42, 0.52):
            pen.line([(-build.waist * 0.5, y), (build.waist * 0.5, y)], width, ink)


def _standing(pen: Pen, build: Build, fur: Colour, sleeves: Sleeves) -> None:
    for side in (-1, 1):
        _arm(
            pen,
            [(side * build.shoulders, 0.2), (side * _outside(build), 0.48), (side * _outside(build), 0.78)],
            build,
            fur,
            sleeves,
        )


def _waving(pen: Pen, build: Build, fur: Colour, sleeves: Sleeves) -> None:
    x = max(build.shoulders + 0.16, 0.62)
    _arm(pen, [(-build.shoulders, 0.2), (-_outside(build), 0.48), (-_outside(build), 0.78)], build, fur, sleeves)
    _arm(pen, [(build.shoulders, 0.2), (x, 0.1), (x + 0.06, -0.35)], build, fur, sleeves)


def _outside(build: Build) -> float:
    """Return how far an arm hangs from the middle, clear of the belly."""
    return max(build.shoulders + 0.04, build.waist + 0.02, build.hips + 0.02)


def _arm(pen: Pen, joints: list[tuple[float, float]], build: Build, fur: Colour, sleeves: Sleeves) -> None:
    pen.limb(joints, build.arms, fur)
    if sleeves is None:
        return
    colour, length = sleeves
    (x0, y0), (x1, y1), (x2, y2) = joints
    if length < 1:
        pen.limb([(x0, y0), (x0 + (x1 - x0) * 0.7, y0 + (y1 - y0) * 0.7)], build.arms + 0.03, colour)
    else:
        pen.limb([(x0, y0), (x1, y1), (x1 + (x2 - x1) * 0.7, y1 + (y2 - y1) * 0.7)], build.arms + 0.03, colour)


_POSES = {"standing": _standing, "waving": _waving}

# A sleeve's colour and its length in arms; none for bare arms.
Sleeves = tuple[tuple[int, int, int], float] | None


def _bare(_pen: Pen, _build: Build) -> Sleeves:
    return None


def _shirt(pen: Pen, build: Build) -> Sleeves:
    white, blue = (250, 250, 255), (90, 130, 230)
    pen.polygon(_torso(build, 0.02), white)
    pen.both([(0.0, 0.2), (0.14, 0.03), (0.24, 0.16)], blue)
    pen.line([(0, 0.18), (0, 0.62)], 0.05, blue)
    return white, 0.5


def _tank_top(pen: Pen, build: Build) -> Sleeves:
    red, s, w, h = (225, 45, 50), build.shoulders, build.waist + 0.02, build.hips + 0.02
    right = [(s * 0.28, 0.22), (s * 0.34, 0.06), (s * 0.56, 0.06), (s * 0.66, 0.3), (w, 0.44), (h, 0.64)]
    pen.polygon(right + [(-x, y) for x, y in reversed(right)], red)
    return None


def _coat(pen: Pen, build: Build) -> Sleeves:
    brown, h = (110, 70, 38), build.hips + 0.05
    pen.polygon([*_torso(build, 0.05)[:6], (h * 1.08, 1.6), (-h * 1.08, 1.6), *_torso(build, 0.05)[6:]], brown)
    pen.polygon([(-0.1, 0.05), (0.1, 0.05), (0.09, 1.6), (-0.09, 1.6)], (240, 222, 185))
    pen.both([(0.08, 0.05), (0.3, 0.08), (0.11, 0.42)], (75, 45, 24))
    return brown, 1.0


def _belt_to(pen: Pen, build: Build, colour: Colour, bottom: float, top: float = 0.54) -> None:
    h, w = build.hips + 0.02, 0.4 * build.waist + 0.6 * build.hips + 0.02
    pen.polygon([(-w, top), (w, top), (h, 0.64), (h, 0.76), (-h, 0.76), (-h, 0.64)], colour)
    _legs(pen, build, colour, bottom, 0.02)


def _pants(pen: Pen, build: Build) -> Sleeves:
    _belt_to(pen, build, (45, 70, 150), _FLOOR)
    pen.line([(-build.hips * 0.9, 0.57), (build.hips * 0.9, 0.57)], 0.06, (230, 190, 60))
    return None


def _shorts(pen: Pen, build: Build) -> Sleeves:
    _belt_to(pen, build, (60, 175, 70), 0.84)
    pen.both([(0.05, 0.8), (build.hips + 0.03, 0.8), (build.hips + 0.03, 0.87), (0.05, 0.87)], (245, 245, 245))
    return None


def _swimwear(pen: Pen, build: Build) -> Sleeves:
    pink = (255, 90, 170)
    right = [
        (build.shoulders * 0.3, 0.08),
        (build.shoulders * 0.5, 0.08),
        (build.waist + 0.02, 0.46),
        (build.hips + 0.02, 0.64),
        (build.hips + 0.02, 0.7),
        (0.06, 0.82),
    ]
    pen.polygon(right + [(-x, y) for x, y in reversed(right)], pink)
    for y in (0.34, 0.52):
        pen.line([(-build.waist * 0.8, y), (build.waist * 0.8, y)], 0.06, (255, 250, 250))
    return None


_GARMENTS = {
    "none": _bare,
    "shirt": _shirt,
    "tank_top": _tank_top,
    "coat": _coat,
    "pants": _pants,
    "shorts": _shorts,
    "swimwear": _swimwear,
}


def draw_tail(pen: Pen, a: Attributes) -> None:
    """Draw what shows behind the body: tails, and a dragon's wings."""
    fur = COLOURS[a.colour]
    dark, pale = mix(fur, DARK, 0.5), mix(fur, (255, 250, 240), 0.7)
    root, out = BUILDS[a.body].hips * 0.6, max(0.5, BUILDS[a.body].hips + 0.18)
    if a.species == "dragon":
        pen.both([(0.2, 0.2), (0.7, -0.45), (1.02, -0.1), (0.9, 0.12), (0.82, 0.02), (0.7, 0.3), (0.6, 0.2)], dark)
    elif a.species == "fox":
        pen.limb([(root, 0.75), (out + 0.15, 0.62), (out + 0.2, 0.35)], 0.34, fur)
        pen.limb([(out + 0.19, 0.36), (out + 0.17, 0.16)], 0.3, (250, 250, 250))
    elif a.species == "wolf":
        pen.limb([(root, 0.72), (out + 0.12, 0.85), (out + 0.18, 1.1)], 0.26, pale)
    elif a.species == "domestic_dog":
        pen.limb([(root, 0.75), (out + 0.1, 0.55)], 0.14, fur)
    elif a.species in {"domestic_cat", "tiger", "lion"}:
        joints = [(root, 0.78), (out + 0.12, 0.7), (out + 0.18, 0.42), (out + 0.1, 0.2)]
        pen.limb(joints, 0.12, fur)
        if a.species == "lion":
            pen.ellipse(out + 0.1, 0.2, 0.13, 0.13, dark)
        elif a.species == "tiger":
            for x, y in ((out + 0.16, 0.62), (out + 0.18, 0.45), (out + 0.13, 0.28)):
                pen.line([(x - 0.08, y), (x + 0.08, y)], 0.07, DARK)
