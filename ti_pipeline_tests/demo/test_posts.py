"""The demo's posts: records that tell the truth, flaws and tag noise at the stated rates."""

import collections
import hashlib
import io
import random

import numpy as np
import pytest
from PIL import Image

from ti_pipeline.demo import posts
from ti_pipeline.demo.posts import FLAWS, MISSING_TAGS, PAIRS, WIDE, WRONG_TAGS, demo_posts, draw_demo_url
from ti_pipeline.demo.world import CHOICES, CONCEPTS
from ti_pipeline.e621.policy import load_policy
from ti_pipeline_tests.demo.test_world import implied_by_the_site
from ti_pipeline_tests.shared_data import needs_shared

MANY = 4000


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def within(count: int, share: float, of: int) -> bool:
    """Whether a count lies within four standard deviations of a binomial's mean."""
    return abs(count - share * of) <= 4 * (of * share * (1 - share)) ** 0.5


def first_with(flaw: str) -> posts.DemoPost:
    index = next(i for i in range(1, 500) if posts._truth("ember", 6, i).flaw == flaw)
    return posts.DemoPost(posts._record("ember", 6, index), posts._truth("ember", 6, index))


def test_posts_are_the_same_every_time_and_differ_by_seed() -> None:
    one, again, other = (demo_posts(concept="ember", count=5, seed=seed) for seed in (1, 1, 2))
    assert [post.record for post in one] == [post.record for post in again]
    assert {p.record["file"]["md5"] for p in one}.isdisjoint(p.record["file"]["md5"] for p in other)


def test_records_tell_the_truth_about_their_pictures() -> None:
    for post in demo_posts(concept="frost", count=6, seed=3):
        data, file = post.data(), post.record["file"]
        assert hashlib.md5(data).hexdigest() == file["md5"]
        assert len(data) == file["size"]
        with opened(data) as picture:
            assert picture.size == (file["width"], file["height"])
        assert draw_demo_url(file["url"]) == data


def test_pictures_have_every_shape_and_their_character_off_centre() -> None:
    truths = [posts._truth("ember", 6, index) for index in range(300)]
    assert {max(truth.size) for truth in truths} <= set(range(900, 1601))
    aspects = [truth.size[0] / truth.size[1] for truth in truths]
    assert min(aspects) < 0.6
    assert max(aspects) > 1.7
    away = [abs(t.centre[0] / t.size[0] - 0.5) + abs(t.centre[1] / t.size[1] - 0.53) for t in truths]
    assert np.quantile(away, 0.5) > 0.05
    assert all(t.unit <= t.centre[0] <= t.size[0] - t.unit for t in truths), "the bust is inside"


def test_wide_pictures_show_two_as_often_as_stated() -> None:
    truths = [posts._truth("moss", 9, index) for index in range(MANY)]
    wide = [truth for truth in truths if truth.size[0] >= WIDE * truth.size[1]]
    assert within(sum(truth.beside is not None for truth in wide), PAIRS, len(wide))
    for index in range(300):
        tags = posts._tags(truths[index], "moss", random.Random(index))["general"]
        assert ("duo" in tags) is (truths[index].beside is not None) is not ("solo" in tags)


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaws_come_at_their_rates(flaw: str) -> None:
    found = collections.Counter(posts._flaw("moss", 9, index) for index in range(MANY))
    assert within(found[flaw], FLAWS[flaw], MANY)


def test_each_flaw_shows() -> None:
    assert first_with("wrong_extension").record["file"]["ext"] == "png"
    assert opened(first_with("wrong_extension").data()).format == "JPEG"
    assert max(opened(first_with("tiny").data()).size) <= 220
    sketch = np.asarray(opened(first_with("sketch").data()).convert("RGB"), dtype=int)
    assert np.ptp(sketch, axis=2).max() < 40, "no colours"
    for flaw, tag, category in (
        ("sketch", "sketch", "meta"),
        ("signature",) * 2 + ("meta",),
        ("lettering", "text", "general"),
    ):
        assert tag in first_with(flaw).record["tags"][category]
    again = first_with("near_duplicate")
    index = again.record["id"] - 1_000_000
    before = opened(posts._encoded("ember", 6, index - 1)[0])
    small, large = (
        np.asarray(picture.convert("L").resize((32, 32)), float) for picture in (opened(again.data()), before)
    )
    assert again.record["file"]["md5"] != posts._record("ember", 6, index - 1)["file"]["md5"]
    assert np.abs(small - large).mean() < 12


def test_tags_are_missing_and_wrong_as_often_as_stated() -> None:
    eyes = wrong = told = 0
    for index in range(MANY):
        truth = posts._truth("moss", 9, index)
        tags = posts._tags(truth, "moss", random.Random(index))["general"]
        if truth.attributes.style != "outline_only":
            told += 1
            eyes += f"{truth.attributes.eyes}_eyes" in tags
        bodies = {body for body in CHOICES["body"] if body in tags} - {"muscular"}
        shown = {a.body for a in (truth.attributes, truth.beside) if a is not None}
        wrong += bool(bodies - shown)
    assert within(told - eyes, MISSING_TAGS, told)
    # One wrong body in four is `muscular`, or hidden by it: big muscles imply it.
    assert within(wrong, WRONG_TAGS * 0.78, MANY) or within(wrong, WRONG_TAGS, MANY)


def test_posts_pass_the_content_policy() -> None:
    policy = load_policy()
    for concept in (*CONCEPTS, "sepia"):
        assert [policy.refuses(post.record) for post in demo_posts(concept=concept, count=10, seed=4)] == [None] * 10


@needs_shared
def test_posts_carry_what_their_tags_imply() -> None:
    for index in range(200):
        tags = posts._tags(posts._truth("frost", 3, index), "frost", random.Random(index))
        whole = {tag for group in tags.values() for tag in group}
        for tag in whole:
            assert implied_by_the_site(tag) <= whole, tag
