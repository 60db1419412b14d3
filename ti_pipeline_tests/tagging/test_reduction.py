"""Each rule against brute force on small cases; all of them together: subsets, bounds, no influence of row order."""

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ti_pipeline.e621.catalog import read_catalog
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CATEGORIES, CaptionPlan
from ti_pipeline.tagging.budget import fit_captions
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline.tagging.trained import counted_tags
from ti_pipeline.tagging.vocabulary import VocabularyError, reduce_vocabulary
from ti_pipeline_tests.shared_data import E621, needs_shared
from ti_pipeline_tests.tagging.frames import posts_of, recorded_tags, steady

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
    assert why(table, "mammal") == ("max_share", "max_share 0.6: share 0.833333")
    assert why(table, "hat") == ("min_share", "min_share 0.3: share 0.166667")


def test_near_synonyms_give_way_to_the_commoner():
    posts = {n: ["fur"] + (["fluffy"] if n < 9 else []) + (["hat"] if n < 3 else []) for n in range(10)}
    posts |= {10: [], 11: []}
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
    posts |= {10: [], 11: []}
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
    plan = CaptionPlan(coverage={"tags": size, "per_picture": per_picture, "informative_below": 1.0, "min_pictures": 1})
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
    assert why(table, "x") == ("coverage", "coverage 2: on 1 pictures, fewer than 2")
    assert why(reduced(posts | {9: ["x"], 10: []}, CaptionPlan(coverage={"tags": 2})), "x") == (
        "coverage",
        "coverage 2: would give 1 more pictures of those that lack a tag one",
    )
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
    table = reduced(posts, CaptionPlan(balance=share, per_image=limit, per_image_by="rarity", at_least={}))
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
        chosen = kept(reduced(posts, CaptionPlan(balance=0.25, per_image=2, per_image_by="rarity", at_least={})))
        subsets = (s for size in range(7, 0, -1) for s in itertools.combinations("abcdefg", size))
        best = next((s for s in subsets if min(in_captions(posts, s, 2).values()) >= 3), ())
        assert len(chosen) >= len(best) - 1
        smaller += len(chosen) < len(best)
    assert smaller <= 15


def test_balance_says_what_each_tag_reached():
    posts = {n: ["a"] * (n < 5) + ["b"] * (n < 2) for n in range(10)}
    table = reduced(posts, CaptionPlan(balance=0.3))
    assert why(table, "a") == ("balance", "balance 0.3: in 5 captions, share 0.5")
    assert why(table, "b") == ("balance", "balance 0.3: on 2 pictures, share 0.2")


def test_information_prefers_the_rare_the_deep_and_the_new():
    posts = {n: ["mammal"] for n in range(20)}
    posts |= {n: ["mammal", "canine", "wolf"] for n in range(20, 24)} | {24: ["mammal", "canine", "wolf", "hat", "tie"]}
    posts |= {n: ["mammal", "hat"] for n in range(25, 30)} | {n: ["mammal", "tie"] for n in range(30, 36)}

    def said(limit: int, by: str) -> list[str]:
        plan = CaptionPlan(per_image=limit, per_image_by=by, at_least={})
        table = reduced(posts, plan, CHAIN)
        return sorted(write_captions(posts, uses_of(posts), table, plan, CHAIN).set_index("post_id").tags[24])

    assert said(1, "information") == ["wolf"]
    # canine is as rare as wolf, but wolf says it already
    assert said(2, "rarity") == ["canine", "wolf"]
    assert said(2, "information") == ["tie", "wolf"]
    assert said(3, "information") == ["hat", "tie", "wolf"]


def mmr_by_hand(posts, limit: int, edges, floor: int) -> dict[int, list[str]]:
    """Maximal marginal relevance, one picture and one tag after the other; before all others the floor's best tags."""
    n = len(posts)
    count = {tag: sum(tag in tags for tags in posts.values()) for tags in posts.values() for tag in tags}
    order = sorted(count, key=lambda tag: (-count[tag], tag))
    above = {tag: {b for a, b in edges if a == tag} & set(order) for tag in order}
    deepest = max([len(above[tag]) for tag in order] or [0])

    def relevance(tag):
        p = min(count[tag] / n, 0.5)
        entropy = 0.0 if count[tag] == n else -p * math.log2(p) - (1 - p) * math.log2(1 - p)
        return entropy * (4 + len(above[tag]) / max(deepest, 1)) / 5

    def alike(one, other):
        if other in above[one] or one in above[other]:
            return 1.0
        both = sum({one, other} <= set(tags) for tags in posts.values())
        a, b = count[one], count[other]
        if min(a, b) < 2:
            return 0.0
        if n in (a, b):
            return float(a == b)
        return max(0.0, (both * n - a * b) / math.sqrt(a * (n - a) * b * (n - b)))

    said = {}
    for post, tags in posts.items():
        general = {other for tag in tags for other in above[tag]}
        first = sorted(tags, key=lambda t: (t in general, -round(relevance(t), 9), order.index(t)))[:floor]
        chosen: list[str] = []
        while len(chosen) < min(limit, len(tags)):
            left = [tag for tag in order if tag in tags and tag not in chosen]
            gain = {t: round(0.5 * relevance(t) - 0.5 * max([alike(t, c) for c in chosen] or [0]), 9) for t in left}
            chosen.append(max(left, key=lambda t: (t in first, gain[t], -order.index(t))))
        said[post] = chosen
    return said


@steady
@given(tiny_posts, st.integers(1, 4), st.integers(0, 2))
def test_information_equals_choosing_by_hand(posts, limit, floor):
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]
    implications = pd.DataFrame(edges, columns=["antecedent", "consequent"]).astype("str")
    plan = CaptionPlan(per_image=limit, per_image_by="information", at_least={"species": floor})
    table = reduced(posts, plan, implications)
    captions = write_captions(posts, uses_of(posts), table, plan, implications)
    assert dict(zip(captions.post_id, captions.priority, strict=True)) == mmr_by_hand(posts, limit, edges, floor)


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
    at_least=st.sampled_from([{}, {"species": 1}, {"species": 2, "general": 1}]),
    min_share=st.sampled_from([0.0, 0.3]),
    constant=st.sampled_from(["keep", "drop"]),
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
    without_limit = plan.model_copy(update={"per_image": None})
    free = write_captions(posts, post_tags, table, without_limit, LETTERS).tags.explode().value_counts() / len(posts)
    for tag in by_rule.tag:  # after all rules, not only when a rule was asked
        assert plan.min_share - 1e-9 <= free.get(tag, 0) <= plan.max_share + 1e-9
        assert free.get(tag, 0) * len(posts) >= plan.min_count
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


def merged(posts, site: dict[str, int] | None = None, implications=None, **plan) -> set[str]:
    post_tags = uses_of(posts)
    counts = None if site is None else pd.Series(site, dtype="Int64")
    frequencies = counted_tags(post_tags, np.array(sorted(posts)), counts)
    chosen = CaptionPlan(**{"merge_synonyms": 0.9} | plan)
    return kept(reduce_vocabulary(frequencies, post_tags, chosen, implications=implications))


def test_the_word_that_the_site_has_more_often_stays():
    posts = {n: ["lapine", "rabbit"] for n in range(5)} | {5: ["rabbit"], 6: [], 7: []}
    assert merged({**posts, 5: []}) == {"lapine"}  # nothing known: by name
    assert merged(posts, {"lapine": 9_000, "rabbit": 100, "unheard": 5}, merge_synonyms=0.8) == {"lapine"}


def test_synonyms_are_not_merged_across_implications_by_chance_or_into_what_nearly_all_have():
    rabbits = {n: ["leporid", "rabbit"] for n in range(5)} | {5: [], 6: []}
    implied = pd.DataFrame({"antecedent": ["rabbit"], "consequent": ["leporid"]}).astype("str")
    assert merged(rabbits, implications=implied) == {"leporid", "rabbit"}
    once = {0: ["tie", "monocle"], 1: ["tie", "monocle"], 2: [], 3: []}
    assert merged(once) == {"tie", "monocle"}
    nearly_all = {n: ["anthro", "mammal"] for n in range(19)} | {19: []}
    assert merged(nearly_all) == {"anthro", "mammal"}


def test_a_general_tag_comes_back_where_its_special_ones_are_too_rare():
    """Six wolves and two one-off canines: no share is below the window in the end, and no picture loses its species."""
    posts = {n: ["canine", "wolf"] for n in range(6)} | {6: ["canine", "dhole"], 7: ["canine", "jackal"]}
    implied = pd.DataFrame(
        [(tag, "canine") for tag in ("wolf", "dhole", "jackal")], columns=["antecedent", "consequent"]
    ).astype("str")
    plan = CaptionPlan(implications="most_specific", min_share=0.25)
    table = reduced(posts, plan, implied)
    assert dict(zip(table.tag, table.caption_share, strict=True)) == {
        "canine": 0.25, "wolf": 0.75, "dhole": 0, "jackal": 0,
    }  # fmt: skip
    assert why(table, "dhole") == ("min_share", "min_share 0.25: share 0.125")


def test_max_share_holds_in_the_end():
    """Once a budget takes the special tags, the general one would stand on all pictures."""
    posts = {n: ["mammal", "abcdefgh"[n]] for n in range(8)}
    implied = pd.DataFrame([(tag, "mammal") for tag in "abcdefgh"], columns=["antecedent", "consequent"]).astype("str")
    posts |= {8: ["mammal"], 9: []}
    plan = CaptionPlan(implications="most_specific", max_share=0.5, budgets={"species": 3})
    table = reduced(posts, plan, implied)
    assert kept(table) == {"a", "b", "c"}
    assert why(table, "mammal")[0] == "budgets"
    listed = reduced(posts, plan.model_copy(update={"keep": ["mammal"]}), implied)
    assert why(listed, "mammal")[0] == "keep"


def test_constant_tags_are_dropped_on_request():
    posts = {n: ["anthro", "ab"[n % 2]] for n in range(4)}
    assert kept(reduced(posts, CaptionPlan())) == {"anthro", "a", "b"}
    table = reduced(posts, CaptionPlan(constant="drop"))
    assert why(table, "anthro") == ("constant", "constant: on all 4 pictures")
    assert kept(reduced(posts, CaptionPlan(constant="drop", keep=["anthro"]))) == {"anthro", "a", "b"}


@needs_shared
@pytest.mark.parametrize("settings_", [{}, {"per_image": 4}])
def test_short_captions_of_the_recorded_posts_keep_their_subject(settings_):
    """With 64 vectors a caption has 11 tokens: species, and what is common and telling, stay; one-off details go."""
    tags = recorded_tags()
    post_tags = post_tags_table(posts_of(tags))
    implications = read_catalog(E621)["tag_implications"]
    plan = CaptionPlan(budgets={"species": 159, "general": 41}, **settings_)
    vocabulary = reduce_vocabulary(
        tag_frequencies(post_tags, posts_count=len(tags)), post_tags, plan, implications=implications
    )
    captions = write_captions(tags, post_tags, vocabulary, plan, implications)
    if not settings_:
        captions = fit_captions(captions, vectors=64, tokenizer=clip_tokenizer(), templates=["[name], [filewords]"])
    said = captions.tags.map(set)
    species = set(vocabulary.tag[vocabulary.kept & (vocabulary.category == "species")])
    could = pd.Series([bool(species & set(tags[post]["species"])) for post in captions.post_id])
    assert (said.map(lambda s: bool(s & species)) == could).all()
    assert could.mean() > 0.98
    anthro = pd.Series(["anthro" in tags[post]["general"] for post in captions.post_id])
    assert said[anthro].map(lambda s: "anthro" in s).mean() > 0.2  # the rarest first: 0.004


def test_balance_with_a_limit_takes_seconds_not_minutes():
    """3,000 pictures of 30 tags: a change of the vocabulary asks only the pictures that it touches."""
    rng = np.random.default_rng(6)
    share = 1 / (np.arange(1500) + 5.0)
    posts = np.repeat(np.arange(3000), 30)
    tags = rng.choice(1500, size=len(posts), p=share / share.sum())
    uses = pd.DataFrame({"post_id": posts, "tag": tags}).drop_duplicates()
    uses["tag"], uses["category"] = uses.tag.map("t{:04d}".format), "general"
    frequencies = tag_frequencies(uses, posts_count=3000)
    begin = time.process_time()
    for by in ("rarity", "information"):
        plan = CaptionPlan(balance=0.01, per_image=8, per_image_by=by)
        table = reduce_vocabulary(frequencies, uses, plan)
        assert (table.caption_share[table.kept] >= 0.01).all()
        assert table.kept.sum() > 20
    assert time.process_time() - begin < 20
