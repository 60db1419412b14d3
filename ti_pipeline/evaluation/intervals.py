"""Intervals of single scores that hold what they promise, also for two seeds and where everything is right.

What they are about: the same prompts drawn with ever more seeds. Shares have Wilson's interval (1927) with as many
trials as their variance is worth: prompts of different difficulty make a share steadier than one coin tossed as often
(effective sample size, Korn & Graubard 1998). A ratio of two shares that were drawn on the same trials takes its ends
from theirs (MOVER: Zou & Donner 2008; of ratios: Donner & Zou 2012), a mean has Student's interval. Overall, a function
of two such scores, has the quantiles of what it becomes when both are drawn around their places, each to its own side
as far as its interval reaches there. All are of 95 %, each for itself; what holds for all at once is in `comparison`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.decision import overall

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.decision import Prefer

    Floats = NDArray[np.float64]
    Bounds = tuple[Floats, Floats]

__all__ = ["covariance_of_means", "mean_bounds", "overall_bounds", "ratio_bounds", "share_bounds"]

_Z = 1.959963984540054
_DRAWS = 4096
_TOWARDS_COIN = 2.0  # how many degrees of freedom the variance of one coin for all prompts is worth


def covariance_of_means(first: Floats, second: Floats, weights: Floats, places: NDArray[np.int64]) -> Floats:
    """Return the covariance [c] of two weighted sums of trials [c, t], taken among the trials of each stratum."""
    import numpy as np

    starts = np.flatnonzero(np.diff(places, prepend=-1))
    sizes = np.diff(np.append(starts, len(places)))
    widen = np.repeat(sizes / np.maximum(sizes - 1, 1), sizes)

    def varied(values: Floats) -> Floats:
        means = np.add.reduceat(values, starts, axis=1) / sizes
        return np.asarray((values - np.repeat(means, sizes, axis=1)) * weights)

    return np.asarray((varied(first) * varied(second) * widen).sum(axis=1))


def _freedom(places: NDArray[np.int64]) -> int:
    import numpy as np

    return max(1, len(places) - len(np.unique(places)))


def share_bounds(values: Floats, weights: Floats, places: NDArray[np.int64]) -> Bounds:
    """Return the bounds [c] of shares `values @ weights` of trials [c, t] within 0 and 1; weights add up to 1."""
    import numpy as np

    shares, worth = values @ weights, 1 / (weights**2).sum()
    coin = np.maximum(shares * (1 - shares), 0.0)
    freedom = _freedom(places)
    own = covariance_of_means(values, values, weights, places) * worth
    variance = (freedom * own + _TOWARDS_COIN * coin) / (freedom + _TOWARDS_COIN)
    trials = worth * np.divide(coin, variance, out=np.ones_like(coin), where=variance > 0)
    middle = (shares + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    spread = _Z * np.sqrt(coin / trials + _Z**2 / (4 * trials**2)) / (1 + _Z**2 / trials)
    return np.clip(middle - spread, 0, shares), np.clip(middle + spread, shares, 1)


def ratio_bounds(
    above: Floats, above_bounds: Bounds, below: Floats, below_bounds: Bounds, correlation: Floats
) -> Bounds:
    """Return the bounds [c] of `above / below`, both positive, from the bounds of each and their correlation."""
    import numpy as np

    def end(of_above: Floats, of_below: Floats, sign: float) -> Floats:
        far, near = np.abs(above - of_above), np.abs(below - of_below)
        middle = above * below - correlation * far * near
        under = np.maximum(middle**2 - (below**2 - near**2) * (above**2 - far**2), 0.0)
        return np.asarray((middle + sign * np.sqrt(under)) / np.maximum(below**2 - near**2, 1e-12))

    low, high = end(above_bounds[0], below_bounds[1], -1.0), end(above_bounds[1], below_bounds[0], 1.0)
    return np.clip(low, 0, above / below), np.maximum(high, above / below)


def mean_bounds(means: Floats, variances: Floats, places: NDArray[np.int64]) -> Bounds:
    """Return Student's bounds [c] of means with these variances, taken among trials of the same stratum."""
    import numpy as np
    from scipy.stats import t

    reach = float(t.ppf(0.975, _freedom(places))) * np.sqrt(variances)
    return means - reach, means + reach


def overall_bounds(
    obedience: Floats,
    obedience_bounds: Bounds,
    likeness: Floats,
    likeness_bounds: Bounds,
    correlation: Floats,
    prefer: Prefer,
) -> Bounds:
    """Return the bounds [c] of the overall score of obedience and likeness with these bounds and this correlation."""
    import numpy as np

    first, second = _normal_pairs()

    def around(score: Floats, bounds: Bounds, drawn: Floats) -> Floats:
        below, above = ((np.abs(score - bound) / _Z)[:, None] for bound in bounds)
        return np.asarray(score[:, None] + drawn * np.where(drawn < 0, below, above))

    with_first = correlation[:, None] * first + np.sqrt(1 - correlation[:, None] ** 2) * second
    drawn = overall(
        around(obedience, obedience_bounds, np.broadcast_to(first, with_first.shape)),
        around(likeness, likeness_bounds, with_first),
        prefer,
    )
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    score = overall(obedience, likeness, prefer)
    return np.minimum(low, score), np.maximum(high, score)


@cache
def _normal_pairs() -> tuple[Floats, Floats]:
    """Return the same pairs of normal numbers every time, spread evenly (Sobol')."""
    from scipy.stats import norm, qmc

    points = norm.ppf(qmc.Sobol(2, scramble=True, rng=0).random(_DRAWS))
    return points[:, 0], points[:, 1]
