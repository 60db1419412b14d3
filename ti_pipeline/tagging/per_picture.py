"""Per picture: which of its vocabulary tags a caption says, and which it keeps longest where there is little room.

Here: what implications, floors (`at_least`) and the limit (`per_image`) take from single pictures. Each picture is
decided by itself, so that a change of the vocabulary asks only the pictures that it touches. Not here: which tags the
vocabulary has (`vocabulary`), how the caption is worded (`captions`), or how long a prompt may be (`budget`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.implications import depths, implied_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Mask, Numbers

__all__ = ["Chooser", "information", "likeness"]

# Carbonell & Goldstein (1998) weigh relevance against redundancy; half and half is their middle.
_NOVELTY = 0.5
# Likeness is looked up in a full table up to so many tags (16 MiB), in a sparse one above.
_DENSE = 2048
_NEVER = -(2**62)


class Chooser:
    """Decides for the pictures of `uses` what their captions say, whatever tags the vocabulary has.

    `counted` are the uses on the pictures that are trained: what is rare and what is alike is told by them alone.
    `places` is the tags' order in captions, `categories` and `listed` (the keep list) are theirs, all [names];
    `implied` is the closure of the implications over the names, None where there is no catalog.

    A limit keeps, first, the tags of the floors: of each category of `at_least` so many, those before others that no
    other tag of the picture implies, of these the best by what follows. Then
    by `information` one tag after the other (maximal marginal relevance, Carbonell & Goldstein 1998): each time the
    tag that tells most (`information`) and is least like those chosen before (`likeness`). By `rarity` the rarest, the
    earlier in caption order if equally rare. The keep list gets no places of its own here.
    """

    def __init__(
        self,
        uses: Incidence,
        plan: CaptionPlan,
        *,
        counted: Incidence,
        places: Numbers,
        categories: Sequence[str],
        listed: Mask,
        implied: Any | None,
    ) -> None:
        import numpy as np

        self.uses, self.plan = uses, plan
        self._counted, self._places, self._listed, self._implied = counted, np.asarray(places), listed, implied
        self._categories = categories
        self._starts = np.append(0, np.cumsum(uses.per_picture()))
        self._by_tag = np.argsort(uses.tags, kind="stable")
        self._tag_starts = np.append(0, np.cumsum(uses.counts()))
        self._floors = list(plan.at_least.values())
        numbers: dict[str, int] = {name: number for number, name in enumerate(plan.at_least)}
        self._floor_of = np.array([numbers.get(category, -1) for category in categories], dtype=np.int64)
        self._special, self._general = _redundancy(uses, plan, implied)
        self._implying = implied_pairs(uses, implied) if implied is not None and plan.at_least else None
        self._pair_starts = np.searchsorted(uses.rows[self._special], np.arange(uses.pictures + 1))
        self._score: NDArray[np.float64] | None = None
        self._alike: Any = None
        self._place_of = np.empty(0, dtype=np.int64)  # of the tags in use among those that likeness knows

    def narrowed(self, alive: Mask) -> Chooser:
        """Return a chooser that decides the same as long as only these tags are asked for, in less time."""
        return Chooser(
            self.uses.where(alive[self.uses.tags]),
            self.plan,
            counted=self._counted,
            places=self._places,
            categories=self._categories,
            listed=self._listed,
            implied=self._implied,
        )

    def everything(self) -> NDArray[np.int64]:
        """Return the numbers of all uses."""
        import numpy as np

        return np.arange(len(self.uses.rows))

    def beside(self, tag: int) -> NDArray[np.int64]:
        """Return the numbers of all uses on the pictures that have a tag: what may change when it comes or goes."""
        rows = self.uses.rows[self._by_tag[self._tag_starts[tag] : self._tag_starts[tag + 1]]]
        return _spans(self._starts[rows], self._starts[rows + 1])

    def said(self, alive: Mask, among: NDArray[np.int64] | None = None, *, limit: bool = True) -> Mask:
        """Return which of the uses `among` (numbers, whole pictures; all if None) captions of these tags say.

        Without `limit` only implications take anything.
        """
        among = self.everything() if among is None else among
        said = self._without_repeats(alive, among)
        if limit and self.plan.per_image is not None:
            said[said] = self._order(among[said], self.plan.per_image) < self.plan.per_image
        return said

    def priorities(self, uses: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, per use (numbers, ordered), which one its caption keeps longest: 0, 1, … within each picture."""
        import numpy as np

        most = int(np.bincount(self.uses.rows[uses], minlength=1).max(initial=0))
        return self._order(uses, most)

    def _without_repeats(self, alive: Mask, among: NDArray[np.int64]) -> Mask:
        """Return which uses are of living tags that no other of the picture's tags says already."""
        import numpy as np

        said: Mask = alive[self.uses.tags[among]]
        if not len(self._special) or not len(among):
            return said
        if len(among) == len(self.uses.rows):
            pairs = np.arange(len(self._special))
        else:
            rows = self.uses.rows[among]
            rows = rows[np.append(True, rows[1:] != rows[:-1])]
            pairs = _spans(self._pair_starts[rows], self._pair_starts[rows + 1])
        special, general = self._special[pairs], self._general[pairs]
        repeated = general[alive[self.uses.tags[special]]]
        said[np.searchsorted(among, repeated[~self._listed[self.uses.tags[repeated]]])] = False
        return said

    def _order(self, uses: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
        """Return each use's turn within its picture, 0-based; from `limit` on the turns are not told apart."""
        import numpy as np

        rows, tags = self.uses.rows[uses], self.uses.tags[uses]
        if self.plan.per_image_by == "rarity":
            score = -self._counted.counts()[tags].astype(np.float64)
        else:
            score = self._told()[tags]
        first = self._kept_by_floors(uses, score)
        if self.plan.per_image_by == "rarity":
            return _turns(rows, np.lexsort((self._places[tags], -score, ~first, rows)))
        return self._one_by_one(rows, tags, score, first, limit)

    def _kept_by_floors(self, uses: NDArray[np.int64], score: NDArray[np.float64]) -> Mask:
        """Return which uses the floors of their categories keep: the highest scores of each picture."""
        import numpy as np

        rows, tags = self.uses.rows[uses], self.uses.tags[uses]
        general = np.zeros(len(self.uses.rows), dtype=bool)
        if self._implying is not None:
            there = np.zeros(len(self.uses.rows), dtype=bool)
            there[uses] = True
            general[self._implying[1][there[self._implying[0]]]] = True
        first = np.zeros(len(rows), dtype=bool)
        floor_of, general = self._floor_of[tags], general[uses]
        for number, floor in enumerate(self._floors):
            mine = np.flatnonzero(floor_of == number)
            order = np.lexsort((self._places[tags[mine]], -np.round(score[mine], 9), general[mine], rows[mine]))
            first[mine[_turns(rows[mine], order) < floor]] = True
        return first

    def _one_by_one(
        self, rows: Numbers, tags: Numbers, score: NDArray[np.float64], first: Mask, limit: int
    ) -> NDArray[np.int64]:
        import numpy as np

        turn = np.full(len(rows), limit, dtype=np.int64)
        if not len(rows):
            return turn
        # One whole number a use, highest first: floors, then the gain to nine digits, then the place in the caption.
        places, widest = self._places[tags], int(self._places.max(initial=0)) + 1
        like = np.zeros(len(rows))
        open_ = np.arange(len(rows))
        for number in range(limit):
            gain = (1 - _NOVELTY) * score[open_] - _NOVELTY * like[open_] + 4.0 * first[open_]
            key = np.rint(gain * 1e9).astype(np.int64) * widest - places[open_]
            of_row = rows[open_]
            starts = np.flatnonzero(np.append(True, of_row[1:] != of_row[:-1]))
            sizes = np.diff(np.append(starts, len(open_)))
            best = key == np.repeat(np.maximum.reduceat(key, starts), sizes)
            turn[open_[best]] = number
            taken = np.repeat(tags[open_[best]], sizes)[~best]
            open_ = open_[~best]
            if not len(open_):
                break
            like[open_] = np.maximum(like[open_], self._likeness(taken, tags[open_]))
        return turn

    def _told(self) -> NDArray[np.float64]:
        if self._score is None:
            self._score = information(self._counted.counts(), self._counted.pictures, self._implied)
        return self._score

    def _likeness(self, one: Numbers, other: Numbers) -> NDArray[np.float64]:
        import numpy as np

        if self._alike is None:
            used = np.unique(self.uses.tags)
            self._place_of = np.full(len(self.uses.names), -1)
            self._place_of[used] = np.arange(len(used))
            counted = self._counted.where(self._place_of[self._counted.tags] >= 0)
            self._alike = likeness(counted, self._implied)[used][:, used]
            self._alike.sort_indices()
            if len(used) <= _DENSE:
                self._alike = self._alike.toarray()
        found = self._alike[self._place_of[one], self._place_of[other]]
        return np.asarray(found, dtype=np.float64).ravel()


def _redundancy(uses: Incidence, plan: CaptionPlan, implied: Any | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of uses of one picture, ordered by picture, of which the first makes the second superfluous."""
    import numpy as np

    if plan.implications == "keep" or implied is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    special, general = implied_pairs(uses, implied)
    return (special, general) if plan.implications == "most_specific" else (general, special)


def information(counts: Numbers, pictures: int, implied: Any | None) -> NDArray[np.float64]:
    """Return, per tag, how much a caption loses without it, 0 to 1.

    The entropy in bits of whether a picture has the tag (Shannon), which is what hearing it is worth on average: next
    to nothing for a detail on one picture, all for a tag on half of them. It stays all for commoner tags, since what
    most pictures show and no caption says goes into the embedding; but a tag that every picture has tells nothing. The
    more special a tag, the more of it counts: four fifths for a tag that implies nothing, all for the deepest.
    """
    import numpy as np

    share = np.where(np.asarray(counts) < pictures, np.clip(counts / max(pictures, 1), 0, 0.5), 0.0)
    inside = np.where(share > 0, share, 0.5)
    entropy = np.where(share > 0, -(inside * np.log2(inside) + (1 - inside) * np.log2(1 - inside)), 0.0)
    depth = np.zeros(len(counts)) if implied is None else depths(implied).astype(float)
    told: NDArray[np.float64] = entropy * (4 + depth / max(depth.max(initial=0), 1)) / 5
    return told


def likeness(uses: Incidence, implied: Any | None) -> Any:
    """Return how alike tags are as a CSR matrix [names, names], 0 to 1.

    The correlation of standing on a picture (phi) where it is positive: tags that only meet because both are common are
    not alike. 1 where one implies the other. Of tags on a single picture nothing is known: two that met once would look
    inseparable.
    """
    import numpy as np

    matrix = uses.where(uses.counts()[uses.tags] > 1).matrix()
    both = (matrix.T @ matrix).tocoo()
    counts, pictures = uses.counts().astype(float), float(uses.pictures)
    spread = np.sqrt(counts * (pictures - counts))
    scale = spread[both.row] * spread[both.col]
    shared = both.data * pictures - counts[both.row] * counts[both.col]
    # Tags that all pictures have vary with nothing; with each other they are the same.
    phi = np.where(scale > 0, shared / np.where(scale > 0, scale, 1.0), (spread[both.row] == spread[both.col]) * 1.0)
    both.data = np.clip(phi, 0.0, 1.0)
    alike = both.tocsr()
    if implied is not None and implied.nnz:
        alike = alike.maximum((implied + implied.T).sign().astype(float))
    alike.sort_indices()
    return alike


def _turns(rows: Numbers, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each use's place within its row; `order` sorts the uses by row."""
    import numpy as np

    ordered = rows[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(order)])
    turn = np.empty(len(rows), dtype=np.int64)
    turn[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return turn


def _spans(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all whole numbers of the spans from each start to before its end, one span after the other."""
    import numpy as np

    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    spans: NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
    return spans
