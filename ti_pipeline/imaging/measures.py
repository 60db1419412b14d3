"""Measures one decoded picture: sharpness, detail, simple background, lettering, palette, perceptual hash.

All of them look at the picture reduced to at most 256 px on its longer side (lettering: 384, background: 192), so that
numbers of small and large pictures can be compared. Not here: files (`decode`), tables (`audit`), comparing hashes
(`duplicates`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = [
    "LOOK_AT",
    "LOOK_FOR_BACKGROUND_AT",
    "LOOK_FOR_LETTERS_AT",
    "averaged",
    "detail",
    "focal_box",
    "grey_levels",
    "lettering",
    "palette",
    "perceptual_hashes",
    "reduced",
    "sharpness",
    "shrunk",
    "simple_background",
]

LOOK_AT = 256
LOOK_FOR_BACKGROUND_AT = 192  # on 150 drawn posts it tells simple ones as well as at 256, in little over half the time
LOOK_FOR_LETTERS_AT = 384

# Differences in CIE L*a*b* units (a just noticeable one is about 2.3). Neighbours of one even area, a gradient or
# JPEG noise included, differ by at most the first per channel; areas of one background by at most the second.
_EVEN = 2.5
_LAB_UNITS = (100 / 255, 1.0, 1.0)  # OpenCV's 8-bit L*a*b* stretches L to 0..255
_SAME_BACKGROUND = 15.0
_BORDER_PIXELS = 4  # areas that touch fewer of the border are grain, and measuring each would take long

# Lettering: grey levels that make an edge, pixels between the strokes of one line, the height of a line (pixels; share
# of the longer side), how many times longer than high it is, how full of strokes, and how often a row changes between
# dark and light on a stretch as long as the line is high. Chosen on 400 drawn posts: 92 % of those with lettering have
# some by this, 5 % of the others (area under the ROC curve 0.96; at 256 px under 0.85).
_STROKE_EDGE = 40
_STROKES_APART = 5
_LINE_HEIGHT = (4, 0.15)
_LINE_LENGTH = 1.6
_LINE_FILL = 0.4
_CHANGES_PER_HEIGHT = 2.0

# The palette's colours, and how many pixels of a row are looked at for them.
_COLOURS = 5
_SAMPLES = 32

# The focal box: the side at which saliency is looked for, and how much of it lies outside the box on each side.
_SALIENT_AT = 64
_SALIENT_OUTSIDE = 0.1

# Resizing and recompression change a coefficient of the perceptual hash by about this much.
_NOISE = 4.0


def reduced(rgb: Image.Image, longest: int = LOOK_AT) -> NDArray[np.uint8]:
    """Return RGB pixels `[height, width, 3]`, averaged so that no side exceeds `longest`; never enlarged."""
    return shrunk(np.asarray(averaged(rgb, longest)), longest)


def averaged(rgb: Image.Image, longest: int) -> Image.Image:
    """Return a picture averaged over whole squares, which is fast, the longer side at least `longest` still."""
    whole = max(1, max(rgb.size) // longest)
    return rgb.reduce(whole) if whole > 1 else rgb


def shrunk(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Return an array `[height, width, …]` shrunk so that no side exceeds `longest`; never enlarged.

    Down to a half each pixel is interpolated between the four around it, which then are all that it covers, and takes
    an eighth of the time of the exact average that smaller ones are made by.
    """
    import cv2

    height, width = pixels.shape[:2]
    scale = longest / max(width, height)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_LINEAR if scale >= 1 / 2 else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, size, interpolation=way), dtype=np.uint8)


def grey_levels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma `[height, width]` of RGB pixels (ITU-R BT.601 weights)."""
    import cv2

    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the 4-neighbour Laplacian of grey levels (Pech-Pacheco et al. 2000), ≥ 0."""
    import cv2

    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    return float(deviation[0, 0] ** 2)


def detail(grey: NDArray[np.uint8]) -> float:
    """Return the Shannon entropy of the grey-level histogram in bits: 0 for one flat grey, at most 8."""
    import cv2

    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    shares = counts[counts > 0] / grey.size
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def simple_background(pixels: NDArray[np.uint8]) -> float:
    """Return the share of the picture (0..1) that is one even background reaching in from the border.

    Even pixels differ little from their right and lower neighbours in L*a*b*, so a slow gradient is even and a
    drawn outline or texture is not. Of their connected areas, the one that touches most of the border is the
    background, together with every other border area of about its mean colour (a subject may cut it in two); a
    flat garment that runs out of the picture has another colour and does not count.
    """
    import cv2

    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    count, areas = cv2.connectedComponents(_even(lab), connectivity=4)
    border, colours = _border(areas), _border(lab) * _LAB_UNITS
    touches = np.bincount(border, minlength=count)
    touches[0] = 0  # area 0 is everything uneven
    if not touches.any():
        return 0.0
    main = (areas == touches.argmax()).astype(np.uint8)
    colour = _mean(lab, main)
    covered = int(np.count_nonzero(main))
    for area in np.flatnonzero(touches >= min(_BORDER_PIXELS, touches.max())):
        at_border = np.linalg.norm(colours[border == area].mean(axis=0) - colour)
        if area == touches.argmax() or at_border > 2 * _SAME_BACKGROUND:
            continue  # where the border is of quite another colour, the area's mean, which takes long, is not asked for
        mask = (areas == area).astype(np.uint8)
        if np.linalg.norm(_mean(lab, mask) - colour) <= _SAME_BACKGROUND:
            covered += int(np.count_nonzero(mask))
    return float(covered / areas.size)


def _border(array: NDArray[Any]) -> NDArray[Any]:
    """Return what lies along the four sides of an array `[height, width, …]`, corners twice."""
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def _mean(lab: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the mean CIE L*a*b* colour of 8-bit L*a*b* where a mask is."""
    import cv2

    return np.array(cv2.mean(lab, mask)[:3]) * _LAB_UNITS


def _even(lab: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 where each channel of 8-bit L*a*b* stays close to that of the right and the lower neighbour."""
    import cv2

    even = np.ones(lab.shape[:2], dtype=np.uint8)
    limits = tuple(_EVEN / unit for unit in _LAB_UNITS)
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        if lab[here].size:
            even[here] &= cv2.inRange(cv2.absdiff(lab[here], lab[there]), (0, 0, 0), limits) & 1
    return even


def lettering(grey: NDArray[np.uint8]) -> float:
    """Return the share of the picture (0..1) that lines of letters seem to cover.

    Edges close to each other in a row are joined (a morphological gradient and closing); a joined area is a line when
    it is low, long and full, and many strokes cross it. A hint, not a reading: level lines of a few letters, from
    about 10 px high; single letters, vertical and slanted writing are not found, fences and stripes sometimes are.
    """
    import cv2

    edges = (cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) >= _STROKE_EDGE).astype(np.uint8)
    joined = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((1, _STROKES_APART), np.uint8))
    outlines, nested = cv2.findContours(joined, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    lowest, highest = _LINE_HEIGHT[0], _LINE_HEIGHT[1] * max(grey.shape)
    covered = 0
    for outline, (*_, hole_in) in zip(outlines, nested[0] if outlines else (), strict=True):
        left, top, width, height = cv2.boundingRect(outline)
        if hole_in >= 0 or not lowest <= height <= highest or width < _LINE_LENGTH * height:
            continue
        if cv2.countNonZero(joined[top : top + height, left : left + width]) < _LINE_FILL * width * height:
            continue
        part = grey[top : top + height, left : left + width]
        dark = part < (int(part.min()) + int(part.max())) // 2
        changes = np.count_nonzero(dark[:, 1:] != dark[:, :-1], axis=1)
        if np.median(changes) >= _CHANGES_PER_HEIGHT * width / height:
            covered += int(width * height)
    return covered / grey.size


def focal_box(grey: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom, shares of the sides, of the box that holds what stands out.

    The picture's image signature (Hou, Harel & Koch 2012): what is left when each DCT coefficient counts by its sign
    alone, squared; even backgrounds and repeated patterns vanish. A tenth of that lies outside the box on each side.
    It holds the subject, not only its head, whose detectors take longer than decoding (`focal`).
    """
    import cv2

    small = cv2.resize(grey, (_SALIENT_AT, _SALIENT_AT), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Rounded, as the perceptual hash is: the sign of a coefficient that is noise about zero tells nothing.
    salient = cv2.idct(np.sign(np.round(cv2.dct(small) / _NOISE))) ** 2
    left, right = _middle(salient.sum(axis=0))
    top, bottom = _middle(salient.sum(axis=1))
    return left, top, right, bottom


def _middle(profile: NDArray[np.float32]) -> tuple[float, float]:
    """Return between which shares of an axis all but the ends' `_SALIENT_OUTSIDE` of a profile lies."""
    before = np.cumsum(profile, dtype=np.float64)
    first, last = np.searchsorted(before, (_SALIENT_OUTSIDE * before[-1], (1 - _SALIENT_OUTSIDE) * before[-1]))
    return float(first) / len(profile), float(last + 1) / len(profile)


def palette(pixels: NDArray[np.uint8]) -> list[str]:
    """Return up to five colours (`#rrggbb`) that stand for the picture's, those of most pixels first (median cut)."""
    from PIL import Image

    apart = max(1, max(pixels.shape) // _SAMPLES)
    small = Image.fromarray(np.ascontiguousarray(pixels[::apart, ::apart])).quantize(
        _COLOURS, method=Image.Quantize.MEDIANCUT
    )
    colours = small.getpalette() or []
    counts = sorted(small.getcolors() or [], key=lambda entry: (-entry[0], entry[1]))
    return ["#" + bytes(colours[3 * n : 3 * n + 3]).hex() for _, n in counts if isinstance(n, int)]


def perceptual_hashes(grey: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the 64-bit DCT hashes of the picture and of its mirror image.

    The grey picture at 32 × 32, its 8 × 8 lowest DCT-II coefficients (orthonormal), one bit each for being above
    their median, row by row, first bit highest (Zauner 2010). Mirroring a picture changes the sign of every second
    column of coefficients, so the second hash costs nothing.
    """
    import cv2

    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    # Rounded: half the coefficients of a symmetric drawing are noise about zero, whose bits would differ between
    # any two copies (measured on 99 drawings: up to 22 of 64 bits without rounding, up to 6 with it).
    low = np.round(cv2.dct(small)[:8, :8] / _NOISE) * _NOISE
    mirrored = low * np.where(np.arange(8) % 2, -1.0, 1.0)
    return _bits(low), _bits(mirrored)


def _bits(coefficients: NDArray[np.float64]) -> int:
    above = (coefficients > np.median(coefficients)).ravel()
    return int.from_bytes(np.packbits(above).tobytes(), "big")
