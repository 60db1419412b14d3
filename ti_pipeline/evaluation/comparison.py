"""Comparisons of all checkpoints with each other that hold for the best one, though the same pictures chose it.

If checkpoints were equal, it would be chance which of them got which of the results of a trial. So results are
exchanged between checkpoints within every trial, again and again, and the largest difference between any two is looked
at each time: a difference is beyond chance where hardly any exchange has a larger one anywhere (the permutation test of
Fisher 1935 and Pitman 1938, over all pairs at once as Tukey's range and Westfall & Young 1993). That holds exactly, at
any number of trials and however hard they are, and for every pair at once, the chosen best among them. Where few trials
allow it, every exchange is counted; else they are drawn, which keeps the level too (Phipson & Smyth 2010).

Differences are measured in their own standard errors, so that a noisy loser does not hide a difference between two
steady ones. A standard error is that of the same prompts drawn with other seeds: it is taken among the seeds of each
value, drawn towards the mean of all pairs (as Smyth 2004), and a trial on which the two differ is added (as Agresti &
Min 2005), so that a few equal results are no certainty. The intervals of differences follow from the same quantile.
Not here: intervals of single scores (`intervals`), or comparisons while pictures are still being drawn (`racing`).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.decision import overall, slopes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.decision import Prefer, Scaled
    from ti_pipeline.evaluation.trials import Trials

    Floats = NDArray[np.float64]

__all__ = ["LIKENESS", "OBEDIENCE", "OVERALL", "SURE", "Compared", "compared", "learned", "strata"]

SURE = 0.05
OBEDIENCE, LIKENESS, OVERALL = "obedience", "likeness", "overall"
EXCHANGES = 1999
_AT_ONCE = 200
_TOWARDS_ALL = 4.0  # how many degrees of freedom the mean of all pairs is worth
_POWER = 0.8416212335729143  # the normal quantile of 80 %


@dataclass(frozen=True)
class Compared:
    """All pairs of one board: `lead` [c, c] of the row over the column, its standard error and `p`, for all at once.

    `limit` is how many standard errors are beyond chance. `tells` is the smallest true difference that two checkpoints'
    trials would show in four of five studies, infinite where there is nothing to tell.
    """

    lead: Floats
    error: Floats
    p: Floats
    limit: float
    tells: float

    @property
    def reach(self) -> Floats:
        """Return how far to each side of `lead` its interval reaches [c, c], for all pairs at once."""
        import numpy as np

        return self.limit * self.error * (1 - np.eye(len(self.lead)))


def compared(trials: Trials, on: Scaled, *, prefer: Prefer, seed: int) -> dict[str, Compared]:
    """Return every axis, obedience, likeness and overall, each with all its pairs. All trials must be there."""
    import numpy as np

    board = _Boards(trials, on, prefer)
    count = len(trials.checkpoints)
    own = np.arange(count)[None, None].repeat(len(trials.axis), axis=1)
    found = board.measured(own)
    largest = {name: np.zeros(0) for name in found}
    every = _all_exchanges(trials, on)
    # What was found is one of the exchanges that could have been.
    for exchange in [own, *_drawn(len(trials.axis), count, seed)] if every is None else every:
        for name, (lead, error) in board.measured(exchange).items():
            largest[name] = np.append(largest[name], _ratio(lead, error).max(axis=(1, 2)))
    return {
        name: _judged(lead[0], error[0], largest[name], board.freedom[name]) for name, (lead, error) in found.items()
    }


def _ratio(lead: Floats, error: Floats) -> Floats:
    import numpy as np

    # Rounded, so that sums in another order do not tell equal ones apart.
    return np.asarray(np.round(np.divide(lead, error, out=np.zeros_like(lead), where=error > 0), 9), dtype=np.float64)


def _judged(lead: Floats, error: Floats, largest: Floats, freedom: float) -> Compared:
    """Return a board's verdicts from its pairs and the largest ratio of every exchange, the observed one among them."""
    import numpy as np
    from scipy.stats import studentized_range

    ordered = np.sort(largest)
    ratios = np.abs(_ratio(lead, error))
    p = (len(ordered) - np.searchsorted(ordered, ratios, side="left")) / len(ordered)
    np.fill_diagonal(p, 1.0)
    allowed = math.ceil(SURE * len(ordered)) - 1  # so many may be as large as what is still called beyond chance
    pairs = error[np.triu_indices(len(error), 1)]
    if not pairs.any():
        return Compared(lead, error, p, 0.0, math.inf)
    if allowed:
        limit = float(ordered[-allowed - 1])
    else:  # too few exchanges for any verdict: no interval may say more, and none may be narrower than Tukey's
        limit = max(
            float(ratios.max()) + 1e-6, float(studentized_range.ppf(1 - SURE, len(lead), freedom)) / math.sqrt(2)
        )
    return Compared(lead, error, p, limit, float((limit + _POWER) * np.median(pairs)))


def _drawn(trials: int, count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield exchanges [b, t, c], `EXCHANGES` in all: whose result of the trial each checkpoint gets."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for start in range(0, EXCHANGES, _AT_ONCE):
        size = min(_AT_ONCE, EXCHANGES - start)
        yield np.argsort(rng.random((size, trials, count), dtype=np.float32), axis=2)


def _all_exchanges(trials: Trials, on: Scaled) -> list[NDArray[np.int64]] | None:
    """Return all exchanges, where they are no more than would be drawn; trials without any difference need none."""
    import numpy as np

    count = len(trials.checkpoints)
    differ = ((on.obeyed != on.obeyed[:1]) | (on.alike != on.alike[:1]) | (trials.right != trials.right[:1])).any(
        axis=0
    )
    places = np.flatnonzero(differ)
    if math.lgamma(count + 1) * len(places) > math.log(EXCHANGES + 1):
        return None
    orders = list(itertools.permutations(range(count)))
    every = np.array(list(itertools.product(orders, repeat=len(places))), dtype="int64")
    whole = np.tile(np.arange(count), (len(every), len(differ), 1))
    whole[:, places] = every.reshape(len(every), len(places), count)
    return [whole[at : at + _AT_ONCE] for at in range(0, len(whole), _AT_ONCE)]


def strata(trials: Trials) -> NDArray[np.int64]:
    """Return of each trial [t] what its chance is taken among: the seeds of its value.

    With one seed there is no chance to be seen there; then it is taken among the axis' values, or among all trials,
    which also counts how much values differ.
    """
    import numpy as np

    for candidate in (trials.value, trials.axis):
        if np.bincount(candidate).min() > 1:
            return candidate
    return np.zeros_like(trials.axis)


class _Boards:
    """Scores and standard errors of differences of all boards at once, for any exchange of results."""

    def __init__(self, trials: Trials, on: Scaled, prefer: Prefer) -> None:
        import numpy as np

        self._right, self._obeyed, self._alike = trials.right.T, on.obeyed.T, on.alike.T
        self._voice, self._even, self._prefer, self._axes = on.voice, on.even, prefer, trials.axes
        places = strata(trials)
        self._starts = np.flatnonzero(np.diff(places, prepend=-1))
        sizes = np.diff(np.append(self._starts, len(places)))
        self._sizes = sizes
        self._widen = np.sqrt(np.repeat(sizes / np.maximum(sizes - 1, 1), sizes))[:, None]
        ends = np.searchsorted(trials.axis, np.arange(len(trials.axes)), side="right")
        self._spans = [slice(start, end) for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)]
        everywhere = float(max(1, (sizes - 1).sum()))
        self.freedom = dict.fromkeys((OBEDIENCE, LIKENESS, OVERALL), everywhere) | {
            name: max(1.0, everywhere * (span.stop - span.start) / len(places))
            for name, span in zip(self._axes, self._spans, strict=True)
        }
        # One trial more on which two differ, in units of obedience: what a typical trial weighs there.
        unit = float(np.max(1 / on.reached))
        self._one_more = (unit / len(places)) ** 2

    def measured(self, exchange: NDArray[np.int64]) -> dict[str, tuple[Floats, Floats]]:
        """Return of each board leads and their standard errors, both [b, c, c]."""
        import numpy as np

        right, obeyed, alike = (
            np.take_along_axis(one[None], exchange, axis=2) for one in (self._right, self._obeyed, self._alike)
        )
        found = {}
        varied = self._varied(right)
        for name, span in zip(self._axes, self._spans, strict=True):
            size, part = span.stop - span.start, varied[:, span]
            error = _moderated(_apart(part.mT @ part) / size**2, self.freedom[name]) + 1 / size**2
            found[name] = right[:, span].mean(axis=1), np.sqrt(error)
        scores = self._voice @ obeyed, self._even @ alike
        varied_obeyed, varied_alike = (
            self._varied(one) * weights[:, None] for one, weights in ((obeyed, self._voice), (alike, self._even))
        )
        steep = slopes(*scores, self._prefer)
        both = varied_obeyed * steep[0][:, None] + varied_alike * steep[1][:, None]
        more = self._one_more * np.ones_like(steep[0])
        for name, score, part, added in (
            (OBEDIENCE, scores[0], varied_obeyed, more),
            (LIKENESS, scores[1], varied_alike, 0 * more),
            (OVERALL, overall(*scores, self._prefer), both, more * steep[0] ** 2),
        ):
            pseudo = (added[:, :, None] + added[:, None]) / 2
            found[name] = score, np.sqrt(_moderated(_apart(part.mT @ part), self.freedom[name]) + pseudo)
        return {name: (score[:, :, None] - score[:, None], error) for name, (score, error) in found.items()}

    def _varied(self, values: Floats) -> Floats:
        """Return values [b, t, c] less the mean of their stratum, widened for the freedom that it took."""
        import numpy as np

        means = np.add.reduceat(values, self._starts, axis=1) / self._sizes[:, None]
        return np.asarray((values - np.repeat(means, self._sizes, axis=1)) * self._widen)


def _apart(products: Floats) -> Floats:
    """Return variances of differences [b, c, c] from sums of products."""
    import numpy as np

    own = np.diagonal(products, axis1=1, axis2=2)
    return np.asarray(np.maximum(own[:, :, None] + own[:, None] - 2 * products, 0.0))


def _moderated(variances: Floats, freedom: float) -> Floats:
    """Return variances of pairs drawn towards the mean of all pairs."""
    import numpy as np

    count = variances.shape[1]
    mean = variances.sum(axis=(1, 2), keepdims=True) / max(count * (count - 1), 1)
    return np.asarray((freedom * variances + _TOWARDS_ALL * mean) / (freedom + _TOWARDS_ALL))


def learned(on: Scaled, *, seed: int) -> Floats:
    """Return p [c] of having come nearer to the concept than the base does without the embedding, for all at once.

    Signs of the way that was gone are turned, trial by trial and alike for all checkpoints, and the largest mean in
    standard errors is looked at each time.
    """
    import numpy as np

    count = on.alike.shape[1]
    if 2**count <= EXCHANGES + 1:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(EXCHANGES + 1, count))
        signs[0] = 1.0
    means = signs @ on.alike.T / count
    squares = (on.alike**2).mean(axis=1)
    ratios = np.round(means / np.sqrt(np.maximum(squares - means**2, 1e-12 + 1e-6 * squares)), 9)
    largest = np.sort(ratios.max(axis=1))
    return np.asarray((len(largest) - np.searchsorted(largest, ratios[0], side="left")) / len(largest))
