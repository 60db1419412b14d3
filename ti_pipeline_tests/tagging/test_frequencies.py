import csv
import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.schemas import TABLES
from ti_pipeline.tagging import frequencies
from ti_pipeline.tagging.frequencies import coverage_curve, entropy, tag_frequencies, tag_pairs
from ti_pipeline.tagging.implications import closure
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline_tests.shared_data import E621, needs_shared
from ti_pipeline_tests.tagging.frames import posts_of, recorded_tags, steady, studies

POST_TAGS = pd.DataFrame(
    [
        (1, "fox", "species"),
        (1, "hat", "general"),
        (1, "red", "general"),
        (2, "fox", "species"),
        (2, "red", "general"),
        (3, "wolf", "species"),
    ],
    columns=["post_id", "tag", "category"],
)


def test_counts_shares_and_ranks():
    catalog = pd.DataFrame({"tag": ["fox", "wolf", "unused"], "category": "species", "post_count": [900, 0, 5]})
    table = tag_frequencies(POST_TAGS, catalog, posts_count=4)
    assert table.tag.tolist() == ["fox", "red", "hat", "wolf"]
    assert table["count"].tolist() == [2, 2, 1, 1]
    assert table.share.tolist() == [0.5, 0.5, 0.25, 0.25]
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table.category_rank.tolist() == [1, 1, 2, 2]
    assert table.category_share.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])
    assert [None if pd.isna(n) else n for n in table.site_count] == [900, None, None, 0]
    assert TABLES["tag_frequencies"].problems(table) == []


def test_dictionary_encoded_columns_count_the_same():
    encoded = POST_TAGS.astype({"tag": "category", "category": "category"})
    later_first = encoded.assign(tag=encoded.tag.cat.reorder_categories(["wolf", "red", "hat", "fox"]))
    plain = POST_TAGS.astype({"tag": "str", "category": "str"})
    pd.testing.assert_frame_equal(tag_frequencies(later_first), tag_frequencies(plain))


def test_without_a_count_shares_are_of_posts_with_tags():
    assert tag_frequencies(POST_TAGS).share.tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_contradictions_are_errors():
    with pytest.raises(ValueError, match="posts_count is 2, but post_tags has tags of 3 posts"):
        tag_frequencies(POST_TAGS, posts_count=2)
    twice = pd.concat([POST_TAGS, pd.DataFrame({"post_id": [4], "tag": ["fox"], "category": ["general"]})])
    with pytest.raises(ValueError, match="'fox' more than one category"):
        tag_frequencies(twice)


def test_no_tags():
    table = tag_frequencies(POST_TAGS.iloc[:0], posts_count=0)
    assert len(table) == 0
    assert TABLES["tag_frequencies"].problems(table) == []


@steady
@given(studies)
def test_equals_counting_by_hand_in_any_row_order(tags):
    post_tags = post_tags_table(posts_of(tags))
    table = tag_frequencies(post_tags, posts_count=len(tags))
    by_hand = Counter(post_tags.tag.tolist())
    expected = sorted(by_hand.items(), key=lambda item: (-item[1], item[0]))
    assert list(zip(table.tag, table["count"], strict=True)) == expected
    assert table.equals(tag_frequencies(post_tags.iloc[::-1], posts_count=len(tags)))


@needs_shared
def test_recorded_posts_equal_a_counter():
    tags = recorded_tags()
    with (E621 / "e621_tags_2026-04-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        site = {row["name"]: int(row["post_count"]) for row in csv.DictReader(stream)}
    catalog = pd.DataFrame({"tag": list(site), "category": "general", "post_count": list(site.values())})
    table = tag_frequencies(post_tags_table(posts_of(tags)), catalog, posts_count=len(tags))
    by_hand = Counter(tag for of_post in tags.values() for tag in {t for names in of_post.values() for t in names})
    assert dict(zip(table.tag, table["count"], strict=True)) == by_hand
    assert table.share.tolist() == [by_hand[tag] / 572 for tag in table.tag]
    assert [None if pd.isna(n) else n for n in table.site_count] == [site.get(tag) for tag in table.tag]
    assert TABLES["tag_frequencies"].problems(table) == []


def test_first_and_last_post_and_the_trained_share():
    table = tag_frequencies(POST_TAGS.iloc[::-1], trained_on=np.array([2, 3, 7])).set_index("tag")
    assert table.loc["fox", ["first_post", "last_post"]].tolist() == [1, 2]
    assert table.loc["wolf", ["first_post", "last_post"]].tolist() == [3, 3]
    assert table.trained_share.to_dict() == pytest.approx({"fox": 1 / 3, "red": 1 / 3, "hat": 0, "wolf": 1 / 3})


def test_lift_is_share_here_over_share_on_the_site():
    catalog = pd.DataFrame({"tag": ["anthro", "fox", "hat", "wolf"], "post_count": [1000, 100, 500, 0]})
    table = tag_frequencies(POST_TAGS, catalog, posts_count=4).set_index("tag")
    assert table.lift["fox"] == pytest.approx((2 / 4) / (100 / 1000))
    assert table.lift["hat"] == pytest.approx((1 / 4) / (500 / 1000))
    assert table.lift[["wolf", "red"]].isna().all()  # unknown to the site, or on none of its posts


def test_uses_counted_in_several_goes_count_the_same(monkeypatch):
    post_tags = post_tags_table(posts_of({n: {"general": [f"t{n % 3}", f"u{n % 5}"]} for n in range(40)}))
    whole = tag_frequencies(post_tags)
    for size in (1, 7, 16):
        monkeypatch.setattr(frequencies, "_AT_ONCE", size)
        pd.testing.assert_frame_equal(tag_frequencies(post_tags), whole)


def test_entropy_equals_scipys():
    for counts in ([1], [5, 5], [90, 5, 5], [3, 0, 1, 7]):
        assert entropy(np.array(counts)) == pytest.approx(scipy.stats.entropy(counts, base=2))
    assert entropy(np.array([], dtype=int)) == 0.0


@steady
@given(studies, st.integers(1, 4))
def test_the_coverage_curve_equals_counting_at_each_size(tags, per_picture):
    post_tags = post_tags_table(posts_of(tags))
    names = tag_frequencies(post_tags).tag.tolist()
    curve = coverage_curve(incidence_of(post_tags, names, len(tags)), per_picture)
    of_post = post_tags.astype({"tag": "str"}).groupby("post_id").tag.agg(set).tolist()
    assert curve.tolist() == [
        sum(len(own & set(names[:size])) >= per_picture for own in of_post) for size in range(len(names) + 1)
    ]


@needs_shared
def test_recorded_pairs_equal_counting_by_hand():
    post_tags = post_tags_table(posts_of(recorded_tags()))
    counted = tag_frequencies(post_tags, posts_count=572)
    table = tag_pairs(counted, post_tags, tags=60, pairs=10**6)
    of_post = post_tags.astype({"tag": "str"}).groupby("post_id").tag.agg(set)
    names = counted.tag.tolist()[:60]
    on = {tag: {post for post, own in of_post.items() if tag in own} for tag in names}
    expected = {}
    for one, other in itertools.combinations(names, 2):
        both = len(on[one] & on[other])
        if both >= 3:
            jaccard, chance = both / len(on[one] | on[other]), len(on[one]) * len(on[other]) / 572
            expected[one, other] = (both, pytest.approx(jaccard), pytest.approx(np.log2(both / chance)))
    pairs = zip(table.tag, table.other, strict=True)
    found = dict(zip(pairs, zip(table["count"], table.jaccard, table.pmi, strict=True), strict=True))
    assert found == expected
    assert table.jaccard.is_monotonic_decreasing
    assert TABLES["tag_pairs"].problems(table) == []


def test_pairs_that_the_site_implies_are_marked():
    posts = {n: {"species": ["wolf", "mammal"], "general": ["hat"]} for n in range(4)}
    post_tags = post_tags_table(posts_of(posts))
    counted = tag_frequencies(post_tags)
    implications = pd.DataFrame({"antecedent": ["wolf"], "consequent": ["mammal"]})
    table = tag_pairs(counted, post_tags, implied=closure(implications, counted.tag.tolist()))
    assert dict(zip(zip(table.tag, table.other, strict=True), table.implied, strict=True)) == {
        ("hat", "mammal"): False, ("hat", "wolf"): False, ("mammal", "wolf"): True,
    }  # fmt: skip
    assert TABLES["tag_pairs"].problems(tag_pairs(counted.iloc[:0], post_tags)) == []
