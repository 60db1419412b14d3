from collections import Counter

import pandas as pd
import pytest
from hypothesis import given

from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CATEGORIES
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline_tests.shared_data import E621, needs_shared
from ti_pipeline_tests.tagging.frames import STRANGE, Tags, posts_of, recorded_tags, steady, studies

ALIASES = pd.DataFrame({"antecedent": ["bunny", "doggo"], "consequent": ["rabbit", "domestic_dog"]})


def brute_force(tags: dict[int, Tags], aliases: dict[str, str]) -> list[tuple[int, str, str]]:
    """The same by loops over plain dictionaries: first category per post, then most posts, then the site's order."""
    first: dict[tuple[int, str], str] = {}
    for post_id, by_category in tags.items():
        for category in CATEGORIES:
            for tag in by_category.get(category, []):
                if tag.strip(" \t\n\r"):
                    first.setdefault((post_id, aliases.get(tag, tag)), category)
    votes: dict[str, Counter[str]] = {}
    for (_, tag), category in first.items():
        votes.setdefault(tag, Counter())[category] += 1

    def winner(tag: str) -> str:
        return max(CATEGORIES, key=lambda category: (votes[tag][category], -CATEGORIES.index(category)))

    return sorted((post_id, tag, winner(tag)) for post_id, tag in first)


def rows(table: pd.DataFrame) -> list[tuple[int, str, str]]:
    return list(table.itertuples(index=False, name=None))


def test_flattens_kept_posts_and_resolves_aliases():
    posts = posts_of(
        {
            9: {"species": ["bunny", "rabbit", "mammal"], "general": ["hat"]},
            4: {"species": ["wolf"]},
            5: {},
            2: {"general": ["hat"], "character": ["doggo"]},
        },
        dropped=[4],
    )
    table = post_tags_table(posts, ALIASES)
    assert rows(table) == [
        (2, "domestic_dog", "character"),
        (2, "hat", "general"),
        (9, "hat", "general"),
        (9, "mammal", "species"),
        (9, "rabbit", "species"),
    ]
    assert TABLES["post_tags"].problems(table) == []
    assert "bunny" in set(post_tags_table(posts).tag)


def test_one_category_per_tag():
    both = {"general": ["fox"], "species": ["fox"]}
    alone = {"species": ["fox"]}
    assert rows(post_tags_table(posts_of({1: both}))) == [(1, "fox", "general")]
    assert {category for *_, category in rows(post_tags_table(posts_of({1: both, 2: alone})))} == {"general"}
    assert {category for *_, category in rows(post_tags_table(posts_of({1: both, 2: alone, 3: alone})))} == {"species"}


def test_blank_tags_go_and_strange_ones_stay():
    table = post_tags_table(posts_of({1: {"general": [*STRANGE, "", " ", "\t\n", "\u3000"]}}))
    assert set(table.tag) == set(STRANGE)
    assert TABLES["post_tags"].problems(table) == []


@pytest.mark.parametrize("tags", [{}, {1: {}}, {1: {"general": ["", " "]}}])
def test_a_study_without_tags(tags):
    table = post_tags_table(posts_of(tags), ALIASES)
    assert len(table) == 0
    assert TABLES["post_tags"].problems(table) == []


@steady
@given(studies)
def test_equals_brute_force_in_any_row_order(tags):
    aliases = pd.DataFrame({"antecedent": ["fox", "b"], "consequent": ["red_fox", "wolf"]})
    posts = posts_of(tags)
    expected = brute_force(tags, {"fox": "red_fox", "b": "wolf"})
    assert rows(post_tags_table(posts, aliases)) == expected
    assert rows(post_tags_table(posts.iloc[::-1], aliases)) == expected


@needs_shared
def test_recorded_posts_equal_brute_force():
    raw = pd.read_csv(E621 / "tag_aliases_2025-05-01_strict.csv", keep_default_na=False)
    raw = raw[raw.status == "active"].rename(columns={"antecedent_name": "antecedent", "consequent_name": "consequent"})
    tags = recorded_tags()
    table = post_tags_table(posts_of(tags), raw)
    assert rows(table) == brute_force(tags, dict(zip(raw.antecedent, raw.consequent, strict=True)))
    assert table.post_id.nunique() == 572
    assert TABLES["post_tags"].problems(table) == []
