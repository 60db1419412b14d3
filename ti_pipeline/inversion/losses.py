"""Losses: what a trainer's log says about its `losses` table, and plots of it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["course_figure", "course_plot", "loss_plot", "loss_summary", "norm_plot"]


def loss_summary(losses: pd.DataFrame, *, intervals: Sequence[tuple[int, int]] = ()) -> dict[str, Any]:
    """Return means per epoch, their mean, extremes (step, epoch, value), and means over steps from..to (inclusive).

    Without `intervals`, the second half of the steps is one. Epoch extremes are those of the epochs' means, as people
    keep them in their logs: `max_epoch_loss {step, epoch, value}`, the step being the epoch's last.
    """
    if losses.empty:
        return {}
    epochs = losses.groupby("epoch").agg(value=("loss", "mean"), step=("step", "max"))
    last = int(losses.step.max())
    spans = list(intervals) or [(last // 2 + 1, last)]

    def extreme(epoch: Any) -> dict[str, Any]:
        row = epochs.loc[epoch]
        return {"step": int(row.step), "epoch": int(epoch), "value": float(row.value)}

    return {
        "epoch_means": dict(zip(epochs.index.tolist(), epochs.value.tolist(), strict=True)),
        "epoch_mean_loss": {"epochs": len(epochs), "value": float(epochs.value.mean())},
        "max_epoch_loss": extreme(epochs.value.idxmax()),
        "min_epoch_loss": extreme(epochs.value.idxmin()),
        "mean_loss": [
            {"from_step": a, "to_step": b, "value": float(losses.loss[losses.step.between(a, b)].mean())}
            for a, b in spans
        ],
    }


def loss_plot(losses: Mapping[str, pd.DataFrame]) -> bytes:
    """Return a PNG with each variant's running mean loss (over a 40th of its updates) against the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for name, table in losses.items():
        window = max(1, len(table) // 40)
        axes.plot(table.step, table.loss.rolling(window, min_periods=1).mean(), label=name, linewidth=1)
    axes.set(xlabel="updates", ylabel="loss (running mean)")
    if losses:
        axes.legend(fontsize=8)
    return _png(figure)


def norm_plot(losses: Mapping[str, pd.DataFrame]) -> bytes:
    """Return a PNG with the mean norm of each variant's vectors against the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for name, table in losses.items():
        axes.plot(table.step, table.vector_norm, label=name, linewidth=1)
    axes.set(xlabel="updates", ylabel="mean norm of the vectors")
    if losses:
        axes.legend(fontsize=8)
    return _png(figure)


def course_plot(losses: pd.DataFrame, checkpoints: pd.DataFrame) -> bytes:
    """Return a PNG of how one variant's training went; see `course_figure`."""
    return _png(course_figure(losses, checkpoints))


def course_figure(losses: pd.DataFrame, checkpoints: pd.DataFrame) -> Figure:
    """Return four plots against the updates, lines of updates being running means over a 40th of them.

    Loss with validation loss; errors by quarters of the timesteps; gradient norm; the vectors' norm, with their mean
    cosine to the nearest tokens of the vocabulary on an axis of its own.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    ((loss, quarters), (gradient, norm)) = figure.subplots(2, 2, sharex=True)
    window = max(1, len(losses) // 40)

    def draw(axes: Axes, column: str, label: str) -> None:
        axes.plot(losses.step, losses[column].rolling(window, min_periods=1).mean(), label=label, linewidth=1)

    draw(loss, "loss", "training")
    loss.plot(checkpoints.step, checkpoints.validation_loss, "o-", label="validation", markersize=3, linewidth=1)
    for part, words in enumerate(("least noise", "second", "third", "most noise"), start=1):
        draw(quarters, f"error_quarter_{part}", words)
    draw(gradient, "gradient_norm", "gradient norm")
    draw(norm, "vector_norm", "mean norm of the vectors")
    cosine = norm.twinx()
    cosine.plot(checkpoints.step, checkpoints.nearest_cosine, "o--", color="tab:green", markersize=3, linewidth=1)
    cosine.set_ylabel("cosine to nearest tokens", color="tab:green")
    for axes, words in ((loss, "loss"), (quarters, "error"), (gradient, "gradient norm"), (norm, "vector norm")):
        axes.set_ylabel(words)
        axes.legend(fontsize=7)
    gradient.set_xlabel("updates")
    norm.set_xlabel("updates")
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
