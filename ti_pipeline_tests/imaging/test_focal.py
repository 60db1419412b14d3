from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageDraw

from ti_pipeline.imaging.focal import (
    DETECTORS,
    TOTAL_INTEREST,
    best_offset,
    box_at,
    interest_map,
    place_box,
)
from ti_pipeline.imaging.measures import grey_levels, reduced
from ti_pipeline.studies import FocalWeights
from ti_pipeline_tests.imaging.pictures import drawing, subject_scene

ALL_OFF = {"face": None, "saliency": None, "corners": None, "entropy": None}


def covered(profile, length, start, window):
    """Exact interest in [start, start + window) of an axis, pixel by pixel."""
    steps = len(profile)
    total = Fraction(0)
    for step, interest in enumerate(profile):
        low, high = Fraction(step * length, steps), Fraction((step + 1) * length, steps)
        overlap = min(high, Fraction(start + window)) - max(low, Fraction(start))
        total += max(Fraction(0), overlap) / (high - low) * int(interest)
    return total


@pytest.mark.parametrize("seed", range(30))
def test_the_offset_is_the_best_of_all(seed):
    """A window over the whole box, and one inside it, against sums in exact fractions."""
    random = np.random.default_rng(seed)
    length = int(random.integers(2, 60))
    side = int(random.integers(1, length + 1))
    profile = random.integers(0, 4, int(random.integers(1, 25))) * int(random.choice([1, 2**28]))
    start = int(random.integers(0, side))
    inside = int(random.integers(1, side - start + 1))
    focus = float(random.random())
    values = [
        covered(profile, length, place, side) + covered(profile, length, place + start, inside)
        for place in range(length - side + 1)
    ]
    best = [place for place, value in enumerate(values) if value == max(values)]
    expected = min(best, key=lambda s: (abs(s + side / 2 - focus * length), abs(s + side / 2 - length / 2), s))
    assert best_offset(profile, [(0, side), (start, inside)], length, side, focus) == expected


@pytest.mark.parametrize("headroom", [0.0, 0.1])
@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60), (24, 24)])
def test_the_square_is_the_best_of_all_squares(width, height, headroom):
    """Once in the square and in each of its four middles, the top row three times as much as the bottom row."""
    random = np.random.default_rng(width)
    interest = random.integers(0, 100, (height, width)) ** 3
    side = min(width, height)
    placed = place_box(interest, (width, height), (side, side), headroom=headroom)
    assert (placed.width, placed.height) == (side, side)
    weighed = interest * np.rint(np.linspace(150, 50, height)).astype(int)[:, None]

    def worth(left, top):
        square = weighed[top : top + side, left : left + side]
        worth = square.sum()
        for margin in (2, 4, 6, 8):  # of twenty pixels
            if width > height:
                worth += square[:, margin : side - margin].sum()
            elif height > width:
                down = round(headroom * side)
                worth += square[margin + down : side - margin + down].sum()
        return worth

    places = [(left, top) for left in range(width - side + 1) for top in range(height - side + 1)]
    best = max(places, key=lambda place: worth(*place))
    start, end = (best[0], width - side) if width > height else (best[1], height - side)
    expected = 0 if start <= 2 else end if end - start <= 2 else start  # no strip of a tenth of the side is left out
    assert placed.left + placed.top == expected
    mass = interest / interest.sum()
    assert placed.focus_x == pytest.approx((mass.sum(axis=0) * (np.arange(width) + 0.5)).sum() / width)
    assert placed.focus_y == pytest.approx((mass.sum(axis=1) * (np.arange(height) + 0.5)).sum() / height)


@pytest.mark.parametrize(
    ("middle", "left"), [(55, 0), (60, 0), (61, 11), (150, 100), (239, 189), (240, 200), (245, 200)]
)
def test_no_narrow_strip_is_left_out(middle, left):
    interest = np.zeros((100, 300), dtype=np.int64)
    interest[40:60, middle - 1 : middle + 1] = 5
    assert place_box(interest, (300, 100), (100, 100)).left == left


def test_headroom_leaves_more_room_above():
    interest = np.zeros((300, 100), dtype=np.int64)
    interest[140:160, 40:60] = 7  # as tall as the innermost middle, so that one place alone has all of it there
    assert [place_box(interest, (100, 300), (100, 100), headroom=share).top for share in (0.0, 0.1, 0.2)] == [
        100,
        90,
        80,
    ]


@pytest.mark.parametrize(("focus", "left"), [(0.0, 0), (0.3, 40), (0.5, 100), (0.99, 200)])
def test_a_given_focal_point_is_the_middle_of_the_square_where_it_fits(focus, left):
    assert (box_at(focus, 0.5, (300, 100), (100, 100)).left, box_at(focus, 0.5, (300, 100), (100, 100)).top) == (
        left,
        0,
    )
    assert (box_at(0.5, focus, (100, 300), (100, 100)).left, box_at(0.5, focus, (100, 300), (100, 100)).top) == (
        0,
        left,
    )


def test_eyes_are_small_dark_round_areas_inside_something_lighter():
    scene = Image.new("RGB", (200, 100), (200, 120, 80))
    draw = ImageDraw.Draw(scene)
    draw.ellipse((150, 40, 158, 48), (10, 10, 10))  # an eye
    draw.rectangle((20, 20, 60, 24), (10, 10, 10))  # a stroke
    draw.ellipse((20, 40, 70, 90), (10, 10, 10))  # too large
    draw.ellipse((96, -4, 104, 4), (10, 10, 10))  # not inside
    found = DETECTORS["face"](grey_levels(np.asarray(scene)))
    assert np.unravel_index(found.argmax(), found.shape) == (44, 154)
    assert found[:, :120].max() < found.max() / 100


def test_a_flat_picture_is_cropped_in_the_middle():
    interest, fired = interest_map(np.full((100, 301, 3), 90, dtype=np.uint8), FocalWeights())
    assert fired == []
    placed = place_box(interest, (301, 100), (100, 100))
    assert (placed.left, placed.top, placed.width, placed.height) == (100, 0, 100, 100)
    assert placed.focus_x == pytest.approx(0.5)


def test_equally_good_squares_stand_around_the_focal_point():
    interest = np.zeros((10, 100), dtype=np.int64)
    interest[4:6, 12:16] = 5
    assert place_box(interest, (100, 10), (10, 10), headroom=0).left == 9  # 12..16 in the middle of 9..19


@pytest.mark.parametrize("size", [(640, 256), (256, 640), (1500, 500), (90, 60)])
@pytest.mark.parametrize("where", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("only", [None, "saliency", "corners", "entropy"])
def test_an_off_centre_subject_is_in_the_square(size, where, only):
    width, height = size
    extent = min(size) // 2
    left = round(where * (width - extent))
    top = round(where * (height - extent))
    box = (left, top, left + extent, top + extent)
    weights = FocalWeights() if only is None else FocalWeights(**ALL_OFF | {only: 1.0})
    interest, fired = interest_map(reduced(subject_scene(width, height, box)), weights)
    placed = place_box(interest, size, (min(size),) * 2)
    slack = 0.03 * max(size)  # what a detector's own resolution can cost at the subject's rim
    assert placed.left <= left + slack
    assert placed.top <= top + slack
    assert placed.left + placed.width >= box[2] - slack
    assert placed.top + placed.height >= box[3] - slack
    assert only is None or fired == [only]


def test_weights_are_renormalised_over_the_detectors_that_fired():
    pixels = reduced(drawing())
    _, fired = interest_map(pixels, FocalWeights(face=0.0, saliency=0.4, corners=None, entropy=0.1))
    assert fired == ["saliency", "entropy"]
    grey = grey_levels(pixels)
    maps = {name: DETECTORS[name](grey) for name in fired}
    expected = 0.8 * maps["saliency"] / maps["saliency"].sum() + 0.2 * maps["entropy"] / maps["entropy"].sum()
    interest, _ = interest_map(pixels, FocalWeights(face=0.0, saliency=0.4, corners=None, entropy=0.1))
    assert np.abs(interest - expected * TOTAL_INTEREST).max() <= 1
    alone, _ = interest_map(pixels, FocalWeights(face=None, saliency=None, corners=None, entropy=0.01))
    assert np.abs(alone - maps["entropy"] / maps["entropy"].sum() * TOTAL_INTEREST).max() <= 1


def test_entropy_per_cell_is_shannons():
    grey = grey_levels(np.asarray(drawing(70, 50)))
    found = DETECTORS["entropy"](grey)
    for top in range(0, 50, 16):
        for left in range(0, 70, 16):
            cell = (slice(top, top + 16), slice(left, left + 16))
            counts = np.unique(grey[cell] // 16, return_counts=True)[1]
            assert np.allclose(found[cell], scipy.stats.entropy(counts, base=2))


def test_corners_are_where_corners_are():
    pixels = np.zeros((100, 100), dtype=np.uint8)
    pixels[30:70, 20:80] = 255
    points = np.argwhere(DETECTORS["corners"](pixels))
    for corner in ((30, 20), (30, 79), (69, 20), (69, 79)):
        assert np.abs(points - corner).max(axis=1).min() <= 2


def test_a_drawn_cat_face_is_found_and_pulls_the_square():
    """The frontal cat-face cascade on a frontal drawn cat, against a busier patch on the other side."""
    scene = Image.new("RGB", (256, 128), (235, 235, 235))
    scene.paste(drawing(100, 100, seed=2), (2, 14))
    draw = ImageDraw.Draw(scene)
    draw_cat(draw, 192, 64, 44)
    pixels = np.asarray(scene)
    interest, fired = interest_map(pixels, FocalWeights(face=1.0, saliency=None, corners=None, entropy=0.1))
    assert fired == ["face", "entropy"]
    placed = place_box(interest, (256, 128), (128, 128))
    assert placed.left >= 100
    without = place_box(interest_map(pixels, FocalWeights(**ALL_OFF | {"entropy": 0.1}))[0], (256, 128), (128, 128))
    assert without.left < 60


def draw_cat(draw, x, y, r):
    fur, dark = (150, 140, 130), (40, 35, 35)
    for sign in (-1, 1):
        draw.polygon(
            [(x + sign * r, y - 1.25 * r), (x + sign * r, y - 0.1 * r), (x + sign * 0.25 * r, y - 0.8 * r)], fur
        )
    draw.ellipse((x - r, y - 0.9 * r, x + r, y + 0.9 * r), fur)
    for sign in (-1, 1):
        cx, cy = x + sign * 0.42 * r, y - 0.12 * r
        draw.ellipse((cx - 0.22 * r, cy - 0.18 * r, cx + 0.22 * r, cy + 0.18 * r), (225, 225, 160))
        draw.ellipse((cx - 0.12 * r, cy - 0.17 * r, cx + 0.12 * r, cy + 0.17 * r), dark)
    draw.ellipse((x - 0.42 * r, y + 0.15 * r, x + 0.42 * r, y + 0.75 * r), (190, 185, 180))
    draw.polygon([(x - 0.15 * r, y + 0.22 * r), (x + 0.15 * r, y + 0.22 * r), (x, y + 0.4 * r)], dark)
    draw.line([(x, y + 0.4 * r), (x, y + 0.52 * r)], dark, 2)
