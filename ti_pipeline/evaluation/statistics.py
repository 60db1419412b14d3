"""Statistics: which checkpoint is best, per axis and overall, and how sure that is.

Score of an axis: the mean of `match` over its pictures, a share, or of `tags` where those are judged. The metric
`concept` is an axis of its own (on a scale of its own), so that an embedding which obeys prompts by having learned
nothing does not win. Overall, the declared rule for the best: the mean of the axes' means, each axis one voice.
Pictures of the same value and seed share prompt and noise across checkpoints, so they are one trial together: in the
intervals (Wilson 1927 for shares, percentile bootstrap of Efron & Tibshirani 1993 for the others) and in the comparison
of two checkpoints, which resamples the same trials for both (paired bootstrap). Comparing all with the best of an axis,
p values are corrected after Holm (1979). The best is chosen from the same pictures, so its score flatters it a little.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["leaderboard", "leaderboard_plot", "steps_plot"]

RESAMPLES = 10_000  # enough that a p value corrected for a hundred comparisons can still fall below SURE
SURE = 0.05
OVERALL, CONCEPT = "overall", "concept"


@dataclass(frozen=True)
class _Board:
    """One axis: checkpoints in rows. `scores` [c], `resampled` [c, RESAMPLES], bounds [c], counts [c]."""

    scores: NDArray[np.float64]
    resampled: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pictures: NDArray[np.int64]
    mismatches: NDArray[np.int64]


def leaderboard(scores: pd.DataFrame, *, seed: int, votes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the `leaderboard` table; ties in score go to the earlier step, then by name.

    People's `votes` stand beside the scores and do not change the ranking (see `people.with_votes`).
    `tied` marks checkpoints that cannot be told from the best of their axis at 5 %. Raises `ValueError` without any
    score, and when checkpoints were scored on different axes, since their overall scores would not compare.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.evaluation.people import with_votes
    from ti_pipeline.schemas import TABLES

    judged = _judged(scores)
    if judged.empty:
        raise ValueError("there are no scores to rank: run the job evaluate")
    _require_same_axes(judged)
    rng = np.random.default_rng(seed)
    about = judged.drop_duplicates("checkpoint").set_index("checkpoint")[["variant", "step"]].sort_index()
    boards = {str(axis): _board(rows, about.index, rng) for axis, rows in judged.groupby("board", sort=True)}
    boards[OVERALL] = _overall(list(boards.values()))
    notes = pd.DataFrame({"pareto": _pareto(boards), "overfit": _overfit(boards, about)}, index=about.index)
    tables = [_ranked(axis, board, about) for axis, board in sorted(boards.items())]
    table = pd.concat(tables).join(notes, on="checkpoint")
    table.loc[table.axis != OVERALL, ["pareto", "overfit"]] = False
    return with_votes(table.reset_index(drop=True), TABLES["votes"].empty() if votes is None else votes)


def _judged(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that count, with the board they count on: their axis, or `concept`."""
    used = scores[scores.metric.isin(["match", "tags", CONCEPT])]
    return used.assign(board=used.axis.where(used.metric != CONCEPT, CONCEPT))


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


def _board(rows: pd.DataFrame, checkpoints: pd.Index[str], rng: np.random.Generator) -> _Board:
    """Return an axis' scores and how they fall out when its trials are drawn again, the same for all checkpoints."""
    import numpy as np

    trials = {"index": "checkpoint", "columns": ["axis", "value", "seed"], "values": "score"}
    wide = rows.pivot_table(**trials, aggfunc=["sum", "count"]).reindex(checkpoints)
    sums, sizes = (wide[name].fillna(0).to_numpy(dtype="float64") for name in ("sum", "count"))
    drawn = rng.multinomial(sums.shape[1], [1 / sums.shape[1]] * sums.shape[1], size=RESAMPLES).T
    scores = sums.sum(axis=1) / sizes.sum(axis=1)
    drawn_sizes = sizes @ drawn
    # A checkpoint that lacks trials may miss all that were drawn: then its own score stands in.
    resampled = np.where(drawn_sizes > 0, sums @ drawn / np.maximum(drawn_sizes, 1), scores[:, None])
    matches = bool((rows.metric == "match").all())
    if matches:
        low, high = _wilson(scores, (sizes > 0).sum(axis=1))
    else:
        low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    mismatches = (sizes - sums).round() if matches else np.zeros_like(sizes)
    return _Board(
        scores, resampled, low, high, sizes.sum(axis=1).astype("int64"), mismatches.sum(axis=1).astype("int64")
    )


def _wilson(shares: NDArray[np.float64], trials: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bounds of Wilson's 95 % interval (1927) of shares out of so many trials."""
    import numpy as np

    z = 1.959963984540054
    middle = (shares + z**2 / (2 * trials)) / (1 + z**2 / trials)
    spread = z * np.sqrt(shares * (1 - shares) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return np.minimum(middle - spread, shares), np.maximum(middle + spread, shares)


def _overall(boards: list[_Board]) -> _Board:
    """Return the mean over axes, each axis one voice."""
    import numpy as np

    resampled = np.mean([board.resampled for board in boards], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1)
    return _Board(
        scores=np.mean([board.scores for board in boards], axis=0),
        resampled=resampled,
        low=low,
        high=high,
        pictures=np.sum([board.pictures for board in boards], axis=0),
        mismatches=np.sum([board.mismatches for board in boards], axis=0),
    )


def _ranked(axis: str, board: _Board, about: pd.DataFrame) -> pd.DataFrame:
    """Return an axis' rows, best first, each compared with the best."""
    import numpy as np

    table = about.reset_index().assign(
        axis=axis,
        score=board.scores,
        low=board.low,
        high=board.high,
        pictures=board.pictures,
        mismatches=board.mismatches,
    )
    order = table.sort_values(["score", "step", "checkpoint"], ascending=[False, True, True]).index.to_numpy()
    lead = board.resampled[order[0]] - board.resampled[order]
    behind_low, behind_high = np.quantile(lead, [0.025, 0.975], axis=1)
    # Both ends, and the observed sample counted among the resamples, so that p is never 0 (Davison & Hinkley 1997).
    p = np.minimum(1, 2 * (1 + (lead <= 0).sum(axis=1)) / (RESAMPLES + 1))
    p = np.concatenate([[1.0], _holm(p[1:])])
    return table.loc[order].assign(
        behind=table.score[order[0]] - table.score[order],
        behind_low=behind_low,
        behind_high=behind_high,
        p=p,
        rank=range(1, len(order) + 1),
        best=np.arange(len(order)) == 0,
        tied=p >= SURE,
    )


def _holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values corrected for their number after Holm (1979)."""
    import numpy as np

    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.minimum(1, p[order] * (len(p) - np.arange(len(p)))))
    corrected = np.empty_like(p)
    corrected[order] = raised
    return corrected


def _single(boards: dict[str, _Board]) -> dict[str, _Board]:
    return {axis: board for axis, board in boards.items() if axis != OVERALL}


def _pareto(boards: dict[str, _Board]) -> list[bool]:
    """Tell of each checkpoint whether no other is as good on every axis and better on one."""
    import numpy as np

    scores = np.stack([board.scores for board in _single(boards).values()], axis=1)
    as_good = (scores[:, None] >= scores[None]).all(axis=2)
    better = (scores[:, None] > scores[None]).any(axis=2)
    return [not beaten for beaten in np.logical_or.reduce(as_good & better, axis=0).tolist()]


def _overfit(boards: dict[str, _Board], about: pd.DataFrame) -> list[bool]:
    """Tell of each checkpoint whether an earlier one of its variant obeys prompts better, and knows the concept less.

    That is overfitting as it is seen: concept similarity goes on rising while prompt following falls, the fall being
    surer than chance (paired, 97.5 % one-sided).
    """
    import numpy as np

    following = [board for axis, board in _single(boards).items() if axis != CONCEPT]
    if not following or CONCEPT not in boards:
        return [False] * len(about)
    obeyed = np.mean([board.resampled for board in following], axis=0)
    concept = boards[CONCEPT].scores
    steps, variants = about.step.to_numpy(), about.variant.to_numpy()
    found = []
    for at in range(len(about)):
        earlier = np.flatnonzero((variants == variants[at]) & (steps < steps[at]) & (concept < concept[at]))
        found.append(any(float(np.quantile(obeyed[one] - obeyed[at], 0.025)) > 0 for one in earlier))
    return found


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
    figure.legend(fontsize=8, loc="outside right upper")
    return _png(figure)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
