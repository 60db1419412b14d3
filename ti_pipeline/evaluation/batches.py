"""Batches that get smaller when the device's memory runs out.

Not here: what is computed (`sampler`, `scorers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["computed_batches"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def computed_batches(
    items: Sequence[Item], size: int, compute: Callable[[Sequence[Item]], Result]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Yield batches of at most `size` items with what `compute` makes of them, in order.

    When memory runs out, the batch is halved, and what was too much is not tried again. Raises
    `torch.OutOfMemoryError` when one item is too much.
    """
    import torch

    rest, room = list(items), size
    while rest:
        batch, found = rest[:room], None
        try:
            found = compute(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            room = len(batch) // 2
        if found is None:  # only here: while the error is handled, its frames hold the memory
            torch.cuda.empty_cache()
            continue
        yield batch, found
        rest = rest[len(batch) :]
