"""Captions: one text per post, of the plan's vocabulary in the plan's order.

Not here: choosing the vocabulary (`vocabulary`), fitting captions into a prompt (`budget`), or templates and per-step
draws (`inversion`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ti_pipeline.studies import CATEGORIES
from ti_pipeline.tagging.implications import closure
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.per_picture import said_uses

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Numbers

__all__ = [
    "caption_order",
    "piece",
    "readable",
    "said_tags",
    "write_captions",
]

_PARENTHESES = re.compile(r"[()]")
_PLACEHOLDERS = re.compile(r"\[+(name|filewords)\]+")
# Control characters and separators of lines part words; marks without width (direction of writing, byte order, break
# hints) do not. Neither is text to learn from, and in logs and file names they do harm. Joiners stay: emoji need them.
_PARTING = re.compile(r"[,\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WIDTHLESS = re.compile(r"[\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def write_captions(
    post_ids: Iterable[int],
    post_tags: pd.DataFrame,
    vocabulary: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the `captions` table: one row per post, also for posts without a tag of the vocabulary.

    Order: the plan's categories (others, which only a keep list lets in, after them), within one the commoner tag
    first or by name. Which of a picture's vocabulary tags are said is `per_picture.said_uses`' business.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    posts = np.unique(np.fromiter(post_ids, dtype=np.int64))
    if not len(posts):
        return TABLES["captions"].empty()
    chosen, available = said_tags(posts, post_tags, vocabulary, plan, implications)
    ends = np.cumsum(chosen.per_picture()).tolist()
    pieces = [piece(name, plan) for name in chosen.names]
    of_post = [chosen.tags[start:end].tolist() for start, end in zip([0, *ends], ends, strict=False)]
    columns = {
        "post_id": posts,
        "caption": pd.Series([", ".join([pieces[i] for i in found]) for found in of_post], dtype="str"),
        "tags": pd.Series([[chosen.names[i] for i in found] for found in of_post], dtype=object),
        "tag_count": chosen.per_picture(),
        "dropped_tags": available.per_picture() - chosen.per_picture(),
    }
    return pd.DataFrame(columns)


def said_tags(
    posts: Numbers | int,
    post_tags: pd.DataFrame,
    vocabulary: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None = None,
) -> tuple[Incidence, Incidence]:
    """Return what captions say, and all that they could: uses of vocabulary tags, names in caption order.

    `posts` as in `incidence_of`: ids in ascending order, or how many pictures there are.
    """
    import numpy as np

    words = caption_order(vocabulary[vocabulary.kept], plan)
    names = words.tag.tolist()
    uses = incidence_of(post_tags, names, posts)
    said = said_uses(
        uses,
        plan,
        counts=words["count"].to_numpy(),
        places=np.arange(len(names)),
        listed=(words.rule == "keep").to_numpy(dtype=bool),
        implied=closure(implications, names),
    )
    return uses.where(said), uses


def caption_order(tags: pd.DataFrame, plan: CaptionPlan) -> pd.DataFrame:
    """Return rows of `vocabulary` or `tag_frequencies` in the order in which captions of the plan say their tags."""
    order = plan.kept_categories()
    order += [category for category in CATEGORIES if category not in order]
    place = tags.category.map({category: index for index, category in enumerate(order)})
    by = (["count", "tag"], [False, True]) if plan.order_by == "share" else (["tag"], [True])
    return tags.assign(place=place).sort_values(["place", *by[0]], ascending=[True, *by[1]]).drop(columns="place")


def readable(tag: str) -> str:
    """Return a tag as one piece of a caption, underscores kept; empty if there is nothing to read in it.

    A comma would read as two tags: it becomes a space, as do control characters; marks without width go. The brackets
    of [name] and [filewords] go too, because templates would fill them in.
    """
    text = " ".join(_PARTING.sub(" ", _WIDTHLESS.sub("", tag)).split())
    return _PLACEHOLDERS.sub(r"\1", text) if text.strip("_ ") else ""


def piece(tag: str, plan: CaptionPlan) -> str:
    """Return a tag as the plan writes it into captions."""
    text = readable(tag) if plan.underscores == "kept" else " ".join(readable(tag).replace("_", " ").split())
    if plan.parentheses == "stripped":
        bare = _PARENTHESES.sub("", text)
        return bare.strip() or text  # `:)` is nothing else
    return _PARENTHESES.sub(r"\\\g<0>", text) if plan.parentheses == "escaped" else text
