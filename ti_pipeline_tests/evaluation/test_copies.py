"""Copies: a slow count by the definition, and, as the benchmark does at length, copies told from honest drawings."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ti_pipeline.evaluation.copies import SAME, copies, edges

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def picture(seed: int, side: int = 96) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


def test_the_score_is_the_best_correlation_over_mirror_images_and_offsets() -> None:
    seen, trained = ([edges(picture(seed)) for seed in seeds] for seeds in ((1, 2), (3, 4, 5)))
    scores, places = copies(seen, trained)
    for one, score in zip(seen, scores, strict=True):
        middle = one[:, 2:22, 2:22].ravel()
        found = [
            np.corrcoef(middle, way[:, top : top + 20, left : left + 20].ravel())[0, 1]
            for other in trained
            for way in (other, other[:, :, ::-1])
            for top, left in itertools.product(range(5), repeat=2)
        ]
        assert score == pytest.approx(max(found), abs=1e-4)
    assert places == [None, None]


def test_a_single_picture_trained_on_is_enough_and_twins_hide_nothing() -> None:
    again = edges(ImageOps.mirror(picture(7, side=64)))  # another size as well
    assert copies([again, edges(picture(8))], [edges(picture(7))])[1] == [0, None]
    twins = [edges(picture(9)), edges(picture(7)), edges(ImageOps.mirror(picture(7)))]
    assert copies([again], twins)[1][0] in (1, 2)


def test_pictures_of_one_colour_are_like_nothing() -> None:
    grey = edges(Image.new("RGB", (64, 64), (90, 90, 90)))
    scores, places = copies([grey, edges(picture(1))], [grey])
    assert places == [None, None]
    assert max(scores) < SAME / 2


def test_the_middle_square_of_wide_pictures_counts() -> None:
    wide = Image.new("RGB", (160, 96), "white")
    wide.paste(picture(3), (32, 0))
    assert copies([edges(picture(3))], [edges(wide)])[0][0] == pytest.approx(1, abs=1e-3)


def test_copies_of_drawings_are_found_and_honest_drawings_are_not_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from copies import drawn, measured

    for told in measured(drawn("ember", 26, 96), sizes=(3, 12), draws=6).values():
        assert told["honest pictures called copies"] <= 0.05
        assert min(told["copies found"].values()) >= 0.9, told
