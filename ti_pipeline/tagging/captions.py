"""Captions: one text per post, of the plan's vocabulary in the plan's order; and whether it fits into the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan

__all__ = ["CaptionError", "captions_over_budget", "token_budget", "write_captions"]

CONTEXT_TOKENS = 75  # CLIP's 77 less start and end


class CaptionError(ValueError):
    """A caption plan cannot be carried out; the message says which and what to use instead."""


def write_captions(
    post_ids: Sequence[int] | pd.Series, post_tags: pd.DataFrame, vocabulary: pd.DataFrame, plan: CaptionPlan
) -> pd.DataFrame:
    """Return the `captions` table: one row per post, also for posts without a tag of the vocabulary.

    Order: the plan's categories, within one the commoner tag first, ties by name. The per-image limit keeps each
    picture's *rarest* tags of the vocabulary, the ones that tell it from the others: the vocabulary has already lost
    tags too rare to learn, and common ones say little about a single picture.
    Raises `CaptionError` for plans of a tagger, which this version does not run.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if plan.source == "tagger":
        raise CaptionError(
            f"captions by a tagger ({plan.tagger or 'unnamed'}) are not part of this version:"
            " tag the pictures with it, keep its tags as sidecars, and use a `folder` source"
        )
    posts = pd.Series(sorted(post_ids), dtype="int64")
    if posts.empty:
        return TABLES["captions"].empty()
    kept = vocabulary[vocabulary.kept]
    order = {category: index for index, category in enumerate(plan.kept_categories())}
    uses = post_tags[["post_id", "tag"]].merge(kept[["tag", "category", "count"]], on="tag")
    uses = uses[uses.post_id.isin(posts)]
    before = uses.groupby("post_id").size()
    if plan.per_image is not None:
        rarest = uses.sort_values(["post_id", "count", "tag"], kind="stable")
        uses = rarest.groupby("post_id", sort=False).head(plan.per_image)
    uses = uses.assign(place=uses.category.map(order))
    uses = uses.sort_values(["post_id", "place", "count", "tag"], ascending=[True, True, False, True])
    lists = uses.groupby("post_id", sort=False).tag.agg(list).reindex(posts)
    tags = [found if isinstance(found, list) else [] for found in lists]
    table = pd.DataFrame({"post_id": posts, "caption": [_text(found, plan) for found in tags], "tags": tags})
    table["tag_count"] = [len(found) for found in tags]
    table["dropped_tags"] = before.reindex(posts, fill_value=0).to_numpy() - table.tag_count
    return table.astype({"caption": "str", "tag_count": "int64", "dropped_tags": "int64"})


def _text(tags: list[str], plan: CaptionPlan) -> str:
    """Join tags by commas. A comma inside a tag would read as two tags: it becomes a space."""
    spaced = [tag.replace("_", " ") if plan.underscores == "spaces" else tag for tag in tags]
    return ", ".join(" ".join(tag.replace(",", " ").split()) for tag in spaced)


def token_budget(vectors: int) -> int:
    """Return how many of CLIP's 75 tokens an embedding of `vectors` leaves for the rest of the prompt."""
    return max(0, CONTEXT_TOKENS - vectors)


def captions_over_budget(captions: pd.DataFrame, *, vectors: int, tokenizer: Any, template: str) -> pd.DataFrame:
    """Return post_id, tokens and budget of the captions whose prompt is longer than the budget: its tail is cut.

    `template` is a prompt line with [name] and [filewords]; tokens are those beside the embedding's own.
    """
    import pandas as pd

    prompts = [template.replace("[name]", "").replace("[filewords]", caption) for caption in captions.caption]
    counts = [len(ids) for ids in tokenizer(prompts, add_special_tokens=False).input_ids] if prompts else []
    table = pd.DataFrame({"post_id": captions.post_id, "tokens": counts, "budget": token_budget(vectors)})
    return table[table.tokens > table.budget].reset_index(drop=True)
