"""Implications inside a study: which of a picture's tags say what another of its tags says already.

The site adds every implied tag to a post (`wolf` brings `canine`, `canid`, `mammal`), so a caption without this
repeats itself. Not here: reading implications (`e621.catalog`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.tagging.incidence import Incidence, Mask

__all__ = ["closure", "depths", "implied_pairs", "leading_on_from", "redundant_uses"]


def closure(implications: pd.DataFrame | None, names: Sequence[str]) -> Any | None:
    """Return a CSR matrix [names, names]: entry (special, general) is 1 where one implies the other in any steps.

    None where there are no implications, because no catalog was ever made.

    Chains may lead over tags that are not in `names`. Tags that imply each other (the site has none, a broken export
    might) are one thing said twice, with neither the more special: they imply nothing of each other here.
    """
    import numpy as np
    import pandas as pd
    from scipy import sparse

    if implications is None or implications.empty:
        return None
    edges = leading_on_from(implications, names)
    known = pd.Index(pd.unique(pd.concat([pd.Series(names, dtype="str"), edges.antecedent, edges.consequent])))
    special, general = known.get_indexer(edges.antecedent), known.get_indexer(edges.consequent)
    ones = np.ones(len(edges), dtype=np.int32)
    step = sparse.csr_matrix((ones, (special, general)), shape=(len(known), len(known)))
    step.data[:] = 1
    reach = step
    while True:  # each pass doubles the steps: the site's longest chain is nine long
        further = (reach + reach @ reach).sign()
        if further.nnz == reach.nnz:
            break
        reach = further
    places = known.get_indexer(pd.Index(names, dtype="str")) if len(names) else np.empty(0, dtype=np.int64)
    inside = reach[places][:, places]
    inside = (inside - inside.multiply(inside.T)).tocsr()
    inside.eliminate_zeros()
    inside.sort_indices()
    return inside


def leading_on_from(implications: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the implications that lead on from `names`: of the site's tens of thousands, a study meets few."""
    import pandas as pd

    edges = implications[["antecedent", "consequent"]].astype("str")
    known = pd.Index(names, dtype="str")
    while True:
        on = edges[edges.antecedent.isin(known)]
        further = known.union(on.consequent.unique(), sort=False)
        if len(further) == len(known):
            return on
        known = further


def depths(implied: Any) -> NDArray[np.int64]:
    """Return how many of the other tags each tag implies: its depth in the tree, 0 for a root."""
    import numpy as np

    found: NDArray[np.int64] = np.diff(implied.indptr).astype(np.int64)
    return found


def redundant_uses(uses: Incidence, implied: Any) -> Mask:
    """Return a mask of the uses that another tag of the same picture implies (`mammal` beside `wolf`)."""
    import numpy as np

    repeated = np.zeros(len(uses.rows), dtype=bool)
    repeated[implied_pairs(uses, implied)[1]] = True
    return repeated


def implied_pairs(uses: Incidence, implied: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of uses (numbers) of one picture of which the first tag implies the second, by picture.

    `uses` are ordered by picture, then by tag, as `incidence_of` returns them.
    """
    import numpy as np

    lengths = np.diff(implied.indptr)[uses.tags]
    special = np.repeat(np.arange(len(uses.rows)), lengths)
    inside = np.arange(len(special)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    general_tag = implied.indices[np.repeat(implied.indptr[uses.tags], lengths) + inside]
    width = max(1, len(uses.names))
    numbers = uses.rows.astype(np.int64) * width + uses.tags
    wanted = uses.rows[special].astype(np.int64) * width + general_tag
    general = np.searchsorted(numbers, wanted)
    there = numbers.take(general, mode="clip") == wanted if len(numbers) else np.zeros(0, dtype=bool)
    return special[there], general[there]
