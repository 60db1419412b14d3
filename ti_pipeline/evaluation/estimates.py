"""Estimates: every board's scores with their intervals, each checkpoint for itself.

Here: what trials say of axes, obedience, likeness and the overall score. Not here: the formulas (`decision`), how an
interval is made (`intervals`), or who is better than whom (`comparison`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.comparison import LIKENESS, OBEDIENCE, OVERALL, strata
from ti_pipeline.evaluation.decision import overall, scaled
from ti_pipeline.evaluation.intervals import (
    covariance_of_means,
    mean_bounds,
    overall_bounds,
    ratio_bounds,
    share_bounds,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.decision import Prefer, Scaled
    from ti_pipeline.evaluation.trials import Trials

    Floats = NDArray[np.float64]

__all__ = ["Estimate", "estimates"]

_MOST = 0.95  # of a correlation: more is not to be had from so few trials


@dataclass(frozen=True)
class Estimate:
    """Scores [c] of one board with the bounds of their 95 % intervals."""

    score: Floats
    low: Floats
    high: Floats


def estimates(trials: Trials, prefer: Prefer) -> dict[str, Estimate]:
    """Return every axis, obedience, likeness and overall. All trials must be there."""
    import numpy as np

    on, places = scaled(trials), strata(trials)
    found = {}
    for number, name in enumerate(trials.axes):
        columns = trials.axis == number
        even = np.full(columns.sum(), 1 / columns.sum())
        values = trials.right[:, columns]
        found[name] = Estimate(values @ even, *share_bounds(values, even, places[columns]))
    obeyed = found[OBEDIENCE] = _obedience(trials, on, places)
    moved = _moves_of_likeness(trials, on)
    alike = on.alike @ on.even
    variance = covariance_of_means(moved, moved, on.even, places)
    found[LIKENESS] = Estimate(alike, *mean_bounds(alike, variance, places))
    bounds = [(one.low, one.high) for one in (obeyed, found[LIKENESS])]
    together = _correlated(_moves_of_obedience(trials, on, obeyed.score), moved, on.even, places)
    found[OVERALL] = Estimate(
        overall(obeyed.score, alike, prefer),
        *overall_bounds(obeyed.score, bounds[0], alike, bounds[1], together, prefer),
    )
    return found


def _obedience(trials: Trials, on: Scaled, places: NDArray[np.int64]) -> Estimate:
    import numpy as np

    if len(on.left_out) == len(trials.axes):
        fully = np.ones(len(trials.checkpoints))
        return Estimate(fully, fully, fully)
    bare = _of_base(trials, "right")
    above, below = trials.right @ on.voice, bare @ on.voice
    correlation = np.maximum(_correlated(trials.right, bare, on.voice, places), 0.0)
    bounds = ratio_bounds(
        above,
        share_bounds(trials.right, on.voice, places),
        below,
        share_bounds(bare, on.voice, places),
        correlation,
    )
    return Estimate(above / below, *bounds)


def _of_base(trials: Trials, what: str) -> Floats:
    """Return values [c, t] of each checkpoint's base without the embedding."""
    import numpy as np

    return np.array([getattr(group, what) for group in trials.groups])[trials.of_group]


def _moves_of_obedience(trials: Trials, on: Scaled, obedience: Floats) -> Floats:
    """Return how far each trial [c, t] moves obedience, as if it had the weight of likeness: both are summed alike."""
    own = trials.right - obedience[:, None] * _of_base(trials, "right")
    return own / on.reached[trials.of_group, None] * (on.voice / on.even)


def _moves_of_likeness(trials: Trials, on: Scaled) -> Floats:
    """Return how far each trial [c, t] moves likeness: by itself, and as a part of the lower end of the scale."""
    import numpy as np

    way = on.way[trials.of_group, None]
    end = np.divide(_of_base(trials, "near"), way, out=np.zeros_like(on.alike), where=way > 0)
    return on.alike + (on.alike @ on.even)[:, None] * end


def _correlated(first: Floats, second: Floats, weights: Floats, places: NDArray[np.int64]) -> Floats:
    import numpy as np

    both, one, other = (
        covariance_of_means(*pair, weights, places) for pair in ((first, second), (first, first), (second, second))
    )
    spread = np.sqrt(one * other)
    return np.clip(np.divide(both, spread, out=np.zeros_like(both), where=spread > 0), -_MOST, _MOST)
