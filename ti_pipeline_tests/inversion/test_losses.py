"""What a losses table says, against numbers worked out by hand."""

import pandas as pd
import pytest

from ti_pipeline.inversion.losses import loss_plot, loss_summary

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
