"""Similarity: what pictures have in common with each other, with what was trained on, and with their prompts.

Measures on unit features of a CLIP model, a number per picture. Not here: which value wins (`scorers`), or what follows
for checkpoints (`statistics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch

__all__ = ["copies", "diversity", "kid_parts", "similarity_to"]


def similarity_to(seen: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return the mean cosine similarity of pictures [n, width] to references [m, width], float32 [n]."""
    return (seen @ references.T).mean(dim=1)


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
