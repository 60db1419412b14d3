"""Post tags: from the nine tag columns of `posts` to one row per post and tag, with old names replaced.

Columnar throughout: millions of posts are flattened by Arrow, not by loops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.studies import CATEGORIES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["post_tags_table"]


def post_tags_table(posts: pd.DataFrame, aliases: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the `post_tags` table of kept posts.

    Each tag is replaced by the name its alias leads to (`aliases`: columns antecedent, consequent, chains resolved).
    A tag has one category in a study: the one most posts give it, the earlier of the site's order if they tie. Blank
    tags are dropped; whatever else people put into names is data.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = posts[posts.status == "kept"]
    ids = pa.array(kept.post_id, pa.int64())
    parts = []
    for category in CATEGORIES:
        lists = pa.array(kept[f"tags_{category}"].tolist(), pa.list_(pa.string()))
        parts.append(
            pd.DataFrame(
                {
                    "post_id": ids.take(pc.list_parent_indices(lists)).to_numpy(),
                    "tag": pc.list_flatten(lists).to_pandas().astype("str"),
                    "category": category,
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table = table[table.tag.str.strip() != ""]
    if aliases is not None and len(aliases):
        renamed = table.tag.map(aliases.set_index("antecedent").consequent)
        table = table.assign(tag=renamed.where(renamed.notna(), table.tag).astype("str"))
    table = table.assign(category=_one_category(table)).drop_duplicates(["post_id", "tag"])
    return table.sort_values(["post_id", "tag"], kind="stable").reset_index(drop=True)


def _one_category(table: pd.DataFrame) -> pd.Series:
    """Return for each row the category that most rows give its tag."""
    import pandas as pd

    counts = table.groupby(["tag", "category"], sort=False).size().rename("rows").reset_index()
    counts["order"] = counts.category.map({category: index for index, category in enumerate(CATEGORIES)})
    best = counts.sort_values(["tag", "rows", "order"], ascending=[True, False, True]).drop_duplicates("tag")
    chosen = table.tag.map(pd.Series(best.category.array, index=best.tag))
    return chosen.astype("str")
