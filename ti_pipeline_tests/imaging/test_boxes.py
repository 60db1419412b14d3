import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.imaging.boxes import bucket_for, largest_box, parts_along

sides = st.integers(1, 3000)


@given(sides, sides, st.sampled_from([256, 448, 512, 768]))
def test_no_other_bucket_is_nearer(width, height, size):
    across, down = bucket_for(width, height, size)
    assert across % 64 == down % 64 == 0
    assert across * down <= size * size
    assert max(across, down) <= 2 * size

    def distance(shape):  # the ratio of ratios, the larger over the smaller
        ratio = Fraction(shape[0] * height, shape[1] * width)
        return max(ratio, 1 / ratio)

    for other in range(64, 2 * size + 1, 64):
        tall = max((t for t in range(64, 2 * size + 1, 64) if other * t <= size * size), default=None)
        assert tall is None or float(distance((other, tall))) >= float(distance((across, down))) * (1 - 1e-8)


def test_the_buckets_of_512_are_the_familiar_ones():
    assert bucket_for(1000, 1000, 512) == (512, 512)
    assert bucket_for(2, 3, 512) == (384, 640)
    assert bucket_for(16, 9, 512) == (640, 384)
    assert bucket_for(10_000, 1, 512) == (1024, 256)


@given(sides, sides, st.sampled_from([(1, 1), (384, 640), (1024, 256)]))
def test_the_largest_box_fits_and_cannot_grow(width, height, shape):
    across, down = largest_box(width, height, shape)
    assert 1 <= across <= width
    assert 1 <= down <= height
    assert across == width or down == height
    wide, tall = Fraction(down * shape[0], shape[1]), Fraction(across * shape[1], shape[0])
    fits_height = down == height and abs(max(wide, 1) - across) <= Fraction(1, 2)
    assert fits_height or (across == width and abs(max(tall, 1) - down) <= Fraction(1, 2))


@given(st.integers(1, 5000), st.integers(20, 600), st.floats(0, 0.9))
def test_parts_reach_from_end_to_end_with_enough_overlap_and_no_part_too_many(length, side, overlap):
    starts = parts_along(length, side, overlap)
    if length <= side:
        assert starts == [0]
        return
    assert starts[0] == 0
    assert starts[-1] + side == length
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert max(steps) <= side * (1 - overlap) + 1, "but for rounding to pixels, neighbours share enough"
    if len(starts) > 2:  # one part fewer would lie too far apart
        assert (length - side) / (len(starts) - 2) > side * (1 - overlap) * (1 - 1e-6)


@pytest.mark.parametrize(("length", "expected"), [(200, [0, 100]), (100, [0]), (280, [0, 60, 120, 180])])
def test_parts_of_familiar_lengths(length, expected):
    assert parts_along(length, 100, 0.0 if length == 200 else 0.4) == expected
