"""Finds lettering by a text detector from a local ONNX file (extra `ocr`).

Here: detectors of the DBNet family as PaddleOCR and RapidOCR ship them (`*_det_*.onnx`): pixels in, one map of
probabilities out. Not here: the heuristic that serves without a model (`measures.lettering`), or reading the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ti_pipeline.imaging.measures import shrunk
from ti_pipeline.imaging.onnx_files import ModelFileError, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TextDetector"]

# As PaddleOCR prepares pictures and reads its detector's maps. The maps show lines shrunk towards their middle;
# a box grows back by this much of its area over its outline (Liao et al. 2020, "unclip").
_LONGEST = 960
_SIDES_OF = 32
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_TEXT = 0.3
_UNCLIP = 1.5
_SMALLEST = 3


class TextDetector:
    """A loaded detector; `share` may be called from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Load the ONNX file. Raises `ModelFileError` if it cannot be used."""
        self._session = load_model(path, what="text detector", setting="audit.text_detector")
        self._path, self._input = path, self._session.get_inputs()[0].name

    def share(self, pixels: NDArray[np.uint8]) -> float:
        """Return the share (0..1) of RGB pixels `[height, width, 3]` that lies in upright boxes around text."""
        probable = self._probabilities(pixels)
        covered = np.zeros(probable.shape, dtype=bool)
        for left, top, across, down in _boxes(probable >= _TEXT):
            grown = round(_UNCLIP * across * down / (2 * (across + down)))
            columns = slice(max(0, left - grown), left + across + grown)
            covered[max(0, top - grown) : top + down + grown, columns] = True
        return float(covered.mean())

    def _probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2

        height, width = shrunk(pixels, _LONGEST).shape[:2]
        sides = tuple(max(_SIDES_OF, round(side / _SIDES_OF) * _SIDES_OF) for side in (width, height))
        bgr = cv2.cvtColor(cv2.resize(pixels, sides, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        given = ((bgr.astype(np.float32) / 255 - _MEAN) / _SPREAD).transpose(2, 0, 1)[None]
        found = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(given)})[0])
        if found.shape != (1, 1, *given.shape[2:]):
            wanted = (1, 1, *given.shape[2:])
            raise ModelFileError(f"the text detector {self._path} answers with shape {found.shape}, not {wanted}")
        return np.asarray(found[0, 0], dtype=np.float32)


def _boxes(text: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return left, top, width and height of each connected area that is no mere speck."""
    import cv2

    _, _, boxes, _ = cv2.connectedComponentsWithStats(text.astype(np.uint8), connectivity=8)
    found = np.asarray(boxes[1:, :4], dtype=np.int32)
    return found[(found[:, 2:] >= _SMALLEST).all(axis=1)]
