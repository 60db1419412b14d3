"""Taggers: real ONNX models, built here, whose answer to each picture is known by arithmetic."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.seen import refused_by_tagger, seen_tags, with_sidecars
from ti_pipeline.tagging.tagger import TaggerError, tag_pictures
from ti_pipeline.tagging.trained import counted_tags
from ti_pipeline.tagging.vocabulary import reduce_vocabulary

COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (255, 255, 255), 4: (0, 0, 0)}


def colour_model(path, *, channels_first: bool, largest: float, extra_outputs: int = 0) -> None:
    """Write a model whose n-th output is the mean of the n-th channel, as a share of the largest value."""
    onnx = pytest.importorskip("onnx", reason="onnx (of the dev extra) is not installed")
    side = 8
    shape = ["batch", 3, side, side] if channels_first else ["batch", side, side, 3]
    pixels = [2, 3] if channels_first else [1, 2]
    scale = onnx.helper.make_tensor("scale", onnx.TensorProto.FLOAT, [], [largest])
    axes = onnx.helper.make_tensor("axes", onnx.TensorProto.INT64, [2], pixels)
    nodes = [
        onnx.helper.make_node("ReduceMean", ["picture", "axes"], ["means"], keepdims=0),
        onnx.helper.make_node("Div", ["means", "scale"], ["said"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "colours",
        [onnx.helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("said", onnx.TensorProto.FLOAT, ["batch", 3])],
        [scale, axes],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "images").mkdir()
    for post, colour in COLOURS.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"images/{post}.png")
    rows = [{"post_id": n, "status": "ok", "path": f"images/{n}.png"} for n in COLOURS]
    (tmp_path / "images/5.png").write_bytes(b"not a picture")
    rows += [{"post_id": 5, "status": "ok", "path": "images/5.png"}, {"post_id": 6, "status": "failed", "path": None}]
    return pd.DataFrame(rows)


def tagged(pictures, folder, **settings) -> pd.DataFrame:
    plan = CaptionPlan(source="tagger", tagger="colours", **{"tagger_model": "model.onnx"} | settings)
    table = tag_pictures(pictures, folder, plan, folder=folder, progress=lambda *_: None)
    assert TABLES["tagger_tags"].problems(table) == []
    return table


def said(table: pd.DataFrame) -> dict[int, list[str]]:
    return seen_tags(table).astype({"tag": "str"}).groupby("post_id").tag.agg(list).to_dict()


def test_deepbooru_style_reads_rgb_of_0_to_1(pictures, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=False, largest=1.0)
    (tmp_path / "tags.txt").write_text("red\ngreen_fur\nrating:safe\n")
    table = tagged(pictures, tmp_path)
    assert said(table) == {1: ["red"], 2: ["green_fur"], 3: ["green_fur", "red"]}
    assert set(seen_tags(table).confidence) == {1.0}
    assert table[table.category == "rating"].tag.tolist() == ["rating:safe"] * 4  # one of them is always true


def test_wd_style_reads_bgr_of_0_to_255_and_its_categories(pictures, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=True, largest=255.0)
    (tmp_path / "selected_tags.csv").write_text("tag_id,name,category,count\n1,safe,9,1\n2,green,0,1\n3,someone,4,1\n")
    table = tagged(pictures, tmp_path)
    assert said(table) == {1: ["someone"], 2: ["green"], 3: ["green", "someone"]}
    assert dict(zip(table.tag.astype(str), table.category.astype(str), strict=True)) == {
        "rating:safe": "rating",
        "someone": "character",
        "green": "general",
    }


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("a,0\nb,1\nc,5\n", {"a": "general", "b": "artist", "c": "species"}),
        ("a,8\nb,3\nc,7\n", {"a": "lore", "b": "copyright", "c": "meta"}),
        ("a,9\nb,4\nc,5\n", {"b": "character", "c": "meta"}),  # Danbooru's numbers, by its rating heads
        ("a,general\nb,species\nc,meta\n", {"a": "general", "b": "species", "c": "meta"}),
    ],
)
def test_categories_are_the_sites_numbers_or_names(pictures, tmp_path, listed, expected):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=True, largest=255.0)
    (tmp_path / "selected_tags.csv").write_text("name,category\n" + listed)
    table = seen_tags(tagged(pictures, tmp_path, tagger_threshold=0.0))
    assert dict(zip(table.tag.astype(str), table.category.astype(str), strict=True)) == expected


def test_a_category_that_is_none_is_named(pictures, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=True, largest=255.0)
    (tmp_path / "selected_tags.csv").write_text("name,category\na,0\nb,beast\nc,0\n")
    with pytest.raises(TaggerError, match=r"selected_tags\.csv: b has the category 'beast'"):
        tagged(pictures, tmp_path)


def test_the_threshold_decides_and_pictures_are_padded_white(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=False, largest=1.0)
    (tmp_path / "tags.txt").write_text("red\ngreen\nblue\n")
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "wide.png")  # half of its square is white
    pictures = pd.DataFrame([{"post_id": 1, "status": "ok", "path": "wide.png"}])
    assert said(tagged(pictures, tmp_path)) == {1: ["red"]}
    low = tagged(pictures, tmp_path, tagger_threshold=0.4)
    assert said(low) == {1: ["blue", "green", "red"]}
    assert low.confidence[low.tag == "green"].iloc[0] == pytest.approx(0.5, abs=0.05)


def test_tagger_tags_become_captions(pictures, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=False, largest=1.0)
    (tmp_path / "tags.txt").write_text("red\ngreen_fur\nblue\n")
    plan = CaptionPlan(source="tagger", tagger="colours", underscores="kept", drop=["blue"])
    uses = tagged(pictures, tmp_path)
    frequencies = counted_tags(uses, np.arange(1, 5))
    assert set(frequencies.share) == {2 / 4, 1 / 4}
    vocabulary = reduce_vocabulary(frequencies, uses, plan)
    captions = write_captions([1, 2, 3, 4], uses, vocabulary, plan)
    assert captions.caption.tolist() == ["red", "green_fur", "green_fur, red", ""]
    none = reduce_vocabulary(counted_tags(uses[:0], np.arange(1, 5)), uses[:0], plan)
    assert write_captions([1], uses[:0], none, plan).caption.tolist() == [""]


def test_what_is_missing_is_named(pictures, tmp_path):
    with pytest.raises(TaggerError, match="colours has no model: set `tagger_model`"):
        tagged(pictures, tmp_path, tagger_model=None)
    with pytest.raises(TaggerError, match=r"there is no file .*model\.onnx"):
        tagged(pictures, tmp_path)
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=False, largest=1.0)
    with pytest.raises(TaggerError, match=r"no list of tags: put it at .*selected_tags\.csv"):
        tagged(pictures, tmp_path)
    (tmp_path / "tags.txt").write_text("red\n")
    with pytest.raises(TaggerError, match=r"has 3 outputs, .*tags\.txt 1 tags"):
        tagged(pictures, tmp_path)
    (tmp_path / "other.csv").write_text("tag\nred\n")
    with pytest.raises(TaggerError, match="no column `name`"):
        tagged(pictures, tmp_path, tagger_tags="other.csv")


def test_excluded_words_and_ratings_that_a_tagger_sees_take_the_picture_out(pictures, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the tagger extra) is not installed")
    colour_model(tmp_path / "model.onnx", channels_first=False, largest=1.0)
    (tmp_path / "tags.txt").write_text("rating:sensitive\nfemale_child\nrating:safe\n")
    table = tagged(pictures, tmp_path)
    refused = refused_by_tagger(table, ContentPolicy())
    assert (
        refused
        == {  # red is the first output, green the second; white is both, and of equal ratings the first counts
            1: "the tagger says rating:sensitive, which counts as q",
            2: "the tagger sees female_child, which the content policy excludes",
            3: "the tagger sees female_child, which the content policy excludes",
            4: "the tagger says rating:sensitive, which counts as q",
        }
    )
    assert set(refused_by_tagger(table, ContentPolicy(ratings=frozenset("sq")))) == {2, 3}
    assert refused_by_tagger(table.iloc[:0], ContentPolicy()) == {}


def test_captions_that_lie_beside_pictures_stay_as_they_are():
    empty = TABLES["captions"].empty()
    rows = [
        {"post_id": n, "caption": "wolf", "tags": ["wolf"], "priority": ["wolf"], "tag_count": 1, "dropped_tags": 3}
        for n in (1, 2)
    ]
    table = pd.DataFrame(rows).astype({"caption": "str"})[list(empty.columns)]
    posts = pd.DataFrame({"post_id": [1, 2], "captions": [["A wolf, in the snow.", "second"], []]})
    found = with_sidecars(table, posts)
    assert TABLES["captions"].problems(found) == []
    assert found.caption.tolist() == ["A wolf, in the snow.", "wolf"]
    assert found.tags.tolist() == found.priority.tolist() == [["A wolf", "in the snow."], ["wolf"]]
    assert (found.tag_count.tolist(), found.dropped_tags.tolist()) == ([2, 1], [0, 3])
