import csv

import networkx as nx
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.tagging.implications import closure, depths, implied_pairs, redundant_uses
from ti_pipeline.tagging.incidence import Incidence
from ti_pipeline_tests.shared_data import E621, needs_shared
from ti_pipeline_tests.tagging.frames import recorded_tags, steady


def implications(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["antecedent", "consequent"]).astype("str")


def pairs(matrix, names) -> set[tuple[str, str]]:
    found = matrix.tocoo()
    return {(names[i], names[j]) for i, j in zip(found.row, found.col, strict=True)}


def descend(edges) -> dict[str, set[str]]:
    """Every tag's ancestors, by walking."""
    up: dict[str, set[str]] = {}
    for special, general in edges:
        up.setdefault(special, set()).add(general)

    def walk(tag, seen):
        for general in up.get(tag, ()):
            if general not in seen:
                seen.add(general)
                walk(general, seen)
        return seen

    return {tag: walk(tag, set()) for tag in up}


def test_chains_lead_over_tags_that_the_study_lacks():
    names = ["wolf", "mammal", "hat"]
    matrix = closure(implications(("wolf", "canine"), ("canine", "canid"), ("canid", "mammal")), names)
    assert pairs(matrix, names) == {("wolf", "mammal")}
    assert depths(matrix).tolist() == [1, 0, 0]


def test_no_catalog_is_no_closure():
    assert closure(None, ["a"]) is None
    assert closure(implications(), ["a"]) is None


def test_tags_that_imply_each_other_are_one_thing_said_twice():
    names = ["a", "b", "c"]
    assert pairs(closure(implications(("a", "b"), ("b", "a"), ("b", "c")), names), names) == {("a", "c"), ("b", "c")}


@steady
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25), st.sets(st.integers(0, 9)))
def test_closure_equals_walking(edges, kept):
    names = [str(i) for i in sorted(kept)]
    text = [(str(a), str(b)) for a, b in edges]
    ancestors = descend(text)
    expected = {
        (a, b) for a in names for b in ancestors.get(a, ()) if b in names and a != b and a not in ancestors.get(b, ())
    }
    matrix = closure(implications(*text), names)
    assert (pairs(matrix, names) if matrix is not None else set()) == expected


@steady
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda e: e[0] < e[1]), max_size=12),
    st.lists(st.sets(st.integers(0, 6)), max_size=6),
)
def test_redundant_uses_equal_looking_at_each_picture(edges, posts):
    names = [str(i) for i in range(7)]
    text = [(str(a), str(b)) for a, b in edges]
    matrix = closure(implications(*text), names)
    if matrix is None:
        return
    ancestors = descend(text)
    uses = [(row, tag) for row, tags in enumerate(posts) for tag in sorted(tags)]
    rows, tags = (np.array([use[i] for use in uses], dtype=np.int32) for i in (0, 1))
    incidence = Incidence(len(posts), names, rows, tags)
    others = [(str(tag), [str(other) for other in posts[row] if other != tag]) for row, tag in uses]
    mask = redundant_uses(incidence, matrix)
    assert mask.tolist() == [any(tag in ancestors.get(other, ()) for other in beside) for tag, beside in others]
    assert set(rows[~mask]) == set(rows)  # every picture with tags keeps one
    special = np.zeros(len(uses), dtype=bool)
    special[implied_pairs(incidence, matrix)[0]] = True
    assert special.tolist() == [any(other in ancestors.get(tag, ()) for other in beside) for tag, beside in others]


@needs_shared
def test_the_recorded_implications_close_as_a_graph_library_says():
    with (E621 / "tag_implications_2025-05-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        rows = [(r["antecedent_name"], r["consequent_name"]) for r in csv.DictReader(stream) if r["status"] == "active"]
    names = sorted({tag for of_post in recorded_tags().values() for tags in of_post.values() for tag in tags})
    matrix = closure(implications(*rows), names)
    graph, known = nx.DiGraph(rows), set(names)
    expected = {(tag, general) for tag in names if tag in graph for general in nx.descendants(graph, tag) & known}
    assert pairs(matrix, names) == expected
    assert len(expected) > 1000
