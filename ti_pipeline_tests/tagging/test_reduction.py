"""Each rule against brute force on small cases; all of them together: subsets, bounds, no influence of row order."""

import itertools
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CATEGORIES, CaptionPlan
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.vocabulary import VocabularyError, reduce_vocabulary
from ti_pipeline_tests.tagging.frames import steady

pytestmark = pytest.mark.slow

CHAIN = pd.DataFrame(
    [("wolf", "canine"), ("fox", "canine"), ("canine", "mammal"), ("lion", "mammal")],
    columns=["antecedent", "consequent"],
).astype("str")


def uses_of(posts: dict[int, list[str]], category: str = "species") -> pd.DataFrame:
    rows = [(post, tag, category) for post, tags in sorted(posts.items()) for tag in tags]
    return pd.DataFrame(rows, columns=["post_id", "tag", "category"])


def reduced(posts, plan: CaptionPlan, implications=None) -> pd.DataFrame:
    post_tags = uses_of(posts)
    table = reduce_vocabulary(
        tag_frequencies(post_tags, posts_count=len(posts)), post_tags, plan, implications=implications
    )
    assert TABLES["vocabulary"].problems(table) == []
    return table


def kept(table: pd.DataFrame) -> set[str]:
    return set(table.tag[table.kept])


def why(table: pd.DataFrame, tag: str) -> tuple[str, str]:
    row = table[table.tag == tag].iloc[0]
    return row.rule, row.reason


FOREST = {
    1: ["mammal", "canine", "wolf"],
    2: ["mammal", "canine", "wolf"],
    3: ["mammal", "canine", "fox"],
    4: ["mammal", "lion"],
    5: ["mammal"],
    6: ["hat"],
}


def test_most_specific_keeps_a_general_tag_only_where_nothing_more_special_stands():
    plan = CaptionPlan(implications="most_specific")
    table = reduced(FOREST, plan, CHAIN)
    assert kept(table) == {"wolf", "fox", "lion", "mammal", "hat"}
    assert why(table, "canine") == (
        "implications",
        "implications most_specific: a more special tag stands on all 3 pictures",
    )
    assert dict(zip(table.tag, table.captions, strict=True)) == {
        "mammal": 1, "canine": 0, "wolf": 2, "fox": 1, "hat": 1, "lion": 1,
    }  # fmt: skip
    captions = write_captions(FOREST, uses_of(FOREST), table, plan, CHAIN)
    assert captions.tags.tolist() == [["wolf"], ["wolf"], ["fox"], ["lion"], ["mammal"], ["hat"]]


def test_most_general_keeps_the_root():
    plan = CaptionPlan(implications="most_general")
    table = reduced(FOREST, plan, CHAIN)
    assert kept(table) == {"mammal", "hat"}
    captions = write_captions(FOREST, uses_of(FOREST), table, plan, CHAIN)
    assert captions.tags.tolist() == [["mammal"]] * 5 + [["hat"]]


def test_budgets_count_what_implications_leave():
    table = reduced(FOREST, CaptionPlan(implications="most_specific", budgets={"species": 1}), CHAIN)
    assert kept(table) == {"wolf"}
    assert why(table, "mammal") == ("budgets", "species budget 1: rank 5")


def test_the_keep_list_survives_implications():
    plan = CaptionPlan(implications="most_specific", keep=["canine"])
    table = reduced(FOREST, plan, CHAIN)
    assert why(table, "canine") == ("keep", "keep list: canine")
    captions = write_captions(FOREST, uses_of(FOREST), table, plan, CHAIN)
    assert captions.tags.tolist()[0] == ["canine", "wolf"]


def test_implications_without_a_catalog_are_an_error_that_says_what_to_do():
    with pytest.raises(VocabularyError, match="run the job catalog first"):
        reduced(FOREST, CaptionPlan(implications="most_general"))


def test_the_share_window_says_which_side():
    table = reduced(FOREST, CaptionPlan(min_share=0.3, max_share=0.6))
    assert kept(table) == {"canine", "wolf"}
    assert why(table, "mammal") == ("share_window", "max_share 0.6: share 0.833333")
    assert why(table, "hat") == ("share_window", "min_share 0.3: share 0.166667")


def test_near_synonyms_give_way_to_the_commoner():
    posts = {n: ["fur"] + (["fluffy"] if n < 9 else []) + (["hat"] if n < 3 else []) for n in range(10)}
    table = reduced(posts, CaptionPlan(merge_synonyms=0.9))
    assert kept(table) == {"fur", "hat"}
    assert why(table, "fluffy") == (
        "merge_synonyms",
        "merge_synonyms 0.9: with fur on 9 of the 10 pictures of either (Jaccard 0.900)",
    )
    assert kept(reduced(posts, CaptionPlan(merge_synonyms=0.91))) == {"fur", "fluffy", "hat"}
    assert kept(reduced(posts, CaptionPlan(merge_synonyms=0.9, keep=["fluffy"]))) == {"fluffy", "hat"}


def test_no_tag_gives_way_to_one_that_gave_way():
    posts = {n: ["a"] * (n < 10) + ["b"] * (1 <= n < 10) + ["c"] * (2 <= n < 10) for n in range(10)}
    # b gives way to a; c is like b (8/9) but not like a (8/10), so it stays
    assert kept(reduced(posts, CaptionPlan(merge_synonyms=0.85))) == {"a", "c"}


tiny_posts = st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=9).map(
    lambda posts: {number: sorted(tags) for number, tags in enumerate(posts)}
)


def covered(posts, chosen, per_picture: int) -> int:
    return sum(min(per_picture, len(set(tags) & set(chosen))) for tags in posts.values())


@steady
@given(tiny_posts, st.integers(1, 4), st.integers(1, 3))
def test_coverage_reaches_its_guarantee(posts, size, per_picture):
    plan = CaptionPlan(coverage={"tags": size, "per_picture": per_picture, "informative_below": 1.0})
    chosen = kept(reduced(posts, plan))
    names = {tag for tags in posts.values() for tag in tags}
    best = max(covered(posts, c, per_picture) for c in itertools.combinations(sorted(names), min(size, len(names))))
    assert len(chosen) <= size
    assert covered(posts, chosen, per_picture) >= (1 - 1 / math.e) * best


def test_coverage_takes_what_adds_most_and_says_so():
    posts = {n: ["everywhere", "ab"[n % 2]] + (["x"] if n == 0 else []) for n in range(8)}
    table = reduced(posts, CaptionPlan(coverage={"tags": 2}))
    assert kept(table) == {"a", "b"}
    assert why(table, "a") == ("coverage", "coverage 2: choice 1, for 4 more pictures")
    assert why(table, "x") == ("coverage", "coverage 2: would give 0 more pictures of those that lack a tag one")
    assert why(table, "everywhere") == ("coverage", "coverage 2: on 8 pictures, share 1 above 0.5")


def test_coverage_with_more_tags_than_help_stops():
    posts = {n: ["a"] if n < 4 else ["b"] for n in range(8)} | {8: ["a", "c"]}
    plan = CaptionPlan(coverage={"tags": 50, "informative_below": 1.0})
    assert kept(reduced(posts, plan)) == {"a", "b"}
    assert kept(reduced(posts, plan.model_copy(update={"keep": ["c"]}))) == {"a", "b", "c"}


def in_captions(posts, chosen, limit: int | None) -> dict[str, int]:
    """In how many captions each chosen tag stands if a picture keeps its `limit` rarest (earlier if equally rare)."""
    count = {tag: sum(tag in tags for tags in posts.values()) for tags in posts.values() for tag in tags}
    said = dict.fromkeys(chosen, 0)
    for tags in posts.values():
        order = sorted(set(tags) & set(chosen), key=lambda tag: (-count[tag], tag))
        for tag in sorted(order, key=lambda tag: (count[tag], order.index(tag)))[:limit]:
            said[tag] += 1
    return said


@steady
@given(tiny_posts, st.sampled_from([0.2, 0.34, 0.5]), st.none() | st.integers(1, 3))
def test_balance_reaches_its_share_and_no_tag_could_be_added(posts, share, limit):
    table = reduced(posts, CaptionPlan(balance=share, per_image=limit))
    chosen = kept(table)
    wanted = share * len(posts) - 1e-9
    said = in_captions(posts, chosen, limit)
    assert dict(zip(table.tag[table.kept], table.captions[table.kept], strict=True)) == said
    assert all(count >= wanted for count in said.values())
    names = {tag for tags in posts.values() for tag in tags}
    for tag in names - chosen:
        more = in_captions(posts, chosen | {tag}, limit)
        assert any(count < wanted for count in more.values())
    if limit is None:
        assert chosen == {tag for tag in names if sum(tag in tags for tags in posts.values()) >= wanted}


def test_balance_is_seldom_smaller_than_the_largest_possible():
    """All choices on 150 small studies: what the rule finds is almost always as large as the largest there is."""
    import random

    rng = random.Random(6)
    smaller = 0
    for _ in range(150):
        posts = {n: sorted({t for t in "abcdefg" if rng.random() < 0.45}) for n in range(12)}
        chosen = kept(reduced(posts, CaptionPlan(balance=0.25, per_image=2)))
        subsets = (s for size in range(7, 0, -1) for s in itertools.combinations("abcdefg", size))
        best = next((s for s in subsets if min(in_captions(posts, s, 2).values()) >= 3), ())
        assert len(chosen) >= len(best) - 1
        smaller += len(chosen) < len(best)
    assert smaller <= 15


def test_balance_says_what_each_tag_reached():
    posts = {n: ["a"] * (n < 5) + ["b"] * (n < 2) for n in range(10)}
    table = reduced(posts, CaptionPlan(balance=0.3))
    assert why(table, "a") == ("balance", "balance 0.3: in 5 captions, share 0.5")
    assert why(table, "b") == ("balance", "balance 0.3: in 2 captions, share 0.2")


def test_information_prefers_the_rare_the_deep_and_the_new():
    posts = {n: ["mammal"] for n in range(20)}
    posts |= {n: ["mammal", "canine", "wolf"] for n in range(20, 24)} | {24: ["mammal", "canine", "wolf", "hat", "tie"]}
    posts |= {n: ["mammal", "hat"] for n in range(25, 30)} | {n: ["mammal", "tie"] for n in range(30, 36)}

    def said(limit: int, by: str) -> list[str]:
        plan = CaptionPlan(per_image=limit, per_image_by=by)
        table = reduced(posts, plan, CHAIN)
        return sorted(write_captions(posts, uses_of(posts), table, plan, CHAIN).set_index("post_id").tags[24])

    assert said(1, "information") == ["wolf"]
    # canine is as rare as wolf, but wolf says it already
    assert said(2, "rarity") == ["canine", "wolf"]
    assert said(2, "information") == ["hat", "wolf"]
    assert said(3, "information") == ["hat", "tie", "wolf"]


def mmr_by_hand(posts, limit: int, edges) -> dict[int, set[str]]:
    """Maximal marginal relevance, one picture and one tag after the other."""
    count = {tag: sum(tag in tags for tags in posts.values()) for tags in posts.values() for tag in tags}
    order = sorted(count, key=lambda tag: (-count[tag], tag))
    above = {tag: {b for a, b in edges if a == tag} for tag in order}
    deepest = max([len(above[tag] & set(order)) for tag in order] or [0])

    def relevance(tag):
        rarity = math.log(len(posts) / count[tag]) / max(math.log(max(len(posts), 2)), 1e-9)
        return (rarity + len(above[tag] & set(order)) / max(deepest, 1)) / 2

    def alike(one, other):
        if other in above[one] or one in above[other]:
            return 1.0
        both = sum({one, other} <= set(tags) for tags in posts.values())
        return both / (count[one] + count[other] - both)

    said = {}
    for post, tags in posts.items():
        chosen: list[str] = []
        while len(chosen) < min(limit, len(tags)):
            left = [tag for tag in order if tag in tags and tag not in chosen]
            gain = {t: round(0.5 * relevance(t) - 0.5 * max([alike(t, c) for c in chosen] or [0]), 9) for t in left}
            chosen.append(max(left, key=lambda t: (gain[t], -order.index(t))))
        said[post] = set(chosen)
    return said


@steady
@given(tiny_posts, st.integers(1, 4))
def test_information_equals_choosing_by_hand(posts, limit):
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]
    implications = pd.DataFrame(edges, columns=["antecedent", "consequent"]).astype("str")
    plan = CaptionPlan(per_image=limit, per_image_by="information")
    table = reduced(posts, plan, implications)
    captions = write_captions(posts, uses_of(posts), table, plan, implications)
    found = dict(zip(captions.post_id, map(set, captions.tags), strict=True))
    assert found == mmr_by_hand(posts, limit, edges)


plans = st.builds(
    CaptionPlan,
    categories=st.none() | st.just(["species", "general"]),
    budgets=st.dictionaries(st.sampled_from(CATEGORIES), st.integers(0, 9), max_size=2),
    min_count=st.integers(1, 2),
    max_share=st.sampled_from([0.6, 1.0]),
    implications=st.sampled_from(["keep", "most_specific", "most_general"]),
    merge_synonyms=st.sampled_from([None, 0.5, 1.0]),
    coverage=st.none() | st.builds(dict, tags=st.integers(1, 4), per_picture=st.integers(1, 2)),
    balance=st.sampled_from([None, 0.1, 0.3]),
    per_image=st.none() | st.integers(1, 3),
    per_image_by=st.sampled_from(["rarity", "information"]),
    keep=st.sampled_from([[], ["a*"]]),
    drop=st.sampled_from([[], ["b", "a"]]),
)
LETTERS = pd.DataFrame([("f", "b"), ("b", "c"), ("a", "e")], columns=["antecedent", "consequent"]).astype("str")


@settings(steady, max_examples=120)
@given(tiny_posts, plans)
def test_all_rules_together(posts, plan):
    post_tags = uses_of(posts)
    frequencies = tag_frequencies(post_tags, posts_count=len(posts))
    table = reduce_vocabulary(frequencies, post_tags, plan, implications=LETTERS)
    assert TABLES["vocabulary"].problems(table) == []
    assert sorted(table.tag) == sorted(frequencies.tag)
    assert (table.reason != "").all()
    assert (table.rule != "").all()
    assert set(table.captions[~table.kept]) <= {0}
    by_rule = table[table.kept & (table.rule != "keep")]
    listed = int((table.kept & (table.rule == "keep")).sum())
    if "species" in plan.budgets:
        assert len(by_rule) <= max(0, plan.budgets["species"] - listed)
    if plan.coverage:
        assert len(by_rule) <= max(0, plan.coverage.tags - listed)
    if plan.balance and len(by_rule):
        assert by_rule.captions.min() >= plan.balance * len(posts) - 1e-9
    again = reduce_vocabulary(frequencies[::-1], post_tags.sample(frac=1, random_state=1), plan, implications=LETTERS)
    assert table.equals(again)
    captions = write_captions(posts, post_tags.iloc[::-1], table, plan, LETTERS)
    said = captions.tags.explode().value_counts()
    assert {t: int(said.get(t, 0)) for t in table.tag} == dict(zip(table.tag, table.captions, strict=True))
    for row in captions.itertuples():
        assert set(row.tags) <= set(posts[row.post_id]) & kept(table)
        assert row.tag_count <= (plan.per_image or 99)
