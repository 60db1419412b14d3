"""Tags are counted where they are used: on the pictures of the curation that is trained, without the held-out ones."""

import numpy as np
import pandas as pd
import pytest

from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CaptionPlan, Study
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.trained import counted_tags, pictures_of, replaced
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.tagging.frames import posts_of

# 268 posts of 40 species, of which the first 31 (wolves and foxes) are used and 4 of these held out.
TAGS = {n: {"species": ["wolf" if n % 2 else "fox"] if n < 31 else [f"rare_{n % 38:02d}"]} for n in range(268)}
USED, HELD_OUT = range(31), range(4)


def training_set() -> pd.DataFrame:
    rows = [
        {
            "curation": curation,
            "post_id": post,
            "kept": post in used,
            "split": "out" if post not in used else "validation" if post in HELD_OUT else "train",
        }
        for curation, used in (("default", USED), ("others", range(100, 140)))
        for post in TAGS
    ]
    return pd.DataFrame(rows)


def counted(plan: CaptionPlan, *curations: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    posts, post_tags = posts_of(TAGS), post_tags_table(posts_of(TAGS))
    pictures = pictures_of(training_set(), posts, counted=curations, captioned=curations)
    uses = post_tags[post_tags.post_id.isin(pictures.counted)]
    vocabulary = reduce_vocabulary(counted_tags(post_tags, pictures.counted), uses, plan)
    captions = write_captions(pictures.captioned, post_tags, vocabulary, plan, counted_on=pictures.counted)
    for name, table in (("vocabulary", vocabulary), ("captions", captions)):
        assert TABLES[name].problems(table) == []
    return vocabulary, captions


def test_a_budget_takes_tags_of_trained_pictures_only():
    vocabulary, captions = counted(CaptionPlan(budgets={"species": 40}), "default")
    kept = vocabulary[vocabulary.kept].set_index("tag")
    assert kept["count"].to_dict() == {"fox": 14, "wolf": 13}
    assert kept.share.to_dict() == {"fox": 14 / 27, "wolf": 13 / 27}
    assert kept.captions.to_dict() == {"fox": 14, "wolf": 13}
    untrained = vocabulary[~vocabulary.kept]
    assert len(untrained) == 38
    assert set(untrained.rule) == {"training_set"}
    assert set(untrained.reason) == {"on none of the 27 pictures that are trained"}
    assert captions.post_id.tolist() == list(USED)  # held-out pictures have captions, too


def test_pictures_that_must_not_be_used_are_neither_counted_nor_captioned():
    pictures = pictures_of(training_set(), posts_of(TAGS), counted=["default"], captioned=["default"])
    left = pictures.without({0: "held out", 5: "trained", 200: "not used"})
    assert set(pictures.captioned) - set(left.captioned) == {0, 5}
    assert set(pictures.counted) - set(left.counted) == {5}


def test_balance_is_of_the_training_set():
    plan = CaptionPlan(balance=0.1)
    vocabulary, _ = counted(plan, "others")
    assert set(vocabulary.tag[vocabulary.kept]) == set()  # two of 40 pictures each
    vocabulary, _ = counted(plan, "default")
    assert vocabulary.reason[vocabulary.tag == "wolf"].tolist() == ["balance 0.1: in 13 captions, share 0.481481"]


def test_several_curations_count_together_and_each_picture_once():
    vocabulary, captions = counted(CaptionPlan(), "default", "others")
    assert vocabulary["count"].sum() == 27 + 40
    assert len(captions) == 31 + 40


def test_without_a_training_set_all_kept_posts_count():
    none = TABLES["training_set"].empty()
    pictures = pictures_of(none, posts_of(TAGS, dropped=[3]), counted=["default"], captioned=["default"])
    assert pictures.counted.tolist() == pictures.captioned.tolist() == [n for n in TAGS if n != 3]


def test_an_unknown_curation_says_what_to_do():
    with pytest.raises(ValueError, match="no curation 'late': make it again"):
        pictures_of(training_set(), posts_of(TAGS), counted=["late"], captioned=["default"])


def test_a_plan_belongs_to_the_curations_of_its_variants():
    study = Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "folder"},
            "base_models": {"b": {}},
            "curations": {"simple": {}, "varied": {}},
            "crops": {"sizes": [], "sets": {n: {"size": 64, "curation": n} for n in ("simple", "varied")}},
            "captions": {"p": {}, "q": {}, "unused": {}},
            "common": {"base": "b", "vectors": 1},
            "variants": {
                "one": {"captions": "p", "crop": "varied", "steps": 1},
                "two": {"captions": "q", "stages": [{"crop": "simple", "steps": 1}, {"crop": "varied", "steps": 1}]},
            },
        }
    )
    assert [study.curations_of_plan(plan) for plan in ("p", "q", "unused")] == [
        ["varied"], ["simple", "varied"], ["default"],
    ]  # fmt: skip


def test_replaced_tags_are_counted_together_and_stand_once():
    tags = {1: {"species": ["canine", "dog"], "general": ["hat"]}, 2: {"species": ["domestic_dog"]}, 3: {}}
    uses = replaced(post_tags_table(posts_of(tags)), {"Domestic dog": "dog", "canine": "dog", "hat": "Top Hat"})
    assert TABLES["post_tags"].problems(uses) == []
    assert uses.astype({"tag": "str", "category": "str"}).values.tolist() == [
        [1, "dog", "species"], [1, "top_hat", "general"], [2, "dog", "species"],
    ]  # fmt: skip
    assert counted_tags(uses, np.array([1, 2, 3])).set_index("tag")["count"].to_dict() == {"dog": 2, "top_hat": 1}


def test_replaced_tags_change_places_at_once():
    uses = replaced(post_tags_table(posts_of({1: {"species": ["a"]}, 2: {"species": ["b"]}})), {"a": "b", "b": "a"})
    assert uses.tag.astype("str").tolist() == ["b", "a"]
