"""The decision: which checkpoint is best, how sure that is, and the mismatches as people count them over grids.

Here: what the leaderboard and the scores say, in plain values. Not here: computing them (`evaluation.statistics`),
or wording beyond a sentence (`templates`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.comparison import LIKENESS, OBEDIENCE, OVERALL

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ti_pipeline.evaluation.people import Agreement
    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.studies import BaseModelSource

__all__ = [
    "OVERALL",
    "Beside",
    "Measures",
    "Mismatches",
    "Standing",
    "ValueCount",
    "ValueMismatches",
    "Verdict",
    "beside",
    "boards",
    "measures",
    "mismatches",
    "mismatches_by_value",
    "peoples_agreements",
    "peoples_standings",
    "place_of",
    "standings",
    "verdict",
]


@dataclass(frozen=True)
class Standing:
    """A checkpoint's row on one axis of the leaderboard; `low` and `high` bound the 95 % interval of `score`.

    `behind` is its distance from the first of the axis, with its interval and the p value of the comparison; both hold
    for all pairs of the axis at once.
    """

    axis: str
    variant: str
    checkpoint: str
    step: int
    score: float
    low: float
    high: float
    pictures: int
    mismatches: int
    behind: float
    behind_low: float
    behind_high: float
    p: float
    rank: int
    best: bool
    tied: bool
    pareto: bool
    overfit: bool


@dataclass(frozen=True)
class Beside:
    """A row of the leaderboard that is not ranked: a reference (`excluded` is None), or left out for a reason."""

    axis: str
    checkpoint: str
    score: float
    low: float
    high: float
    pictures: int
    excluded: str | None


@dataclass(frozen=True)
class Verdict:
    """The decision overall, with what a person must know to trust it or not.

    `first` is the first in rank; it is `best` only if it has learned the concept beyond chance. `tells` is the smallest
    difference of overall scores that these pictures tell in four of five studies.
    """

    first: Standing
    runner_up: Standing | None
    tied: list[Standing]
    pareto: list[Standing]  # the best, and those that beat it in obedience or in likeness beyond chance
    overfit: list[Standing]
    excluded: list[Beside]
    tells: float
    compared: int
    pictures: int
    axes: list[str]
    scorer: str
    by_axis: list[tuple[Standing, int]]  # the leader of each axis, and how many others are tied with it

    @property
    def best(self) -> Standing | None:
        """Return the best checkpoint, None where none has learned."""
        return self.first if self.first.best else None

    @property
    def clear(self) -> bool:
        """Tell whether the best one can be told from every other checkpoint."""
        return not self.tied


@dataclass(frozen=True)
class Mismatches:
    """One variant's mismatches on one axis: a count per step, each out of `pictures`."""

    axis: str
    variant: str
    steps: list[int]
    counts: list[int]
    pictures: int

    def __str__(self) -> str:
        return ", ".join(map(str, self.counts))


@dataclass(frozen=True)
class ValueCount:
    """How many of a checkpoint's pictures of one value missed it."""

    wrong: int
    pictures: int

    @property
    def quarter(self) -> int:
        """Return in which quarter of the way from none (0) to all (4) the share of misses lies."""
        return -(-4 * self.wrong // self.pictures)


@dataclass(frozen=True)
class ValueMismatches:
    """One axis' mismatches: for each checkpoint a count per value, in the suite's order; None where none was drawn."""

    axis: str
    values: list[str]
    checkpoints: list[tuple[str, list[ValueCount | None]]]


@dataclass(frozen=True)
class Measures:
    """A checkpoint's means beside the scores that rank it, None where nothing was measured; `copies` is a count."""

    checkpoint: str
    prompt: float | None
    training: float | None
    diversity: float | None
    kid: float | None
    nearest: float | None
    copies: int


def measures(results: StudyResults) -> list[Measures]:
    """Return the further measures of every scored checkpoint, in the order of variants and steps."""
    found = []
    for scores in results.evaluation_scores.values():
        for (_, checkpoint), rows in scores.groupby(["step", "checkpoint"], sort=True):
            means = rows.groupby("metric").score.mean()
            told = {str(metric): float(mean) for metric, mean in means.items()}
            copied = int(rows.read_as[rows.metric == "copy"].notna().sum())
            found.append(
                Measures(
                    checkpoint=str(checkpoint),
                    prompt=told.get("prompt"),
                    training=told.get("training"),
                    diversity=told.get("diversity"),
                    kid=told.get("kid"),
                    nearest=told.get("copy"),
                    copies=copied,
                )
            )
    return found


@dataclass(frozen=True)
class PeoplesStanding:
    """What people's votes say of a checkpoint over all axes; None where nobody voted or ticked."""

    checkpoint: str
    chance: float | None
    low: float | None
    high: float | None
    votes: int
    judged: int
    mismatches: int | None


def peoples_standings(results: StudyResults) -> list[PeoplesStanding]:
    """Return the checkpoints that people judged, the one most likely to win a vote first."""
    board = results.leaderboard
    rows = board[(board.axis == OVERALL) & ((board.people_votes > 0) | (board.people_judged > 0))]
    ordered = rows.sort_values(["people", "rank"], ascending=[False, True], na_position="last")

    def told(value: Any) -> float | None:
        return float(value) if value == value else None  # noqa: PLR0124 - missing numbers differ from themselves

    return [
        PeoplesStanding(
            checkpoint=str(row.checkpoint),
            chance=told(row.people),
            low=told(row.people_low),
            high=told(row.people_high),
            votes=int(row.people_votes),
            judged=int(row.people_judged),
            mismatches=int(row.people_mismatches) if row.people_judged else None,
        )
        for row in ordered.itertuples()
    ]


def peoples_agreements(results: StudyResults) -> list[Agreement]:
    """Return how far raters agree with each other and with the scorer, of what more than one of them judged."""
    import pandas as pd

    from ti_pipeline.evaluation.people import agreements

    if results.votes.empty or not results.evaluation_scores:
        return []
    return agreements(results.votes, pd.concat(list(results.evaluation_scores.values()), ignore_index=True))


def standings(results: StudyResults, axis: str) -> list[Standing]:
    """Return an axis of the leaderboard, best first."""
    rows = results.leaderboard[(results.leaderboard.axis == axis) & results.leaderboard["rank"].notna()]
    return [_standing(row) for row in rows.sort_values("rank").itertuples()]


def beside(results: StudyResults, axis: str) -> list[Beside]:
    """Return what stands on an axis of the leaderboard without being ranked: who was left out, then the references."""
    rows = results.leaderboard[(results.leaderboard.axis == axis) & results.leaderboard["rank"].isna()]
    return [
        Beside(
            axis=axis,
            checkpoint=str(row.checkpoint),
            score=float(row.score),
            low=float(row.low),
            high=float(row.high),
            pictures=int(row.pictures),
            excluded=str(row.excluded) if row.candidate else None,
        )
        for row in rows.sort_values("candidate", ascending=False, kind="stable").itertuples()
    ]


def boards(results: StudyResults) -> dict[str, list[Standing]]:
    """Return every board, each best first; `overall`, `obedience` and `likeness` come before the single axes."""
    order = [OVERALL, OBEDIENCE, LIKENESS]
    axes = sorted(
        dict.fromkeys(map(str, results.leaderboard.axis)),
        key=lambda axis: order.index(axis) if axis in order else len(order),
    )
    return {axis: standings(results, axis) for axis in axes}


def _standing(row: Any) -> Standing:
    return Standing(
        axis=str(row.axis),
        variant=str(row.variant),
        checkpoint=str(row.checkpoint),
        step=int(row.step),
        score=float(row.score),
        low=float(row.low),
        high=float(row.high),
        pictures=int(row.pictures),
        mismatches=int(row.mismatches),
        behind=float(row.behind),
        behind_low=float(row.behind_low),
        behind_high=float(row.behind_high),
        p=float(row.p),
        rank=int(row.rank),
        best=bool(row.best),
        tied=bool(row.tied),
        pareto=bool(row.pareto),
        overfit=bool(row.overfit),
    )


def verdict(results: StudyResults) -> Verdict | None:
    """Return the decision over all axes, or None when nothing was measured."""
    overall = standings(results, OVERALL)
    if not overall:
        return None
    board = results.leaderboard[results.leaderboard.axis == OVERALL]
    single = {axis: rows for axis, rows in boards(results).items() if axis not in (OVERALL, OBEDIENCE, LIKENESS)}
    return Verdict(
        first=overall[0],
        runner_up=overall[1] if len(overall) > 1 else None,
        tied=[standing for standing in overall[1:] if standing.tied],
        pareto=[standing for standing in overall if standing.pareto],
        overfit=[standing for standing in overall if standing.overfit],
        excluded=[one for one in beside(results, OVERALL) if one.excluded is not None],
        tells=float(board.tells.iloc[0]),
        compared=len(overall),
        pictures=overall[0].pictures,
        axes=list(single),
        scorer=place_of(results.study.evaluation.scorer),
        by_axis=[(rows[0], sum(row.tied for row in rows[1:])) for rows in single.values()],
    )


def place_of(source: BaseModelSource) -> str:
    """Return where a model lies, as the study says it."""
    place = source.hub or source.folder or source.file or "not set"
    return f"{place}@{source.revision}" if source.revision else place


def mismatches(results: StudyResults) -> list[Mismatches]:
    """Return the mismatches of every axis and variant that has any judged picture, axis after axis."""
    found: list[Mismatches] = []
    for variant, scores in results.evaluation_scores.items():
        judged = scores[scores.metric == "match"]
        for axis, rows in judged.groupby("axis", sort=False):
            per_step = rows.assign(wrong=rows.score < 1).groupby("step").wrong.agg(["sum", "size"])
            found.append(
                Mismatches(
                    axis=str(axis),
                    variant=variant,
                    steps=[int(step) for step in per_step.index],
                    counts=[int(n) for n in per_step["sum"]],
                    pictures=int(per_step["size"].max()),
                )
            )
    order = list(dict.fromkeys(row.axis for row in found))
    return sorted(found, key=lambda row: order.index(row.axis))


def mismatches_by_value(results: StudyResults) -> list[ValueMismatches]:
    """Return how many pictures of each value missed, for every axis, its checkpoints by variant and step."""
    tables = [scores[scores.metric == "match"] for scores in results.evaluation_scores.values()]
    values = _in_order(pair for table in tables for pair in zip(table.axis, table.value, strict=True))
    checkpoints: dict[str, list[tuple[str, list[ValueCount | None]]]] = {axis: [] for axis in values}
    for table in tables:
        for (axis, _, checkpoint), rows in table.groupby(["axis", "step", "checkpoint"], sort=True):
            told = rows.assign(wrong=rows.score < 1).groupby("value").wrong.agg(["sum", "size"])
            counts = {str(row.Index): ValueCount(int(row.sum), int(row.size)) for row in told.itertuples()}
            checkpoints[axis].append((str(checkpoint), [counts.get(value) for value in values[axis]]))
    return [ValueMismatches(axis, values[axis], checkpoints[axis]) for axis in values]


def _in_order(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the second ones of pairs by the first ones, each once, as they first come."""
    found: dict[str, list[str]] = {}
    for first, second in dict.fromkeys(pairs):
        found.setdefault(str(first), []).append(str(second))
    return found
