"""Captions: one text per post, of the plan's vocabulary in the plan's order; and whether it fits into the prompt.

Not here: choosing the vocabulary (`vocabulary`), or templates and per-step draws (`inversion`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.studies import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan

__all__ = ["CaptionError", "captions_over_budget", "readable", "token_budget", "write_captions"]

CONTEXT_TOKENS = 75  # CLIP's 77 less start and end
_PLACEHOLDERS = re.compile(r"\[+(name|filewords)\]+")
# Control characters and separators of lines part words; marks without width (direction of writing, byte order, break
# hints) do not. Neither is text to learn from, and in logs and file names they do harm. Joiners stay: emoji need them.
_PARTING = re.compile(r"[,\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WIDTHLESS = re.compile(r"[\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class CaptionError(ValueError):
    """A caption plan cannot be carried out; the message says which and what to use instead."""


def write_captions(
    post_ids: Iterable[int], post_tags: pd.DataFrame, vocabulary: pd.DataFrame, plan: CaptionPlan
) -> pd.DataFrame:
    """Return the `captions` table: one row per post, also for posts without a tag of the vocabulary.

    Order: the plan's categories (others, which only a keep list lets in, after them), within one the commoner tag
    first, ties by name. The per-image limit keeps each picture's *rarest* tags (in the study; the earlier in the
    caption's order if equally rare). A limit must take pictures from some tags. Taken from the commonest, the shares
    of the pictures move towards each other and the rarest tag loses nothing, and it is the smallest share that decides
    whether many tags do harm, as the seed log's author found; a common tag also tells least about a single picture.
    Tags too rare to learn are the vocabulary's business.
    Raises `CaptionError` for plans of a tagger, which this version does not run.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if plan.source == "tagger":
        raise CaptionError(
            f"captions by a tagger ({plan.tagger or 'unnamed'}) are not part of this version: use `source: e621`, or"
            " tag the pictures with it, keep its tags as sidecars, and read them with a `folder` source"
        )
    posts = np.unique(np.fromiter(post_ids, dtype=np.int64))
    if not len(posts):
        return TABLES["captions"].empty()
    uses = _uses(post_tags, vocabulary, plan)
    uses = uses[uses.post_id.isin(posts)]
    chosen = uses
    if plan.per_image is not None:
        rarest = uses.sort_values(["post_id", "count", "place"], kind="stable")
        chosen = rarest.groupby("post_id", sort=False).head(plan.per_image).sort_values(["post_id", "place"])
    ends = np.searchsorted(chosen.post_id, posts, side="right")
    starts = np.searchsorted(chosen.post_id, posts, side="left")
    names = chosen.tag.tolist()
    tags = [names[start:end] for start, end in zip(starts, ends, strict=True)]
    before = np.searchsorted(uses.post_id, posts, side="right") - np.searchsorted(uses.post_id, posts, side="left")
    columns = {
        "post_id": posts,
        "caption": pd.Series([_caption(found, plan) for found in tags], dtype="str"),
        "tags": pd.Series(tags, dtype=object),
        "tag_count": ends - starts,
        "dropped_tags": before - (ends - starts),
    }
    return pd.DataFrame(columns)


def _uses(post_tags: pd.DataFrame, vocabulary: pd.DataFrame, plan: CaptionPlan) -> pd.DataFrame:
    """Return post_id, tag, count and `place` (the tag's place in captions) of the kept tags, so ordered."""
    order = plan.kept_categories()
    order += [category for category in CATEGORIES if category not in order]
    kept = vocabulary[vocabulary.kept]
    kept = kept.assign(category_place=kept.category.map({category: place for place, category in enumerate(order)}))
    kept = kept.sort_values(["category_place", "count", "tag"], ascending=[True, False, True])
    kept = kept.assign(place=range(len(kept)))[["tag", "count", "place"]]
    return post_tags[["post_id", "tag"]].merge(kept, on="tag").sort_values(["post_id", "place"], ignore_index=True)


def readable(tag: str) -> str:
    """Return a tag as one piece of a caption, underscores kept; empty if there is nothing to read in it.

    A comma would read as two tags: it becomes a space, as do control characters; marks without width go. The brackets
    of [name] and [filewords] go too, because templates would fill them in.
    """
    text = " ".join(_PARTING.sub(" ", _WIDTHLESS.sub("", tag)).split())
    return _PLACEHOLDERS.sub(r"\1", text) if text.strip("_ ") else ""


def _caption(tags: list[str], plan: CaptionPlan) -> str:
    if plan.underscores == "kept":
        return ", ".join(readable(tag) for tag in tags)
    return ", ".join(" ".join(readable(tag).replace("_", " ").split()) for tag in tags)


def token_budget(vectors: int) -> int:
    """Return how many of CLIP's 75 tokens an embedding of `vectors` leaves for the rest of the prompt."""
    return max(0, CONTEXT_TOKENS - vectors)


def captions_over_budget(captions: pd.DataFrame, *, vectors: int, tokenizer: Any, template: str) -> pd.DataFrame:
    """Return post_id, tokens and budget of the captions whose prompt is longer than the budget: its tail is cut.

    `template` is a prompt line with [name] and [filewords]; tokens are those beside the embedding's own, and each
    [name] takes its `vectors` from the budget. As in training, commas at the prompt's ends do not count.
    """
    import pandas as pd

    # A letter that stands for the embedding keeps the marks around it apart: it is one token, and not counted.
    uses = template.count("[name]")
    prompts = [
        template.replace("[filewords]", caption).replace("[name]", "x").strip(" ,") for caption in captions.caption
    ]
    ids = tokenizer(prompts, add_special_tokens=False, truncation=False, verbose=False).input_ids if prompts else []
    tokens = pd.Series([len(found) - uses for found in ids], index=captions.index, dtype="int64")
    over = tokens + uses * vectors > CONTEXT_TOKENS
    table = pd.DataFrame({"post_id": captions.post_id, "tokens": tokens, "budget": token_budget(uses * vectors)})
    return table[over].reset_index(drop=True)
