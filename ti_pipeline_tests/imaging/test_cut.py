"""What becomes of one picture: shapes, parts, mirror images, light."""

import numpy as np
import pytest
from PIL import Image

from ti_pipeline.imaging.cut import Source, cut_picture
from ti_pipeline.imaging.decode import open_picture
from ti_pipeline.studies import CropSet, FocalWeights
from ti_pipeline_tests.imaging.pictures import drawing, subject_scene


@pytest.fixture
def picture(tmp_path):
    def save(image):
        path = tmp_path / "picture.png"
        image.save(path)
        return Source(path)

    return save


def box_of(cut):
    placed = cut.placed
    return (placed.left, placed.top, placed.left + placed.width, placed.top + placed.height)


def test_a_bucket_has_nearly_the_pictures_shape_and_nothing_is_stretched(picture):
    source = picture(drawing(900, 590))
    (cut,) = cut_picture(source, CropSet(size=256, aspect="buckets"))
    assert cut.pixels.size == (320, 192)  # 1.67; 256 × 256 is 1, 384 × 128 is 3
    assert (cut.placed.width, cut.placed.height) == (900, 540)
    with Image.open(source.path) as whole:
        expected = whole.crop(box_of(cut)).resize((320, 192), Image.Resampling.LANCZOS)
    assert np.array_equal(cut.pixels, expected)


def test_a_long_picture_is_cut_in_parts_from_end_to_end(picture):
    source = picture(drawing(100, 330))
    cuts = cut_picture(source, CropSet(size=64, split_above=2))
    assert [cut.part for cut in cuts] == [0, 1, 2, 3]
    assert [box_of(cut)[1] for cut in cuts] == [0, 77, 153, 230]
    assert {box_of(cut)[2] for cut in cuts} == {100}
    assert [round(cut.placed.focus_y * 330) for cut in cuts] == [50, 127, 203, 280]
    assert len(cut_picture(source, CropSet(size=64, split_above=3.3))) == 1
    assert [cut.detectors for cut in cut_picture(source, CropSet(size=64, split_above=2), focus=(0.5, 0.1))] == [
        ["manual"]
    ]


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_its_crop_is_nearly_that_of_all_pixels(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    drawing(1701, 1300, seed=4).save(path, quality=95, exif=exif)
    source = Source(path)
    (cut,) = cut_picture(source, CropSet(size=128), focus=(0.3, 0.5))
    picture, whole = source.picture("#ffffff", 128), open_picture(path)
    assert picture.size == whole.rgb.size == ((1701, 1300) if orientation == 1 else (1300, 1701))
    assert min(picture.rgb.size) == 325  # a quarter; an eighth would be less than 256
    expected = whole.rgb.crop(box_of(cut)).resize((128, 128), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(cut.pixels, dtype=int) - np.asarray(expected, dtype=int))
    assert difference.mean() < 1
    assert np.quantile(difference, 0.99) < 24, "edges of drawings move by less than half a pixel of the crop"


def test_a_picture_that_is_not_much_larger_is_decoded_whole_and_once_for_all_sizes(tmp_path):
    drawing(300, 255).save(tmp_path / "small.jpg")
    source = Source(tmp_path / "small.jpg")
    assert source.picture("#ffffff", 128) is source.picture("#ffffff", 64) is source.picture("#ffffff", 256)
    assert source.picture("#ffffff", 128).rgb.size == (300, 255)
    assert source.picture("#ffffff", 63).rgb.size == (150, 128), "and of smaller crops whatever was asked before"


def test_mirror_images_follow_their_crop_with_their_alpha(picture):
    image = drawing(80, 60).convert("RGBA")
    image.putalpha(Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)))
    plain, mirrored = cut_picture(picture(image), CropSet(size=64, flip=True))
    assert (plain.flipped, mirrored.flipped) == (False, True)
    assert np.array_equal(np.asarray(mirrored.pixels), np.asarray(plain.pixels)[:, ::-1])
    assert np.array_equal(np.asarray(mirrored.alpha), np.asarray(plain.alpha)[:, ::-1])
    assert box_of(plain) == box_of(mirrored)


def test_linear_light_averages_what_lenses_do(picture):
    """Black and white pixels in turn: half of the light is sRGB 188, half of the stored values 128."""
    stripes = np.tile(np.array([0, 255], dtype=np.uint8)[None, :, None], (512, 256, 3))
    source = picture(Image.fromarray(stripes))
    middles = []
    for resize in ("linear", "gamma"):
        (cut,) = cut_picture(source, CropSet(size=64, resize=resize))
        middles.append(int(np.asarray(cut.pixels)[32, 32, 0]))
    assert middles[0] == pytest.approx(188, abs=2)
    assert middles[1] == pytest.approx(128, abs=2)


@pytest.mark.parametrize("level", [0, 1, 10, 11, 128, 254, 255])
def test_linear_light_keeps_even_colours(picture, level):
    (cut,) = cut_picture(
        picture(Image.new("RGB", (90, 90), (level, 255 - level, level))), CropSet(size=64, resize="linear")
    )
    assert cut.pixels.getcolors() == [(64 * 64, (level, 255 - level, level))]


def test_a_whole_subject_is_kept_where_a_face_would_pull_the_box_up(picture):
    """For a face the upper part of the picture counts more; a subject is where it is."""
    source = picture(subject_scene(100, 320, (30, 150, 70, 245)))
    subject, face = (
        cut_picture(source, CropSet(size=64, keep=keep, focal=FocalWeights(face=None, corners=None, entropy=None)))[0]
        for keep in ("subject", "face")
    )
    assert box_of(subject)[1] <= 155
    assert box_of(subject)[3] >= 240
    assert box_of(face)[1] <= box_of(subject)[1]
    assert "face" not in cut_picture(source, CropSet(size=64, keep="subject"))[0].detectors
