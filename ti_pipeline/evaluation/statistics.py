"""Statistics: which checkpoint is best, per axis and overall, and how sure that is.

Score of an axis: the mean of `match` over its pictures. The metric `concept` is an axis of its own (on a scale of its
own), so that an embedding which obeys prompts by having learned nothing does not win. Overall: the mean of the axes'
means, each axis one voice. Intervals: percentile bootstrap over groups of pictures with the same value and seed
(Efron & Tibshirani 1993), since those share prompt and noise across checkpoints.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["leaderboard", "leaderboard_plot", "steps_plot"]

RESAMPLES = 2000
OVERALL = "overall"


def leaderboard(scores: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the `leaderboard` table; ties in score go to the earlier step, then by name.

    `tied` marks checkpoints whose interval reaches the best one's score. Raises `ValueError` without any score, and
    when checkpoints were scored on different axes, since their overall scores would not compare.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    judged = _judged(scores)
    if judged.empty:
        raise ValueError("there are no scores to rank: run the job evaluate")
    _require_same_axes(judged)
    rng = np.random.default_rng(seed)
    about = judged.drop_duplicates("checkpoint").set_index("checkpoint")[["variant", "step"]]
    means: dict[tuple[str, str], tuple[float, NDArray[np.float64], int, int]] = {}
    for axis, of_axis in judged.groupby("board", sort=True):
        means |= {(str(axis), name): found for name, found in _axis_means(of_axis, rng).items()}
    for checkpoint in about.index:
        own = [found for (_, name), found in means.items() if name == checkpoint]
        means[OVERALL, checkpoint] = (
            float(np.mean([found[0] for found in own])),
            np.mean([found[1] for found in own], axis=0),
            sum(found[2] for found in own),
            sum(found[3] for found in own),
        )
    rows = [
        {
            "axis": axis,
            "variant": about.variant[checkpoint],
            "checkpoint": checkpoint,
            "step": int(about.step[checkpoint]),
            "score": score,
            "low": float(np.quantile(resampled, 0.025)),
            "high": float(np.quantile(resampled, 0.975)),
            "pictures": pictures,
            "mismatches": mismatches,
        }
        for (axis, checkpoint), (score, resampled, pictures, mismatches) in means.items()
    ]
    ranked = pd.concat([_ranked(of_axis) for _, of_axis in pd.DataFrame(rows).groupby("axis", sort=True)])
    return ranked[[column.name for column in TABLES["leaderboard"].columns]].reset_index(drop=True)


def _judged(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that count, with the board they count on: their axis, or `concept`."""
    used = scores[scores.metric.isin(["match", "concept"])]
    return used.assign(board=used.axis.where(used.metric == "match", "concept"))


def _require_same_axes(judged: pd.DataFrame) -> None:
    boards = judged.groupby("checkpoint", sort=True).board.agg(set)
    everything = set().union(*boards)
    for checkpoint, own in boards.items():
        if own != everything:
            missing = ", ".join(sorted(everything - own))
            raise ValueError(
                f"{checkpoint} has no scores for {missing}, other checkpoints have: the study was changed in between;"
                " run the job evaluate again for all variants"
            )


def _axis_means(
    of_axis: pd.DataFrame, rng: np.random.Generator
) -> dict[str, tuple[float, NDArray[np.float64], int, int]]:
    """Return per checkpoint: mean, its bootstrap resamples, pictures, mismatches."""
    import numpy as np

    found = {}
    is_match = bool((of_axis.metric == "match").all())
    for checkpoint, rows in of_axis.groupby("checkpoint", sort=True):
        groups = rows.groupby(["axis", "value", "seed"], sort=True).score
        sums, sizes = groups.sum().to_numpy(), groups.size().to_numpy()
        picks = rng.integers(len(sums), size=(RESAMPLES, len(sums)))
        resampled = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
        mismatches = int((rows.score < 1).sum()) if is_match else 0
        found[str(checkpoint)] = (float(rows.score.mean()), np.asarray(resampled), len(rows), mismatches)
    return found


def _ranked(of_axis: pd.DataFrame) -> pd.DataFrame:
    ordered = of_axis.sort_values(["score", "step", "checkpoint"], ascending=[False, True, True])
    top = ordered.score.iloc[0]
    return ordered.assign(
        rank=range(1, len(ordered) + 1),
        best=[index == 0 for index in range(len(ordered))],
        tied=ordered.high >= top,
    )


def leaderboard_plot(table: pd.DataFrame, axis: str = OVERALL, top: int = 20) -> bytes:
    """Return a PNG: the best checkpoints of an axis with their intervals."""
    from matplotlib.figure import Figure

    shown = table[table.axis == axis].sort_values("rank").head(top).iloc[::-1]
    figure = Figure(figsize=(6.4, 0.9 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    spread = [(shown.score - shown.low).clip(lower=0), (shown.high - shown.score).clip(lower=0)]
    places = range(len(shown))
    axes.errorbar(shown.score, places, xerr=spread, fmt="o", color="#3b6ea8", ecolor="#9db8d6", capsize=3)
    axes.set_yticks(places, list(shown.checkpoint), fontsize=8, parse_math=False)
    axes.set_xlabel(f"{axis}: mean score, 95 % interval")
    return _png(figure)


def steps_plot(table: pd.DataFrame, axis: str = OVERALL) -> bytes:
    """Return a PNG: score against step, a line per variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for variant, rows in table[table.axis == axis].groupby("variant", sort=False):
        ordered = rows.sort_values("step")
        axes.plot(ordered.step, ordered.score, marker="o", markersize=3, label=str(variant))
        axes.fill_between(ordered.step, ordered.low, ordered.high, alpha=0.12)
    axes.set(xlabel="updates", ylabel=f"{axis}: mean score")
    axes.legend(fontsize=8)
    return _png(figure)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
