"""Cuts one picture: which boxes of it become crops, resized, mirrored if asked, with the alpha of transparent ones.

Not here: what is interesting in the picture (`focal`), the shapes (`boxes`), or files of crops (`crop`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ti_pipeline.imaging.boxes import bucket_for, largest_box, parts_along
from ti_pipeline.imaging.decode import Picture, PictureError, jpeg_shrink, open_picture
from ti_pipeline.imaging.focal import Placement, box_at, interest_map, place_box
from ti_pipeline.imaging.measures import reduced

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ti_pipeline.imaging.head_detector import HeadDetector
    from ti_pipeline.studies import CropSet, FocalWeights

__all__ = ["Cut", "Source", "cut_picture"]


@dataclass(frozen=True)
class Cut:
    """One crop: RGB pixels of its final size, alpha of the same size or None, and where in the picture it was cut."""

    part: int
    flipped: bool
    pixels: Image.Image
    alpha: Image.Image | None
    placed: Placement
    detectors: list[str]


# A JPEG is decoded smaller down to so many times the size of its crops: what Lanczos makes of that is what it makes of
# all pixels, to a level or two (`test_a_large_jpeg_is_decoded_smaller…`).
_ENOUGH = 2


class Source:
    """A picture file that several crop sets are cut from: decoded and looked at once for all that ask the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoded: dict[tuple[str, int], Picture] = {}
        self._interest: dict[object, tuple[NDArray[np.int64], list[str]]] = {}

    def picture(self, under: str, size: int) -> Picture:
        """Return the picture, decoded over a colour for crops of a size; raises `PictureError` if it cannot be used.

        It is the same for a size whatever other sizes are asked for, or crops would depend on what is made with them.
        """
        asked = (under, jpeg_shrink(self.path, _ENOUGH * size))
        if asked not in self._decoded:
            self._decoded[asked] = open_picture(self.path, under=under, shrink=asked[1])
        return self._decoded[asked]

    def interest(
        self, under: str, size: int, weights: FocalWeights, detector: HeadDetector | None
    ) -> tuple[NDArray[np.int64], list[str]]:
        """Return the picture's interest map and the detectors that fired; see `focal.interest_map`."""
        rgb = self.picture(under, size).rgb
        asked = (under, rgb.size, weights.model_dump_json(), detector and detector.sha256)
        if asked not in self._interest:
            heads = detector.find(rgb) if detector is not None and weights.face else None
            self._interest[asked] = interest_map(reduced(rgb), weights, heads)
        return self._interest[asked]


def cut_picture(
    source: Source,
    crop_set: CropSet,
    *,
    focus: tuple[float, float] | None = None,
    head_detector: HeadDetector | None = None,
) -> list[Cut]:
    """Return the crops of one picture: the parts of a long one in order, each followed by its mirror image if asked.

    `focus` (shares of width and height) is a focal point that a person gave: one crop around it; without it the
    detectors decide, `head_detector` before what looks for faces without a model. Raises `PictureError` for a file
    that cannot be used or is too small.
    """
    picture = source.picture(crop_set.background, crop_set.size)
    size, square = picture.size, (crop_set.size, crop_set.size)
    shape = square if crop_set.aspect == "square" else bucket_for(*size, crop_set.size)
    box = largest_box(*size, shape)
    if shape[0] > crop_set.max_upscale * box[0]:
        raise PictureError(source.path, f"too small: needs more than {crop_set.max_upscale:g} times enlargement")
    placements, detectors = _placements(source, crop_set, box, focus, head_detector)
    cuts = []
    for part, placed in enumerate(placements):
        edges = (placed.left, placed.top, placed.left + placed.width, placed.top + placed.height)
        pixels = _resized(_part(picture, edges), shape, crop_set.resize)
        alpha = None if picture.alpha is None else picture.alpha.crop(edges).resize(shape, Image.Resampling.BOX)
        cuts.append(Cut(part, False, pixels, alpha, placed, detectors))
        if crop_set.flip:
            mirrored = None if alpha is None else _mirrored(alpha)
            cuts.append(Cut(part, True, _mirrored(pixels), mirrored, placed, detectors))
    return cuts


def _placements(
    source: Source,
    crop_set: CropSet,
    box: tuple[int, int],
    focus: tuple[float, float] | None,
    head_detector: HeadDetector | None,
) -> tuple[list[Placement], list[str]]:
    """Return where the crops lie, and the detectors that fired, or `manual` or `split`."""
    size = source.picture(crop_set.background, crop_set.size).size
    if focus is not None:
        return [box_at(*focus, size, box)], ["manual"]
    if crop_set.split_above is not None and max(size) > crop_set.split_above * min(size):
        return _parts(size, box, crop_set.split_overlap), ["split"]
    weights = crop_set.focal.model_copy(update={"face": None}) if crop_set.keep == "subject" else crop_set.focal
    interest, detectors = source.interest(crop_set.background, crop_set.size, weights, head_detector)
    return [place_box(interest, size, box, headroom=crop_set.headroom, keep=crop_set.keep)], detectors


def _parts(size: tuple[int, int], box: tuple[int, int], overlap: float) -> list[Placement]:
    """Return boxes along the longer axis, from end to end; each one's focal point is its own middle."""
    along = 0 if size[0] > size[1] else 1
    found = []
    for start in parts_along(size[along], box[along], overlap):
        left, top = (start, 0) if along == 0 else (0, start)
        middle = ((left + box[0] / 2) / size[0], (top + box[1] / 2) / size[1])
        found.append(Placement(left, top, *box, *middle))
    return found


def _part(picture: Picture, edges: tuple[int, int, int, int]) -> Image.Image:
    """Return what lies inside edges given in the whole picture's pixels, to the nearest decoded pixel."""
    across, down = (decoded / whole for decoded, whole in zip(picture.rgb.size, picture.size, strict=True))
    left, top, right, bottom = edges
    return picture.rgb.crop((round(left * across), round(top * down), round(right * across), round(bottom * down)))


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _resized(part: Image.Image, shape: tuple[int, int], values: str) -> Image.Image:
    """Resize by Lanczos, on the gamma-encoded values as web UIs do or on linear light as lenses do."""
    if values == "gamma":
        return part.resize(shape, Image.Resampling.LANCZOS)
    linear = _LINEAR[np.asarray(part)]
    channels = [Image.fromarray(linear[..., channel]).resize(shape, Image.Resampling.LANCZOS) for channel in range(3)]
    return Image.fromarray(_encoded(np.stack([np.asarray(channel) for channel in channels], axis=-1)))


def _decoded(levels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return linear light, 0..1, of sRGB values, 0..1 (IEC 61966-2-1)."""
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encoded(linear: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return 8-bit sRGB values of linear light; what Lanczos made darker than black or brighter than white is cut."""
    light = linear.clip(0, 1).astype(np.float64)
    levels = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(levels * 255), dtype=np.uint8)


_LINEAR = _decoded(np.arange(256) / 255)
