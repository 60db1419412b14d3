"""Draws: everything random in training, and the prompts that come of it.

Every draw has a generator of its own, seeded by the variant's seed, by what is drawn and by how many updates are
done. So there is no generator state to save, a variant draws the same alone and among others, and variants with one
seed see the same pictures, timesteps and noise.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["generator", "normal", "pictures_of", "prompt_of", "spread_timesteps", "steps_per_epoch"]

_GOLDEN = (5**0.5 - 1) / 2

What = Literal["order", "timestep", "noise", "latent", "prompt", "validation", "offset", "start"]
_NUMBERS: dict[What, int] = {
    "order": 0,
    "timestep": 1,
    "noise": 2,
    "latent": 3,
    "prompt": 4,
    "validation": 5,
    "offset": 6,
    "start": 7,
}


def generator(seed: int, what: What, *counters: int) -> np.random.Generator:
    """Return the generator of one draw; `counters` (update, micro-step, …) make it independent of all others."""
    import numpy as np

    return np.random.default_rng((seed, _NUMBERS[what], *counters))


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Return standard normal noise, float32, on the CPU: the same on every device."""
    import numpy as np
    import torch

    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def spread_timesteps(seed: int, first: int, count: int, levels: int) -> NDArray[np.int64]:
    """Return the timesteps of samples `first` to `first + count` of a training, each below `levels`, spread evenly.

    Multiples of the golden ratio modulo 1, from a start that the seed draws: any run of samples, in a batch or over
    updates, is spread over all timesteps more evenly than independent draws are (Weyl's sequence; Kuipers and
    Niederreiter 1974, chapter 2), and each sample alone is as likely to get any one.
    """
    import numpy as np

    start = generator(seed, "timestep").random()
    places = (start + np.arange(first, first + count, dtype=np.float64) * _GOLDEN) % 1.0
    return (places * levels).astype(np.int64)


def steps_per_epoch(shapes: Sequence[int], batch_size: int, accumulation: int) -> int:
    """Return the updates of one pass over pictures of these shapes, at least one.

    With one shape it is pictures // batch // accumulation as in A1111. A batch has pictures of one shape, and each
    shape at least one batch. The pictures that do not fill one are left out of that pass; each pass has its own order.
    """
    return max(1, sum(_batches_of(shapes, batch_size).values()) // accumulation)


def _batches_of(shapes: Sequence[int], batch_size: int) -> dict[int, int]:
    return {shape: max(1, count // batch_size) for shape, count in Counter(shapes).items()}


def pictures_of(
    seed: int, done: int, micro: int, *, shapes: Sequence[int], batch_size: int, accumulation: int, stage: int = 0
) -> list[int]:
    """Return which pictures (0-based) the micro-step shows after `done` updates, all of one shape.

    `shapes` tells each picture's shape by a number. Fewer pictures of a shape than a batch holds repeat. `done` counts
    within the `stage` (0 where there is but one), whose order is its own.
    """
    epoch, inside = divmod(done, steps_per_epoch(shapes, batch_size, accumulation))
    counters = (epoch, *([stage] if stage else []))
    order, turns = _pass(seed, counters, tuple(shapes), batch_size)
    again, turn = divmod(inside * accumulation + micro, len(turns))
    shape = turns[turn]
    start = (turns[:turn].count(shape) + again * turns.count(shape)) * batch_size
    return [order[shape][(start + i) % len(order[shape])] for i in range(batch_size)]


@functools.lru_cache(maxsize=64)
def _pass(
    seed: int, counters: tuple[int, ...], shapes: tuple[int, ...], batch_size: int
) -> tuple[dict[int, list[int]], list[int]]:
    """Return one pass: the order of each shape's pictures, and whose turn it is at each micro-step."""
    rng = generator(seed, "order", *counters)
    order: dict[int, list[int]] = {}
    for picture in rng.permutation(len(shapes)).tolist():
        order.setdefault(shapes[picture], []).append(picture)
    turns = [shape for shape, count in _batches_of(shapes, batch_size).items() for _ in range(count)]
    return order, [turns[i] for i in rng.permutation(len(turns))]


def prompt_of(
    templates: list[str],
    name: str,
    caption: str,
    rng: np.random.Generator,
    *,
    shuffle: bool,
    drop: float,
    keep: int = 0,
) -> str:
    """Return a training prompt: a template drawn by `rng`, [name] and [filewords] filled in.

    The caption's tags are those between its commas; `drop` is each tag's chance to be left out, and the first `keep`
    tags stay where they are. Commas that an empty caption leaves at an end are removed.
    """
    template = templates[int(rng.integers(len(templates)))]
    tags = [tag for tag in caption.split(", ") if tag]
    kept, tags = tags[:keep], tags[keep:]
    if drop:
        tags = [tag for tag, chance in zip(tags, rng.random(len(tags)), strict=True) if chance >= drop]
    if shuffle:
        tags = [tags[int(i)] for i in rng.permutation(len(tags))]
    return template.replace("[filewords]", ", ".join(kept + tags)).replace("[name]", name).strip(" ,")
