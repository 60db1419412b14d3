"""How the demo's artists draw: outlines, hollow shapes, and what light and ink do to the finished picture.

Here: styles, each the hand of one artist. Not here: what is drawn (`figures`, `scenery`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

__all__ = ["HELD_OUT_STYLES", "STYLES", "Style"]


@dataclass(frozen=True)
class Style:
    """One artist's hand: outlines of `outline` bust units (0 = none), shapes left white, a `finish` on the picture."""

    outline: float = 0.0
    hollow: bool = False
    finish: Callable[[Image.Image], Image.Image] | None = None


def _scaled(*factors: float, lift: float = 0.0) -> Callable[[Image.Image], Image.Image]:
    """Return a finish that multiplies each channel and adds `lift` (0..255), clipped."""

    def finish(picture: Image.Image) -> Image.Image:
        return picture.point([min(255, round(value * factor + lift)) for factor in factors for value in range(256)])

    return finish


def _soft_shade(picture: Image.Image) -> Image.Image:
    from PIL import Image, ImageChops

    light = _falloff().resize(picture.size, Image.Resampling.BILINEAR)
    return ImageChops.multiply(picture, Image.merge("RGB", [light] * 3))


@functools.cache
def _falloff() -> Image.Image:
    """Return light from the upper left: full there, 55 % in the far corner."""
    import numpy as np
    from PIL import Image

    x, y = np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32))
    return Image.fromarray((255 - 115 * np.clip((x + y) / 2 * 1.25 - 0.25, 0, 1)).astype("uint8"))


def _vivid(picture: Image.Image) -> Image.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Color(picture).enhance(1.6)


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def _sepia(picture: Image.Image) -> Image.Image:
    return _scaled(1.0, 0.85, 0.62)(_grey(picture))


def _neon(picture: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return _vivid(ImageOps.invert(picture.convert("L")).convert("RGB").point(_NEON))


_NEON = [round(v * 0.9) for v in range(256)] + [round(v * v / 255) for v in range(256)] + list(range(256))

# By name; the artist's tag is `<name>_(artist)`.
STYLES: dict[str, Style] = {
    "flat": Style(),
    "line": Style(outline=0.035),
    "soft_shade": Style(finish=_soft_shade),
    "outline_only": Style(outline=0.035, hollow=True, finish=_grey),
    "pastel": Style(finish=_scaled(0.55, 0.55, 0.55, lift=112)),
    "dark": Style(finish=_scaled(0.5, 0.5, 0.62)),
    "bold": Style(outline=0.06, finish=_vivid),
    "warm": Style(finish=_scaled(1.05, 0.93, 0.7)),
    "sepia": Style(finish=_sepia),
    "neon": Style(outline=0.05, finish=_neon),
}
# The harder case for an embedding: the base model never sees these.
HELD_OUT_STYLES = ("sepia", "neon")
