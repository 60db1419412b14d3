"""The decision on simulated studies: it is seldom wrong, its intervals hold, and it sees what it says it sees.

A smaller copy of `benchmarks/decision.py`; bounds are as wide as chance makes so few studies.
"""

import numpy as np
import pytest

from ti_pipeline.evaluation.decision import overall, slopes
from ti_pipeline.evaluation.intervals import ratio_bounds, share_bounds


def test_identical_checkpoints_are_seldom_told_apart(simulations) -> None:
    rows = simulations.false_certainty(60, counts=(6,), seed_counts=(2,))
    allowed = 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 60)
    for row in rows:
        assert row["overall"] <= allowed
        assert row["obedience"] <= allowed
        assert row["likeness"] <= allowed
        assert row["mean of axes"] <= allowed
        assert row["overfit"] <= 0.05
    assert np.mean([row["old any axis"] for row in rows]) > 0.3, (
        "these studies do mislead a rule that believes its eyes"
    )


def test_intervals_hold_the_truth_as_often_as_they_say(simulations) -> None:
    found = {"axes": [], "obedience": [], "likeness": [], "overall": []}
    world = simulations.World(*np.array(simulations.DEMO).T, unequal=True)
    for trials, truth, _ in simulations._studies(world, 2, 50, 9):
        for name, one in simulations.estimates(trials, "balanced").items():
            inside = (one.low <= truth[name]) & (truth[name] <= one.high)
            found["axes" if name in simulations.AXES else name].append(inside.mean())
    # Checkpoints of a study share its reference, so that their obedience misses together.
    for name, told in found.items():
        assert 0.9 <= np.mean(told) <= 0.985, name


@pytest.mark.parametrize("prefer", ["balanced", "likeness", "obedience"])
def test_slopes_are_those_of_small_steps(prefer) -> None:
    obeyed, alike = np.array([0.9, 0.5, 0.2]), np.array([0.1, 0.6, 0.9])
    step = 1e-6
    steep = slopes(obeyed, alike, prefer)
    by_obedience = (overall(obeyed + step, alike, prefer) - overall(obeyed - step, alike, prefer)) / (2 * step)
    by_likeness = (overall(obeyed, alike + step, prefer) - overall(obeyed, alike - step, prefer)) / (2 * step)
    np.testing.assert_allclose(steep, [by_obedience, by_likeness], rtol=1e-5)


def test_shares_of_one_stratum_have_wilsons_interval_as_in_scipy() -> None:
    """Where the trials vary as coins do, an effective sample is the sample."""
    from scipy.stats import binomtest

    for right, wrong in ((0, 5), (7, 0), (20, 20), (90, 10)):
        values = np.array([[1.0] * right + [0.0] * wrong])
        count = right + wrong
        low, high = share_bounds(values, np.full(count, 1 / count), np.zeros(count, dtype=int))
        theirs = binomtest(right, count).proportion_ci(method="wilson")
        assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_a_ratio_of_itself_with_full_correlation_is_one_for_sure() -> None:
    share, bounds = np.array([0.8]), (np.array([0.7]), np.array([0.9]))
    low, high = ratio_bounds(share, bounds, share, bounds, np.array([1.0]))
    assert (low[0], high[0]) == pytest.approx((1, 1), abs=1e-6)
    apart = ratio_bounds(share, bounds, share, bounds, np.array([0.0]))
    assert apart[0][0] < 0.87 < 1.15 < apart[1][0]
