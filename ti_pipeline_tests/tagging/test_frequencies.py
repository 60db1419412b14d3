import csv
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given

from ti_pipeline.schemas import TABLES
from ti_pipeline.tagging.frequencies import tag_frequencies
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
