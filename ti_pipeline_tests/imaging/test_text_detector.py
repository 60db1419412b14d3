"""Text detectors: a real ONNX model, built here, that calls red pixels text; the areas are known by arithmetic."""

import numpy as np
import pytest
from PIL import Image

from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.onnx_files import ModelFileError
from ti_pipeline.imaging.text_detector import TextDetector
from ti_pipeline_tests.imaging.tables import images_table


@pytest.fixture
def red_is_text(tmp_path):
    """A model as DBNet's: normalised BGR `[1, 3, h, w]` in, probabilities `[1, 1, h, w]` out, those of redness."""
    onnx = pytest.importorskip("onnx", reason="onnx (of the dev extra) is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the ocr extra) is not installed")
    floats, helper = onnx.TensorProto.FLOAT, onnx.helper
    red = helper.make_tensor("red", onnx.TensorProto.INT64, [1], [2])
    nodes = [
        helper.make_node("Gather", ["x", "red"], ["channel"], axis=1),
        helper.make_node("Sigmoid", ["channel"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("x", floats, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", floats, [1, 1, "h", "w"])],
        [red],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "red.onnx")
    return tmp_path / "red.onnx"


def writing(*boxes):
    pixels = np.zeros((320, 640, 3), dtype=np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right, 0] = 255
    return pixels


def test_boxes_grow_by_their_area_over_their_outline(red_is_text):
    detector = TextDetector(red_is_text)
    # 200 × 40 grows by 1.5 · 8000 / 480 = 25 on each side.
    assert detector.share(writing((100, 100, 300, 140))) == 250 * 90 / (640 * 320)
    # At the corner half of that lies outside; a speck of two pixels is none.
    assert detector.share(writing((0, 0, 200, 40), (400, 200, 402, 202))) == 225 * 65 / (640 * 320)
    assert detector.share(writing()) == 0


def test_the_audit_asks_the_detector(red_is_text, tmp_path):
    Image.fromarray(writing((100, 100, 300, 140))).save(tmp_path / "sign.png")
    audit = audit_images(images_table({1: "sign.png"}), root=tmp_path, text_detector=TextDetector(red_is_text))
    assert audit.lettering.tolist() == [250 * 90 / (640 * 320)]
    assert audit_images(images_table({1: "sign.png"}), root=tmp_path).lettering.tolist() == [0]


def test_what_cannot_be_used_says_so(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime (of the ocr extra) is not installed")
    with pytest.raises(ModelFileError, match=r"none\.onnx is not there: set `audit\.text_detector`"):
        TextDetector(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"broken\.onnx cannot be loaded"):
        TextDetector(tmp_path / "broken.onnx")
