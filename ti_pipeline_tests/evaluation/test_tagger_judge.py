"""A tagger as judge: real ONNX models built here, whose answer to each picture is known by arithmetic."""

import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.evaluation.scorers import ScorerError
from ti_pipeline.evaluation.tagger_judge import TaggerJudge
from ti_pipeline.studies import Axis, Study
from ti_pipeline.tagging.tagger import load_tagger
from ti_pipeline_tests.tagging.test_tagger import colour_model

pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
AXIS = Axis(prompt="[name], red", values=["red", "green fur", "red, blue_(sky)"])
# Red is 0.8, 0.2, 0.8; green 0.4, 0.6, 0; blue 0, 0, 0.5.
PICTURES = [Image.new("RGB", (8, 8), colour) for colour in ((204, 102, 0), (51, 153, 0), (204, 0, 128))]


def judge(folder, tags: str, threshold: float = 0.5) -> TaggerJudge:
    colour_model(folder / "model.onnx", channels_first=False, largest=1.0)
    path = folder / ("tags.csv" if "," in tags else "tags.txt")
    path.write_text(tags)
    # A CSV list means pixels of 0 to 255, BGR: this model divides by 1, so its answers are 255 times as large.
    return TaggerJudge(load_tagger(folder / "model.onnx", path), threshold)


def rows(by: TaggerJudge, *asked: str) -> pd.DataFrame:
    images = pd.DataFrame({"cell": list("abc"), "axis": "colour", "value": list(asked)})
    return by.rows(images, PICTURES, "colour", AXIS)


def test_a_value_is_right_where_all_of_its_tags_are_above_the_threshold(tmp_path):
    by = judge(tmp_path, "red\ngreen_fur\nblue_(sky)\n", 0.45)
    table = rows(by, "red", "red", "red, blue_(sky)")
    assert table.score.tolist() == [1, 0, 1]
    assert table.read_as.tolist() == ["red", "green fur", "red"]
    assert rows(by, "green fur", "green fur", "green fur").score.tolist() == [0, 1, 0]
    assert set(table.metric) == {"match"}


def test_a_tags_own_threshold_counts_before_the_studys(tmp_path):
    by = judge(tmp_path, "name,category,threshold\nblue_(sky),0,100\ngreen_fur,0,90\nred,5,250\n", 0.5)
    assert rows(by, "green fur", "green fur", "red").score.tolist() == [1, 1, 0]  # 102, 153 of 90; 204 of 250


def test_a_word_that_the_list_does_not_have_is_an_error_with_what_is_near(tmp_path):
    by = judge(tmp_path, "red\ngreen_furs\nblue_(sky)\n")
    with pytest.raises(ScorerError, match=r"evaluation\.axes\.colour: .* no tag 'green fur'; it has green furs"):
        rows(by, "red", "red", "red")


def test_an_axis_with_a_tagger_needs_one():
    axes = {"colour": {"prompt": "[name], red", "values": ["red", "blue"], "judge": "tagger"}}
    about = {"name": "s", "source": {"kind": "demo", "concept": "ember"}, "base_models": {"b": {}}}
    about |= {"captions": {"none": {"source": "none"}}, "variants": {"a": {"base": "b", "vectors": 1, "steps": 1}}}
    with pytest.raises(ValueError, match=r"axes\.colour\.judge: is judged by a tagger: name its model"):
        Study.model_validate(about | {"evaluation": {"axes": axes}})
    made = Study.model_validate(about | {"evaluation": {"axes": axes, "tagger": {"model": "t.onnx"}}})
    assert made.evaluation.tagger.threshold == 0.35
