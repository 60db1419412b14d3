"""Text detectors: a real ONNX model that calls red pixels text, so that the areas are known by arithmetic."""

import cv2
import numpy as np
import pytest
from PIL import Image

from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.onnx_files import ModelFileError
from ti_pipeline.imaging.text_detector import TextDetector
from ti_pipeline.imaging.text_recognizer import TextRecognizer
from ti_pipeline_tests.imaging.onnx_models import MAGENTA, RED, YELLOW, colours_are_letters, red_is_text
from ti_pipeline_tests.imaging.tables import images_table

# 200 × 40 grows by 1.5 · 8000 / 480 = 25 on each side.
GROWN = 250 * 90 / (640 * 320)


@pytest.fixture
def detector(tmp_path):
    """Red is text if it says ABC: red, yellow and magenta, one after another."""
    return TextDetector(red_is_text(tmp_path / "det.onnx"), TextRecognizer(colours_are_letters(tmp_path / "rec.onnx")))


def writing(*boxes, colours=(RED, YELLOW, MAGENTA)):
    """A picture with boxes (left, top, right, bottom) of colours, from left to right or, in high boxes, downwards."""
    pixels = np.zeros((320, 640, 3), dtype=np.uint8)
    for left, top, right, bottom in boxes:
        shape = (bottom - top, right - left)
        place = np.arange(max(shape)) * len(colours) // max(shape)
        stripes = np.array(colours, dtype=np.uint8)[place]
        pixels[top:bottom, left:right] = stripes[None] if shape[1] >= shape[0] else stripes[:, None]
    return pixels


def test_boxes_grow_by_their_area_over_their_outline(detector):
    assert detector.share(writing((100, 100, 300, 140))) == GROWN
    # At the corner half of that lies outside; a speck of two pixels is none.
    assert detector.share(writing((0, 0, 200, 40), (400, 200, 402, 202))) == 225 * 65 / (640 * 320)
    assert detector.share(writing()) == 0


def test_what_cannot_be_read_is_not_lettering(detector):
    assert detector.share(writing((100, 100, 300, 140), colours=[RED])) == 0
    both = np.maximum(writing((100, 50, 300, 90), colours=[RED]), writing((100, 200, 300, 240)))
    assert detector.share(both) == GROWN


def test_lines_that_are_written_downwards_or_at_a_slant_are_read(detector):
    assert detector.share(writing((300, 60, 340, 260))) == GROWN
    for degrees in (-30, 20):
        turn = cv2.getRotationMatrix2D((320, 160), degrees, 1)
        slanted = cv2.warpAffine(writing((220, 140, 420, 180)), turn, (640, 320), flags=cv2.INTER_NEAREST)
        assert detector.share(slanted) == pytest.approx(GROWN, rel=0.05)


def test_lines_are_cut_from_the_whole_picture_not_from_what_the_detector_sees(detector):
    """At 2560 × 1280 the detector sees 960 × 480."""
    large = np.repeat(np.repeat(writing((100, 100, 300, 140)), 4, axis=0), 4, axis=1)
    assert detector.share(large) == pytest.approx(GROWN, rel=0.02)


def test_a_line_on_a_very_wide_picture_is_read(detector):
    wide = np.zeros((640, 40_000, 3), dtype=np.uint8)
    wide[:, :12_000] = np.array([RED, YELLOW, MAGENTA], dtype=np.uint8)[np.arange(12_000) // 4_000]
    assert detector.share(wide) == pytest.approx(12_000 / 40_000, rel=0.1)


def test_the_audit_asks_the_detector(detector, tmp_path):
    Image.fromarray(writing((100, 100, 300, 140))).save(tmp_path / "sign.png")
    audit = audit_images(images_table({1: "sign.png"}), root=tmp_path, text_detector=detector)
    assert audit.lettering.tolist() == [GROWN]
    assert audit_images(images_table({1: "sign.png"}), root=tmp_path).lettering.tolist() == [0]


def test_what_cannot_be_used_says_so(tmp_path):
    recognizer = TextRecognizer(colours_are_letters(tmp_path / "rec.onnx"))
    with pytest.raises(ModelFileError, match=r"none\.onnx is not there: set `audit\.text_detector`"):
        TextDetector(tmp_path / "none.onnx", recognizer)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"broken\.onnx cannot be loaded"):
        TextDetector(tmp_path / "broken.onnx", recognizer)
