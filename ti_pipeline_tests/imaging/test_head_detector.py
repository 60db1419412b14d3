"""Head detectors: a real ONNX model, built here, whose one candidate lies around the red in its square."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.imaging.crop import CropJob, crop_pictures
from ti_pipeline.imaging.cut import Source, cut_picture
from ti_pipeline.imaging.head_detector import HeadDetector
from ti_pipeline.imaging.onnx_files import ModelFileError
from ti_pipeline.studies import CropSet
from ti_pipeline_tests.imaging.onnx_models import always

SIDE = 160


@pytest.fixture
def model(tmp_path):
    """Return a function that writes a model as YOLOv8's, which always answers with these candidates."""

    def write(candidates, name="heads.onnx", side=SIDE, **metadata):
        return always(tmp_path / name, candidates, side=side, **metadata)

    return write


def test_boxes_come_back_in_shares_of_the_picture(model):
    """A picture of 320 × 160 lies in the square of 160 at half its size, 40 pixels of grey above and below."""
    # Rows: middle x, middle y, width, height, scores of two classes. The second is unsure.
    detector = HeadDetector(model([[[120, 40], [80, 80], [20, 9], [40, 9], [0.1, 0.1], [0.8, 0.2]]]))
    found = detector.find(Image.new("RGB", (320, 160)))
    np.testing.assert_allclose(found, [[110 / 160, 20 / 80, 130 / 160, 60 / 80]], atol=1e-6)


def test_a_found_head_pulls_the_crop_and_its_model_is_part_of_what_is_kept(model, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (320, 160), (200, 200, 200)).save(tmp_path / "images/1.png")
    chosen = pd.DataFrame(
        {"curation": "default", "post_id": [1], "kept": True, "split": "train", "path": "images/1.png"}
    )
    crop_set = CropSet(size=64)
    lefts, hashes = [], []
    for middle in (130, 30):
        detector = HeadDetector(model([[[middle], [80], [20], [20], [0.9]]], name=f"{middle}.onnx"))
        (cut,) = cut_picture(Source(tmp_path / "images/1.png"), crop_set, head_detector=detector)
        assert cut.detectors == ["face"]
        lefts.append(cut.placed.left)
        job = CropJob("crops/s/64", crop_set, head_detector=detector)
        (crops,) = crop_pictures(chosen, [job], root=tmp_path)
        hashes.append(crops.left[0])
    assert lefts[0] > 80 > lefts[1]
    assert hashes == lefts, "another model, another crop"
    (without,) = cut_picture(
        Source(tmp_path / "images/1.png"), CropSet(size=64, focal={"face": None}), head_detector=detector
    )
    assert without.detectors == []


def test_nothing_found_leaves_it_to_the_others(model, tmp_path):
    Image.new("RGB", (320, 160), (200, 200, 200)).save(tmp_path / "x.png")
    detector = HeadDetector(model([[[130], [80], [20], [20], [0.1]]]))
    assert cut_picture(Source(tmp_path / "x.png"), CropSet(size=64), head_detector=detector)[0].placed.left == 80


def test_what_cannot_be_used_says_so(model, tmp_path):
    with pytest.raises(ModelFileError, match=r"the head detector .*none\.onnx is not there: set `head_detector`"):
        HeadDetector(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match=r"answers with shape \(1, 4, 1\)"):
        HeadDetector(model([[[1], [1], [1], [1]]])).find(Image.new("RGB", (9, 9)))
    with pytest.raises(ModelFileError, match=r"answers with shape \(1, 2000, 7\)"):
        HeadDetector(model(np.zeros((1, 2000, 7)))).find(Image.new("RGB", (9, 9)))
    with pytest.raises(ModelFileError, match=r"answers with shape \(1, 7, 2\).* of 1 classes"):
        HeadDetector(model(np.zeros((1, 7, 2)), names="{0: 'head'}")).find(Image.new("RGB", (9, 9)))


def end_to_end(*boxes):
    """An answer `[1, 300, 6]`, the default of newer exports: left, top, right, bottom, score and class a row."""
    answer = np.zeros((1, 300, 6))
    answer[0, : len(boxes)] = boxes
    return answer


def test_end_to_end_exports_are_read(model):
    answer = end_to_end([110, 60, 130, 100, 0.8, 0], [0, 40, 20, 60, 0.1, 0])
    found = HeadDetector(model(answer)).find(Image.new("RGB", (320, 160)))
    np.testing.assert_allclose(found, [[110 / 160, 20 / 80, 130 / 160, 60 / 80]], atol=1e-6)


def test_classes_are_chosen_by_their_names(model):
    names = "{0: 'person', 1: 'cat face', 2: 'car'}"
    old = [[[20, 60, 120], [80, 80, 80], [20] * 3, [20] * 3, [0.9, 0, 0], [0, 0.9, 0], [0, 0, 0.9]]]
    new = end_to_end(*([x - 10, 70, x + 10, 90, 0.9, number] for number, x in enumerate((20, 60, 120))))
    for answer in (old, new):
        path = model(answer, names=names)
        middles = {
            classes: ((found[:, 0] + found[:, 2]) * 80).round().tolist()
            for classes in ((), ("car", "Person"))
            if (found := HeadDetector(path, classes).find(Image.new("RGB", (160, 160)))) is not None
        }
        assert middles == {(): [60], ("car", "Person"): [20, 120]}
    with pytest.raises(ModelFileError, match=r"knows person, cat face, car: say in `head_classes`"):
        HeadDetector(path, ["ear"])
    with pytest.raises(ModelFileError, match="knows person, car: say in `head_classes`"):
        HeadDetector(model(old, name="other.onnx", names="{0: 'person', 1: 'car'}"))
    assert HeadDetector(path, ["car"]).sha256 != HeadDetector(path).sha256


def test_the_size_that_the_file_states_is_used_where_its_input_takes_any(model):
    path = model(end_to_end([32, 16, 64, 48, 0.9, 0]), side="any", imgsz="[96, 128]")
    np.testing.assert_allclose(
        HeadDetector(path).find(Image.new("RGB", (128, 96))), [[0.25, 16 / 96, 0.5, 0.5]], atol=1e-6
    )
