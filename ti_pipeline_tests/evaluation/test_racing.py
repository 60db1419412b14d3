"""Races: who leaves when, against published boundaries and on simulated studies whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from ti_pipeline.evaluation.racing import Seeds, _boundaries, raced
from ti_pipeline.evaluation.statistics import leaderboard, race_of
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.evaluation.tables import BASES, references, study

SEEDS = tuple(range(8))
VALUES = 12
LEVELS = {"v-1": 0.7, "v-2": 0.65, "w-1": 0.3, "x-1": 0.1}


@pytest.fixture(scope="module")
def drawn():
    """Everything that could be drawn: four checkpoints of known likeness, 12 values, 8 seeds."""
    rng = np.random.default_rng(11)
    near = {name: (level + 0.3 * rng.standard_normal(VALUES * len(SEEDS))).tolist() for name, level in LEVELS.items()}
    right = {name: (rng.random(VALUES * len(SEEDS)) < 0.9).astype(float).tolist() for name in LEVELS}
    bare = (0.15 * rng.standard_normal(VALUES * len(SEEDS))).tolist()
    ones = [1.0] * VALUES * len(SEEDS)
    return study(right, near, seeds=len(SEEDS)), references({"species": ones}, {"species": bare}, seeds=len(SEEDS))


def test_boundaries_of_two_are_those_of_the_literature() -> None:
    """Lan & DeMets (1983), spending after Pocock, five looks, 5 % two-sided; tables of Reboussin et al. (2000)."""
    assert _boundaries(2, 1, 5).limits == pytest.approx((2.438, 2.427, 2.410, 2.397, 2.386), abs=0.05)


def test_a_race_asks_for_pictures_round_by_round_and_draws_fewer_than_a_fixed_suite(drawn) -> None:
    scores, refs = drawn
    asked, race = dict.fromkeys(LEVELS, SEEDS[:3]), None
    rule = {"bases": BASES, "race": Seeds(SEEDS, first=3)}
    for _ in range(len(SEEDS)):
        known = [scores[(scores.checkpoint == name) & scores.seed.isin(own)] for name, own in asked.items()]
        seen = refs[refs.seed.isin({seed for own in asked.values() for seed in own}) | (refs.checkpoint == "held-out")]
        table = pd.concat(known)
        race = race_of(table, seen, **rule)
        if not race.draw:
            break
        assert len(race.draw) == 1
        asked |= {name: (*asked[name], *race.draw) for name in race.still}
    assert race.why
    again = race_of(table.sample(frac=1, random_state=1), seen, **rule)
    assert (again.left, again.still) == (race.left, race.still), "run anew from what there is"
    assert {"w-1", "x-1"} <= set(race.left)
    assert race.still[0] == "v-1"
    assert all(one.p < 0.05 and one.low > 0 for one in race.left.values())
    assert sum(map(len, asked.values())) < len(LEVELS) * len(SEEDS) / 1.3

    board = leaderboard(table, seen, seed=1, **rule)
    assert TABLES["leaderboard"].problems(board) == []
    overall = board[board.axis == "overall"].set_index("checkpoint")
    assert overall["rank"].dropna().index.tolist()[0] == "v-1"
    assert overall.excluded.isna().all(), "who left a race lacks nothing"
    for name, one in race.left.items():
        assert overall.p[name] == one.p
        assert not overall.tied[name]
        assert overall["rank"][name] > len(race.still)
        assert overall.pictures[name] == VALUES * one.seeds


def test_a_race_that_has_hardly_begun_asks_for_its_first_round(drawn) -> None:
    scores, refs = drawn
    early = scores[scores.seed < 2]
    race = race_of(early, refs[refs.seed < 2], bases=BASES, race=Seeds(SEEDS, first=4))
    assert (race.draw, race.seeds, race.why, race.left) == (SEEDS[:4], (), "", {})


def test_a_race_needs_a_first_round_within_its_seeds(drawn) -> None:
    with pytest.raises(ValueError, match="a race of 8 seeds cannot begin with 9"):
        race_of(*drawn, bases=BASES, race=Seeds(SEEDS, first=9))


def test_equal_checkpoints_seldom_leave_and_the_best_of_twelve_is_found_with_fewer_pictures(simulations) -> None:
    decision = simulations
    (row,) = decision.races_of_equals(60, counts=(4,))
    assert row["any sent off"] <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 60)
    race = next(one for one in decision.named(12, fixed=(), races=((4, 16),)) if "sent off wrongly" in one)
    assert race["within 0.03"] >= 0.9
    assert race["pictures"] < 0.75 * 12 * 22 * 16
    assert raced is decision.raced
