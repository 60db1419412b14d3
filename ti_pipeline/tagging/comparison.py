"""Comparison: what vocabularies achieve, side by side, so that a person picks one by looking.

Here: the measures, and the strategies that every plan is compared with. Not here: the rules (`reduction`), or the
plot (`plots`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.captions import said_tags
from ti_pipeline.tagging.frequencies import entropy, pictures_counted
from ti_pipeline.tagging.implications import closure, leading_on_from, redundant_uses
from ti_pipeline.tagging.pieces import piece
from ti_pipeline.tagging.vocabulary import reduce_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan

__all__ = ["ENOUGH_TAGS", "STRATEGIES", "compare_strategies", "measures", "measures_of_tables", "strategies_of"]

ENOUGH_TAGS = 3  # a caption of fewer tags says little about its picture

# What a plan is compared with: its categories, lists and limits, with one of these in the place of its reduction.
# Written as in the YAML file, so that the one that was picked can be copied there.
STRATEGIES: dict[str, dict[str, Any]] = {
    "every tag": {},
    "min_share: 0.02": {"min_share": 0.02},
    "min_share: 0.05": {"min_share": 0.05},
    "implications: most_specific": {"implications": "most_specific"},
    "implications: most_general": {"implications": "most_general"},
    "merge_synonyms: 0.9": {"merge_synonyms": 0.9},
    "balance: 0.02": {"balance": 0.02},
    "balance: 0.05": {"balance": 0.05},
    "coverage: {tags: 50, per_picture: 3}": {"coverage": {"tags": 50, "per_picture": 3}},
    "coverage: {tags: 100, per_picture: 3}": {"coverage": {"tags": 100, "per_picture": 3}},
}
_REDUCTION = (
    *("constant", "min_count", "min_share", "max_share", "implications", "merge_synonyms", "budgets", "coverage"),
    "balance",
)


def strategies_of(plan: CaptionPlan, *, implications: bool) -> dict[str, CaptionPlan]:
    """Return the plan under each of `STRATEGIES`; those of implications only where there are any."""
    from ti_pipeline.studies import CaptionPlan

    own = {name: value for name, value in plan.model_dump().items() if name not in _REDUCTION}
    own["categories"] = plan.kept_categories()  # which may follow from the budgets
    return {
        words: CaptionPlan.model_validate(own | update)
        for words, update in STRATEGIES.items()
        if implications or "implications" not in update
    }


def compare_strategies(
    frequencies: pd.DataFrame,
    post_tags: pd.DataFrame,
    plans: Mapping[str, CaptionPlan],
    *,
    excluded: frozenset[str] = frozenset(),
    implications: pd.DataFrame | None = None,
    tokenizer: Any | None = None,
) -> pd.DataFrame:
    """Return one row of `measures` per plan, in their order, with the column `strategy`; vocabularies of one study."""
    import pandas as pd

    if implications is not None:  # once for all plans
        implications = leading_on_from(implications, frequencies.tag)
    rows = []
    for name, plan in plans.items():
        vocabulary = reduce_vocabulary(frequencies, post_tags, plan, excluded, implications)
        rows.append({"strategy": name} | measures(vocabulary, post_tags, plan, implications, tokenizer))
    return pd.DataFrame(rows)


def measures(
    vocabulary: pd.DataFrame,
    post_tags: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None = None,
    tokenizer: Any | None = None,
) -> dict[str, float]:
    """Return what a vocabulary achieves in captions; shares are of the pictures that it was counted on.

    tags: its size; covered: share of pictures with a tag; well_covered: with three; tags_per_picture and
    tokens_per_picture: means, a comma being a token (NaN without a tokenizer); entropy: of a use's tag in bits;
    redundant: share of uses that another tag of the same caption implies (NaN without implications); lowest_share,
    highest_share: the window that the tags' shares of the captions lie in.
    """
    import numpy as np

    pictures = pictures_counted(vocabulary)
    said = said_tags(pictures, post_tags, vocabulary, plan, implications)
    counts, per_picture = said.counts()[vocabulary.kept.to_numpy(dtype=bool)], said.per_picture()
    implied = closure(implications, said.names)
    commas = np.maximum(per_picture - 1, 0).sum()
    found = {
        "tags": float(len(counts)),
        "covered": _mean(per_picture >= 1),
        "well_covered": _mean(per_picture >= ENOUGH_TAGS),
        "tags_per_picture": _mean(per_picture),
        "tokens_per_picture": float("nan"),
        "entropy": entropy(counts),
        "redundant": float("nan") if implied is None else _mean(redundant_uses(said, implied)),
        "lowest_share": counts.min(initial=pictures) / pictures if len(counts) else 0.0,
        "highest_share": counts.max(initial=0) / pictures if pictures else 0.0,
    }
    if tokenizer is not None and pictures:
        tokens = _tokens(tokenizer, [piece(name, plan) for name in vocabulary.tag[vocabulary.kept]])
        found["tokens_per_picture"] = float((tokens @ counts + commas) / pictures)
    return found


def measures_of_tables(vocabulary: pd.DataFrame, captions: pd.DataFrame, tokenizer: Any | None) -> dict[str, float]:
    """Return the measures that a plan's tables tell, for the report: tokens are those of the captions themselves."""
    import numpy as np

    per_picture = captions.tag_count.to_numpy()
    kept = vocabulary[vocabulary.kept]
    counts, shares = kept.captions.to_numpy(dtype=np.int64), kept.caption_share
    tokens = np.array([np.nan]) if tokenizer is None else _tokens(tokenizer, captions.caption.tolist())
    return {
        "tags": float(len(counts)),
        "covered": _mean(per_picture >= 1),
        "well_covered": _mean(per_picture >= ENOUGH_TAGS),
        "tags_per_picture": _mean(per_picture),
        "tokens_per_picture": _mean(tokens),
        "entropy": entropy(counts),
        "lowest_share": float(shares.min()) if len(shares) else 0.0,
        "highest_share": float(shares.max()) if len(shares) else 0.0,
    }


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _tokens(tokenizer: Any, texts: list[str]) -> NDArray[np.int64]:
    """Return how many tokens each text is."""
    import numpy as np

    ids = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False).input_ids if texts else []
    return np.array([len(found) for found in ids], dtype=np.int64)
