"""Finds what is interesting in a picture, and the square that holds the most of it.

Here: four weighted detectors, their common interest map, and the exact placement of the largest square. Not here:
files, resizing (`crop`).

The detectors and their default weights are those that trainers know from web UIs (face 0.9, corners 0.5, entropy
0.15) plus saliency. No ready face detector is good on drawn animals, so faces are a hint among others.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ti_pipeline.imaging.measures import grey_levels, shrunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ti_pipeline.studies import FocalWeights

__all__ = ["DETECTORS", "Placement", "best_offset", "interest_map", "place_square"]

# Interest is kept in integers, so that sums are exact and ties are ties: this much over the whole picture.
TOTAL_INTEREST = 2**32

# The cat-face cascade finds more on small pictures: on 66 drawn animal heads 26 % at 128 px, 20 % at 256, 8 % at 512.
_FACE_SIDE = 128
_SMALLEST_FACE = 24
_SALIENCY_SIDE = 64
_ENTROPY_CELL = 16
_ENTROPY_LEVELS = 16


@dataclass(frozen=True)
class Placement:
    """A square in a picture, in its pixels, and the focal point as shares of width and height."""

    left: int
    top: int
    side: int
    focus_x: float
    focus_y: float


def interest_map(pixels: NDArray[np.uint8], weights: FocalWeights) -> tuple[NDArray[np.int64], list[str]]:
    """Return the interest of each of the RGB pixels `[height, width, 3]`, and the names of detectors that fired.

    Each detector that finds anything spreads the same amount over its finds; the maps are averaged by `weights`,
    renormalised over those that fired (null and 0 are unused). Where none fires, everything is equally interesting.
    The sum is `TOTAL_INTEREST` but for rounding.
    """
    grey = grey_levels(pixels)
    total, fired = np.zeros(grey.shape), {}
    for name, detect in DETECTORS.items():
        weight = getattr(weights, name)
        found = detect(grey) if weight else None
        if found is not None and found.sum() > 0:
            fired[name] = weight
            total += weight * found / found.sum()
    if not fired:
        total += 1.0
    return np.rint(total * (TOTAL_INTEREST / total.sum())).astype(np.int64), list(fired)


_CASCADES = threading.local()  # OpenCV's classifiers keep state while they look, so each thread has its own


def _faces(grey: NDArray[np.uint8]) -> NDArray[np.float64] | None:
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


def place_square(interest: NDArray[np.int64], width: int, height: int) -> Placement:
    """Place the largest square of a `width` × `height` picture, given the interest map of its reduced copy.

    The square has the picture's shorter side, so it moves along the longer one alone, pixel by pixel
    (`best_offset`), and never reaches outside. The focal point is the centre of mass of the interest.
    """
    down, across = interest.sum(axis=1), interest.sum(axis=0)
    focus_x, focus_y = _centre(across), _centre(down)
    side = min(width, height)
    left = best_offset(across, width, side, focus_x) if width > side else 0
    top = best_offset(down, height, side, focus_y) if height > side else 0
    return Placement(left, top, side, focus_x, focus_y)


def _centre(profile: NDArray[np.int64]) -> float:
    middles = (np.arange(len(profile)) + 0.5) / len(profile)
    return float((profile * middles).sum() / profile.sum())


def best_offset(profile: NDArray[np.int64], length: int, window: int, focus: float) -> int:
    """Return where a window of `window` pixels on an axis of `length` pixels covers the most interest.

    `profile` is the interest summed across the axis, in any number of equal steps; interest is even within a step.
    All `length - window + 1` offsets are compared exactly, by a summed-area table in integers. Among equally good
    ones the one whose middle is nearest to `focus` (0..1 of the axis) is taken, then the one nearest to the middle
    of the axis, then the first.
    """
    steps = len(profile)
    sums = np.concatenate([[0], np.cumsum(profile)])
    # Interest left of pixel x, times `length`: whole steps, then the part of the step that x lies in.
    position = np.arange(length + 1, dtype=np.int64) * steps
    step, part = np.divmod(position, length)
    before = sums[step] * length + part * np.append(profile, 0)[step]
    covered = before[window:] - before[: length - window + 1]
    good = np.flatnonzero(covered == covered.max())
    to_focus = np.abs(good + window / 2 - focus * length)
    to_middle = np.abs(good + window / 2 - length / 2)
    return int(good[np.lexsort((good, to_middle, to_focus))[0]])
