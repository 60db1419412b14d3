"""Reads lines of text by a recogniser from a local ONNX file (extra `ocr`).

Here: recognisers trained by connectionist temporal classification, as PaddleOCR and RapidOCR ship them
(`*_rec_*.onnx`): a line of BGR pixels in, `[1, steps, 1 + characters]` out, the file's own metadata naming the
characters. Not here: finding lines (`text_detector`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ti_pipeline.imaging.onnx_files import ModelFileError, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TextRecognizer"]

# As PaddleOCR prepares lines: this high, at least this wide (padded with grey), in -1..1.
_HEIGHT = 48
_NARROWEST = 320
# What counts as read: mean probability and number of letters, digits or ideographs. Of outlines that a detector takes
# for text, recognisers make brackets, letters that they are not sure of, and, of glasses, rings and strokes ("OHO").
_SURE = 0.6
_FEWEST = 3
_RINGS_AND_STROKES = frozenset("oO0QlI1iH")


class TextRecognizer:
    """A loaded recogniser; `read` may be called from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Load the ONNX file. Raises `ModelFileError` if it cannot be used."""
        self._session = load_model(path, what="text recogniser", setting="audit.text_recognizer")
        self._path, self._input = path, self._session.get_inputs()[0].name
        characters = self._session.get_modelmeta().custom_metadata_map.get("character")
        if not characters:
            raise ModelFileError(
                f"the text recogniser {path} does not name its characters (metadata `character`): use one of RapidOCR's"
            )
        # In front the class of no character, behind all the space, which the list leaves out.
        self._characters = ["", *characters.splitlines(), " "]

    def read(self, line: NDArray[np.uint8]) -> tuple[str, float]:
        """Return the text of a line of BGR pixels `[height, width, 3]`, and the mean probability of its characters.

        Characters are the most probable ones of each step, repeats and steps of no character left out (Graves et al.
        2006, best path).
        """
        import cv2

        width = max(1, round(line.shape[1] * _HEIGHT / line.shape[0]))
        given = np.zeros((1, 3, _HEIGHT, max(_NARROWEST, width)), dtype=np.float32)
        resized = cv2.resize(line, (width, _HEIGHT), interpolation=cv2.INTER_LINEAR)
        given[0, :, :, :width] = resized.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
        found = np.asarray(self._session.run(None, {self._input: given})[0])
        if found.ndim != 3 or found.shape[0] != 1 or found.shape[2] != len(self._characters):
            wanted = f"(1, steps, {len(self._characters)})"
            raise ModelFileError(f"the text recogniser {self._path} answers with shape {found.shape}, not {wanted}")
        best, probability = found[0].argmax(axis=1), found[0].max(axis=1)
        kept = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))
        if not kept.any():
            return "", 0.0
        return "".join(self._characters[index] for index in best[kept]), float(probability[kept].mean())

    def is_text(self, line: NDArray[np.uint8]) -> bool:
        """Tell whether a line of BGR pixels can be read."""
        text, probability = self.read(line)
        letters = [character for character in text if character.isalnum()]
        return probability >= _SURE and len(letters) >= _FEWEST and not _RINGS_AND_STROKES.issuperset(letters)
