"""Strips: the same cells at the same places for every checkpoint, within the page's budget."""

import io

import numpy as np
import pytest
from PIL import Image

from ti_pipeline.publishing.strips import strip_groups

COLOURS = {"wolf": (200, 0, 0), "tiger": (0, 200, 0), "shirt": (0, 0, 200), "coat": (200, 200, 0)}


@pytest.fixture
def painted(results):
    """The study's cells as one-coloured pictures: a colour for each value, lighter for the later step."""
    for table in results.evaluation_images.values():
        table["path"] = [f"cells/{cell}.png" for cell in table.cell]
        for row in table.itertuples():
            path = results.root / row.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), tuple(c + row.step for c in COLOURS[row.value])).save(path)
    return results


def colours(strip) -> list[tuple[int, ...]]:
    with Image.open(io.BytesIO(strip.data)) as opened:
        pixels = np.asarray(opened.convert("RGB")).astype(int)
    return [tuple(pixels[32, 32 + 64 * at]) for at in range(strip.width // 64)]


def test_every_checkpoint_has_each_value_at_the_same_place(painted):
    groups, left = strip_groups(painted, at_most=1_000_000)
    assert left == []
    assert [group.title for group in groups] == [
        f"{axis}, seed {seed}, DDIM 20 steps, CFG 7, 64 px" for axis in ("species", "clothing") for seed in (6, 7)
    ]
    for group in groups:
        assert set(group.strips) == {"a-10", "a-20", "b-10", "b-20"}
        for checkpoint, strip in group.strips.items():
            step = int(checkpoint[2:])
            wanted = [tuple(c + step for c in COLOURS[value]) for value in group.values]
            assert np.abs(np.subtract(colours(strip), wanted)).max() <= 6  # WebP is lossy
            assert strip.alt.startswith(f"{checkpoint}: {', '.join(group.values)}")


def test_a_lost_picture_leaves_its_place_grey(painted):
    first = painted.evaluation_images["a"].iloc[0]
    (painted.root / first.path).unlink()
    strip = strip_groups(painted, at_most=1_000_000)[0][0].strips[first.checkpoint]
    assert np.abs(np.subtract(colours(strip)[0], (225, 225, 225))).max() <= 6


def test_strips_get_smaller_until_they_fit(painted):
    noise = np.random.default_rng(0)
    for table in painted.evaluation_images.values():
        for path in table.path:
            Image.fromarray(noise.integers(0, 255, (256, 256, 3), dtype=np.uint8)).save(painted.root / path)

    def spent(at_most):
        return sum(len(s.data) for group in strip_groups(painted, at_most=at_most)[0] for s in group.strips.values())

    most = spent(10**9)
    assert spent(most) == most
    assert spent(most - 1) < most
    assert spent(most // 8) <= most // 8


def test_nothing_rendered_has_no_strips(nothing_measured):
    assert strip_groups(nothing_measured, at_most=10**6) == ([], [])
