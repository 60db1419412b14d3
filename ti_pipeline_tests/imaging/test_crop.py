import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageCms

from ti_pipeline.files import sha256_of
from ti_pipeline.imaging import crop as crop_module
from ti_pipeline.imaging import cut as cut_module
from ti_pipeline.imaging import threads
from ti_pipeline.imaging.crop import CropJob, crop_pictures, read_focal_points
from ti_pipeline.imaging.decode import open_picture
from ti_pipeline.imaging.verify import crop_problems
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CropSet, FocalWeights
from ti_pipeline_tests.imaging.pictures import drawing, subject_scene

FOLDER = "crops/study/64"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    subject_scene(200, 100, (140, 20, 190, 80)).save(tmp_path / "images/1.png")
    drawing(90, 150, seed=1).save(tmp_path / "images/2.png")
    drawing(120, 120, seed=2).convert("RGBA").save(tmp_path / "images/3.png")
    return tmp_path


def training_set(*post_ids, curation="default", out=()):
    return pd.DataFrame(
        {
            "curation": curation,
            "post_id": post_ids,
            "kept": [i not in out for i in post_ids],
            "split": ["out" if i in out else "validation" if i == 2 else "train" for i in post_ids],
            "reason": "",
            "path": [f"images/{i}.png" for i in post_ids],
            "solo": True,
            "simple_background": True,
            "text": False,
        }
    )


def cropped(root, chosen, **settings):
    (crops,) = crop_pictures(chosen, [CropJob(FOLDER, CropSet(**{"size": 64} | settings))], root=root)
    assert TABLES["crops"].problems(crops) == []
    return crops


def files(root):
    return {path.name: path.stat().st_mtime_ns for path in (root / FOLDER).glob("*.png")}


def age(root):
    """Give all crops an old time, so that a rewritten one can be told."""
    for path in (root / FOLDER).glob("*.png"):
        os.utime(path, ns=(10**9, 10**9))


def rewritten(root):
    return {name for name, time in files(root).items() if time != 10**9}


def test_crops_are_exact_squares_of_the_picture(root):
    crops = cropped(root, training_set(1, 2, 3))
    assert crops.status.tolist() == ["ok"] * 3
    assert crops.split.tolist() == ["train", "validation", "train"]
    assert crops.box_width.tolist() == crops.box_height.tolist() == [100, 90, 120]
    assert crops.width.tolist() == crops.height.tolist() == [64, 64, 64]
    for row in crops.itertuples():
        assert row.path == f"{FOLDER}/{row.post_id}.png"
        with Image.open(root / row.path) as crop, Image.open(root / f"images/{row.post_id}.png") as source:
            box = (row.left, row.top, row.left + row.box_width, row.top + row.box_height)
            expected = source.convert("RGB").crop(box).resize((64, 64), Image.Resampling.LANCZOS)
            assert crop.mode == "RGB"
            assert np.array_equal(crop, expected)
        assert row.sha256 == sha256_of(root / row.path)
    assert crops.left[0] >= 90  # the subject reaches to 190
    assert crops.focus_x[0] > 0.6
    audit = pd.DataFrame({"post_id": [1, 2, 3], "width": [200, 90, 120], "height": [100, 150, 120]})
    assert crop_problems(crops, audit, root) == []
    assert len(crop_problems(crops, audit.assign(width=60), root)) == 3


def test_crops_carry_no_metadata_and_are_the_same_bytes_again(root):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    drawing().save(root / "images/1.png", icc_profile=profile, dpi=(300, 300))
    first = cropped(root, training_set(1))
    with Image.open(root / first.path[0]) as crop:
        assert crop.info == {}
    (root / FOLDER / "index.json").unlink()
    assert cropped(root, training_set(1)).sha256.tolist() == first.sha256.tolist()


def test_one_core_or_several_leave_the_same_bytes(root, monkeypatch):
    made = []
    for cores in (1, 5):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        crops = cropped(root, training_set(1, 2, 3))
        made.append((crops.to_json(), [path.read_bytes() for path in sorted((root / FOLDER).glob("*.png"))]))
    assert len(made[0][1]) == 3
    assert made[0] == made[1]


def opacity(width, height):
    return np.random.default_rng(7).integers(0, 256, (height, width), dtype=np.uint8)


def with_alpha(root, number, alpha, *, turned=False):
    picture = Image.open(root / f"images/{number}.png").convert("RGBA")
    picture.putalpha(Image.fromarray(alpha))
    exif = Image.Exif()
    if turned:
        picture = picture.transpose(Image.Transpose.ROTATE_90)  # which 6, a quarter turn right, undoes
        exif[0x0112] = 6
    picture.save(root / f"images/{number}.png", exif=exif)


def test_the_alpha_of_transparent_pictures_is_kept_beside_their_crops(root):
    with_alpha(root, 1, opacity(200, 100))
    with_alpha(root, 2, opacity(90, 150), turned=True)
    half = np.full((120, 120), 255, dtype=np.uint8)
    with_alpha(root, 3, half)
    crops = cropped(root, training_set(1, 2, 3))
    assert crops.alpha_sha256.notna().tolist() == [True, True, False]
    assert sorted(path.name for path in (root / FOLDER / "alpha").iterdir()) == ["1.png", "2.png"]
    for row, alpha in zip(crops.itertuples(), (opacity(200, 100), opacity(90, 150)), strict=False):
        with Image.open(root / FOLDER / "alpha" / f"{row.post_id}.png") as found:
            part = Image.fromarray(alpha[row.top : row.top + row.box_height, row.left : row.left + row.box_width])
            assert np.array_equal(found, part.resize((64, 64), Image.Resampling.BOX))
        assert row.alpha_sha256 == sha256_of(root / FOLDER / "alpha" / f"{row.post_id}.png")


def test_an_alpha_is_made_again_when_it_is_gone_and_removed_when_its_crop_is(root):
    with_alpha(root, 1, opacity(200, 100))
    first = cropped(root, training_set(1, 2))
    alpha = root / FOLDER / "alpha" / "1.png"
    for harm in (alpha.unlink, lambda: alpha.write_bytes(b"changed")):
        harm()
        pd.testing.assert_frame_equal(cropped(root, training_set(1, 2)), first)
        assert sha256_of(alpha) == first.alpha_sha256[0]
    age(root)
    cropped(root, training_set(1, 2))
    assert rewritten(root) == set()
    cropped(root, training_set(2))
    assert not alpha.exists()


def test_only_kept_pictures_of_the_curation_are_cropped(root):
    both = pd.concat([training_set(1, 2, out=(2,)), training_set(2, 3, curation="other")])
    assert cropped(root, both).post_id.tolist() == [1]
    assert cropped(root, both, curation="other").post_id.tolist() == [2, 3]
    with pytest.raises(ValueError, match=r"no curation 'third' \(it has: default, other\)"):
        cropped(root, both, curation="third")


def test_pictures_that_cannot_be_cropped_are_rows(root):
    (root / "images/2.png").write_bytes(b"")
    (root / "images/3.png").unlink()
    crops = cropped(root, training_set(1, 2, 3), size=208)
    assert crops.status.tolist() == ["failed"] * 3
    assert crops.reason[0] == "too small: needs more than 2 times enlargement"
    assert crops.reason[1] == "the file is empty"
    assert crops.reason[2].startswith("cannot be read")
    assert cropped(root, training_set(1), size=200).status.tolist() == ["ok"]


def test_nothing_is_done_twice(root):
    chosen = training_set(1, 2, 3)
    first = cropped(root, chosen)
    age(root)
    pd.testing.assert_frame_equal(cropped(root, chosen), first)
    assert rewritten(root) == set()


def test_other_content_settings_or_damage_are_noticed(root):
    chosen = training_set(1, 2, 3)
    first = cropped(root, chosen)
    age(root)
    drawing(90, 150, seed=9).save(root / "images/2.png")
    (root / FOLDER / "3.png").write_bytes(b"damaged")
    again = cropped(root, chosen)
    assert rewritten(root) == {"2.png", "3.png"}
    assert again.sha256[1] != first.sha256[1]
    assert again.sha256[2] == first.sha256[2]
    age(root)
    cropped(root, chosen, focal=FocalWeights(face=None))
    assert rewritten(root) == {"1.png", "2.png", "3.png"}
    age(root)
    (root / FOLDER / "index.json").write_text("{ half")
    cropped(root, chosen, focal=FocalWeights(face=None))
    assert rewritten(root) == {"1.png", "2.png", "3.png"}


def test_crops_of_pictures_no_longer_chosen_are_removed(root):
    cropped(root, training_set(1, 2, 3))
    (root / FOLDER / ".0123456789ab-partial.png").write_bytes(b"left by a killed run")
    cropped(root, training_set(1, 2, 3, out=(2,)))
    assert sorted(path.name for path in (root / FOLDER).iterdir()) == ["1.png", "3.png", "index.json"]
    assert set(json.loads((root / FOLDER / "index.json").read_text())) == {"1", "3"}


def test_a_run_that_breaks_off_goes_on_where_it_was(root, monkeypatch):
    monkeypatch.setattr(crop_module, "_SAVE_INDEX_EVERY", 1)
    calls = []

    def stop(done, _total, _what):
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crop_pictures(training_set(1, 2, 3), [CropJob(FOLDER, CropSet(size=64))], root=root, progress=stop)
    age(root)
    assert cropped(root, training_set(1, 2, 3)).status.tolist() == ["ok"] * 3
    assert rewritten(root) <= {"3.png"}


def test_a_disk_error_stops_the_run_and_leaves_no_half_file(root, monkeypatch):
    def full(self, path, format, **_settings):  # noqa: A002 - Pillow's own name
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        cropped(root, training_set(1))
    assert list((root / FOLDER).iterdir()) == []


def test_a_focal_point_given_by_hand_overrides_the_detectors(root):
    (root / "points.csv").write_text("post_id,x,y,why\n1,0.3,0.5,the ear\n\n2,0.5,0.0,\n", encoding="utf-8")
    points = read_focal_points(root / "points.csv")
    assert points == {1: (0.3, 0.5), 2: (0.5, 0.0)}
    chosen = training_set(1, 2, 3)
    by_detectors = cropped(root, chosen)
    age(root)
    job = CropJob(FOLDER, CropSet(size=64, focal_points="points.csv"), focal_points=points)
    (crops,) = crop_pictures(chosen, [job], root=root)
    assert crops.left.tolist()[:2] == [10, 0]  # 0.3 × 200 in the middle of a square of 100
    assert crops.top[1] == 0
    assert crops.focus_x.tolist()[:2] == [0.3, 0.5]
    assert crops.detectors[0] == ["manual"]
    assert crops.detectors[2] == by_detectors.detectors[2]
    assert rewritten(root) == {"1.png", "2.png"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,x,y\n1,0.5,0.5\n", r":1: the first line must name the columns post_id,x,y"),
        ("post_id,x,y\n1,0.5\n", r":2: wants a post's id and two numbers"),
        ("post_id,x,y\n1,0.5,0.5\n2,50,50\n", r":3: x and y are shares, 0 to 1; has 50, 50"),
        ("post_id,x,y\n1,nan,0.5\n", r":2: x and y are shares"),
    ],
)
def test_faults_of_focal_points_name_their_line(tmp_path, text, message):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"points\.csv" + message):
        read_focal_points(tmp_path / "points.csv")


def test_webp_crops_have_the_same_pixels_and_replace_the_png_ones(root):
    png = cropped(root, training_set(1))
    with Image.open(root / png.path[0]) as picture:
        expected = np.asarray(picture)
    webp = cropped(root, training_set(1), format="webp")
    assert webp.path.tolist() == [f"{FOLDER}/1.webp"]
    with Image.open(root / webp.path[0]) as picture:
        assert picture.format == "WEBP"
        assert np.array_equal(picture, expected)
    assert not (root / png.path[0]).exists()


def test_transparent_pixels_take_the_declared_colour(root):
    Image.new("RGBA", (80, 80), (1, 2, 3, 0)).save(root / "images/1.png")
    crops = cropped(root, training_set(1), background="#336699")
    with Image.open(root / crops.path[0]) as picture:
        assert picture.getcolors() == [(64 * 64, (0x33, 0x66, 0x99))]


def test_parts_and_mirror_images_are_files_and_rows_of_their_own(root):
    with_alpha(root, 1, opacity(200, 100))
    settings = {"split_above": 1.9, "flip": True}
    crops = cropped(root, training_set(1, 2), **settings)
    names = ["1.png", "1-flipped.png", "1-1.png", "1-1-flipped.png", "1-2.png", "1-2-flipped.png"]
    assert crops.path.tolist() == [f"{FOLDER}/{name}" for name in [*names, "2.png", "2-flipped.png"]]
    assert crops.part.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    assert crops.flipped.tolist() == [False, True] * 4
    assert sorted(path.name for path in (root / FOLDER / "alpha").iterdir()) == sorted(names)
    age(root)
    pd.testing.assert_frame_equal(cropped(root, training_set(1, 2), **settings), crops)
    assert rewritten(root) == set()
    (root / FOLDER / "1-1.png").unlink()
    assert cropped(root, training_set(1, 2), **settings).sha256.tolist() == crops.sha256.tolist()
    assert rewritten(root) == set(names), "a picture's crops are made together"
    cropped(root, training_set(1, 2))
    assert sorted(files(root)) == ["1.png", "2.png"]
    assert sorted(path.name for path in (root / FOLDER / "alpha").iterdir()) == ["1.png"]


def test_crops_of_buckets_are_exact(root):
    crops = cropped(root, training_set(1, 2, 3), size=128, aspect="buckets")
    shapes = list(zip(crops.width, crops.height, strict=True))
    assert shapes == [(192, 64), (128, 128), (128, 128)]
    audit = pd.DataFrame({"post_id": [1, 2, 3], "width": [200, 90, 120], "height": [100, 150, 120]})
    assert crop_problems(crops, audit, root) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 472, "aspect": "buckets"}, "multiple of 64, not 472"),
        ({"split_above": 2, "aspect": "buckets"}, "split"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        CropSet(**{"size": 64} | settings)


def test_each_picture_is_decoded_once_for_all_sets_and_each_set_is_as_if_alone(root, monkeypatch):
    both = pd.concat([training_set(1, 2, out=(2,)), training_set(1, 2, 3, curation="other")])
    jobs = [
        CropJob("crops/s/64", CropSet(size=64)),
        CropJob("crops/s/96", CropSet(size=96)),
        CropJob("crops/s/other", CropSet(size=64, curation="other", keep="subject")),
    ]
    alone = [crop_pictures(both, [job], root=root)[0] for job in jobs]
    before = {path: path.read_bytes() for path in (root / "crops").rglob("*.*")}
    shutil.rmtree(root / "crops")
    decoded = []
    monkeypatch.setattr(
        cut_module, "open_picture", lambda path, **k: decoded.append(path.name) or open_picture(path, **k)
    )
    together = crop_pictures(both, jobs, root=root)
    assert sorted(decoded) == ["1.png", "2.png", "3.png"]
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert {path: path.read_bytes() for path in (root / "crops").rglob("*.*")} == before
    decoded.clear()
    crop_pictures(both, jobs, root=root)
    assert decoded == [], "what is finished is not even opened"
