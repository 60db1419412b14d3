"""Finds what is interesting in a picture, and the box that holds the most of it.

Here: four weighted detectors, their common interest map, and the exact placement of the largest box of a shape. Not
here: shapes (`boxes`), files, resizing (`crop`).

The detectors are those that trainers know from web UIs (face, corners, entropy) plus saliency. No ready face detector
is good on drawn animals, so a face is where a cascade says so or where eyes seem to be, and a hint among others. What
was measured, and why the constants here are as they are: `docs/decisions/0011-the-focal-crop.md`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ti_pipeline.imaging.measures import grey_levels, shrunk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ti_pipeline.studies import FocalWeights

__all__ = ["DETECTORS", "Placement", "best_offset", "box_at", "interest_map", "place_box"]

# Interest is kept in integers, so that sums are exact and ties are ties: this much over the whole picture.
TOTAL_INTEREST = 2**32

# The cat-face cascade finds more on small pictures: on 66 drawn animal heads 26 % at 128 px, 20 % at 256, 8 % at 512.
_FACE_SIDE = 128
_SMALLEST_FACE = 24
# Grey levels below which an area counts as dark, the sizes of eyes (pixels; share of the picture), how much of its box
# a round area fills (an ellipse: 0.785), how much lighter its surroundings are, and how far an eye's interest spreads.
_DARK = (50, 90)
_SMALLEST_EYE, _LARGEST_EYE = 8, 0.015
_ROUND = 0.6
_LIGHTER = 40
_EYE_SPREAD = 0.05
_SALIENCY_SIDE = 64
_ENTROPY_CELL = 16
_ENTROPY_LEVELS = 16

# Interest counts once in the box and once more in each of these shares of it around its middle, so that a subject
# stands in the middle, not just inside.
_MIDDLES = (0.8, 0.6, 0.4, 0.2)
# A strip at an end of the picture that is narrower than this share of the box is not left out: the box moves to the
# end. Muzzles, ears and horns are narrow and hold little interest.
_STRIP = 0.1
# Heads are above bodies: interest counts 1.5 times at the picture's top edge, 0.5 times at its bottom (in hundredths).
_AT_TOP, _AT_BOTTOM = 150, 50


@dataclass(frozen=True)
class Placement:
    """A box in a picture, in its pixels, and the focal point as shares of the picture's width and height."""

    left: int
    top: int
    width: int
    height: int
    focus_x: float
    focus_y: float


def interest_map(
    pixels: NDArray[np.uint8], weights: FocalWeights, heads: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the interest of each of the RGB pixels `[height, width, 3]`, and the names of detectors that fired.

    Each detector that finds anything spreads the same amount over its finds; the maps are averaged by `weights`,
    renormalised over those that fired (null and 0 are unused). Where none fires, everything is equally interesting.
    `heads` (rows of left, top, right, bottom as shares), if there are any, are the faces: a better detector found them.
    The sum is `TOTAL_INTEREST` but for rounding.
    """
    grey = grey_levels(pixels)
    total, fired = np.zeros(grey.shape), {}
    for name, detect in DETECTORS.items():
        weight = getattr(weights, name)
        if name == "face" and heads is not None and len(heads):
            found = _inside(heads, grey.shape) if weight else None
        else:
            found = detect(grey) if weight else None
        if found is not None and found.sum() > 0:
            fired[name] = weight
            total += weight * found / found.sum()
    if not fired:
        total += 1.0
    return np.rint(total * (TOTAL_INTEREST / total.sum())).astype(np.int64), list(fired)


def _inside(heads: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return 1 on each head, at least one pixel."""
    found = np.zeros(shape)
    height, width = shape
    for left, top, right, bottom in heads:
        rows = slice(int(min(top * height, height - 1)), max(int(np.ceil(bottom * height)), int(top * height) + 1))
        columns = slice(int(min(left * width, width - 1)), max(int(np.ceil(right * width)), int(left * width) + 1))
        found[rows, columns] = 1.0
    return found


_CASCADES = threading.local()  # OpenCV's classifiers keep state while they look, so each thread has its own


def _faces(grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the mean of heads and eyes, each spread over the same amount, or of those that were found."""
    found = [part / part.sum() for part in (_heads(grey), _eyes(grey)) if part.any()]
    return np.asarray(sum(found) / len(found)) if found else None


def _heads(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return 1 on each head that the frontal cat-face cascade finds (it knows the face without ears and chin)."""
    import cv2
    import cv2.data

    if not hasattr(_CASCADES, "cat"):
        path = Path(cv2.data.haarcascades) / "haarcascade_frontalcatface_extended.xml"
        _CASCADES.cat = cv2.CascadeClassifier(str(path))
        if _CASCADES.cat.empty():
            raise FileNotFoundError(f"{path} is missing: install opencv-contrib-python-headless below version 5")
    small = shrunk(grey, _FACE_SIDE)
    scale = max(small.shape) / max(grey.shape)
    smallest = (_SMALLEST_FACE, _SMALLEST_FACE)
    faces = _CASCADES.cat.detectMultiScale(small, scaleFactor=1.1, minNeighbors=3, minSize=smallest)
    found = np.zeros(grey.shape)
    for face in faces:
        left, top, across, down = (int(value / scale) for value in face)
        rows = slice(max(0, top - down // 2), top + down + down // 4)
        found[rows, max(0, left - across // 4) : left + across + across // 4] = 1.0
    return found


def _eyes(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return a soft spot around each small, dark, round area inside something lighter: eyes, pupils, noses."""
    import cv2

    found = np.zeros(grey.shape)
    for level in _DARK:
        _, _, boxes, _ = cv2.connectedComponentsWithStats((grey < level).astype(np.uint8), connectivity=8)
        for left, top, across, down in boxes[1:][_like_eyes(boxes[1:], grey.shape)][:, :4]:
            reach = max(2, max(across, down) // 2)
            rows, columns = (
                slice(max(0, top - reach), top + down + reach),
                slice(max(0, left - reach), left + across + reach),
            )
            around = grey[rows, columns]
            if np.median(around[around >= level]) - level >= _LIGHTER:
                found[top + down // 2, left + across // 2] += 1.0
    return np.asarray(cv2.GaussianBlur(found, (0, 0), _EYE_SPREAD * min(grey.shape))) if found.any() else found


def _like_eyes(boxes: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Tell which areas (rows of left, top, width, height, pixels) are of an eye's size and roundness and inside."""
    left, top, across, down, pixels = boxes.T
    small = (pixels >= _SMALLEST_EYE) & (pixels <= _LARGEST_EYE * shape[0] * shape[1])
    rounded = (pixels >= _ROUND * across * down) & (across <= 2 * down) & (down <= 2 * across)
    inside = (left > 0) & (top > 0) & (left + across < shape[1]) & (top + down < shape[0])
    return np.asarray(small & rounded & inside)


def _saliency(grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the spectral residual saliency (Hou & Zhang 2007): what the log spectrum's mean does not explain."""
    import cv2

    if grey.std() < 1:
        return None
    height, width = grey.shape
    spectrum = np.fft.fft2(shrunk(grey, _SALIENCY_SIDE).astype(np.float64))
    amplitude = np.log(np.abs(spectrum) + 1e-6)
    residual = amplitude - cv2.blur(amplitude, (3, 3), borderType=cv2.BORDER_REFLECT_101)
    salient = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = cv2.GaussianBlur(salient, (0, 0), sigmaX=2.5)
    return np.asarray(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float64)


def _corners(grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return 1 at each of the 100 strongest corners (Shi & Tomasi 1994), not closer than 6 % of the shorter side."""
    import cv2

    apart = max(1.0, 0.06 * min(grey.shape))
    points = cv2.goodFeaturesToTrack(grey, maxCorners=100, qualityLevel=0.04, minDistance=apart)
    if points is None:
        return None
    found = np.zeros(grey.shape)
    across, down = np.rint(points.reshape(-1, 2)).astype(int).T
    found[down, across] = 1.0
    return found


def _entropy(grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return, per cell of 16 × 16 pixels, the Shannon entropy in bits of its grey levels (in 16 steps)."""
    height, width = grey.shape
    rows, columns = np.arange(height) // _ENTROPY_CELL, np.arange(width) // _ENTROPY_CELL
    cells = rows[:, None] * (columns[-1] + 1) + columns
    count = int(cells[-1, -1]) + 1
    levels = grey.astype(np.int64) * _ENTROPY_LEVELS // 256
    histogram = np.bincount((cells * _ENTROPY_LEVELS + levels).ravel(), minlength=count * _ENTROPY_LEVELS)
    shares = histogram.reshape(count, _ENTROPY_LEVELS) / np.bincount(cells.ravel())[:, None]
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(np.abs((shares * logs).sum(axis=1))[cells], dtype=np.float64)


DETECTORS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float64] | None]] = {
    "face": _faces,
    "saliency": _saliency,
    "corners": _corners,
    "entropy": _entropy,
}


def place_box(
    interest: NDArray[np.int64],
    size: tuple[int, int],
    box: tuple[int, int],
    *,
    headroom: float = 0.05,
    keep: Literal["face", "subject"] = "face",
) -> Placement:
    """Place a box in a picture of `size`, given the interest map of its reduced copy; both are (width, height), pixels.

    The box has the picture's width or height (`boxes.largest_box`), so it moves along the other axis alone, pixel by
    pixel (`best_offset`), and never reaches outside. It covers the most interest. To keep a face, interest counts more
    the nearer it is to the box's middle along that axis, and more in the upper part of the picture than in the lower;
    `headroom` (share of the box's height) moves that middle down, so that there is more room above. A narrow strip at
    an end of the picture is not left out. To keep the whole subject, all interest counts alike. The focal point is the
    centre of mass of the interest.
    """
    (width, height), (across, down) = size, box
    focus_x, focus_y = _centre(interest.sum(axis=0)), _centre(interest.sum(axis=1))
    left = top = 0
    if keep == "subject":
        left = best_offset(interest.sum(axis=0), [(0, across)], width, across, focus_x)
        top = best_offset(interest.sum(axis=1), [(0, down)], height, down, focus_y)
        return Placement(left, top, across, down, focus_x, focus_y)
    rows = np.rint(np.linspace(_AT_TOP, _AT_BOTTOM, interest.shape[0])).astype(np.int64)
    weighed = interest * rows[:, None]
    if width > across:
        left = best_offset(weighed.sum(axis=0), _windows(across, shift=0.0), width, across, focus_x)
        left = _without_strips(left, width, across)
    elif height > down:
        top = best_offset(weighed.sum(axis=1), _windows(down, shift=headroom), height, down, focus_y)
        top = _without_strips(top, height, down)
    return Placement(left, top, across, down, focus_x, focus_y)


def box_at(focus_x: float, focus_y: float, size: tuple[int, int], box: tuple[int, int]) -> Placement:
    """Place a box of a picture as nearly around a focal point (shares of width and height) as it fits; see above."""
    left, top = (
        min(max(round(focus * length - side / 2), 0), length - side)
        for focus, length, side in zip((focus_x, focus_y), size, box, strict=True)
    )
    return Placement(left, top, *box, focus_x, focus_y)


def _windows(side: int, *, shift: float) -> list[tuple[int, int]]:
    """Return where the box and the parts around its middle begin and how long they are; the shift is a share of it."""
    windows = [(0, side)]
    for share in _MIDDLES:
        start = min(round(side * ((1 - share) / 2 + shift)), side)
        windows.append((start, min(round(side * share), side - start)))
    return windows


def _without_strips(start: int, length: int, side: int) -> int:
    """Move a box of `side` pixels to the nearer end of its axis if only a narrow strip lies between them."""
    after = length - side - start
    if min(start, after) > _STRIP * side:
        return start
    return 0 if start <= after else length - side


def _centre(profile: NDArray[np.int64]) -> float:
    middles = (np.arange(len(profile)) + 0.5) / len(profile)
    return float((profile * middles).sum() / profile.sum())


def best_offset(
    profile: NDArray[np.int64], windows: Sequence[tuple[int, int]], length: int, side: int, focus: float
) -> int:
    """Return where a box of `side` pixels begins on an axis of `length` pixels to cover the most interest.

    `profile` is the interest summed across the axis, in any number of equal steps; it is even within a step. It counts
    once for each of the windows that it lies in: they begin so many pixels behind where the box begins, and are so
    many long. All `length - side + 1` places are compared exactly, by a summed-area table in integers. Among equally
    good ones the one whose middle is nearest to `focus` (0..1 of the axis) is taken, then the one nearest to the middle
    of the axis, then the first.
    """
    places = length - side + 1
    before = _interest_before(profile, length)
    covered = sum(before[start + own : start + own + places] - before[start : start + places] for start, own in windows)
    good = np.flatnonzero(covered == np.max(covered))
    to_focus = np.abs(good + side / 2 - focus * length)
    to_middle = np.abs(good + side / 2 - length / 2)
    return int(good[np.lexsort((good, to_middle, to_focus))[0]])


def _interest_before(profile: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return the interest before each of `length + 1` pixels of an axis, times `length`."""
    steps = len(profile)
    sums = np.concatenate([[0], np.cumsum(profile)])
    # Whole steps, then the part of the step that the pixel lies in.
    step, part = np.divmod(np.arange(length + 1, dtype=np.int64) * steps, length)
    return np.asarray(sums[step] * length + part * np.append(profile, 0)[step])
