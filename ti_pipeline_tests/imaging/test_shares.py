import itertools
import time
from fractions import Fraction

import numpy as np
import pytest

from ti_pipeline.imaging.shares import ShareTarget, binding, chosen, nearest_shares


def quality(members, targets, scores, tolerance):
    """(size, −distance, score) of a set in exact arithmetic, or None when it misses a target."""
    distance = Fraction(0)
    for target in targets:
        share = Fraction(sum(target.has[i] for i in members), len(members))
        off = abs(share - Fraction(str(target.share)))
        if off > Fraction(str(tolerance)):
            return None
        distance += off
    return len(members), -distance, sum(scores[i] for i in members)


def best_by_enumeration(targets, scores, at_most, tolerance):
    sets = (s for n in range(1, at_most + 1) for s in itertools.combinations(range(len(scores)), n))
    return max((q for q in (quality(s, targets, scores, tolerance) for s in sets) if q), default=None)


@pytest.mark.parametrize("seed", range(25))
def test_equals_enumeration_of_all_subsets(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(5, 12))
    names = ("text", "solo", "simple_background")[: int(random.integers(1, 4))]
    targets = [
        ShareTarget(n, float(random.choice([0, 0.15, 0.4, 0.5, 0.833, 1])), (random.random(count) < 0.5).tolist())
        for n in names
    ]
    scores = random.integers(-5, 20, count).tolist()
    at_most, tolerance = int(random.integers(2, count + 1)), float(random.choice([0, 0.05, 0.2]))
    taken = chosen(targets, scores, at_most=at_most, tolerance=tolerance)
    best = best_by_enumeration(targets, scores, at_most, tolerance)
    assert (quality(taken, targets, scores, tolerance) if taken else None) == best


def test_a_share_exactly_on_the_edge_of_the_tolerance_counts():
    has = [True] * 9 + [False]
    assert len(chosen([ShareTarget("solo", 0.95, has)], [0] * 10, at_most=10, tolerance=0.05)) == 10
    assert len(chosen([ShareTarget("solo", 0.951, has)], [0] * 10, at_most=10, tolerance=0.05)) == 9


def test_without_targets_the_best_scored_come_first_then_the_order_given():
    assert chosen([], [1, 5, 5, 3, 5], at_most=3, tolerance=0.05) == [1, 2, 4]
    assert chosen([], [5, 5, 5], at_most=2, tolerance=0.05) == [0, 1]


def test_a_set_of_the_size_people_use():
    random = np.random.default_rng(0)
    count, wanted = 3000, {"text": 0.0, "solo": 0.95, "simple_background": 0.40}
    chances = {"text": 0.3, "solo": 0.6, "simple_background": 0.7}
    targets = [ShareTarget(n, share, (random.random(count) < chances[n]).tolist()) for n, share in wanted.items()]
    scores = random.integers(0, 2000, count).tolist()
    taken = chosen(targets, scores, at_most=525, tolerance=0.02)
    assert len(taken) == 525
    for target in targets:
        # 525 × 0.95 = 498.75: the nearest possible share is a quarter of a picture away.
        assert abs(sum(target.has[i] for i in taken) - target.share * 525) <= 0.25
    assert taken == chosen(targets, scores, at_most=525, tolerance=0.02)
    for kind in itertools.product([False, True], repeat=3):
        group = [i for i in range(count) if tuple(t.has[i] for t in targets) == kind]
        inside = [scores[i] for i in group if i in set(taken)]
        outside = [scores[i] for i in group if i not in set(taken)]
        assert not inside or not outside or min(inside) >= max(outside)


def test_nearest_shares_equal_enumeration():
    random = np.random.default_rng(3)
    for _ in range(10):
        targets = [ShareTarget(n, float(s), (random.random(9) < 0.3).tolist()) for n, s in (("text", 0), ("solo", 0.9))]
        nearest = nearest_shares(targets, 5)
        off = max(abs(nearest[t.name] - t.share) for t in targets)
        best = min(
            max(abs(sum(t.has[i] for i in s) / 5 - t.share) for t in targets)
            for s in itertools.combinations(range(9), 5)
        )
        assert off == pytest.approx(best)


def test_forty_thousand_candidates_take_a_moment():
    random = np.random.default_rng(1)
    count, wanted = 40_000, {"text": 0.05, "solo": 0.9, "simple_background": 0.4}
    targets = [ShareTarget(n, share, (random.random(count) < 0.5).tolist()) for n, share in wanted.items()]
    scores = random.integers(-50, 5000, count).tolist()
    begin = time.process_time()
    taken = chosen(targets, scores, at_most=3000, tolerance=0.01)
    assert time.process_time() - begin < 10  # one variable a candidate took minutes
    assert len(taken) == 3000
    shares = [sum(target.has[i] for i in taken) / 3000 for target in targets]
    assert shares == pytest.approx(list(wanted.values()), abs=1e-9)
    for kind in itertools.product([False, True], repeat=3):
        group = {i for i in range(count) if tuple(t.has[i] for t in targets) == kind}
        inside, outside = [scores[i] for i in group & set(taken)], [scores[i] for i in group - set(taken)]
        assert not inside or not outside or min(inside) >= max(outside)


@pytest.mark.parametrize("share", [1 / 3, 0.123456789012, 0.9999999, 2 / 7])
def test_shares_of_many_decimals_count_to_a_thousandth(share):
    random = np.random.default_rng(2)
    has = (random.random(500) < 0.5).tolist()
    targets = [ShareTarget("solo", share, has), ShareTarget("text", 0.1 + 1e-13, (random.random(500) < 0.2).tolist())]
    taken = chosen(targets, [0] * 500, at_most=200, tolerance=0.0499999999)
    assert len(taken) == 200
    rounded = [ShareTarget(t.name, round(t.share, 3), t.has) for t in targets]
    assert taken == chosen(rounded, [0] * 500, at_most=200, tolerance=0.05)


def test_the_target_that_costs_most_is_named():
    solo, text = [True] * 90 + [False] * 10, [True] * 95 + [False] * 5
    targets = [ShareTarget("solo", 0.9, solo), ShareTarget("text", 0.0, text)]
    assert len(chosen(targets, [0] * 100, at_most=100, tolerance=0.05)) == 0
    assert binding(targets, at_most=100, tolerance=0.05) == ("text", 100)
