from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CATEGORIES, CaptionPlan
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.shared_data import needs_shared
from ti_pipeline_tests.tagging.frames import posts_of, recorded_tags, steady, studies


def counted(*rows: tuple[str, str, int], posts: int = 100) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return frequencies and post tags in which a tag stands on the first `count` posts."""
    uses = [(post, tag, category) for tag, category, count in rows for post in range(count)]
    post_tags = pd.DataFrame(uses, columns=["post_id", "tag", "category"])
    return tag_frequencies(post_tags, posts_count=posts), post_tags


FEW = counted(
    ("fox", "species", 40),
    ("wolf", "species", 40),
    ("lion", "species", 20),
    ("brown_fur", "general", 50),
    ("blue_eyes", "general", 30),
    ("hat", "general", 2),
    ("someone", "artist", 9),
    ("hi_res", "meta", 90),
)


def reasons(table: pd.DataFrame) -> dict[str, tuple[bool, str]]:
    assert TABLES["vocabulary"].problems(table) == []
    return {row.tag: (bool(row.kept), row.reason) for row in table.itertuples()}


def kept(table: pd.DataFrame) -> set[str]:
    return set(table.tag[table.kept])


def test_every_rule_says_its_numbers():
    plan = CaptionPlan(
        categories=["species", "general", "artist"],
        drop_categories=["artist"],
        drop=["*_FUR"],
        min_count=3,
        min_share=0.31,
        budgets={"species": 1},
    )
    assert reasons(reduce_vocabulary(*FEW, plan, frozenset({"Lion"}))) == {
        "hi_res": (False, "category meta is not in the plan"),
        "someone": (False, "category artist is not in the plan"),
        "brown_fur": (False, "drop list: *_FUR"),
        "fox": (True, "species budget 1: rank 1"),
        "wolf": (False, "species budget 1: rank 2"),
        "lion": (False, "content policy: excluded"),
        "blue_eyes": (False, "min_share 0.31: share 0.3"),
        "hat": (False, "min_count 3: on 2 pictures"),
    }


def test_rows_are_commonest_first_and_a_kept_tag_says_its_share():
    table = reduce_vocabulary(*FEW, CaptionPlan())
    counts = FEW[1].tag.value_counts()
    assert table.tag.tolist() == sorted(counts.index, key=lambda tag: (-counts[tag], tag))
    assert reasons(table)["lion"] == (True, "on 20 pictures, share 0.2")


def test_the_keep_list_wins_and_takes_places_of_the_budget():
    plan = CaptionPlan(
        categories=["species"], budgets={"species": 2}, min_count=30, drop=["lion", "*"], keep=["lion", "h?t", "HI res"]
    )
    found = reasons(reduce_vocabulary(*FEW, plan))
    assert {tag for tag, (is_kept, _) in found.items() if is_kept} == {"lion", "hi_res"}
    assert found["lion"] == (True, "keep list: lion")
    open_plan = plan.model_copy(update={"drop": []})
    found = reasons(reduce_vocabulary(*FEW, open_plan))
    assert found["fox"] == (True, "species budget 2: rank 2")
    assert found["wolf"] == (False, "species budget 2: rank 3")


def test_more_keep_tags_than_places_are_all_kept():
    plan = CaptionPlan(categories=["species"], budgets={"species": 1}, keep=["lion", "wolf"])
    assert kept(reduce_vocabulary(*FEW, plan)) == {"lion", "wolf"}


@pytest.mark.parametrize("pattern", ["*", "young", "y*"])
def test_the_keep_list_never_lifts_the_policy(pattern):
    rows = counted(("young", "general", 5), ("Young", "lore", 3), ("fox", "species", 2))
    assert "fox" in kept(reduce_vocabulary(*rows, CaptionPlan(keep=["*"]), frozenset({"young"})))
    assert kept(reduce_vocabulary(*rows, CaptionPlan(keep=[pattern]), frozenset({"young"}))) <= {"fox"}


def test_names_with_nothing_to_read_are_dropped_even_from_the_keep_list():
    rows = counted(("\x01", "invalid", 5), ("___", "general", 4), (",", "general", 3), (":3", "general", 2))
    found = reasons(reduce_vocabulary(*rows, CaptionPlan(keep=["*"])))
    assert [tag for tag, (is_kept, _) in found.items() if is_kept] == [":3"]
    assert found["\x01"] == (False, "nothing to read in a caption")


def test_the_plan_none_keeps_nothing():
    table = reduce_vocabulary(*FEW, CaptionPlan(source="none", keep=["*"]))
    assert set(reasons(table).values()) == {(False, "the plan uses no tags")}


def test_no_tags():
    assert reasons(reduce_vocabulary(*counted(), CaptionPlan(budgets={"species": 3}))) == {}


plans = st.builds(
    CaptionPlan,
    categories=st.none() | st.lists(st.sampled_from(CATEGORIES), unique=True),
    drop_categories=st.lists(st.sampled_from(CATEGORIES), max_size=2),
    budgets=st.dictionaries(st.sampled_from(CATEGORIES), st.integers(0, 5)),
    min_count=st.integers(1, 3),
    min_share=st.sampled_from([0.0, 0.2, 0.5]),
    keep=st.lists(st.sampled_from(["wolf", "*fox", "h*"]), max_size=2),
    drop=st.lists(st.sampled_from(["wolf", "*x", "b*", "*"]), max_size=2),
)


@steady
@given(studies, plans, st.frozensets(st.sampled_from(["wolf", "Solo", "b"]), max_size=2))
def test_bounds_hold_in_any_row_order(tags, plan, excluded):
    post_tags = post_tags_table(posts_of(tags))
    frequencies = tag_frequencies(post_tags, posts_count=len(tags))
    table = reduce_vocabulary(frequencies, post_tags, plan, excluded)
    assert TABLES["vocabulary"].problems(table) == []
    assert sorted(table.tag) == sorted(frequencies.tag)
    assert (table.reason != "").all()
    chosen = table[table.kept]
    assert not {tag.casefold() for tag in chosen.tag} & {tag.casefold() for tag in excluded}
    by_rule = chosen[~chosen.reason.str.startswith("keep list: ")]
    assert set(by_rule.category) <= set(plan.kept_categories())
    assert (by_rule["count"] >= plan.min_count).all()
    assert (by_rule.share >= plan.min_share).all()
    for category, budget in plan.budgets.items():
        listed = int((chosen.category == category).sum() - (by_rule.category == category).sum())
        assert (by_rule.category == category).sum() <= max(0, budget - listed)
    assert table.equals(reduce_vocabulary(frequencies.iloc[::-1], post_tags.iloc[::-1], plan, excluded))


def top(category: str, size: int) -> set[str]:
    """The commonest tags of a category in the recorded posts, counted over the records themselves."""
    counts = Counter(tag for of_post in recorded_tags().values() for tag in set(of_post.get(category, [])))
    return set(sorted(counts, key=lambda tag: (-counts[tag], tag))[:size])


@needs_shared
@pytest.mark.parametrize(("species", "general"), [(159, 41), (22, 95), (5, 49), (159, 0)])
def test_budgets_of_the_seed_log_on_the_recorded_posts(species, general):
    tags = recorded_tags()
    post_tags = post_tags_table(posts_of(tags))
    plan = CaptionPlan(categories=["species", "general"], budgets={"species": species, "general": general})
    table = reduce_vocabulary(tag_frequencies(post_tags, posts_count=len(tags)), post_tags, plan)
    assert kept(table) == top("species", species) | top("general", general)
    assert table.kept.sum() == species + general
