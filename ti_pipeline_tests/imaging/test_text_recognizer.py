"""Recognisers: a real ONNX model that reads columns of colour as letters, so that what a line says is known."""

import math

import numpy as np
import pytest

from ti_pipeline.imaging.onnx_files import ModelFileError
from ti_pipeline.imaging.text_recognizer import TextRecognizer
from ti_pipeline_tests.imaging.onnx_models import (
    BLACK,
    MAGENTA,
    RED,
    WHITE,
    YELLOW,
    colours_are_letters,
    red_is_text,
)


def line(*colours, height=48):
    """BGR pixels of a line, a step (of 8 columns in 48 rows) for each colour."""
    rgb = np.repeat(np.array([colours], dtype=np.uint8), height * 8 // 48, axis=1)
    return np.ascontiguousarray(np.repeat(rgb, height, axis=0)[:, :, ::-1])


def test_repeats_are_one_letter_unless_nothing_lies_between(tmp_path):
    recognizer = TextRecognizer(colours_are_letters(tmp_path / "rec.onnx"))
    text, probability = recognizer.read(line(RED, RED, BLACK, RED, YELLOW, WHITE, MAGENTA, BLACK))
    assert text == "AAB C"
    # Red's own logit is 15, black's, yellow's and magenta's 5, white's -5; the others' are alike or surer.
    assert probability == pytest.approx(math.exp(15) / (math.exp(15) + 3 * math.exp(5)), abs=1e-4)
    assert recognizer.read(line(BLACK, BLACK)) == ("", 0.0)


def test_lines_of_any_size_are_read(tmp_path):
    recognizer = TextRecognizer(colours_are_letters(tmp_path / "rec.onnx"))
    assert recognizer.read(line(RED, BLACK, MAGENTA, BLACK, height=96))[0] == "AC"
    assert recognizer.read(line(*[RED, BLACK] * 60))[0] == "A" * 60  # 960 columns: wider than the usual 320


@pytest.mark.parametrize(
    ("letters", "sure", "said", "text"),
    [
        ("ABC", 5.0, (RED, YELLOW, MAGENTA), True),
        ("你好吗", 5.0, (RED, YELLOW, MAGENTA), True),
        ("ABC", 5.0, (RED, YELLOW), False),  # two letters
        ("AB-", 5.0, (RED, YELLOW, MAGENTA), False),  # two letters and a stroke
        ("OHl", 5.0, (RED, YELLOW, MAGENTA), False),  # what glasses look like
        ("ABC", 0.5, (RED, YELLOW, MAGENTA), False),  # probabilities of 0.45
    ],
)
def test_only_what_can_be_read_is_text(tmp_path, letters, sure, said, text):
    recognizer = TextRecognizer(colours_are_letters(tmp_path / "rec.onnx", letters=letters, sure=sure))
    assert recognizer.read(line(*said))[0] == letters[: len(said)]
    assert recognizer.is_text(line(*said)) is text


def test_files_that_are_no_recognisers_say_so(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.onnx is not there: set `audit\.text_recognizer`"):
        TextRecognizer(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match=r"det\.onnx does not name its characters"):
        TextRecognizer(red_is_text(tmp_path / "det.onnx"))
    wrong = TextRecognizer(colours_are_letters(tmp_path / "rec.onnx", letters="ABCDEF"))
    with pytest.raises(ModelFileError, match=r"answers with shape \(1, 40, 5\), not \(1, steps, 8\)"):
        wrong.read(line(RED))
