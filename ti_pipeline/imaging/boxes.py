"""The shapes of crops: squares, aspect buckets, and the parts that a long picture is cut into.

Not here: where a box of a shape lies in a picture (`focal`), or cutting it out (`crop`).
"""

from __future__ import annotations

import math

__all__ = ["bucket_for", "largest_box", "parts_along"]

# Sides of buckets are multiples of this, so that every UNet of Stable Diffusion can halve their latents three times.
UNIT = 64


def bucket_for(width: int, height: int, size: int) -> tuple[int, int]:
    """Return the sides (pixels) of the bucket whose aspect ratio is nearest to that of a `width` × `height` picture.

    A bucket's sides are multiples of 64, at most twice `size`, and its area is the largest up to `size`², as in
    NovelAI's aspect ratio bucketing (2022). Nearest is by the ratio of ratios; of two the larger area, then the wider.
    """
    wanted = math.log(width / height)
    buckets = [
        (across, down)
        for across in range(UNIT, 2 * size + 1, UNIT)
        if (down := min(size * size // across, 2 * size) // UNIT * UNIT) >= UNIT
    ]
    return min(buckets, key=lambda b: (round(abs(math.log(b[0] / b[1]) - wanted), 9), -b[0] * b[1], -b[0]))


def largest_box(width: int, height: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return width and height (pixels) of the largest box of a shape's aspect ratio inside a picture.

    It has the picture's whole width or height; the other side is rounded to the nearest pixel, one at least.
    """
    across, down = shape
    if width * down >= height * across:
        return max(1, round(height * across / down)), height
    return width, max(1, round(width * down / across))


def parts_along(length: int, side: int, overlap: float) -> list[int]:
    """Return where boxes of `side` pixels begin that cover an axis of `length` pixels evenly, from end to end.

    As few as it takes for neighbours to share at least `overlap` (0 to less than 1) of a side.
    """
    if length <= side:
        return [0]
    count = math.ceil(round((length - side) / (side * (1 - overlap)), 9)) + 1
    return [round(number * (length - side) / (count - 1)) for number in range(count)]
