"""Draws: everything random in training, and the prompts that come of it.

Every draw has a generator of its own, seeded by the variant's seed, by what is drawn and by how many updates are
done. So there is no generator state to save, a variant draws the same alone and among others, and variants with one
seed see the same pictures, timesteps and noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["generator", "normal", "pictures_of", "prompt_of", "steps_per_epoch"]

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


def steps_per_epoch(pictures: int, batch_size: int, accumulation: int) -> int:
    """Return the updates of one pass: pictures // batch // accumulation as in A1111, but at least one.

    The pictures that do not fill an update are left out of that pass; each pass has its own order.
    """
    return max(1, pictures // batch_size // accumulation)


def pictures_of(
    seed: int, done: int, micro: int, *, pictures: int, batch_size: int, accumulation: int, stage: int = 0
) -> list[int]:
    """Return which pictures (0-based) the micro-step shows after `done` updates; fewer pictures than needed repeat.

    `done` and `pictures` count within the `stage` (0 where there is but one), whose order is its own.
    """
    epoch, inside = divmod(done, steps_per_epoch(pictures, batch_size, accumulation))
    order: NDArray[Any] = generator(seed, "order", epoch, *([stage] if stage else [])).permutation(pictures)
    start = (inside * accumulation + micro) * batch_size
    return [int(order[(start + i) % pictures]) for i in range(batch_size)]


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
