"""Finds lettering by a text detector from a local ONNX file (extra `ocr`).

Here: detectors of the DBNet family as PaddleOCR and RapidOCR ship them (`*_det_*.onnx`): pixels in, one map of
probabilities out. Alone they find text in nearly every drawing, so what they find is read. Not here: reading
(`text_recognizer`), or the heuristic that serves without models (`measures.lettering`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ti_pipeline.imaging.measures import shrunk
from ti_pipeline.imaging.onnx_files import ModelFileError, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ti_pipeline.imaging.text_recognizer import TextRecognizer

__all__ = ["TextDetector"]

# As PaddleOCR prepares pictures and reads its detector's maps. The maps show lines shrunk towards their middle;
# a box grows back by this much of its area over its outline (Liao et al. 2020, "unclip").
_LONGEST = 960
# Lines are read from at most this size: four times what they were found at is as high as a recogniser looks, and OpenCV
# sets nothing upright that comes from a picture of more than 32,766 pixels a side.
_READ_FROM = 4 * _LONGEST
_SIDES_OF = 32
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_TEXT = 0.3
_SURE = 0.6
_UNCLIP = 1.5
_SMALLEST = 3
# A line that is this much higher than wide is written downwards, and turned to be read.
_UPRIGHT = 1.5


class TextDetector:
    """A loaded detector; `share` may be called from several threads at once."""

    def __init__(self, path: Path, recognizer: TextRecognizer) -> None:
        """Load the ONNX file; what `recognizer` cannot read is no text. Raises `ModelFileError` if it is of no use."""
        self._session = load_model(path, what="text detector", setting="audit.text_detector")
        self._path, self._input = path, self._session.get_inputs()[0].name
        self._recognizer = recognizer

    def share(self, pixels: NDArray[np.uint8]) -> float:
        """Return the share (0..1) of RGB pixels `[height, width, 3]` that lies in boxes around lines of text."""
        import cv2

        bgr = cv2.cvtColor(shrunk(pixels, _READ_FROM), cv2.COLOR_RGB2BGR)
        probable = self._probabilities(bgr)
        scale = np.array([bgr.shape[1] / probable.shape[1], bgr.shape[0] / probable.shape[0]], dtype=np.float32)
        covered = np.zeros(probable.shape, dtype=np.uint8)
        for corners in _lines(probable):
            if self._recognizer.is_text(_cut(bgr, corners * scale)):
                cv2.fillConvexPoly(covered, np.rint(corners).astype(np.int32), (1,))
        return float(covered.mean())

    def _probabilities(self, bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2

        height, width = shrunk(bgr, _LONGEST).shape[:2]
        sides = tuple(max(_SIDES_OF, round(side / _SIDES_OF) * _SIDES_OF) for side in (width, height))
        resized = cv2.resize(bgr, sides, interpolation=cv2.INTER_AREA)
        given = ((resized.astype(np.float32) / 255 - _MEAN) / _SPREAD).transpose(2, 0, 1)[None]
        found = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(given)})[0])
        if found.shape != (1, 1, *given.shape[2:]):
            wanted = (1, 1, *given.shape[2:])
            raise ModelFileError(f"the text detector {self._path} answers with shape {found.shape}, not {wanted}")
        return np.asarray(found[0, 0], dtype=np.float32)


def _lines(probable: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the corners `[4, 2]` (x, y; pixels of the map) of the box around each line, as the line is turned."""
    import cv2

    found = []
    contours, _ = cv2.findContours((probable >= _TEXT).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours:
        # Between the middles of pixels, so that a row of n pixels is n - 1 long.
        middle, (across, down), turned = cv2.minAreaRect(contour)
        if min(across, down) + 1 < _SMALLEST or _mean_inside(probable, contour) < _SURE:
            continue
        grown = _UNCLIP * (across + 1) * (down + 1) / (2 * (across + down + 2))
        found.append(_clockwise(cv2.boxPoints((middle, (across + 2 * grown, down + 2 * grown), turned))))
    return found


def _mean_inside(probable: NDArray[np.float32], contour: Any) -> float:
    """Return the mean of a map inside a contour (of OpenCV)."""
    import cv2

    left, top, across, down = cv2.boundingRect(contour)
    inside = np.zeros((down, across), dtype=np.uint8)
    cv2.fillPoly(inside, [contour - (left, top)], (1,))
    return float(probable[top : top + down, left : left + across][inside > 0].mean())


def _clockwise(points: Any) -> NDArray[np.float32]:
    """Return four corners clockwise: the upper of the two on the left, those on the right, the lower on the left."""
    by_x = np.asarray(points, dtype=np.float32)[np.argsort(points[:, 0], kind="stable")]
    left, right = (pair[np.argsort(pair[:, 1], kind="stable")] for pair in (by_x[:2], by_x[2:]))
    return np.stack([left[0], right[0], right[1], left[1]])


def _cut(pixels: NDArray[np.uint8], corners: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return what lies between four corners, set upright; a line that is written downwards is laid on its side."""
    import cv2

    across, down = (max(1, round(float(np.linalg.norm(corners[to] - corners[0])))) for to in (1, 3))
    straight = np.array([(0, 0), (across, 0), (across, down), (0, down)], dtype=np.float32)
    turn = cv2.getPerspectiveTransform(corners, straight)
    line = cv2.warpPerspective(pixels, turn, (across, down), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.rot90(line) if down >= _UPRIGHT * across else line)
