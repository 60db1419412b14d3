"""Copies: pictures that are training pictures again, however dark, noisy, mirrored or moved a little.

A copy has the same edges at the same places. So pictures are compared by what is left of them at 24 x 24 when slow
changes of colour are taken away, mirrored or not, at every offset up to a twelfth of the side: the normalised
cross-correlation of Lewis (1995), a number that means the same whatever a study trains on. Features of a CLIP model
say what is shown, and two drawings of one character in one pose are as near there as a copy is; a limit taken from the
training pictures among themselves moves with their number and with twins among them (docs/decisions/0017).
Not here: likeness and diversity (`similarity`), or what follows for checkpoints (`trials`).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["SAME", "alike", "copies", "edges"]

SAME = 0.8  # measured by benchmarks/copies.py: between honest pictures and copies
_SIDE = 24
_SLOW = 2.0  # deviation, in positions of 24, of the blur that is taken away
_OFFSET = 2
_ROWS = 512  # pictures compared at a time, to bound memory


def edges(picture: Image.Image) -> NDArray[np.float32]:
    """Return what is left of a picture's middle square at 24 x 24 without slow changes: float32 [3, 24, 24]."""
    import numpy as np
    from PIL import Image

    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.convert("RGB").crop((left, top, left + side, top + side))
    small = np.asarray(square.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).transpose(2, 0, 1)
    return small - _blurred(_blurred(small).transpose(0, 2, 1)).transpose(0, 2, 1)


def _blurred(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur along the last axis, the border repeated beyond it."""
    import numpy as np

    reach = int(3 * _SLOW)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * _SLOW**2)).astype(np.float32)
    padded = np.pad(channels, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=2)
    return np.asarray(windows @ (weights / weights.sum()), dtype=np.float32)


def copies(
    seen: Sequence[NDArray[np.float32]], trained: Sequence[NDArray[np.float32]]
) -> tuple[list[float], list[int | None]]:
    """Return how much each picture is like the nearest one trained on (1 = the same), and which it copies, if any.

    Both are `edges`; `trained` holds at least one. One picture trained on is enough to find copies of it.
    """
    import numpy as np

    theirs = np.stack(trained)
    nearest: list[float] = []
    places: list[int] = []
    for start in range(0, len(seen), _ROWS):
        scores = alike(np.stack(seen[start : start + _ROWS]), theirs)
        nearest += scores.max(axis=1).tolist()
        places += scores.argmax(axis=1).tolist()
    return nearest, [place if score >= SAME else None for score, place in zip(nearest, places, strict=True)]


def alike(seen: NDArray[np.float32], trained: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest correlation over mirror images and offsets of `edges`, [len(seen), len(trained)]."""
    import numpy as np

    inner = _SIDE - 2 * _OFFSET
    middle = _unit(seen[:, :, _OFFSET:-_OFFSET, _OFFSET:-_OFFSET])
    best = np.full((len(seen), len(trained)), -1, dtype=np.float32)
    offsets = list(itertools.product(range(2 * _OFFSET + 1), repeat=2))
    for way, (top, left) in itertools.product((trained, trained[:, :, :, ::-1]), offsets):
        moved = _unit(way[:, :, top : top + inner, left : left + inner])
        np.maximum(best, middle @ moved.T, out=best)
    return best


def _unit(parts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of mean 0 and length 1; what is of one colour has no edges, and is like nothing."""
    import numpy as np

    flat = parts.reshape(len(parts), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(lengths, 1.0), dtype=np.float32)
