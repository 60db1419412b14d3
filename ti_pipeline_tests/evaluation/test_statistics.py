import io

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image

from ti_pipeline.evaluation.statistics import leaderboard, leaderboard_plot, steps_plot
from ti_pipeline.schemas import TABLES


def scores(table: dict[str, list[float]], metric: str = "match", axis: str = "species") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cell": f"{checkpoint}/{axis}/{metric}/{index}",
                "variant": checkpoint.split("-")[0],
                "checkpoint": checkpoint,
                "step": int(checkpoint.split("-")[1]),
                "axis": axis,
                "value": f"value{index}",
                "seed": 6,
                "metric": metric,
                "score": score,
                "read_as": None,
            }
            for checkpoint, found in table.items()
            for index, score in enumerate(found)
        ]
    )


def test_scores_ranks_and_mismatches_are_those_of_plain_counting() -> None:
    board = leaderboard(scores({"v8-100": [1, 1, 0, 0], "v8-200": [1, 1, 1, 0], "v16-100": [0, 0, 0, 1]}), seed=1)
    assert TABLES["leaderboard"].problems(board) == []
    rows = board[board.axis == "species"].set_index("checkpoint")
    assert rows.score.to_dict() == {"v8-200": 0.75, "v8-100": 0.5, "v16-100": 0.25}
    assert rows["rank"].to_dict() == {"v8-200": 1, "v8-100": 2, "v16-100": 3}
    assert rows.mismatches.to_dict() == {"v8-200": 1, "v8-100": 2, "v16-100": 3}
    assert rows.index[rows.best].tolist() == ["v8-200"]


def test_a_tie_goes_to_the_earlier_step() -> None:
    board = leaderboard(scores({"v8-300": [1, 0], "v8-100": [1, 0], "v8-200": [0, 1]}), seed=1)
    assert board[board.axis == "overall"].checkpoint.tolist() == ["v8-100", "v8-200", "v8-300"]


def test_overall_gives_each_axis_one_voice() -> None:
    table = pd.concat(
        [
            scores({"v-1": [1, 1, 1, 1]}, axis="species"),
            scores({"v-1": [0, 1]}, axis="background"),
            scores({"v-1": [0.2, 0.4]}, metric="concept", axis="background"),
        ]
    )
    board = leaderboard(table, seed=1).set_index("axis")
    assert board.score.to_dict() == pytest.approx(
        {"species": 1.0, "background": 0.5, "concept": 0.3, "overall": (1.0 + 0.5 + 0.3) / 3}
    )


def test_intervals_agree_with_scipys_bootstrap() -> None:
    found = np.random.default_rng(5).integers(0, 2, size=80).astype(float)
    row = leaderboard(scores({"v-1": found.tolist()}, metric="concept"), seed=1).query("axis == 'concept'").iloc[0]
    theirs = scipy.stats.bootstrap(
        (found,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert row.low == pytest.approx(theirs.low, abs=0.02)
    assert row.high == pytest.approx(theirs.high, abs=0.02)


def test_shares_have_wilsons_interval_as_in_scipy() -> None:
    for right, wrong in ((3, 1), (0, 5), (7, 0), (20, 20)):
        row = leaderboard(scores({"v-1": [1.0] * right + [0.0] * wrong}), seed=1).query("axis == 'species'").iloc[0]
        theirs = scipy.stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_checkpoints_are_compared_on_the_same_prompts_and_seeds() -> None:
    """A small lead on every single prompt is sure, though each interval alone spans the other's score."""
    hard = np.random.default_rng(3).uniform(0, 0.9, size=30)
    board = leaderboard(scores({"v-1": hard.tolist(), "v-2": (hard + 0.02).tolist()}, metric="concept"), seed=1)
    best, other = board[board.axis == "concept"].itertuples()
    assert other.high > best.score
    assert not other.tied
    assert (other.behind, other.behind_low, other.behind_high) == pytest.approx((0.02, 0.02, 0.02))
    shuffled = np.random.default_rng(4).permutation(hard + 0.02)
    mixed = leaderboard(scores({"v-1": hard.tolist(), "v-2": shuffled.tolist()}, metric="concept"), seed=1)
    assert mixed[mixed.axis == "concept"].tied.all()


def test_p_values_are_those_of_a_plain_paired_bootstrap_corrected_after_holm() -> None:
    rng = np.random.default_rng(8)
    found = {f"v-{step}": (rng.random(40) < share).astype(float).tolist() for step, share in enumerate((0.8, 0.6, 0.5))}
    board = leaderboard(scores(found), seed=1).query("axis == 'species'").set_index("checkpoint")
    picks = np.random.default_rng(0).integers(40, size=(20_000, 40))
    plain = []
    for name in ("v-1", "v-2"):
        lead = (np.array(found["v-0"]) - np.array(found[name]))[picks].mean(axis=1)
        plain.append(2 * (lead <= 0).mean())
    low, high = sorted(plain)
    assert board.p["v-0"] == 1
    assert sorted(board.p[["v-1", "v-2"]]) == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)], abs=0.01)


def test_many_equal_checkpoints_seldom_look_different() -> None:
    """Without a correction one in twenty of 19 comparisons would: here of 40 tables at most a few may."""
    rng = np.random.default_rng(2)
    wrong = 0
    for table in range(40):
        found = {f"v-{step}": (rng.random(24) < 0.5).astype(float).tolist() for step in range(6)}
        wrong += not leaderboard(scores(found), seed=table).tied.all()
    assert wrong <= 8


def test_the_pareto_front_is_what_no_other_beats_everywhere() -> None:
    rng = np.random.default_rng(1)
    shares = rng.integers(0, 5, size=(12, 3)) / 4
    table = pd.concat(
        [
            scores(
                {f"v-{c}": [1.0] * int(4 * s) + [0.0] * (4 - int(4 * s)) for c, s in enumerate(shares[:, a])}, axis=x
            )
            for a, x in enumerate("abc")
        ]
    )
    board = leaderboard(table, seed=1)
    front = set(board[board.pareto].checkpoint)
    expected = {
        f"v-{c}"
        for c, own in enumerate(shares)
        if not any((other >= own).all() and (other > own).any() for other in shares)
    }
    assert front == expected
    assert set(board[board.pareto].axis) == {"overall"}


def test_overfitting_is_more_of_the_concept_and_less_of_the_prompt() -> None:
    obeyed = {"v-1": [1.0] * 30, "v-2": [1.0] * 29 + [0.0], "v-3": [1.0] * 15 + [0.0] * 15, "w-9": [0.0] * 30}
    known = {"v-1": [0.2] * 30, "v-2": [0.4] * 30, "v-3": [0.5] * 30, "w-9": [0.9] * 30}
    table = pd.concat([scores(obeyed), scores(known, metric="concept")])
    board = leaderboard(table, seed=1)
    assert board[board.overfit].checkpoint.tolist() == ["v-3"], "v-2 fell by chance, w-9 has no earlier checkpoint"


def test_pictures_of_one_prompt_and_seed_are_resampled_together() -> None:
    """Copies of the same cell add no certainty: the interval must not shrink."""
    once = scores({"v-1": [1, 0, 1, 0, 1, 1]})
    copies = pd.concat([once.assign(cell=once.cell + f"/{n}") for n in range(8)])
    narrow, wide = (leaderboard(t, seed=1).query("axis == 'species'").iloc[0] for t in (once, copies))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low)


def test_the_same_seed_gives_the_same_table() -> None:
    table = scores({"v-1": [1, 0, 1, 1], "v-2": [0, 0, 1, 1]})
    pd.testing.assert_frame_equal(leaderboard(table, seed=3), leaderboard(table.sample(frac=1, random_state=1), seed=3))


def test_checkpoints_judged_on_different_axes_are_not_compared() -> None:
    table = pd.concat([scores({"v-1": [1, 0], "v-2": [1, 1]}), scores({"v-1": [0, 1]}, axis="background")])
    with pytest.raises(ValueError, match="v-2 has no scores for background"):
        leaderboard(table, seed=1)


def test_identical_checkpoints_are_tied_and_a_clear_loser_is_not() -> None:
    found = [1.0, 0.0] * 20
    board = leaderboard(scores({"v-1": found, "v-2": found, "v-3": [0.0] * 40}), seed=1)
    rows = board[board.axis == "overall"].set_index("checkpoint")
    assert rows.tied.to_dict() == {"v-1": True, "v-2": True, "v-3": False}


@pytest.mark.parametrize("plot", [leaderboard_plot, steps_plot])
def test_plots_are_pictures_and_the_same_each_time(plot) -> None:
    board = leaderboard(scores({"v$a$-100": [1, 0], "v$a$-200": [1, 1], "w-100": [0, 0]}), seed=1)
    drawn = plot(board)
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 4
    assert plot(board) == drawn


def test_no_scores_are_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no scores to rank"):
        leaderboard(TABLES["evaluation_scores"].empty(), seed=1)
