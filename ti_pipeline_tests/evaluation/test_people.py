import math

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.special

from ti_pipeline.evaluation.people import (
    PRIOR,
    agreements,
    bradley_terry,
    groups_that_met,
    krippendorff_alpha,
)
from ti_pipeline.evaluation.statistics import leaderboard
from ti_pipeline.files import fingerprint
from ti_pipeline.schemas import TABLES


@pytest.mark.parametrize("seed", range(5))
def test_strengths_are_the_maximum_that_a_general_optimiser_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 6, size=(5, 5)).astype(float)
    np.fill_diagonal(wins, 0)

    def loss(strengths: np.ndarray) -> float:
        apart = strengths[:, None] - strengths[None, :]
        return float(-(wins * scipy.special.log_expit(apart)).sum() + (strengths**2).sum() / (2 * PRIOR**2))

    found, errors = bradley_terry(wins)
    best = scipy.optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found, best.x, atol=1e-5)
    curve = np.array([[_second(loss, best.x, i, j) for j in range(5)] for i in range(5)])
    from_mean = np.eye(5) - 1 / 5
    np.testing.assert_allclose(errors, np.sqrt(np.diag(from_mean @ np.linalg.inv(curve) @ from_mean)), rtol=1e-3)


def _second(of, at: np.ndarray, i: int, j: int, by: float = 1e-4) -> float:
    one, other = np.eye(len(at))[i] * by, np.eye(len(at))[j] * by
    return (of(at + one + other) - of(at + one - other) - of(at - one + other) + of(at - one - other)) / (4 * by**2)


def test_with_many_votes_two_strengths_are_the_log_odds_of_the_wins() -> None:
    strengths, _ = bradley_terry(np.array([[0, 75_000], [25_000, 0]], dtype=float))
    assert strengths[0] - strengths[1] == pytest.approx(math.log(3), abs=1e-3)


def test_intervals_cover_known_strengths() -> None:
    """95 % intervals of strengths drawn from the prior hold the difference from the mean in about 95 % of worlds."""
    rng, inside = np.random.default_rng(3), []
    for _ in range(200):
        truth = rng.normal(0, PRIOR, size=4)
        meetings = np.triu(rng.integers(2, 9, size=(4, 4)), 1)
        won = rng.binomial(meetings, scipy.special.expit(truth[:, None] - truth[None, :]))
        strengths, errors = bradley_terry((won + (meetings - won).T).astype(float))
        inside += list(np.abs(strengths - (truth - truth.mean())) <= 1.96 * errors)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_one_that_won_everything_and_one_that_never_met_anyone_have_wide_intervals() -> None:
    strengths, errors = bradley_terry(np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]], dtype=float))
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[2] > strengths[1]
    assert strengths[2] == pytest.approx(0)
    assert errors[2] == pytest.approx(PRIOR)


@pytest.mark.parametrize(("won", "lost", "widest"), [(50_000, 50_000, 0.01), (900, 100, 0.04)])
def test_many_votes_leave_little_doubt(won: int, lost: int, widest: float) -> None:
    """The chance to win against one of average strength: of two, half the log-odds of their meetings."""
    strengths, errors = bradley_terry(np.array([[0, won], [lost, 0]], dtype=float))
    low, chance, high = scipy.special.expit(strengths[0] + 1.96 * errors[0] * np.array([-1, 0, 1]))
    assert chance == pytest.approx(scipy.special.expit(math.log(won / lost) / 2), abs=0.01)
    assert high - low < widest
    # Half the standard error of the log-odds of a share, as textbooks have it.
    assert errors[0] == pytest.approx(math.sqrt(1 / won + 1 / lost) / 2, rel=0.02)


def test_who_votes_cannot_compare_keeps_its_own_interval() -> None:
    """An island of many votes is narrow whatever another one, of few votes, does."""
    many, few = np.array([[0.0, 900], [100, 0]]), np.array([[0.0, 2], [1, 0]])
    both = np.zeros((4, 4))
    both[:2, :2], both[2:, 2:] = many, few
    np.testing.assert_allclose(bradley_terry(both)[1], [*bradley_terry(many)[1], *bradley_terry(few)[1]])


def test_two_islands_of_votes_are_named_and_only_the_prior_compares_them() -> None:
    rows = [vote("kim", str(n), *pair) for n, pair in enumerate([("a", "b"), ("c", "d"), ("b", "e"), ("d", "c")])]
    assert groups_that_met(pd.DataFrame(rows)) == [["a", "b", "e"], ["c", "d"]]
    bridge = [*rows, vote("kim", "9", "e", "d", "tie")]
    assert groups_that_met(pd.DataFrame(bridge)) == [["a", "b", "c", "d", "e"]]
    assert groups_that_met(TABLES["votes"].empty()) == []
    # Each island is fitted as if the other were not there.
    two, apart = np.zeros((4, 4)), np.array([[0.0, 3], [1, 0]])
    two[:2, :2], two[2:, 2:] = apart, 5 * apart
    strengths, _ = bradley_terry(two)
    np.testing.assert_allclose(strengths[:2], bradley_terry(apart)[0], atol=1e-9)
    np.testing.assert_allclose(strengths[2:], bradley_terry(5 * apart)[0], atol=1e-9)


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units, some
# missing; nominal alpha is 0.743 there.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


def test_alpha_is_that_of_the_published_example() -> None:
    units = [[answer for answer in unit if answer is not None] for unit in zip(*PUBLISHED, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_raters_by_hand() -> None:
    # Ten pictures, the same on eight: 0 0 ×6, 1 1 ×2, 0 1 ×2. Disagreement seen: 2 of 10; expected: 14·6·2 / (20·19).
    units = [[0, 0]] * 6 + [[1, 1]] * 2 + [[0, 1]] * 2
    assert krippendorff_alpha(units) == pytest.approx(1 - 0.2 / (2 * 14 * 6 / (20 * 19)))
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None


def scores() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cell": f"{checkpoint}/{value}",
                "variant": checkpoint[0],
                "checkpoint": checkpoint,
                "step": int(checkpoint[2:]),
                "axis": "species",
                "value": value,
                "seed": 6,
                "metric": "match",
                "score": float(right),
                "read_as": None,
            }
            for checkpoint, found in {"v-1": "1100", "v-2": "1111", "w-1": "0000"}.items()
            for value, right in zip(("wolf", "lion", "bear", "fox"), (int(one) for one in found), strict=True)
        ]
    )


def vote(rater: str, value: str, first: str, second: str = "", choice: str = "first") -> dict[str, object]:
    return {
        "vote": f"{rater}/{value}/{first}/{second}",
        "rater": rater,
        "at": pd.Timestamp("2026-11-23", tz="UTC"),
        "kind": "pair" if second else "cell",
        "axis": "species",
        "value": value,
        "seed": 6,
        "first": first,
        "second": second,
        "first_cell": f"{first}/{value}",
        "second_cell": f"{second}/{value}" if second else "",
        "choice": choice,
    }


VOTES = [
    vote("kim", "wolf", "v-2", "w-1"),
    vote("kim", "lion", "w-1", "v-2", "second"),
    vote("kim", "bear", "v-1", "v-2", "tie"),
    vote("kim", "fox", "v-1", "v-2", "first"),
    vote("sam", "wolf", "w-1", "v-2", "second"),
    vote("sam", "lion", "v-2", "w-1", "second"),
    vote("kim", "wolf", "w-1", choice="mismatch"),
    vote("sam", "wolf", "w-1", choice="mismatch"),
    vote("kim", "lion", "w-1", choice="mismatch"),
    vote("sam", "lion", "w-1", choice="match"),
    vote("kim", "wolf", "v-2", choice="match"),
    vote("sam", "wolf", "v-2", choice="match"),
]


def test_the_leaderboard_has_peoples_verdicts_beside_the_scores() -> None:
    near = scores().assign(metric="likeness", score=0.5)
    judged = pd.concat([scores(), near])
    bare = scores().query("checkpoint == 'v-2'").assign(variant="", checkpoint="no embedding", base="base")
    own = bare.head(1).assign(checkpoint="held-out", metric="likeness", score=1.0)
    rule = {"bases": {"v": "base", "w": "base"}, "seed": 1}
    references = pd.concat([bare, bare.assign(metric="likeness", score=0.1), own])
    plain = leaderboard(judged, references, **rule)
    assert TABLES["leaderboard"].problems(plain) == []
    assert plain.people.isna().all()
    assert set(plain.people_votes) == {0}
    board = leaderboard(judged, references, votes=pd.DataFrame(VOTES), **rule)
    assert TABLES["leaderboard"].problems(board) == []
    shared = [name for name in plain.columns if not name.startswith("people")]
    pd.testing.assert_frame_equal(board[shared], plain[shared])
    rows = board[board.axis == "overall"].set_index("checkpoint")
    # By hand: v-2 against w-1 three wins of four; v-1 against v-2 one and a half of two.
    strengths, errors = bradley_terry(np.array([[0, 1.5, 0], [0.5, 0, 3], [0, 1, 0]]))
    assert rows.people[["v-1", "v-2", "w-1"]].tolist() == pytest.approx(scipy.special.expit(strengths).tolist())
    assert rows.people_low["v-2"] == pytest.approx(scipy.special.expit(strengths[1] - 1.96 * errors[1]), abs=1e-4)
    assert rows.people_votes.to_dict() == {"v-1": 2, "v-2": 6, "w-1": 4, "no embedding": 0}
    assert rows.people_judged.to_dict() == {"v-1": 0, "v-2": 1, "w-1": 2, "no embedding": 0}
    assert rows.people_mismatches["w-1"] == 1, "ticked by one of two is no majority"


def test_agreement_of_raters_and_with_the_scorer_by_hand() -> None:
    found = {one.what: one for one in agreements(pd.DataFrame(VOTES), scores())}
    assert found["raters on pairs"].judged == 2
    assert found["raters on pairs"].share == 0.5  # wolf: both for v-2; lion: one each
    assert found["raters on single pictures"].share == pytest.approx(2 / 3)
    # wolf for v-2 (scorer too); lion: as many for each, so nobody's; bear is a tie; fox for v-1, the scorer for v-2.
    assert found["people and scorer on pairs"].judged == 2
    assert found["people and scorer on pairs"].share == 0.5
    # w-1/wolf mismatch, the scorer too; w-1/lion undecided; v-2/wolf match, the scorer too.
    assert found["people and scorer on single pictures"].judged == 2
    assert found["people and scorer on single pictures"].share == 1.0
    assert found["people and scorer on single pictures"].beyond_chance == pytest.approx(1.0)


def test_raters_and_a_scorer_who_guess_agree_by_chance_only() -> None:
    """Eight checkpoints that meet at random, so that names alone would make answers differ between questions."""
    rng, votes, scored = np.random.default_rng(5), [], []
    names = [f"v-{number}" for number in range(8)]
    for number in range(1000):
        pair = rng.choice(names, 2, replace=False).tolist()
        for rater in ("kim", "sam"):
            shown = rng.permutation(pair).tolist()
            said = vote(rater, str(number), *shown, str(rng.choice(["first", "second"])))
            # Cells are hashes: their order tells nothing of the checkpoint.
            cells = {
                side: fingerprint([number, name])[:16] for side, name in zip(("first", "second"), shown, strict=True)
            }
            votes.append(said | {f"{side}_cell": cell for side, cell in cells.items()})
        guesses = zip(cells.values(), rng.permutation([0.0, 1.0]), strict=True)
        scored += [{"cell": cell, "metric": "match", "score": score} for cell, score in guesses]
    found = {one.what: one for one in agreements(pd.DataFrame(votes), pd.DataFrame(scored))}
    assert found["raters on pairs"].share == pytest.approx(0.5, abs=0.05)
    assert found["raters on pairs"].beyond_chance == pytest.approx(0, abs=0.1)
    assert found["people and scorer on pairs"].beyond_chance == pytest.approx(0, abs=0.1)


def test_one_rater_agrees_with_nobody() -> None:
    alone = pd.DataFrame([row for row in VOTES if row["rater"] == "kim" and row["value"] == "wolf"])
    assert [one.what for one in agreements(alone, scores())] == ["people and scorer on single pictures"]
