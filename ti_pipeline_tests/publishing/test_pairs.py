"""Meetings of two checkpoints: counted by hand, and the sign test by its definition."""

from itertools import product
from math import comb

import pandas as pd
import pytest

from ti_pipeline.publishing.pairs import contenders, pairwise
from ti_pipeline.publishing.verdict import OVERALL, standings


def two_sided(wins: int, losses: int) -> float:
    """The chance of a split at least as uneven, by counting all tosses of a fair coin."""
    n, least = wins + losses, min(wins, losses)
    tail = sum(comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2 * tail)


def test_contenders_are_the_best_of_each_variant_best_first(results):
    assert contenders(standings(results, OVERALL)) == ["a-20", "b-20"]
    of_one = [row for row in standings(results, OVERALL) if row.variant == "b"]
    assert contenders(of_one) == ["b-20", "b-10"]
    assert contenders([]) == []


def test_meetings_are_counted_on_the_same_trials(results):
    # Mismatches fall on the first pictures of an axis: species 1 and 2 of 4, clothing 0 and 2.
    found = {row.input: row for row in pairwise(results, ["a-20", "b-20"])}
    assert [(row.input, row.trials, row.wins, row.losses) for row in found.values()] == [
        ("all axes", 8, 3, 0),
        ("species", 4, 1, 0),
        ("clothing", 4, 2, 0),
    ]
    assert found["all axes"].p == pytest.approx(two_sided(3, 0))
    assert found["all axes"].winner is None


def scores(**right: str) -> pd.DataFrame:
    rows = [
        {"checkpoint": name, "metric": "match", "axis": "x", "value": f"v{n}", "seed": 1, "score": float(c)}
        for name, marks in right.items()
        for n, c in enumerate(marks)
    ]
    return pd.DataFrame(rows)


def test_a_winner_is_named_where_chance_does_not_explain_it(results):
    from dataclasses import replace

    marks = {"p": "1" * 12, "q": "0" * 12, "r": "110" + "0" * 9}
    tables = {name: scores(**{name: own}) for name, own in marks.items()}
    met = pairwise(replace(results, evaluation_scores=tables), list(marks))
    on_x = {(row.first, row.second): row for row in met if row.input == "x"}
    raw = {("p", "q"): two_sided(12, 0), ("p", "r"): two_sided(10, 0), ("q", "r"): two_sided(0, 2)}
    expected, least = {}, 0.0
    for left, pair in zip((3, 2, 1), sorted(raw, key=raw.__getitem__), strict=True):
        least = expected[pair] = max(least, min(1.0, left * raw[pair]))
    assert {pair: row.p for pair, row in on_x.items()} == pytest.approx(expected)
    assert {pair: row.winner for pair, row in on_x.items()} == {("p", "q"): "p", ("p", "r"): "p", ("q", "r"): None}


def test_trials_that_only_one_has_do_not_count(results):
    from dataclasses import replace

    tables = {"p": scores(p="1111"), "q": scores(q="00")}
    (_, on_x) = pairwise(replace(results, evaluation_scores=tables), ["p", "q"])
    assert (on_x.trials, on_x.wins, on_x.losses) == (2, 2, 0)


def test_the_sign_test_is_what_tossing_coins_gives():
    for wins, losses in product(range(4), repeat=2):
        if wins + losses == 0:
            continue
        tosses = list(product((0, 1), repeat=wins + losses))
        as_uneven = [t for t in tosses if abs(2 * sum(t) - len(t)) >= abs(wins - losses)]
        assert two_sided(wins, losses) == pytest.approx(len(as_uneven) / len(tosses))
