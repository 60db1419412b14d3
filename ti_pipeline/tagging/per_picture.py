"""Per picture: which of its vocabulary tags a caption says, where implications or a limit take some.

Not here: which tags the vocabulary has (`vocabulary`), or how the caption is worded (`captions`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.implications import depths, redundant_uses

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Mask, Numbers

__all__ = ["said_uses"]

# Carbonell & Goldstein (1998) weigh relevance against redundancy; half and half is their middle.
_NOVELTY = 0.5


def said_uses(
    uses: Incidence, plan: CaptionPlan, *, counts: Numbers, places: Numbers, listed: Mask, implied: Any | None
) -> Mask:
    """Return a mask of the uses that captions say.

    First the implications (`most_specific`, `most_general`), which never take tags of the keep list (`listed`); then
    the limit `per_image`. `counts` are the tags' pictures in the study and `places` their places in captions, [names];
    `implied` is the closure of the implications, None where there is no catalog.

    The limit by `rarity` keeps each picture's rarest tags (the earlier in caption order if equally rare): a limit
    must take pictures from some tags. Taken from the commonest, the shares move towards each other and the rarest tag
    loses nothing, and it is the smallest share that decides whether many tags do harm, as the seed log's author found.
    By `information` it chooses one tag after the other (maximal marginal relevance, Carbonell & Goldstein 1998): each
    time the tag with the most information (inverse frequency and depth in the implication tree) that is least like
    the tags chosen before (Jaccard index; one that is implied or implies is wholly alike).
    """
    import numpy as np

    said = np.ones(len(uses.rows), dtype=bool)
    if plan.implications != "keep" and implied is not None:
        said &= ~redundant_uses(uses, implied, plan.implications) | listed[uses.tags]
    if plan.per_image is None:
        return said
    left = uses.where(said)
    choose = _rarest if plan.per_image_by == "rarity" else _most_informative
    said[said] = choose(left, plan.per_image, counts, places[left.tags], implied)
    return said


def _rarest(uses: Incidence, limit: int, counts: Numbers, places: Numbers, _implied: Any) -> Mask:
    import numpy as np

    order = np.lexsort((places, counts[uses.tags], uses.rows))
    return _first(order, uses.rows, limit)


def _first(order: NDArray[np.int64], rows: Numbers, limit: int) -> Mask:
    """Return a mask of the first `limit` uses of each row; `order` sorts the uses by row."""
    import numpy as np

    sorted_rows = rows[order]
    starts = np.flatnonzero(np.append(True, sorted_rows[1:] != sorted_rows[:-1])[: len(order)])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    mask = np.zeros(len(rows), dtype=bool)
    mask[order[place < limit]] = True
    return mask


def _most_informative(uses: Incidence, limit: int, counts: Numbers, places: Numbers, implied: Any | None) -> Mask:
    import numpy as np

    relevance = _information(counts, uses.pictures, implied)[uses.tags]
    alike = _likeness(uses, implied)
    likeness = np.zeros(len(uses.rows))
    chosen = np.zeros(len(uses.rows), dtype=bool)
    for _ in range(limit):
        gain = (1 - _NOVELTY) * relevance - _NOVELTY * likeness
        order = np.lexsort((places, -np.round(gain, 9), chosen, uses.rows))
        best = _first(order, uses.rows, 1) & ~chosen
        if not best.any():
            break
        chosen |= best
        taken = np.full(uses.pictures, -1, dtype=np.int64)
        taken[uses.rows[best]] = uses.tags[best]
        open_ = ~chosen & (taken[uses.rows] >= 0)
        found = np.asarray(alike[taken[uses.rows[open_]], uses.tags[open_]]).ravel()
        likeness[open_] = np.maximum(likeness[open_], found)
    return chosen


def _information(counts: Numbers, pictures: int, implied: Any | None) -> NDArray[np.float64]:
    """Return, per tag, what it tells: inverse frequency and depth, each of 0 to 1, in equal parts."""
    import numpy as np

    rarity = np.log(max(pictures, 1) / np.maximum(counts, 1))
    depth = np.zeros(len(counts)) if implied is None else depths(implied).astype(float)
    told: NDArray[np.float64] = rarity / np.log(max(pictures, 2)) + depth / max(depth.max(initial=0), 1)
    return told / 2


def _likeness(uses: Incidence, implied: Any | None) -> Any:
    """Return the tags' Jaccard indices as a CSR matrix, 1 where one implies the other."""
    matrix = uses.matrix()
    both = (matrix.T @ matrix).tocoo()
    counts = uses.counts()
    jaccard = both.data / (counts[both.row] + counts[both.col] - both.data)
    both.data = jaccard
    alike = both.tocsr()
    if implied is not None and implied.nnz:
        alike = alike.maximum((implied + implied.T).sign().astype(float))
    alike.sort_indices()
    return alike
