"""Where focal crops put heads whose boxes are known: in drawn posts, and in real pictures by a table made by hand."""

from pathlib import Path

import pytest

from ti_pipeline_tests.shared_data import needs_shared

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def focal_crop(monkeypatch):
    """The benchmark, which knows the pictures and judges; its numbers for more of them are in docs/decisions/0011."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import focal_crop

    return focal_crop


def test_heads_of_drawn_posts_are_in_the_crop(focal_crop):
    subjects = focal_crop.drawn_subjects(25)
    ours, centre = (focal_crop.quality(subjects, way) for way in (focal_crop.by_us, focal_crop.by_centre))
    assert ours["centre in the central 60 %"] >= 0.98
    assert ours["whole head inside"] >= 0.97
    assert centre["whole head inside"] < 0.9, "these pictures ask nothing of a crop"


@needs_shared
def test_heads_of_real_pictures_are_in_the_crop_whichever_way_they_face(focal_crop):
    straight = focal_crop.real_subjects()
    assert len(straight) >= 60
    for subjects in (straight, list(map(focal_crop.mirrored, straight))):
        ours, centre = (focal_crop.quality(subjects, way) for way in (focal_crop.by_us, focal_crop.by_centre))
        assert ours["centre in the central 60 %"] >= 0.73  # no crop has more than 0.765
        assert ours["whole head inside"] >= 0.97
        assert centre["whole head inside"] < 0.1
