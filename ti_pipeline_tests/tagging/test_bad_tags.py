"""Input that no plan foresaw: each has one decided outcome."""

import pandas as pd
import pytest
from pydantic import ValidationError

from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.tagging.frames import STRANGE, posts_of

TAGS = {
    1: {"species": ["wolf", "mammal"], "general": ["hat"]},
    2: {"species": ["fox", "mammal"], "general": STRANGE},
    3: {"species": ["mammal"]},
}


def run(plan: CaptionPlan, tags=TAGS, aliases=None) -> tuple[pd.DataFrame, pd.DataFrame]:
    post_tags = post_tags_table(posts_of(tags), aliases)
    vocabulary = reduce_vocabulary(tag_frequencies(post_tags, posts_count=len(tags)), post_tags, plan)
    captions = write_captions(list(tags), post_tags, vocabulary, plan)
    for name, table in (("vocabulary", vocabulary), ("captions", captions)):
        assert TABLES[name].problems(table) == []
    return vocabulary, captions


def kept(table: pd.DataFrame) -> set[str]:
    return set(table.tag[table.kept])


@pytest.mark.parametrize(
    "plan",
    [
        CaptionPlan(drop=["*"]),
        CaptionPlan(budgets={"species": 0}, categories=["species"]),
        CaptionPlan(categories=[]),
        CaptionPlan(min_count=99),
        CaptionPlan(balance=1.0, categories=["general"]),
        CaptionPlan(coverage={"tags": 3}, categories=["artist"]),
    ],
)
def test_an_empty_vocabulary_makes_empty_captions(plan):
    vocabulary, captions = run(plan)
    assert kept(vocabulary) == set()
    assert captions.caption.tolist() == [""] * 3
    assert (vocabulary.reason != "").all()


def test_budgets_larger_than_what_exists_keep_all():
    vocabulary, _ = run(CaptionPlan(categories=["species"], budgets={"species": 10**9, "artist": 5}))
    assert kept(vocabulary) == {"wolf", "fox", "mammal"}


def test_keep_wins_over_drop():
    vocabulary, _ = run(CaptionPlan(keep=["wolf"], drop=["wolf", "*"]))
    assert kept(vocabulary) == {"wolf"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"categories": ["specie"]}, "specie"),
        ({"budgets": {"colour": 3}}, "colour"),
        ({"budgets": {"species": -1}}, "greater than or equal to 0"),
        ({"min_share": 0.5, "max_share": 0.4}, "min_share 0.5 is above max_share 0.4"),
        ({"balance": 0}, "greater than 0"),
        ({"merge_synonyms": 1.5}, "less than or equal to 1"),
        ({"coverage": {"tags": 0}}, "greater than or equal to 1"),
        ({"implications": "all"}, "most_specific"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(ValidationError) as error:
        CaptionPlan.model_validate(settings)
    assert words in str(error.value)


def test_a_renamed_tag_counts_under_its_new_name():
    aliases = pd.DataFrame({"antecedent": ["fox"], "consequent": ["red_fox"]})
    vocabulary, captions = run(CaptionPlan(categories=["species"], keep=["fox"]), aliases=aliases)
    assert kept(vocabulary) == {"red_fox", "wolf", "mammal"}
    assert captions.caption.tolist()[1] == "mammal, red fox"


def test_captions_of_an_older_vocabulary_leave_out_what_it_does_not_know():
    old, _ = run(CaptionPlan(categories=["species"]))
    later = {1: {"species": ["canis_lupus", "mammal"]}}
    table = write_captions([1], post_tags_table(posts_of(later)), old, CaptionPlan(categories=["species"]))
    assert table.caption.tolist() == ["mammal"]
