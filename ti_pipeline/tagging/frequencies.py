"""Tag frequencies: on how many of a study's pictures each tag stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["tag_frequencies"]


def tag_frequencies(
    post_tags: pd.DataFrame, catalog: pd.DataFrame | None = None, *, posts_count: int | None = None
) -> pd.DataFrame:
    """Return the `tag_frequencies` table, commonest first, ties by name.

    `posts_count` is the number of kept posts (posts without any tag are not in `post_tags`); shares are of it.
    `catalog` (columns tag, post_count) adds the whole site's counts.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if post_tags.empty:
        return TABLES["tag_frequencies"].empty()
    total = posts_count if posts_count is not None else post_tags.post_id.nunique()
    table = post_tags.groupby(["tag", "category"], sort=False).size().rename("count").reset_index()
    table = table.sort_values(["count", "tag"], ascending=[False, True]).reset_index(drop=True)
    table["share"] = table["count"] / total
    table["rank"] = range(1, len(table) + 1)
    of_category = table.groupby("category", sort=False)
    table["category_rank"] = of_category.cumcount() + 1
    table["category_share"] = table["count"] / of_category["count"].transform("sum")
    known = pd.Series(dtype="Int64") if catalog is None else catalog.set_index("tag").post_count
    table["site_count"] = table.tag.map(known).astype("Int64")
    return table[[column.name for column in TABLES["tag_frequencies"].columns]]
