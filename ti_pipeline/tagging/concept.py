"""The concept's own tags: what captions must not say, so that the embedding learns it.

What a caption says, the embedding does not learn (measured: docs/inversion-quality.md, belief 3). A tag is the
concept's if nearly all of its pictures share it and few other pictures have it; what nearly all pictures have anywhere
(`anthro`) may be said. Here: which tags those are, in words and numbers. Not here: how a rule is applied (`reduction`,
`vocabulary`), or how often tags are used on the site (`frequencies`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.pieces import readable
from ti_pipeline.tagging.tokens import clip_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import Variant

__all__ = [
    "LIFT",
    "SHARE",
    "concept_words",
    "lift_over",
    "lift_over_site",
    "saying_the_same",
    "shared_and_rare",
    "started",
]

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
    """Return tags counted on some pictures with `lift` over another study, whose `tag_frequencies` are `contrast`.

    In the contrast a tag counts once more than it does, so that one it lacks is rare and not infinitely rare.
    """
    from ti_pipeline.tagging.frequencies import pictures_counted

    counts = frequencies.tag.map(contrast.set_index("tag")["count"]).fillna(0)
    return frequencies.assign(lift=frequencies.share * (pictures_counted(contrast) + 1) / (counts + 1))


def lift_over_site(counted: pd.DataFrame, frequencies: pd.DataFrame) -> pd.DataFrame:
    """Return tags `counted` on some pictures of a study with `lift` over the site, as the study's `tag_frequencies` do.

    Those tell a tag's share of the site's posts: its share in the study over its lift there.
    """
    of_study = frequencies.set_index("tag")
    on_site = (of_study.share / of_study.lift).reindex(counted.tag)
    return counted.assign(lift=(counted.share.to_numpy() / on_site.to_numpy()).astype("float64"))


def started(variant: Variant, vocabulary: pd.DataFrame) -> Variant:
    """Return a variant with the text that it starts from, for `start: concept`; any other as it is."""
    if variant.start != "concept":
        return variant
    words = concept_words(vocabulary, clip_tokenizer(), variant.vectors)
    return variant.model_copy(update={"start": "text", "initializer": words})


def concept_words(vocabulary: pd.DataFrame, tokenizer: Any, vectors: int) -> str:
    """Return the concept's tags of a `vocabulary` as a text of at most `vectors` tokens to start an embedding from.

    The rarest tags come first, being the most special; a tag whose words are all said already (`markings` after
    `facial markings`) is left out, and one that no longer fits. What room is left repeats them from the first. At least
    the first tag is there, however few vectors. Raises `ValueError` if the vocabulary has no tag of the concept.
    """
    own = vocabulary[(vocabulary.rule == "concept") & ~vocabulary.kept].sort_values(["count", "tag"])
    texts: list[str] = []
    for tag in own.tag:
        text = readable(tag).replace("_", " ")
        if not set(text.split()) <= {word for other in texts for word in other.split()}:
            texts.append(text)
    if not texts:
        raise ValueError("no tag of the vocabulary is the concept's: start from a text, or list the tags in `concept`")
    said = texts[:1]
    for text in [*texts[1:], *texts * vectors]:
        if len(tokenizer(" ".join([*said, text]), add_special_tokens=False).input_ids) > vectors:
            continue
        said.append(text)
    return " ".join(said)
