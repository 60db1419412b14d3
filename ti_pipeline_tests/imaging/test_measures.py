import io

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image, ImageDraw, ImageFont

from ti_pipeline.imaging.decode import open_picture
from ti_pipeline.imaging.measures import (
    detail,
    focal_box,
    grey_levels,
    lettering,
    palette,
    perceptual_hashes,
    reduced,
    sharpness,
    simple_background,
)
from ti_pipeline_tests.imaging.pictures import drawing, subject_scene
from ti_pipeline_tests.shared_data import PICTURES, needs_shared


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = grey_levels(np.asarray(drawing()))
    reference = scipy.ndimage.laplace(grey.astype(float), mode="mirror").var()
    assert sharpness(grey) == pytest.approx(reference)


def test_blur_lowers_sharpness():
    grey = grey_levels(np.asarray(drawing()))
    blurred = scipy.ndimage.gaussian_filter(grey, 2)
    assert sharpness(blurred) < sharpness(grey) / 4


def test_detail_is_shannon_entropy():
    grey = grey_levels(np.asarray(drawing()))
    assert detail(grey) == pytest.approx(scipy.stats.entropy(np.unique(grey, return_counts=True)[1], base=2))
    assert detail(np.full((9, 9), 77, dtype=np.uint8)) == 0
    assert detail(np.arange(256, dtype=np.uint8).reshape(16, 16)) == pytest.approx(8)


def test_grey_levels_are_pillows_luma():
    pixels = np.asarray(drawing())
    luma = np.asarray(Image.fromarray(pixels).convert("L"), dtype=int)
    assert np.abs(grey_levels(pixels).astype(int) - luma).max() <= 1


def test_reduction_averages_and_never_enlarges():
    pixels = np.random.default_rng(0).integers(0, 256, (512, 1024, 3), dtype=np.uint8)
    small = reduced(Image.fromarray(pixels))
    means = pixels.reshape(128, 4, 256, 4, 3).mean(axis=(1, 3))
    assert small.shape == (128, 256, 3)
    assert np.abs(small - means).max() <= 1
    assert reduced(drawing(100, 50)).shape == (50, 100, 3)
    assert reduced(drawing(2000, 3)).shape == (1, 256, 3)


def subject_on(background):
    pixels = np.array(background)
    pixels[60:160, 40:120] = np.array(drawing(80, 100, seed=3))
    pixels[60:160, [40, 119]] = pixels[[60, 159], 40:120] = 0
    return pixels


def test_a_flat_background_is_the_rest_of_the_picture():
    pixels = subject_on(Image.new("RGB", (200, 200), (180, 220, 255)))
    assert simple_background(pixels) == pytest.approx(1 - 80 * 100 / 200**2, abs=0.02)


def test_a_gradient_is_a_simple_background():
    ramp = np.broadcast_to(np.linspace(120, 250, 200).astype(np.uint8)[:, None, None], (200, 200, 3))
    assert simple_background(subject_on(ramp)) > 0.7


def test_a_recompressed_background_is_still_simple():
    stream = io.BytesIO()
    Image.fromarray(subject_on(Image.new("RGB", (200, 200), (90, 160, 120)))).save(stream, "JPEG", quality=70)
    assert simple_background(np.asarray(Image.open(stream))) > 0.6


def test_grain_and_clutter_are_none():
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert simple_background(noise) < 0.05
    assert simple_background(np.zeros((1, 1, 3), dtype=np.uint8)) == 1


def test_both_sides_of_a_standing_subject_count_and_its_garment_does_not():
    pixels = np.full((200, 200, 3), 255, dtype=np.uint8)
    pixels[:, 80:120] = (30, 90, 40)
    assert simple_background(pixels) == pytest.approx(0.8, abs=0.02)


def reference_hash(grey):
    """The published recipe by scipy: DCT-II of the 32 × 32 picture, 8 × 8 lowest, above the median."""
    import cv2
    import scipy.fft

    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    low = scipy.fft.dctn(small, norm="ortho")[:8, :8]
    low = 4 * np.round(low / 4)
    return int("".join("01"[int(v)] for v in (low > np.median(low)).ravel()), 2)


def reference_focal_box(grey):
    """The published recipe by scipy: the sign of the DCT-II of the 64 × 64 picture, squared back; deciles per axis."""
    import cv2
    import scipy.fft

    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    signature = np.sign(np.round(scipy.fft.dctn(small, norm="ortho") / 4))
    salient = scipy.fft.idctn(signature, norm="ortho") ** 2
    edges = []
    for profile in (salient.sum(axis=0), salient.sum(axis=1)):
        before = np.cumsum(profile) / profile.sum()
        edges.append((np.argmax(before >= 0.1) / 64, (np.argmax(before >= 0.9) + 1) / 64))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom


@pytest.mark.parametrize("seed", range(5))
def test_the_focal_box_is_the_published_recipe(seed):
    grey = grey_levels(reduced(drawing(seed=seed)))
    assert focal_box(grey) == pytest.approx(reference_focal_box(grey), abs=1 / 64)


@pytest.mark.parametrize("box", [(20, 30, 100, 90), (150, 20, 230, 120), (100, 130, 140, 180)])
def test_the_focal_box_lies_around_what_stands_out(box):
    left, top, right, bottom = focal_box(grey_levels(np.asarray(subject_scene(256, 192, box))))
    assert left < (box[0] + box[2]) / 2 / 256 < right
    assert top < (box[1] + box[3]) / 2 / 192 < bottom
    assert (right - left) * (bottom - top) < 0.3


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (40, 40)])
def test_the_focal_box_of_nothing_is_the_middle(shape):
    left, top, right, bottom = focal_box(np.full(shape, 90, dtype=np.uint8))
    assert (left, top) == pytest.approx((0.1, 0.1), abs=1 / 64)
    assert (right, bottom) == pytest.approx((0.9, 0.9), abs=1 / 64)


@pytest.mark.parametrize("seed", range(5))
def test_perceptual_hash(seed):
    grey = grey_levels(reduced(drawing(seed=seed)))
    straight, mirrored = perceptual_hashes(grey)
    assert straight == reference_hash(grey)
    assert (mirrored ^ reference_hash(grey[:, ::-1])).bit_count() <= 2


@needs_shared
def test_simple_background_agrees_with_the_white_around_real_drawings():
    """All of these pictures are tagged white_background: the white that touches the border is the truth.

    A white animal without an outline is one area with its background, so a few may differ.
    """
    differences = []
    for path in sorted(PICTURES.glob("*/*.png"))[::6]:
        pixels = reduced(open_picture(path).rgb)
        areas, _ = scipy.ndimage.label((pixels > 250).all(axis=2))
        border = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
        differences.append(simple_background(pixels) - np.isin(areas, border[border > 0]).mean())
    assert len(differences) > 60
    assert np.mean(np.abs(differences) < 0.06) > 0.95


def lines_of_text(*, size, lines):
    """A white page with so many lines, and the share of it that their boxes cover (as Pillow measures them)."""
    page = Image.new("L", (384, 256), 255)
    draw, font, covered = ImageDraw.Draw(page), ImageFont.load_default(size), 0
    for line in range(lines):
        place = (20, 10 + line * 2 * size)
        draw.text(place, "What a lovely day it is", fill=0, font=font)
        left, top, right, bottom = draw.textbbox(place, "What a lovely day it is", font=font)
        covered += (right - left) * (bottom - top)
    return np.asarray(page), covered / (384 * 256)


@pytest.mark.parametrize(("size", "lines"), [(12, 1), (12, 6), (16, 3), (20, 2)])
def test_lettering_is_about_the_area_of_the_lines(size, lines):
    page, covered = lines_of_text(size=size, lines=lines)
    assert covered / 2 < lettering(page) < covered * 2


def test_shapes_and_flat_areas_are_no_lettering():
    page = Image.new("L", (384, 256), 255)
    draw = ImageDraw.Draw(page)
    draw.ellipse((30, 30, 150, 200), fill=90)
    draw.rectangle((200, 60, 360, 80), fill=0)
    draw.line((0, 240, 383, 240), fill=0, width=3)
    assert lettering(np.asarray(page)) == 0
    assert lettering(np.full((1, 1), 128, dtype=np.uint8)) == 0


def test_the_palette_has_the_colours_commonest_first():
    pixels = np.zeros((60, 60, 3), dtype=np.uint8)
    pixels[:40] = (250, 10, 20)
    pixels[40:50] = (0, 0, 255)
    assert palette(pixels) == ["#fa0a14", "#0000ff", "#000000"]
    assert palette(pixels[:1]) == ["#fa0a14"]
