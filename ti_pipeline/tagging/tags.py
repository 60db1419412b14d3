"""Post tags: from the nine tag columns of `posts` to one row per post and tag, with old names replaced.

Columnar throughout: names are encoded once as numbers, and millions of posts are sorted and counted as numbers. Not
here: counting (`frequencies`), or finding out where chains of aliases end (`e621.catalog`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.studies import CATEGORIES

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Numbers = NDArray[np.integer[Any]]

__all__ = ["post_tags_table"]

_AT_ONCE = 100_000  # posts
# White space alone names nothing. The control characters that Unicode also counts as spaces do: they are data.
_BLANK = re.compile(r"[^\S\x1c-\x1f\x85]*")


def post_tags_table(posts: pd.DataFrame, aliases: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the `post_tags` table of kept posts, ordered by post and tag.

    Each tag is replaced by the name its alias leads to (`aliases`: columns antecedent, consequent, chains resolved;
    of two aliases of one name the later row counts). A tag that a post has in two categories counts in the first one
    of the site's order; in the whole study a tag has the category that most posts give it, again the first if they
    tie. Blank tags are dropped; whatever else people put into names is data.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    kept = posts[posts.status == "kept"].sort_values("post_id")
    slices, found = _encoded_slices(kept)
    names, renumbered = _resolved(found, aliases)
    width = len(CATEGORIES)
    votes = np.zeros(len(names) * width, dtype=np.int64)
    rows, tags = [], []
    while slices:  # taken apart on the way, so that uses are in memory only once
        row, codes, category = slices.pop(0)
        tag = renumbered[codes]
        named = tag >= 0
        # One number per (post, tag, category): sorted, a pair's first number is its first category.
        numbers = np.sort((row[named] * len(names) + tag[named]) * width + category[named])
        pairs, categories = np.divmod(numbers, width)
        first = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
        row, tag = np.divmod(pairs[first], max(1, len(names)))
        votes += np.bincount(tag * width + categories[first], minlength=len(votes))
        rows.append(row.astype(np.int32))
        tags.append(tag.astype(np.int32))
    tag = np.concatenate(tags) if tags else np.empty(0, dtype=np.int32)
    if not len(tag):
        return TABLES["post_tags"].empty()
    category_of = votes.reshape(-1, width).argmax(axis=1).astype(np.int8)
    return pd.DataFrame(
        {
            "post_id": kept.post_id.to_numpy(dtype=np.int64)[np.concatenate(rows)],
            "tag": _words(names, tag),
            "category": _words(list(CATEGORIES), category_of[tag]),
        }
    )


def _encoded_slices(kept: pd.DataFrame) -> tuple[list[tuple[Numbers, Numbers, Numbers]], list[str]]:
    """Return, per slice of posts, each use's row in `kept`, its place among the names and its category; and the names.

    A slice at a time: the text of millions of posts is never in Arrow's memory beside Python's.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    place: dict[str, int] = {}
    slices = []
    columns = [kept[f"tags_{category}"] for category in CATEGORIES]
    for start in range(0, len(kept), _AT_ONCE):
        parts = []
        for number, column in enumerate(columns):
            lists = pa.array(column.iloc[start : start + _AT_ONCE].tolist(), pa.large_list(pa.large_string()))
            encoded = pc.list_flatten(lists).dictionary_encode()
            known = [place.setdefault(name, len(place)) for name in encoded.dictionary.to_pylist()]
            codes = np.array(known, dtype=np.int32)[encoded.indices.to_numpy()]
            rows = pc.list_parent_indices(lists).to_numpy() + start
            parts.append((rows, codes, np.full(len(codes), number, dtype=np.int8)))
        row, code, category = (np.concatenate(part) for part in zip(*parts, strict=True))
        slices.append((row, code, category))
    return slices, list(place)


def _resolved(found: list[str], aliases: pd.DataFrame | None) -> tuple[list[str], Numbers]:
    """Return the names after aliases, sorted, and for each name of `found` its place among them (-1: blank)."""
    import numpy as np

    known = {} if aliases is None else dict(zip(aliases.antecedent, aliases.consequent, strict=True))
    final = [known.get(name, name) for name in found]
    names = sorted({name for name in final if not _BLANK.fullmatch(name)})
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place.get(name, -1) for name in final], dtype=np.int64)


def _words(names: list[str], codes: Numbers) -> pd.Series[Any]:
    """Return the names at `codes` as a dictionary-encoded column: four bytes a use, however long the names."""
    import pandas as pd

    return pd.Series(pd.Categorical.from_codes(codes, pd.Index(names, dtype="str")))
