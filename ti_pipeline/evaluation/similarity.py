"""Similarity: what pictures have in common with each other, with the concept's own, and with what was trained on.

Measures on unit features of a model that sees pictures, a number per picture. Not here: which value wins (`scorers`),
or what follows for checkpoints (`likeness`, `statistics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch

__all__ = ["copies", "diversity", "kid_parts", "nearness", "nearness_among", "sameness", "similarity_to"]


def similarity_to(seen: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine similarity of pictures [n, width] to references [m, width], float32 [n]."""
    return (seen @ references.T).mean(dim=1)


def nearness(seen: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return pictures' mean cosine similarity [n] to the nearer half of m references that they are none of.

    The nearer half, in the manner of nearest neighbours in precision and recall for generated pictures (Kynkäänniemi
    et al. 2019): a picture of the concept at sea need not resemble the ones in a bedroom, and a single freak among the
    references decides nothing. Averaged over leaving out each reference in turn, so that it compares with
    `nearness_among`, where a picture has one reference less. Raises `ValueError` without references.
    """
    count = references.shape[0]
    if count == 0:
        raise ValueError("there is no nearness to no pictures")
    half = _half(count)
    found = (seen @ references.T).topk(min(half + 1, count), dim=1).values
    mean = found[:, :half].mean(dim=1)
    # One of the nearer half is left out in `half` of `count` cases; the next one then takes its place.
    return mean + (found[:, -1] - mean) / count if count > half else mean


def nearness_among(references: torch.Tensor) -> torch.Tensor:
    """Return the same for pictures [m] of the concept itself, each held against the others.

    Raises `ValueError` for fewer than two.
    """
    import torch

    if len(references) < 2:
        raise ValueError("there is no nearness among fewer than two pictures")
    alike = references @ references.T
    alike.fill_diagonal_(-torch.inf)
    return alike.topk(_half(len(references)), dim=1).values.mean(dim=1)


def _half(count: int) -> int:
    """Return how many of `count - 1` pictures are the nearer half."""
    return max(1, count // 2)


def sameness(seen: torch.Tensor, groups: Sequence[Hashable], prompts: Sequence[Hashable]) -> list[float | None]:
    """Return each picture's mean cosine similarity to those of its group that were asked for something else.

    Groups are the pictures of one checkpoint with one seed: 1 means that it draws the same whatever is asked. None for
    a picture whose group has no other prompt.
    """
    import torch

    kinds = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    texts = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    of = torch.tensor([kinds[group] for group in groups])
    says = torch.tensor([texts[prompt] for prompt in prompts])
    found: list[float | None] = []
    for place in range(len(seen)):
        others = (of == of[place]) & (says != says[place])
        found.append(float((seen[others] @ seen[place]).mean()) if bool(others.any()) else None)
    return found


def diversity(seen: torch.Tensor, groups: Sequence[Hashable]) -> list[float | None]:
    """Return each picture's mean cosine distance to the others of its group; None for one that is alone in it.

    Groups are the seeds of one prompt: 0 means that they all show the same.
    """
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    found: list[float | None] = [None] * len(groups)
    for places in members.values():
        if len(places) > 1:
            alike = seen[places] @ seen[places].T
            others = (alike.sum(dim=1) - alike.diagonal()) / (len(places) - 1)
            for place, mean in zip(places, others.tolist(), strict=True):
                found[place] = 1 - mean
    return found


def copies(seen: torch.Tensor, trained: torch.Tensor) -> tuple[list[float], list[int | None]]:
    """Return each picture's cosine similarity to the nearest picture trained on, and which one it copies, if any.

    A copy is nearer to a training picture than any two of those are to each other. Of fewer than two of them nothing
    can be called a copy.
    """
    import torch

    nearest, places = (seen @ trained.T).max(dim=1)
    if len(trained) < 2:
        return nearest.tolist(), [None] * len(seen)
    among = trained @ trained.T
    among.fill_diagonal_(-torch.inf)
    limit = float(among.max())
    # Identical training pictures lie at 1: rounding alone must not make a copy of what is as near as that.
    copied = (nearest > limit + 1e-5).tolist()
    pairs = zip(copied, places.tolist(), strict=True)
    return nearest.tolist(), [place if is_copy else None for is_copy, place in pairs]


def kid_parts(seen: torch.Tensor, trained: torch.Tensor) -> torch.Tensor:
    """Return each picture's part of the kernel inception distance to `trained`, float64 [n]; their mean is the KID.

    KID (Bińkowski et al. 2018): the unbiased squared maximum mean discrepancy with the kernel (x·y / width + 1)³, here
    on CLIP's features, scaled to mean square 1 as that kernel expects. Both sets need at least two pictures.
    """
    width = seen.shape[1]
    ours, theirs = seen.double() * width**0.5, trained.double() * width**0.5

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T / width + 1) ** 3

    own, other, across = kernel(ours, ours), kernel(theirs, theirs), kernel(ours, theirs)
    within = (own.sum(dim=1) - own.diagonal()) / (len(ours) - 1)
    theirs_within = (other.sum() - other.diagonal().sum()) / (len(theirs) * (len(theirs) - 1))
    return within + theirs_within - 2 * across.mean(dim=1)
