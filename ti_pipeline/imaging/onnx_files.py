"""Models from local ONNX files that a study names: loading them, and what is said when that fails.

Not here: what goes in and comes out (`text_detector`, `head_detector`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ModelFileError", "load_model"]


class ModelFileError(ValueError):
    """A model file cannot be used; the message names it and what to do."""


def load_model(path: Path, *, what: str, setting: str) -> Any:
    """Return an onnxruntime session on the processor. `what` and `setting` are how messages call it.

    Raises `ModelFileError` if the file or onnxruntime is missing, or it is no ONNX model.
    """
    if not path.is_file():
        raise ModelFileError(f"the {what} {path} is not there: set `{setting}` to its file")
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelFileError(
            f"the {what} {path} needs onnxruntime: install it with `pip install 'ti_pipeline[ocr]'`"
        ) from error
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base but this one
        raise ModelFileError(f"the {what} {path} cannot be loaded: {error}") from error
