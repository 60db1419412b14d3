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

    Numbers = NDArray[np.int64]

__all__ = ["post_tags_table"]

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
    rows, codes, categories, found = _flattened(kept)
    names, renumbered = _resolved(found, aliases)
    codes = renumbered[codes]
    named = codes >= 0
    if not named.any():
        return TABLES["post_tags"].empty()
    # One number per (post, tag, category): sorted, a pair's first number is its first category.
    width = len(CATEGORIES)
    numbers = np.sort((rows[named] * len(names) + codes[named]) * width + categories[named])
    pairs, category = np.divmod(numbers, width)
    first = np.append(True, pairs[1:] != pairs[:-1])
    row, tag = np.divmod(pairs[first], len(names))
    votes = np.bincount(tag * width + category[first], minlength=len(names) * width).reshape(-1, width)
    return pd.DataFrame(
        {
            "post_id": kept.post_id.to_numpy(dtype=np.int64)[row],
            "tag": _strings(names, tag),
            "category": _strings(list(CATEGORIES), votes.argmax(axis=1)[tag]),
        }
    )


def _flattened(kept: pd.DataFrame) -> tuple[Numbers, Numbers, Numbers, list[str]]:
    """Return for each tag of each post its row in `kept`, its place among the names, its category; and the names."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = [pa.array(kept[f"tags_{c}"].tolist(), pa.large_list(pa.large_string())) for c in CATEGORIES]
    encoded = pa.chunked_array([pc.list_flatten(column).dictionary_encode() for column in lists]).unify_dictionaries()
    rows = np.concatenate([pc.list_parent_indices(column).to_numpy() for column in lists])
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])
    categories = np.repeat(np.arange(len(CATEGORIES)), [len(chunk) for chunk in encoded.chunks])
    return rows, codes, categories, encoded.chunk(0).dictionary.to_pylist()


def _resolved(found: list[str], aliases: pd.DataFrame | None) -> tuple[list[str], Numbers]:
    """Return the names after aliases, sorted, and for each name of `found` its place among them (-1: blank)."""
    import numpy as np

    known = {} if aliases is None else dict(zip(aliases.antecedent, aliases.consequent, strict=True))
    final = [known.get(name, name) for name in found]
    names = sorted({name for name in final if not _BLANK.fullmatch(name)})
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place.get(name, -1) for name in final], dtype=np.int64)


def _strings(names: list[str], codes: Numbers) -> pd.Series[Any]:
    """Return the names at `codes` as a dictionary-encoded column: four bytes a use, however long the names."""
    import numpy as np
    import pandas as pd

    return pd.Series(pd.Categorical.from_codes(codes.astype(np.int32), pd.Index(names, dtype="str")))
