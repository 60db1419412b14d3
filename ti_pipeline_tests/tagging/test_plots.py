import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.studies import CATEGORIES, CaptionPlan
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.plots import _COLOURS, frequency_plot, vocabulary_plot
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.tagging.frames import STRANGE, posts_of

NOTHING = pd.DataFrame({"tag": [], "category": [], "count": [], "share": [], "kept": []})


TAGS = {n: {"species": ["fox", "wolf"][: n % 3], "general": STRANGE, "meta": ["x" * 500]} for n in range(6)}


def frequencies() -> pd.DataFrame:
    return tag_frequencies(post_tags_table(posts_of(TAGS)), posts_count=6)


def colours(png: bytes) -> set[str]:
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return {"#{:02x}{:02x}{:02x}".format(*pixel) for pixel in np.unique(pixels, axis=0)}


def test_bars_have_their_categorys_colour():
    shown = colours(frequency_plot(frequencies()))
    assert {_COLOURS["species"], _COLOURS["general"], _COLOURS["meta"]} <= shown
    assert _COLOURS["artist"] not in shown


def test_every_category_has_a_colour_of_its_own():
    assert len({_COLOURS[category] for category in CATEGORIES}) == len(CATEGORIES)


def test_plots_repeat_exactly_and_stay_small():
    vocabulary = reduce_vocabulary(frequencies(), post_tags_table(posts_of(TAGS)), CaptionPlan(budgets={"general": 2}))
    for plot in (lambda: frequency_plot(frequencies()), lambda: vocabulary_plot(vocabulary)):
        first = plot()
        assert first == plot()
        assert len(first) < 200_000


def test_no_pyplot_figure_is_left_behind():
    import matplotlib.pyplot

    frequency_plot(frequencies())
    assert matplotlib.pyplot.get_fignums() == []


def test_top_limits_the_bars():
    heights = []
    for top in (1, 5):
        with Image.open(io.BytesIO(frequency_plot(frequencies(), top=top))) as picture:
            heights.append(picture.height)
    assert heights[0] < heights[1]


@pytest.mark.parametrize("plot", [frequency_plot, vocabulary_plot])
def test_nothing_to_show_is_still_a_picture(plot):
    with Image.open(io.BytesIO(plot(NOTHING.astype({"kept": bool})))) as picture:
        assert picture.format == "PNG"
