"""Finds heads by a detector from a local ONNX file (extra `ocr`, whose onnxruntime runs it).

Here: detectors of the YOLO family as Ultralytics exports them, RGB in, and one of two answers out, in the input's
pixels: `[1, 4 + classes, candidates]`, each candidate's middle, width and height above its classes' scores (YOLOv8 and
others with `nms=False`), or `[1, boxes, 6]`, each box's edges, score and class (end-to-end exports). The classes that
are heads are asked for by name; there are such models for anime and for animal faces. Not here: what is done with heads
(`focal`).
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import numpy as np

from ti_pipeline.files import fingerprint, sha256_of
from ti_pipeline.imaging.onnx_files import ModelFileError, load_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["HeadDetector"]

# As Ultralytics prepares pictures: scaled to fit the input, in its middle, on grey. Candidates that are surer count.
_SIDE = 640
_GREY = 114
_SURE = 0.25
_END_TO_END = 6  # left, top, right, bottom, score, class
_HEADS = ("head", "face")
_MOST_CLASSES = 1000  # an older YOLO's answer has a row for each candidate, thousands of them


class HeadDetector:
    """A loaded detector; `find` may be called from several threads at once."""

    def __init__(self, path: Path, classes: Sequence[str] = ()) -> None:
        """Load the ONNX file; `classes` are the names of those of its classes that are heads.

        Without them every class counts whose name says head or face, or the only one, or all where the file has no
        names. Raises `ModelFileError` if it cannot be used or has no such class.
        """
        self._session = load_model(path, what="head detector", setting="head_detector")
        told = self._session.get_modelmeta().custom_metadata_map
        given = self._session.get_inputs()[0]
        stated = _literal(told.get("imgsz"), list) or [_SIDE, _SIDE]
        sides = [
            side if isinstance(side, int) else int(known) for side, known in zip(given.shape[2:], stated, strict=False)
        ]
        self._path, self._input, (self._height, self._width) = path, given.name, sides
        self._names: dict[int, str] = {int(k): str(v) for k, v in _literal(told.get("names"), dict).items()}
        self._wanted = self._heads(classes)
        content = sha256_of(path)
        self.sha256 = fingerprint([content, sorted(classes)]) if classes else content

    def _heads(self, classes: Sequence[str]) -> list[int] | None:
        """Return the numbers of the classes that are heads; None for all."""
        if not self._names and not classes:
            return None
        wanted = {name.casefold() for name in classes}
        found = [
            number
            for number, name in self._names.items()
            if (name.casefold() in wanted if classes else any(word in name.casefold() for word in _HEADS))
        ]
        if not classes and len(self._names) == 1:
            return None
        if not found or len(found) < len(wanted):
            known = ", ".join(self._names.values()) or "no names at all"
            raise ModelFileError(
                f"the head detector {self._path} knows {known}: say in `head_classes` which of them are heads"
            )
        return found

    def find(self, picture: Image.Image) -> NDArray[np.float64]:
        """Return a row for each head of an RGB picture: left, top, right, bottom as shares of width and height."""
        scale = min(self._width / picture.width, self._height / picture.height)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        left, top = (self._width - width) // 2, (self._height - height) // 2
        canvas = np.full((self._height, self._width, 3), _GREY, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = np.asarray(picture.resize((width, height)))
        given = (canvas.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        found = np.asarray(self._session.run(None, {self._input: np.ascontiguousarray(given)})[0])
        edges = self._edges(found).astype(np.float64)
        edges = (edges - [left, top, left, top]) / [width, height, width, height]
        return np.asarray(edges.clip(0, 1))

    def _edges(self, found: NDArray[Any]) -> NDArray[Any]:
        """Return the edges of the heads in an answer, in pixels of the input: a row each."""
        classes = len(self._names) or None
        rows = found.shape[1] - 4 if found.ndim == 3 and found.shape[1] < _MOST_CLASSES else 0
        if found.ndim == 3 and found.shape[0] == 1 and found.shape[2] == _END_TO_END and found.shape[1] > _END_TO_END:
            boxes = found[0]
            sure = boxes[:, 4] >= _SURE
            if self._wanted is not None:
                sure &= np.isin(np.rint(boxes[:, 5]), self._wanted)
            return np.asarray(boxes[sure, :4])
        if rows > 0 and found.shape[0] == 1 and rows == (classes or rows):
            scores = found[0, 4:] if self._wanted is None else found[0, 4:][self._wanted]
            x, y, across, down = found[0, :4, scores.max(axis=0) >= _SURE].T
            return np.stack([x - across / 2, y - down / 2, x + across / 2, y + down / 2], axis=1)
        raise ModelFileError(
            f"the head detector {self._path} answers with shape {found.shape}; what can be read is (1, 4 + classes, "
            f"candidates) and (1, boxes, 6){f', of {classes} classes' if classes else ''}: export it from Ultralytics"
        )


def _literal(text: str | None, kind: type) -> Any:
    """Return what a file's metadata says in Python's notation, an empty `kind` where it says nothing of that kind."""
    try:
        value = ast.literal_eval(text or "")
    except (ValueError, SyntaxError):
        return kind()
    return value if isinstance(value, kind) else kind()
