import io

import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.e621.catalog import read_catalog
from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.comparison import (
    STRATEGIES,
    compare_strategies,
    measures,
    measures_of_tables,
    strategies_of,
)
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.plots import comparison_plot, coverage_plot
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.shared_data import E621, needs_shared
from ti_pipeline_tests.tagging.frames import posts_of, recorded_tags

TAGS = {
    1: {"species": ["wolf", "mammal"], "general": ["hat", "blue_eyes"]},
    2: {"species": ["fox", "mammal"], "general": ["hat"]},
    3: {"species": ["mammal"]},
    4: {},
}
WOLF = pd.DataFrame({"antecedent": ["wolf"], "consequent": ["mammal"]})


def given(tags) -> tuple[pd.DataFrame, pd.DataFrame]:
    post_tags = post_tags_table(posts_of(tags))
    return tag_frequencies(post_tags, posts_count=len(tags)), post_tags


def test_measures_equal_those_counted_by_hand():
    frequencies, post_tags = given(TAGS)
    found = measures(
        reduce_vocabulary(frequencies, post_tags, CaptionPlan()), post_tags, CaptionPlan(), WOLF, clip_tokenizer()
    )
    assert found == {
        "tags": 5,
        "covered": 3 / 4,
        "well_covered": 2 / 4,
        "tags_per_picture": 8 / 4,
        # wolf, mammal, hat, blue eyes are 5 tokens and 3 commas; fox, mammal, hat 3 and 2; mammal 1
        "tokens_per_picture": (8 + 5 + 1) / 4,
        "entropy": pytest.approx(2.1556, abs=1e-4),  # shares 3, 2, 1, 1, 1 of 8
        "redundant": 1 / 8,  # mammal beside wolf
        "lowest_share": 1 / 4,
        "highest_share": 3 / 4,
    }


def test_the_tables_of_a_plan_tell_the_same():
    frequencies, post_tags = given(TAGS)
    plan = CaptionPlan(per_image=2)
    vocabulary = reduce_vocabulary(frequencies, post_tags, plan)
    told = measures_of_tables(vocabulary, write_captions(TAGS, post_tags, vocabulary, plan), clip_tokenizer())
    full = measures(vocabulary, post_tags, plan, None, clip_tokenizer())
    del full["redundant"]
    assert told == full


def test_each_strategy_is_the_plan_with_another_reduction():
    plan = CaptionPlan(categories=["species"], budgets={"species": 3}, per_image=4, drop=["x"], balance=0.5)
    plans = strategies_of(plan, implications=True)
    assert list(plans) == list(STRATEGIES)
    for words, changed in plans.items():
        assert (changed.categories, changed.per_image, changed.drop) == (["species"], 4, ["x"])
        assert changed.budgets == {}
        assert (changed.balance is None) is not words.startswith("balance")
    assert [w for w in STRATEGIES if w not in strategies_of(plan, implications=False)] == [
        "implications: most_specific",
        "implications: most_general",
    ]


def test_no_tags_compare_too():
    frequencies, post_tags = given({})
    table = compare_strategies(frequencies, post_tags, strategies_of(CaptionPlan(), implications=False))
    assert (table.tags == 0).all()
    for plot in (comparison_plot(table), coverage_plot(incidence_of(post_tags, [], 0))):
        with Image.open(io.BytesIO(plot)) as picture:
            assert picture.format == "PNG"


@needs_shared
def test_strategies_on_the_recorded_posts_do_what_they_say():
    frequencies, post_tags = given(recorded_tags())
    implications = read_catalog(E621)["tag_implications"]
    plan = CaptionPlan(categories=["species", "general"])
    plans = strategies_of(plan, implications=True)
    table = compare_strategies(frequencies, post_tags, plans, implications=implications).set_index("strategy")
    assert table.tags["every tag"] == table.tags.max()
    assert table.redundant["every tag"] > 0.3
    assert table.redundant["implications: most_specific"] == 0
    assert table.redundant["implications: most_general"] == 0
    for share in (0.02, 0.05):
        assert table.lowest_share[f"balance: {share}"] >= share
    assert table.tags["coverage: {tags: 50, per_picture: 3}"] <= 50
    assert table.well_covered["coverage: {tags: 50, per_picture: 3}"] > 0.995  # tags on one picture are not chosen
    plot = comparison_plot(table.reset_index())
    assert plot == comparison_plot(table.reset_index())
    assert len(plot) < 100_000
