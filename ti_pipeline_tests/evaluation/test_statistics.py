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
    row = leaderboard(scores({"v-1": found.tolist()}), seed=1).query("axis == 'species'").iloc[0]
    theirs = scipy.stats.bootstrap(
        (found,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert row.low == pytest.approx(theirs.low, abs=0.02)
    assert row.high == pytest.approx(theirs.high, abs=0.02)


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
