"""What a losses table says, against numbers worked out by hand."""

import pandas as pd
import pytest

from ti_pipeline.inversion.losses import course_figure, course_plot, loss_plot, loss_summary

LOSSES = pd.DataFrame(
    {
        "step": [1, 2, 3, 4, 5, 6],
        "epoch": [1, 1, 2, 2, 3, 3],
        "loss": [0.5, 0.7, 0.1, 0.3, 0.9, 0.4],
        "learning_rate": 0.005,
    }
)


def test_means_and_extremes():
    found = loss_summary(LOSSES, intervals=[(1, 3), (5, 6)])
    assert found["epoch_means"] == pytest.approx({1: 0.6, 2: 0.2, 3: 0.65})
    assert found["epoch_mean_loss"] == {"epochs": 3, "value": pytest.approx((0.6 + 0.2 + 0.65) / 3)}
    assert found["max_epoch_loss"] == {"step": 6, "epoch": 3, "value": pytest.approx(0.65)}
    assert found["min_epoch_loss"] == {"step": 4, "epoch": 2, "value": pytest.approx(0.2)}
    assert [(m["from_step"], m["to_step"]) for m in found["mean_loss"]] == [(1, 3), (5, 6)]
    assert [m["value"] for m in found["mean_loss"]] == pytest.approx([1.3 / 3, 0.65])


def test_an_empty_table_says_nothing():
    assert loss_summary(LOSSES[:0]) == {}


def test_the_plot_is_the_same_png_each_time():
    first = loss_plot({"v8": LOSSES, "v16": LOSSES.assign(loss=0.5)})
    assert first.startswith(b"\x89PNG")
    assert loss_plot({"v8": LOSSES, "v16": LOSSES.assign(loss=0.5)}) == first


def test_the_course_shows_every_number_that_tells_how_training_went():
    quarters = {f"error_quarter_{part}": [None, 0.1 * part, None, 0.2 * part, None, 0.3] for part in range(1, 5)}
    table = LOSSES.assign(gradient_norm=LOSSES.loss * 2, vector_norm=0.4, **quarters).astype(
        dict.fromkeys(quarters, float)
    )
    checkpoints = pd.DataFrame({"step": [3, 6], "validation_loss": [0.5, 0.4], "nearest_cosine": [0.9, 0.8]})
    drawn = {
        str(line.get_label()) if "_" not in str(line.get_label())[:1] else "cosine": list(line.get_ydata())
        for axes in course_figure(table, checkpoints).axes
        for line in axes.get_lines()
    }
    assert drawn["training"] == pytest.approx(LOSSES.loss.tolist())
    assert drawn["validation"] == [0.5, 0.4]
    assert drawn["gradient norm"] == pytest.approx([2 * loss for loss in LOSSES.loss])
    assert drawn["mean norm of the vectors"] == [0.4] * 6
    assert drawn["cosine"] == [0.9, 0.8]
    assert drawn["third"][1] == pytest.approx(0.3)
    first = course_plot(table, checkpoints.assign(validation_loss=float("nan")))
    assert first.startswith(b"\x89PNG")
    assert course_plot(table, checkpoints.assign(validation_loss=float("nan"))) == first
