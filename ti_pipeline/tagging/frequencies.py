"""Tag frequencies: on how many of a study's pictures each tag stands.

Not here: which tags are worth keeping (`vocabulary`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["tag_frequencies"]


def tag_frequencies(
    post_tags: pd.DataFrame, catalog: pd.DataFrame | None = None, *, posts_count: int | None = None
) -> pd.DataFrame:
    """Return the `tag_frequencies` table, commonest first, ties by name.

    `posts_count` is the number of kept posts; shares are of it. Unset, it is the number of posts that have a tag
    (posts without any are not in `post_tags`). `catalog` (columns tag, post_count) adds the whole site's counts.
    Text columns that are dictionary-encoded already (pandas' `category`) are counted several times as fast.
    Raises `ValueError` if fewer posts are stated than there are, or if a tag has two categories.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    tagged = post_tags.post_id.nunique()
    total = tagged if posts_count is None else posts_count
    if total < tagged:
        raise ValueError(f"posts_count is {total}, but post_tags has tags of {tagged} posts")
    if post_tags.empty:
        return TABLES["tag_frequencies"].empty()
    codes, names = post_tags.tag.factorize()
    category_codes, categories = post_tags.category.factorize()
    category_of = np.zeros(len(names), dtype=category_codes.dtype)
    category_of[codes] = category_codes
    mixed = np.flatnonzero(category_of[codes] != category_codes)
    if len(mixed):
        raise ValueError(f"post_tags gives the tag {post_tags.tag.iloc[mixed[0]]!r} more than one category")
    table = pd.DataFrame({"tag": names, "category": categories.take(category_of), "count": np.bincount(codes)})
    table = table.astype({"tag": "str", "category": "str"})
    table = table.sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
    table["share"] = table["count"] / total
    table["rank"] = np.arange(1, len(table) + 1)
    of_category = table.groupby("category", sort=False)
    table["category_rank"] = of_category.cumcount() + 1
    table["category_share"] = table["count"] / of_category["count"].transform("sum")
    site = pd.Series(dtype="Int64") if catalog is None else catalog.set_index("tag").post_count
    table["site_count"] = table.tag.map(site).astype("Int64")
    return table
