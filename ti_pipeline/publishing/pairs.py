"""Pairs: the table people keep of their comparisons, "input, contender 1, contender 2, conclusion".

Here: which checkpoints meet, on which inputs, and what each meeting says. Not here: the leaderboard's own comparison of
all with the best (`evaluation.statistics`).

Both contenders were given the same prompts and seeds, so only pictures on which they differ can tell them apart: a
sign test, exact (McNemar 1947 in its binomial form). Its p values are corrected after Holm (1979) over the meetings on
one input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.publishing.verdict import Standing

__all__ = ["Meeting", "contenders", "pairwise"]

SURE = 0.05
_CONTENDERS = 6  # every one meets every other: 15 meetings an input
_ALL, _CONCEPT = "all axes", "likeness to the concept"


@dataclass(frozen=True)
class Meeting:
    """Two checkpoints on one input: of `trials` (a value and a seed), the first won `wins`, the second `losses`."""

    input: str
    first: str
    second: str
    trials: int
    wins: int
    losses: int
    p: float

    @property
    def winner(self) -> str | None:
        """The better one, or None where chance explains the difference."""
        if self.p >= SURE:
            return None
        return self.first if self.wins > self.losses else self.second


def contenders(overall: Sequence[Standing]) -> list[str]:
    """Return the best checkpoint of each variant, best first; all checkpoints where there is one variant only."""
    first_of = {row.variant: row.checkpoint for row in reversed(overall)}
    chosen = [row.checkpoint for row in overall if len(first_of) == 1 or first_of[row.variant] == row.checkpoint]
    return chosen[:_CONTENDERS]


def pairwise(results: StudyResults, names: Sequence[str]) -> list[Meeting]:
    """Return every meeting of the named checkpoints: on all axes, on each in the study's order, and on the concept.

    A trial is a value and a seed, the mean over samplers and sizes; trials that only one of the two has do not count.
    """
    import pandas as pd

    tables = [table[table.checkpoint.isin(names)] for table in results.evaluation_scores.values()]
    if not tables:
        return []
    scores = pd.concat(tables, ignore_index=True)
    judged = scores[scores.metric.isin(["match", "tags"])]
    axes = [(str(axis), rows) for axis, rows in judged.groupby("axis", sort=False)]
    inputs = [(_ALL, judged), *axes, (_CONCEPT, scores[scores.metric == "concept"])]
    return [meeting for name, rows in inputs for meeting in _corrected(_meetings(name, rows, names))]


def _meetings(name: str, rows: pd.DataFrame, names: Sequence[str]) -> list[Meeting]:
    from scipy.stats import binomtest

    wide = rows.pivot_table(index=["axis", "value", "seed"], columns="checkpoint", values="score")
    found = []
    for first, second in combinations([name for name in names if name in wide], 2):
        both = wide[[first, second]].dropna()
        wins, losses = int((both[first] > both[second]).sum()), int((both[first] < both[second]).sum())
        p = float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
        found.append(Meeting(name, first, second, len(both), wins, losses, p))
    return found


def _corrected(meetings: list[Meeting]) -> list[Meeting]:
    """Return the meetings with p values raised for their number after Holm."""
    raised, least = dict[int, float](), 0.0
    for rank, at in enumerate(sorted(range(len(meetings)), key=lambda at: meetings[at].p)):
        least = max(least, min(1.0, meetings[at].p * (len(meetings) - rank)))
        raised[at] = least
    return [replace(meeting, p=raised[at]) for at, meeting in enumerate(meetings)]
