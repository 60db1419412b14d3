"""Which tag stands on which picture, as two arrays of numbers: what everything else in this package counts on.

A study's tags are a sparse matrix of pictures by tags. It is kept as index arrays, never as lists of text, so that
millions of posts cost some bytes a use. Not here: what is done with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Numbers = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]

__all__ = ["Incidence", "encoded", "incidence_of"]


@dataclass(frozen=True)
class Incidence:
    """Uses of tags: use number i is tag `tags[i]` (its place among the names) on picture `rows[i]`.

    `pictures` is how many pictures there are, also those without a tag; `names` are the tags. Each pair stands once.
    """

    pictures: int
    names: Sequence[str]
    rows: Numbers
    tags: Numbers

    def counts(self) -> NDArray[np.int64]:
        """Return on how many pictures each tag stands, [names]."""
        import numpy as np

        return np.bincount(self.tags, minlength=len(self.names))

    def per_picture(self) -> NDArray[np.int64]:
        """Return how many tags each picture has, [pictures]."""
        import numpy as np

        return np.bincount(self.rows, minlength=self.pictures)

    def where(self, uses: Mask) -> Incidence:
        """Return the same pictures and names with the uses of a mask only."""
        return replace(self, rows=self.rows[uses], tags=self.tags[uses])

    def at(self, uses: NDArray[np.int64]) -> Incidence:
        """Return the same pictures and names with the uses of these numbers only."""
        return replace(self, rows=self.rows[uses], tags=self.tags[uses])

    def matrix(self) -> Any:
        """Return a scipy CSR matrix of ones, [pictures, names], int32."""
        import numpy as np
        from scipy import sparse

        ones = np.ones(len(self.rows), dtype=np.int32)
        return sparse.csr_matrix((ones, (self.rows, self.tags)), shape=(self.pictures, len(self.names)))


def encoded(column: pd.Series[Any]) -> tuple[Numbers, Any]:
    """Return a text column as the places of its values among its different values, and those.

    A column that is dictionary-encoded already (pandas' `category`) costs nothing.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(), column.cat.categories
    text = pa.array(column, pa.large_string()) if column.dtype == object else pa.array(column)
    found = text.dictionary_encode()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    return found.indices.to_numpy(), found.dictionary.to_pandas()


def incidence_of(post_tags: pd.DataFrame, names: Sequence[str], posts: Numbers | int) -> Incidence:
    """Return the uses of `names` in a `post_tags` table, ordered by picture, then by the names' order.

    `posts` are the pictures' ids in ascending order, and a picture's row is its place among them (uses on other posts
    are left out); or how many pictures there are, and those with a tag come first, by their ids. Tags that are not in
    `names` are left out. Raises `ValueError` if fewer pictures are stated than have tags.
    """
    import numpy as np
    import pandas as pd

    codes, found = encoded(post_tags.tag)
    place = pd.Index(names).get_indexer(pd.Index(found)) if len(names) else np.full(len(found), -1)
    ids = post_tags.post_id.to_numpy(dtype=np.int64)
    if isinstance(posts, int):
        known = pd.unique(ids)
        known.sort()
        if posts < len(known):
            raise ValueError(f"{posts} pictures are stated, but post_tags has tags of {len(known)} posts")
        pictures = posts
    else:
        known, pictures = posts, len(posts)
    tags = place[codes] if len(found) else np.empty(0, dtype=np.int64)
    rows = np.searchsorted(known, ids)
    used = (tags >= 0) & (known.take(rows, mode="clip") == ids if len(known) else False)
    numbers = np.sort(rows[used].astype(np.int64) * max(1, len(names)) + tags[used])
    rows, tags = np.divmod(numbers, max(1, len(names)))
    return Incidence(pictures, names, rows.astype(np.int32), tags.astype(np.int32))
