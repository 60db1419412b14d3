"""Advice: how many vectors do these captions call for? Numbers per variant, and warnings that say where they come from.

What is measured comes from `benchmarks/inversion_quality.py` (9 units of 40 drawings on the demo's small base, 200
updates of 4); what is not is the seed log's belief, and says so. Not here: the evaluation, which measures the embedding
itself: its word counts more than any of this.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.budget import longest_prompts, token_budget

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.studies import Variant

__all__ = ["Advice", "advise"]

# Measured: the asked species stayed right in 92 % of pictures with 8 vectors, 79 % with 16, 53 % with 32, 13 % with 64.
_MOST_VECTORS = 16
# Measured: one vector is 4 to 6 points less sharp than sixteen when captions say all of some ten tags.
_FEW_VECTORS, _MANY_TAGS = 2, 8
# The seed log's belief, measured as half right: its own families have 2.7 to 14 tags of vocabulary for a vector.
_LEAST_TAGS_PER_VECTOR = 2
# The seed log's belief that a tag needs some share of the pictures; the number is ours and nobody's measurement.
_LEAST_PICTURES_PER_TAG = 5


@dataclass(frozen=True)
class Advice:
    """What a variant's vectors and captions are to each other; means are over the captions of its pictures.

    `budget` is what the vectors leave of 75 tokens, `tokens` the prompt's mean beside the embedding, `longer` how many
    of `captions` need more than the budget, `pictures_per_tag` the median over the vocabulary of captions with a tag.
    """

    variant: str
    plan: str
    vectors: int
    budget: int
    captions: int
    tags: int
    tags_per_picture: float
    tokens: float
    longer: int
    pictures_per_tag: float
    warnings: list[str] = field(default_factory=list)


def advise(name: str, variant: Variant, vocabulary: pd.DataFrame, captions: pd.DataFrame, tokenizer: Any) -> Advice:
    """Return the advice for one variant, whose plan has this vocabulary and these captions."""
    kept = vocabulary.captions[vocabulary.kept]
    lengths = longest_prompts(captions, vectors=variant.vectors, tokenizer=tokenizer, templates=variant.templates)
    told = Advice(
        variant=name,
        plan=str(variant.captions),
        vectors=variant.vectors,
        budget=token_budget(variant.vectors),
        captions=len(captions),
        tags=len(kept),
        tags_per_picture=float(captions.tag_count.mean()) if len(captions) else 0.0,
        tokens=float(lengths.mean()) - variant.vectors if len(captions) else 0.0,
        longer=int((lengths > variant.vectors + token_budget(variant.vectors)).sum()),
        pictures_per_tag=float(kept.median()) if len(kept) else 0.0,
    )
    told.warnings.extend(_warnings(told, variant.long_prompts))
    return told


def _warnings(told: Advice, long_prompts: str) -> list[str]:
    found = []
    if told.vectors > _MOST_VECTORS:
        found.append(
            f"{told.vectors} vectors: more than {_MOST_VECTORS} push the rest of the prompt aside (measured: the asked "
            "species was right in 92 % of pictures with 8, 79 % with 16, 53 % with 32, 13 % with 64)"
        )
    if told.tags and told.tags < _LEAST_TAGS_PER_VECTOR * told.vectors:
        found.append(
            f"{told.vectors} vectors for {told.tags} tags: too many vectors for few tags give strange pictures (the "
            "seed log's belief; measured as half right)"
        )
    if told.vectors < _FEW_VECTORS and told.tags_per_picture > _MANY_TAGS:
        found.append(
            f"{told.vectors} vector for {told.tags_per_picture:.1f} tags a picture: too few vectors for many tags "
            "give blurred pictures (the seed log's belief; measured as weakly right)"
        )
    if told.captions and not told.tags_per_picture:
        found.append(
            "captions without tags: the embedding learns the subjects too (measured: the asked species was right in "
            "74 % of pictures, with tags in 92 %, with 8 vectors)"
        )
    if 0 < told.pictures_per_tag < _LEAST_PICTURES_PER_TAG:
        found.append(
            f"half of the tags stand in {told.pictures_per_tag:.0f} captions or fewer: each one's share should reach "
            "a threshold (the seed log's belief; how high is not measured); see `balance` and `min_count`"
        )
    if told.longer:
        happens = {"fit": "lose tags", "cut": "lose their tail", "chunks": "are encoded in chunks"}[long_prompts]
        found.append(
            f"{told.longer} of {told.captions} captions are longer than the {told.budget} tokens that {told.vectors} "
            f"vectors leave: they {happens}"
        )
    return found
