"""Finds heads by a detector from a local ONNX file (extra `ocr`, whose onnxruntime runs it).

Here: detectors of the YOLOv8 family as Ultralytics exports them: a square of RGB in, `[1, 4 + classes, candidates]`
out, each candidate's middle, width and height in the square's pixels above its classes' scores. Every class counts as
a head: there are such models for anime and for animal faces. Not here: what is done with heads (`focal`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ti_pipeline.files import sha256_of
from ti_pipeline.imaging.onnx_files import ModelFileError, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["HeadDetector"]

# As Ultralytics prepares pictures: scaled to fit the square, in its middle, on grey. Candidates that are surer count.
_SIDE = 640
_GREY = 114
_SURE = 0.25


class HeadDetector:
    """A loaded detector; `find` may be called from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Load the ONNX file. Raises `ModelFileError` if it cannot be used."""
        self._session = load_model(path, what="head detector", setting="head_detector")
        given = self._session.get_inputs()[0]
        side = given.shape[-1]
        self._path, self._input, self._side = path, given.name, side if isinstance(side, int) else _SIDE
        self.sha256 = sha256_of(path)

    def find(self, picture: Image.Image) -> NDArray[np.float64]:
        """Return a row for each head of an RGB picture: left, top, right, bottom as shares of width and height."""
        scale = self._side / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        left, top = (self._side - width) // 2, (self._side - height) // 2
        square = np.full((self._side, self._side, 3), _GREY, dtype=np.uint8)
        square[top : top + height, left : left + width] = np.asarray(picture.resize((width, height)))
        given = (square.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        found = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(given)})[0])
        if found.ndim != 3 or found.shape[0] != 1 or found.shape[1] < 5:
            raise ModelFileError(
                f"the head detector {self._path} answers with shape {found.shape}, not (1, 4 + classes, candidates)"
            )
        x, y, across, down = found[0, :4, found[0, 4:].max(axis=0) >= _SURE].T.astype(np.float64)
        edges = [(x - across / 2 - left) / width, (y - down / 2 - top) / height]
        edges += [(x + across / 2 - left) / width, (y + down / 2 - top) / height]
        return np.stack(edges, axis=1).clip(0, 1)
