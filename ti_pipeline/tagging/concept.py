"""The concept's own tags: what captions must not say, so that the embedding learns it.

What a caption says, the embedding does not learn (measured: docs/inversion-quality.md, belief 3). A tag is the
concept's if nearly all of its pictures share it and few other pictures have it; what nearly all pictures have anywhere
(`anthro`) may be said. Here: which tags those are, in words and numbers. Not here: how a rule is applied (`reduction`,
`vocabulary`), or how often tags are used on the site (`frequencies`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["LIFT", "SHARE", "lift_over", "saying_the_same", "shared_and_rare"]

SHARE = 0.7  # nearly all: people forget tags, and some pictures say it otherwise (`purple_scales` for `purple_fur`)
LIFT = 3.0  # rare elsewhere: a concept's colours are some tenfold commoner with it, `anthro` or `fur` hardly at all


def shared_and_rare(
    tags: Sequence[int], shares: NDArray[np.float64], lifts: NDArray[np.float64]
) -> tuple[dict[int, str], dict[int, str]]:
    """Return which of `tags` are the concept's, and which nearly all pictures share though they are not, with reasons.

    `shares` [all tags] are of the concept's pictures, `lifts` how many times commoner tags are there than elsewhere.
    """
    taken: dict[int, str] = {}
    stays: dict[int, str] = {}
    for tag in tags:
        words = f"on {shares[tag]:.0%} of the pictures, {lifts[tag]:.3g} times as often as elsewhere"
        if shares[tag] >= SHARE:
            (taken if lifts[tag] >= LIFT else stays)[tag] = words
    return (
        {tag: f"concept: {words}" for tag, words in taken.items()},
        {tag: f"not the concept's: {words}" for tag, words in stays.items()},
    )


def saying_the_same(tags: Sequence[int], taken: dict[int, str], implied: Any, names: Sequence[str]) -> dict[int, str]:
    """Return which of `tags` imply one of the `taken`, and so say the concept more specially, with reasons."""
    found = {}
    for tag in tags:
        said = [other for other in implied[[tag]].indices.tolist() if other in taken]
        if said and tag not in taken:
            found[tag] = f"concept: implies {names[min(said)]}, which is the concept's"
    return found


def lift_over(frequencies: pd.DataFrame, contrast: pd.DataFrame) -> pd.DataFrame:
    """Return `frequencies` with `lift` over another study, whose `tag_frequencies` are `contrast`, not over the site.

    In the contrast a tag counts once more than it does, so that one it lacks is rare and not infinitely rare.
    """
    from ti_pipeline.tagging.frequencies import pictures_counted

    counts = frequencies.tag.map(contrast.set_index("tag")["count"]).fillna(0)
    return frequencies.assign(lift=frequencies.share * (pictures_counted(contrast) + 1) / (counts + 1))
