"""Racing: pictures are drawn seed by seed for the checkpoints that may still be best, and no more.

After every round those leave that are worse overall than the leader beyond chance; the race is over when one is left,
when none of the others can be better than the leader by more than a margin (multiple comparisons with the best, Hsu
1981), or when all seeds are drawn. The idea is that of Maron & Moore
(1994) and of F-Race (Birattari et al. 2002). Looking at the same pictures again and again would find something by
chance sooner or later, so the error is given out over the rounds (group-sequential tests: Pocock 1977; by the spending
function of Lan & DeMets 1983): what is said at the end of any round has 5 % for the whole race. The boundaries are
those of the largest difference between any two of the checkpoints that are still in, drawn as sums of normal
increments; a set of them is tested at its own boundary, so that who has left cannot make the others' harder (closed
testing, Marcus et al. 1976). p is by stages (Jennison & Turnbull 2000, chapter 8).
Here: who leaves after which round, and what is to be drawn next, from the trials there are: nothing is remembered, so a
race that was stopped goes on where it was. Not here: drawing, or comparisons of a suite drawn at once (`comparison`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.comparison import OVERALL, SURE, Compared, pairs_of, tellable
from ti_pipeline.evaluation.decision import overall, scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.decision import Prefer
    from ti_pipeline.evaluation.trials import Trials

__all__ = ["MARGIN", "Left", "Race", "Seeds", "raced", "with_those_gone"]

MARGIN = 0.08  # of the overall score; see the decision record
_PATHS = 20_000


@dataclass(frozen=True)
class Seeds:
    """All seeds that a race may draw, in their order; `first` of them are drawn in its first round."""

    seeds: tuple[int, ...]
    first: int
    margin: float = MARGIN


@dataclass(frozen=True)
class Left:
    """A checkpoint that left: after how many seeds, and how far it was behind the leader then, with interval and p."""

    seeds: int
    leader: str
    behind: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Race:
    """A race as far as it has come: `still` may yet be best, `left` are worse than one that was.

    `draw` are the seeds that are to be drawn next for those still in (and for the references), empty when it is over;
    `why` then says so in words. `compared` are all pairs of those still in, at the last round, overall.
    """

    still: tuple[str, ...]
    left: dict[str, Left]
    draw: tuple[int, ...]
    seeds: tuple[int, ...]
    why: str
    compared: Compared | None


def raced(
    trials: Trials, seeds: Sequence[int], *, first: int, prefer: Prefer = "balanced", margin: float = MARGIN
) -> Race:
    """Return how the race stands with these trials, run anew from its first round.

    `seeds` are all that may be drawn, in their order, at least `first` of them in the first round, then one at a time.
    Trials of seeds beyond those are left aside. Raises `ValueError` where `first` is not between 1 and their number.
    """
    import numpy as np

    if not 1 <= first <= len(seeds):
        raise ValueError(f"a race of {len(seeds)} seeds cannot begin with {first}")
    still, left, last = trials.checkpoints, dict[str, Left](), None
    if not still:
        return Race((), {}, (), (), "nobody is in it", None)
    for count in range(first, len(seeds) + 1):
        here = trials.only(still).at(np.isin(trials.seed, seeds[:count]))
        if not _drawn(here, seeds[:count]):
            drawn = seeds[count - 1 : count] if last else seeds[:first]
            return Race(still, left, tuple(drawn), tuple(seeds[: count - 1 if last else 0]), "", last)
        last, leader = _look(here, count, first, len(seeds), prefer)
        gone = (last.p[leader] < SURE) & (last.lead[leader] > 0)
        left |= {
            name: Left(count, still[leader], *(float(v) for v in _behind(last, leader, at)))
            for at, name in enumerate(still)
            if gone[at]
        }
        why = _over(last, leader, gone, margin, all_drawn=count == len(seeds))
        kept = np.flatnonzero(~gone)
        still, last = tuple(still[at] for at in kept), _those(last, kept)
        if why:
            break
    return Race(still, left, (), tuple(seeds[:count]), why, last)


def with_those_gone(
    boards: dict[str, Compared], race: Race, everyone: Trials, early: dict[str, Compared]
) -> dict[str, Compared]:
    """Return boards of those still in, widened by those that left; `early` are the boards of `everyone` at the start.

    Overall, who left stands to each of those still in as it stood to the leader of its last round.
    """
    import numpy as np

    names = everyone.checkpoints
    inside = np.array([names.index(name) for name in race.still])
    found = {}
    for board, own in boards.items():
        lead, p, reach = (one.copy() for one in (early[board].lead, early[board].p, early[board].reach))
        for wide, narrow in ((lead, own.lead), (p, own.p), (reach, own.reach)):
            wide[np.ix_(inside, inside)] = narrow
        for name, one in race.left.items() if board == OVERALL else ():
            at = names.index(name)
            lead[inside, at], lead[at, inside] = one.behind, -one.behind
            for matrix, value in ((p, one.p), (reach, one.behind - one.low)):
                matrix[inside, at] = matrix[at, inside] = value
        found[board] = Compared(lead, p, reach, own.tells)
    return found


def _drawn(trials: Trials, seeds: Sequence[int]) -> bool:
    """Tell whether everything of these seeds is there: each of them, on every trial of every checkpoint."""
    return set(seeds) <= set(trials.seed.tolist()) and bool(trials.whole.all())


def _behind(found: Compared, leader: int, at: int) -> tuple[float, float, float, float]:
    lead, reach = found.lead[leader, at], found.reach[leader, at]
    return lead, lead - reach, lead + reach, found.p[leader, at]


def _over(found: Compared, leader: int, gone: NDArray[np.bool_], margin: float, *, all_drawn: bool) -> str:
    """Return why the race is over, or nothing."""
    if (~gone).sum() == 1:
        return "one is left: every other is worse beyond chance"
    if ((found.reach - found.lead)[leader][~gone] <= margin).all():
        return f"none of those left is better than the leader by more than {margin:g}"
    return "all seeds are drawn" if all_drawn else ""


def _those(found: Compared, kept: NDArray[np.int64]) -> Compared:
    """Return the same of some of the checkpoints."""
    lead, p, reach = (one[kept][:, kept] for one in (found.lead, found.p, found.reach))
    return Compared(lead, p, reach, found.tells)


def _look(trials: Trials, count: int, first: int, most: int, prefer: Prefer) -> tuple[Compared, int]:
    """Return all pairs after so many seeds, with what may be said of them in this round, and the leader's place."""
    import numpy as np
    from scipy.stats import norm, t

    on = scaled(trials)
    leader = int(np.argmax(overall(on.obeyed @ on.voice, on.alike @ on.even, prefer)))
    if len(trials.checkpoints) == 1:
        nothing = np.zeros((1, 1))
        return Compared(nothing, np.ones((1, 1)), nothing, math.inf), leader
    lead, error, freedom = pairs_of(trials, on, prefer)
    boundary = _boundaries(len(trials.checkpoints), first, most)
    at = count - first
    ratios = np.abs(np.divide(lead, error, out=np.zeros_like(lead), where=error > 0))
    # As far out on the normal curve as they are on Student's: the boundaries know their standard errors.
    far = -norm.ppf(np.maximum(t.sf(ratios, freedom), 1e-300))
    p = boundary.spent[at] + np.searchsorted(-boundary.paths[at], -far, side="right") / _PATHS
    limit = float(t.isf(norm.sf(boundary.limits[at]), freedom))
    p = np.where(far > boundary.limits[at], np.minimum(p, np.nextafter(SURE, 0)), np.maximum(p, SURE))
    np.fill_diagonal(p, 1.0)
    return Compared(lead, np.minimum(p, 1.0), limit * error * (1 - np.eye(len(lead))), tellable(error, limit)), leader


@dataclass(frozen=True)
class _Boundaries:
    """Of every round: the limit in standard errors, the error spent before it, and the largest of the paths left."""

    limits: tuple[float, ...]
    spent: tuple[float, ...]
    paths: tuple[NDArray[np.float64], ...]


@cache
def _boundaries(checkpoints: int, first: int, most: int) -> _Boundaries:
    """Return the boundaries for a set of so many equal checkpoints, by paths of normal increments.

    Spent after a share s of the seeds: 0.05 ln(1 + (e - 1) s), which keeps the limits of all rounds about the same.
    """
    import numpy as np

    rng = np.random.default_rng([checkpoints, first, most])
    place = math.sqrt(first) * rng.standard_normal((_PATHS, checkpoints))
    inside = np.ones(_PATHS, dtype=bool)
    limits, spent, paths, before = [], [], [], 0.0
    for count in range(first, most + 1):
        if count > first:
            place += rng.standard_normal(place.shape)
        largest = np.sort((np.ptp(place, axis=1) / math.sqrt(2 * count))[inside])[::-1]
        allowed = SURE * math.log1p((math.e - 1) * count / most)
        crossing = round((allowed - before) * _PATHS)
        limit = float(largest[crossing])
        limits.append(limit)
        spent.append(before)
        paths.append(largest)
        inside &= np.ptp(place, axis=1) / math.sqrt(2 * count) <= limit
        before = 1 - inside.sum() / _PATHS
    return _Boundaries(tuple(limits), tuple(spent), tuple(paths))
