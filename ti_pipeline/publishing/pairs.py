"""Pairs: the table people keep of their comparisons, "input, contender 1, contender 2, conclusion".

Here: which checkpoints meet. Not here: what a meeting says: that is the leaderboard's own comparison of all pairs
(`evaluation.statistics.meetings`), so that this table and the leaderboard cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.comparison import LIKENESS, OBEDIENCE, OVERALL, SURE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.publishing.verdict import Standing

__all__ = ["Meeting", "contenders", "pairwise"]

_CONTENDERS = 6  # every one meets every other: 15 meetings an input


@dataclass(frozen=True)
class Meeting:
    """Two checkpoints on one board: by how much the first leads, with the interval and p that hold for all pairs."""

    input: str
    first: str
    second: str
    lead: float
    low: float
    high: float
    p: float

    @property
    def winner(self) -> str | None:
        """The better one, or None where chance explains the difference."""
        if self.p >= SURE:
            return None
        return self.first if self.lead > 0 else self.second


def contenders(overall: Sequence[Standing]) -> list[str]:
    """Return the best checkpoint of each variant, best first; all checkpoints where there is one variant only."""
    first_of = {row.variant: row.checkpoint for row in reversed(overall)}
    chosen = [row.checkpoint for row in overall if len(first_of) == 1 or first_of[row.variant] == row.checkpoint]
    return chosen[:_CONTENDERS]


def pairwise(results: StudyResults, names: Sequence[str]) -> list[Meeting]:
    """Return every meeting of the named checkpoints: overall, obedience, likeness, and each axis."""
    import pandas as pd

    from ti_pipeline.evaluation.decision import rule_of
    from ti_pipeline.evaluation.likeness import likeness_of_study
    from ti_pipeline.evaluation.statistics import judged, meetings

    if len(names) < 2 or not results.evaluation_scores:
        return []
    scores = pd.concat(list(results.evaluation_scores.values()), ignore_index=True)
    inputs = likeness_of_study(results.study, scores, results.reference_scores)
    told = meetings(judged(*inputs, **rule_of(results.study)), names)
    order = [OVERALL, OBEDIENCE, LIKENESS]
    told["place"] = [order.index(axis) if axis in order else len(order) for axis in told.axis]
    return [
        Meeting(str(row.axis), str(row.first), str(row.second), row.lead, row.low, row.high, row.p)
        for row in told.sort_values("place", kind="stable").itertuples()
    ]
