"""Meetings of two checkpoints: who meets, and that they say what the leaderboard says."""

import pandas as pd

from ti_pipeline.evaluation.decision import rule_of
from ti_pipeline.evaluation.statistics import leaderboard
from ti_pipeline.publishing.pairs import contenders, pairwise
from ti_pipeline.publishing.verdict import OVERALL, standings


def test_contenders_are_the_best_of_each_variant_best_first(results):
    assert contenders(standings(results, OVERALL)) == ["a-20", "b-20"]
    of_one = [row for row in standings(results, OVERALL) if row.variant == "b"]
    assert contenders(of_one) == ["b-20", "b-10"]
    assert contenders([]) == []


def test_meetings_are_the_leaderboards_own_comparisons(results):
    scores = pd.concat(results.evaluation_scores.values(), ignore_index=True)
    board = leaderboard(scores, results.reference_scores, **rule_of(results.study))
    met = pairwise(results, ["a-20", "a-10", "b-20", "b-10"])
    assert list(dict.fromkeys(row.input for row in met)) == ["overall", "obedience", "likeness", "clothing", "species"]
    for axis, rows in board[board["rank"].notna()].groupby("axis"):
        first, pairs = (
            rows.checkpoint.iloc[0],
            {frozenset((row.first, row.second)): row for row in met if row.input == axis},
        )
        for row in rows.iloc[1:].itertuples():
            pair = pairs[frozenset((first, row.checkpoint))]
            assert pair.p == row.p
            assert (pair.winner is None) == row.tied


def test_before_anything_is_measured_nobody_meets(nothing_measured):
    assert pairwise(nothing_measured, ["a-20", "b-20"]) == []
