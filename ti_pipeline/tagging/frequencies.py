"""Tag frequencies: on how many of a study's pictures each tag stands, and which tags stand together.

Not here: which tags are worth keeping (`vocabulary`), or what a vocabulary achieves (`comparison`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.incidence import encoded, incidence_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.tagging.incidence import Incidence, Numbers

__all__ = ["coverage_curve", "entropy", "pictures_counted", "tag_frequencies", "tag_pairs"]

_AT_ONCE = 4_000_000  # uses counted in one go: some tens of MB beside the table, however long that is


def tag_frequencies(
    post_tags: pd.DataFrame,
    catalog: pd.DataFrame | None = None,
    *,
    posts_count: int | None = None,
    trained_on: Numbers | None = None,
) -> pd.DataFrame:
    """Return the `tag_frequencies` table, commonest first, ties by name.

    `posts_count` is the number of kept posts; shares are of it. Unset, it is the number of posts that have a tag
    (posts without any are not in `post_tags`). `catalog` (columns tag, post_count) adds the whole site's counts;
    `trained_on`, ids of the training set's posts, adds each tag's share among them. Rows may come in any order; those
    ordered by post, as in the table, and dictionary-encoded text are counted several times as fast.
    Raises `ValueError` if fewer posts are stated than there are, or if a tag has two categories.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if not (post_tags.post_id.is_monotonic_increasing or post_tags.empty):
        post_tags = post_tags.sort_values("post_id", kind="stable")
    ids = post_tags.post_id.to_numpy(dtype=np.int64)
    tagged = _different(ids)
    total = tagged if posts_count is None else posts_count
    if total < tagged:
        raise ValueError(f"posts_count is {total}, but post_tags has tags of {tagged} posts")
    if post_tags.empty:
        return TABLES["tag_frequencies"].empty()
    codes, names = encoded(post_tags.tag)
    category_codes, categories = encoded(post_tags.category)
    counts, category_of, first, last = _tally(ids, codes, category_codes, names)
    table = pd.DataFrame(
        {
            "tag": pd.Series(names).astype("str"),
            "category": pd.Series(categories).astype("str").take(category_of).to_numpy(),
            "count": counts,
            "first_post": first,
            "last_post": last,
        }
    )
    if trained_on is not None and len(trained_on):
        among = np.bincount(codes[np.isin(ids, trained_on)], minlength=len(names))
        table["trained_share"] = among / len(np.unique(trained_on))
    table = table[table["count"] > 0].sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
    return _described(table, total, catalog)


def _described(table: pd.DataFrame, total: int, catalog: pd.DataFrame | None) -> pd.DataFrame:
    """Return ordered counts with shares, ranks and what the site says, in the contract's order of columns."""
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    table["share"] = table["count"] / total
    table["rank"] = np.arange(1, len(table) + 1)
    of_category = table.groupby("category", sort=False)
    table["category_rank"] = of_category.cumcount() + 1
    table["category_share"] = table["count"] / of_category["count"].transform("sum")
    site = pd.Series(dtype="Int64") if catalog is None else catalog.set_index("tag").post_count
    table["site_count"] = table.tag.map(site).astype("Int64")
    # The catalog does not say how many posts the site has. Its commonest tag, which most posts have, stands for all:
    # that makes every lift smaller by one factor, and changes neither their order nor which tag leads.
    posts_on_site = int(site.max()) if len(site) else 0
    on_site = table.site_count.astype("Float64").replace(0, pd.NA)
    table["lift"] = (table.share * posts_on_site / on_site).astype("float64")
    if "trained_share" not in table:
        table["trained_share"] = np.nan
    return table[[column.name for column in TABLES["tag_frequencies"].columns]]


def _slices(length: int) -> Iterator[slice]:
    for start in range(0, length, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)


def _different(ids: NDArray[np.int64]) -> int:
    """Return how many different ids there are in ascending ones."""
    import numpy as np

    steps = sum(int(np.count_nonzero(ids[part][1:] != ids[part][:-1])) for part in _slices(len(ids)))
    joints = sum(int(ids[start] != ids[start - 1]) for start in range(_AT_ONCE, len(ids), _AT_ONCE))
    return steps + joints + bool(len(ids))


def _tally(ids: NDArray[np.int64], codes: Numbers, categories: Numbers, names: Any) -> tuple[Any, Any, Any, Any]:
    """Return each name's count, category, first and last post; one pass over uses that are ordered by post."""
    import numpy as np

    counts = np.zeros(len(names), dtype=np.int64)
    category_of = np.zeros(len(names), dtype=categories.dtype)
    first, last = np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for part in reversed(list(_slices(len(ids)))):  # of several values for one name, numpy keeps the last
        first[codes[part][::-1]] = ids[part][::-1]
        category_of[codes[part]] = categories[part]
    for part in _slices(len(ids)):
        counts += np.bincount(codes[part], minlength=len(names))
        last[codes[part]] = ids[part]
        mixed = np.flatnonzero(category_of[codes[part]] != categories[part])
        if len(mixed):
            raise ValueError(f"post_tags gives the tag {names[codes[part][mixed[0]]]!r} more than one category")
    return counts, category_of, first, last


def pictures_counted(frequencies: pd.DataFrame) -> int:
    """Return how many pictures the shares of `tag_frequencies` or `vocabulary` are of; 0 for an empty table."""
    used = frequencies[frequencies["count"] > 0]
    return round(used["count"].iloc[0] / used.share.iloc[0]) if len(used) else 0


def entropy(counts: Numbers) -> float:
    """Return how evenly uses are spread over tags: Shannon's entropy of a use's tag in bits; 2^bits tags, so to say."""
    import numpy as np

    used = counts[counts > 0]
    share = used / used.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0


def coverage_curve(uses: Incidence, per_picture: int) -> NDArray[np.int64]:
    """Return how many pictures have at least `per_picture` tags of the first n names, for n = 0, 1, … [names + 1].

    Names stand in the order in which the vocabulary grows. A picture is covered from its `per_picture`-th tag on.
    """
    import numpy as np

    order = np.lexsort((uses.tags, uses.rows))
    ends = np.cumsum(uses.per_picture())
    starts = ends - uses.per_picture()
    enough = ends - starts >= per_picture
    covered_at = uses.tags[order][starts[enough] + per_picture - 1] + 1
    return np.cumsum(np.bincount(covered_at, minlength=len(uses.names) + 1))


def tag_pairs(
    frequencies: pd.DataFrame,
    post_tags: pd.DataFrame,
    *,
    implied: Any | None = None,
    tags: int = 1000,
    pairs: int = 500,
    min_count: int = 3,
) -> pd.DataFrame:
    """Return the `tag_pairs` table: of the commonest `tags` the `pairs` that stand together most exclusively.

    Ordered by Jaccard index (pictures with both over pictures with either), then by count and names. PMI is log2 of
    P(A,B) / P(A)P(B) (Church & Hanks 1990). Pairs on fewer than `min_count` pictures are left out: two tags that met
    once look inseparable. `implied` is the implications' closure over the frequencies' tags; such pairs are marked.
    """
    import numpy as np
    import pandas as pd
    from scipy import sparse

    from ti_pipeline.schemas import TABLES

    if frequencies.empty:
        return TABLES["tag_pairs"].empty()
    names = frequencies.tag.tolist()[:tags]
    total = pictures_counted(frequencies)
    matrix = incidence_of(post_tags, names, total).matrix()
    together = sparse.triu(matrix.T @ matrix, k=1).tocoo()
    one, other, both = (part[together.data >= min_count] for part in (together.row, together.col, together.data))
    counts = frequencies["count"].to_numpy()
    table = pd.DataFrame(
        {
            "tag": np.array(names, dtype=object)[one],
            "other": np.array(names, dtype=object)[other],
            "count": both.astype(np.int64),
            "jaccard": both / (counts[one] + counts[other] - both),
            "pmi": np.log2(both * float(total) / (counts[one] * counts[other].astype(float))),
            "implied": np.zeros(len(both), dtype=bool)
            if implied is None
            else np.asarray((implied[one, other] > 0) | (implied[other, one] > 0)).ravel(),
        }
    ).astype({"tag": "str", "other": "str"})
    order = ["jaccard", "count", "tag", "other"]
    return table.sort_values(order, ascending=[False, False, True, True], ignore_index=True).head(pairs)
