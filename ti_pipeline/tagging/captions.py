"""Captions: one text per picture, of the plan's vocabulary in the plan's order.

Not here: choosing the vocabulary (`vocabulary`), how a tag is written (`pieces`), fitting captions into a prompt
(`budget`), or templates and per-step draws (`inversion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.studies import CATEGORIES
from ti_pipeline.tagging.implications import closure
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.per_picture import Chooser
from ti_pipeline.tagging.pieces import piece

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Numbers

__all__ = ["caption_order", "caption_places", "said_tags", "write_captions"]


def write_captions(
    post_ids: Iterable[int],
    post_tags: pd.DataFrame,
    vocabulary: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None = None,
    *,
    counted_on: Iterable[int] | None = None,
) -> pd.DataFrame:
    """Return the `captions` table: one row per post, also for posts without a tag of the vocabulary.

    Order: the plan's categories (others, which only a keep list lets in, after them), within one the commoner tag
    first or by name. Which of a picture's vocabulary tags are said is `per_picture.Chooser`'s business; `counted_on`
    are the posts that the vocabulary was counted on (these, if unset).
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    posts = np.unique(np.fromiter(post_ids, dtype=np.int64))
    if not len(posts):
        return TABLES["captions"].empty()
    counted = posts if counted_on is None else np.unique(np.fromiter(counted_on, dtype=np.int64))
    chooser, said = _choice(posts, post_tags, vocabulary, plan, implications, counted)
    uses, names = chooser.uses, chooser.uses.names
    available = uses.per_picture()
    turns, places = chooser.priorities(said), caption_places(vocabulary, plan)[uses.tags[said]]
    in_order = said[np.lexsort((places, uses.rows[said]))]
    first = said[np.lexsort((turns, uses.rows[said]))]
    count = np.bincount(uses.rows[said], minlength=len(posts))
    ends = np.cumsum(count).tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    pieces = {tag: piece(names[tag], plan) for tag in np.unique(uses.tags[said]).tolist()}
    ordered, kept_longest = uses.tags[in_order].tolist(), uses.tags[first].tolist()
    columns = {
        "post_id": posts,
        "caption": pd.Series([", ".join([pieces[i] for i in ordered[a:b]]) for a, b in spans], dtype="str"),
        "tags": pd.Series([[names[i] for i in ordered[a:b]] for a, b in spans], dtype=object),
        "priority": pd.Series([[names[i] for i in kept_longest[a:b]] for a, b in spans], dtype=object),
        "tag_count": count,
        "dropped_tags": available - count,
    }
    return pd.DataFrame(columns)


def said_tags(
    posts: Numbers | int,
    post_tags: pd.DataFrame,
    vocabulary: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None = None,
) -> Incidence:
    """Return what captions of the pictures that a vocabulary was counted on say; names are the vocabulary's.

    `posts` as in `incidence_of`: ids in ascending order, or how many pictures there are.
    """
    chooser, said = _choice(posts, post_tags, vocabulary, plan, implications, None)
    return chooser.uses.at(said)


def _choice(
    posts: Numbers | int,
    post_tags: pd.DataFrame,
    vocabulary: pd.DataFrame,
    plan: CaptionPlan,
    implications: pd.DataFrame | None,
    counted: NDArray[np.int64] | None,
) -> tuple[Chooser, NDArray[np.int64]]:
    """Return the chooser of a vocabulary's kept tags on some posts, and the numbers of the uses that are said."""
    import numpy as np

    kept, names = vocabulary.kept.to_numpy(dtype=bool), vocabulary.tag.tolist()

    def uses_on(pictures: Numbers | int) -> Incidence:
        uses = incidence_of(post_tags, names, pictures)
        return uses.where(kept[uses.tags])

    uses = uses_on(posts)
    chooser = Chooser(
        uses,
        plan,
        counted=uses if counted is None else uses_on(counted),
        places=caption_places(vocabulary, plan),
        categories=vocabulary.category.tolist(),
        listed=(vocabulary.rule == "keep").to_numpy(dtype=bool),
        implied=closure(implications, names),
    )
    return chooser, np.flatnonzero(chooser.said(kept))


def caption_places(tags: pd.DataFrame, plan: CaptionPlan) -> NDArray[np.int64]:
    """Return each row's place in captions of the plan."""
    import numpy as np

    return np.argsort(caption_order(tags.reset_index(drop=True), plan).index.to_numpy(), kind="stable")


def caption_order(tags: pd.DataFrame, plan: CaptionPlan) -> pd.DataFrame:
    """Return rows of `vocabulary` or `tag_frequencies` in the order in which captions of the plan say their tags."""
    order = plan.kept_categories()
    order += [category for category in CATEGORIES if category not in order]
    place = tags.category.map({category: index for index, category in enumerate(order)})
    by = (["count", "tag"], [False, True]) if plan.order_by == "share" else (["tag"], [True])
    return tags.assign(place=place).sort_values(["place", *by[0]], ascending=[True, *by[1]]).drop(columns="place")
