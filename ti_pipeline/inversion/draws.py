"""Draws: everything random in training, and the prompts that come of it.

Every draw has a generator of its own, seeded by the variant's seed, by what is drawn and by how many updates are
done. So there is no generator state to save, a variant draws the same alone and among others, and variants with one
seed see the same pictures, timesteps and noise.
"""

from __future__ import annotations

import functools
import math
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

    It is pictures // batch // accumulation as in A1111. The pictures that do not fill a batch are left out of that
    pass; each pass has its own order.
    """
    return max(1, _turns_of_a_pass(shapes, batch_size) // accumulation)


def _turns_of_a_pass(shapes: Sequence[int], batch_size: int) -> int:
    return max(1, len(shapes) // batch_size)


def pictures_of(
    seed: int, done: int, micro: int, *, shapes: Sequence[int], batch_size: int, accumulation: int, stage: int = 0
) -> list[int]:
    """Return which pictures (0-based) the micro-step shows after `done` updates, all of one shape.

    `shapes` tells each picture's shape by a number. Over the passes shapes have turns in proportion to their pictures,
    whatever the batch; fewer pictures of a shape than a batch holds repeat in it. `done` counts within the `stage` (0
    where there is but one), whose order is its own.
    """
    epoch, inside = divmod(done, steps_per_epoch(shapes, batch_size, accumulation))
    order, turns = _pass(seed, epoch, stage, tuple(shapes), batch_size)
    again, turn = divmod(inside * accumulation + micro, len(turns))
    shape = turns[turn]
    start = (turns[:turn].count(shape) + again * turns.count(shape)) * batch_size
    return [order[shape][(start + i) % len(order[shape])] for i in range(batch_size)]


@functools.lru_cache(maxsize=64)
def _pass(
    seed: int, epoch: int, stage: int, shapes: tuple[int, ...], batch_size: int
) -> tuple[dict[int, list[int]], list[int]]:
    """Return one pass: the order of each shape's pictures, and whose turn it is at each micro-step."""
    rng = generator(seed, "order", epoch, *([stage] if stage else []))
    order: dict[int, list[int]] = {}
    for picture in rng.permutation(len(shapes)).tolist():
        order.setdefault(shapes[picture], []).append(picture)
    turns = _whose_turns(epoch, shapes, batch_size)
    return order, [turns[i] for i in rng.permutation(len(turns))]


def _whose_turns(epoch: int, shapes: tuple[int, ...], batch_size: int) -> list[int]:
    """Return a pass's turns by systematic sampling: evenly spaced over the pictures in the order of their shapes.

    Each shape has its share of the turns, rounded down or up; where they begin moves from pass to pass by the golden
    ratio, which spreads the roundings as evenly as can be.
    """
    count, ordered = _turns_of_a_pass(shapes, batch_size), sorted(shapes)
    offset = (0.5 + epoch * (math.sqrt(5) - 1) / 2) % 1
    return [ordered[int((turn + offset) * len(ordered) / count)] for turn in range(count)]


def prompt_of(
    templates: list[str],
    name: str,
    caption: str,
    rng: np.random.Generator,
    *,
    shuffle: bool,
    drop: float,
    keep: int = 0,
    dropout: float = 0.0,
) -> str:
    """Return a training prompt: a template drawn by `rng`, [name] and [filewords] filled in.

    The caption's tags are those between its commas; `drop` is each tag's chance to be left out, and the first `keep`
    tags stay where they are; `dropout` is the chance that there is no caption at all. Commas that an empty caption
    leaves at an end are removed.
    """
    template = templates[int(rng.integers(len(templates)))]
    if dropout and rng.random() < dropout:
        caption = ""
    tags = [tag for tag in caption.split(", ") if tag]
    kept, tags = tags[:keep], tags[keep:]
    if drop:
        tags = [tag for tag, chance in zip(tags, rng.random(len(tags)), strict=True) if chance >= drop]
    if shuffle:
        tags = [tags[int(i)] for i in rng.permutation(len(tags))]
    return template.replace("[filewords]", ", ".join(kept + tags)).replace("[name]", name).strip(" ,")
