import hashlib
import io
import random

import pytest
from PIL import Image, ImageChops

from ti_pipeline.demo.world import (
    CHOICES,
    CONCEPTS,
    SPECIES,
    Attributes,
    bust,
    caption,
    demo_posts,
    draw_demo_url,
    random_attributes,
)
from ti_pipeline.e621.policy import load_policy
from ti_pipeline_tests.shared_data import E621, needs_shared

PLAIN = {
    "species": "wolf",
    "colour": "grey",
    "eyes": "blue",
    "body": "slim",
    "clothing": "suit",
    "background": "city",
    "accessory": "none",
    "marked": False,
}


def different(one: Image.Image, other: Image.Image) -> float:
    """Share of pixels that differ."""
    difference = ImageChops.difference(one, other).convert("L").point(lambda value: 255 * (value > 8))
    return difference.histogram()[255] / (one.width * one.height)


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "marked"])
def test_each_value_of_an_attribute_looks_different(name: str) -> None:
    drawn = {value: bust(Attributes(**PLAIN | {name: value})) for value in CHOICES[name]}
    values = list(drawn)
    for index, one in enumerate(values):
        for other in values[index + 1 :]:
            assert different(drawn[one], drawn[other]) > 0.003, (one, other)


def test_an_unknown_attribute_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no species 'unicorn'; it knows domestic_dog, wolf"):
        Attributes(**PLAIN | {"species": "unicorn"})
    with pytest.raises(ValueError, match=r"no concept 'nobody'; it knows ember, frost, moss"):
        demo_posts(concept="nobody", count=1, seed=0)


def test_posts_are_the_same_every_time_and_differ_by_seed() -> None:
    one, again, other = (demo_posts(concept="ember", count=5, seed=seed) for seed in (1, 1, 2))
    assert [post.record for post in one] == [post.record for post in again]
    assert {p.record["file"]["md5"] for p in one}.isdisjoint(p.record["file"]["md5"] for p in other)


def test_records_tell_the_truth_about_their_pictures() -> None:
    for post in demo_posts(concept="frost", count=6, seed=3):
        data, file = post.data(), post.record["file"]
        assert hashlib.md5(data).hexdigest() == file["md5"]
        assert len(data) == file["size"]
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (file["width"], file["height"])
            assert 500 < max(picture.size) <= 1200
        assert draw_demo_url(file["url"]) == data


def test_a_concept_looks_the_same_whatever_else_varies() -> None:
    rng = random.Random(0)
    for name, look in CONCEPTS.items():
        drawn = [random_attributes(rng, name) for _ in range(50)]
        assert {a.colour for a in drawn} == {look.colour}
        assert {a.eyes for a in drawn} == {look.eyes}
        assert len({a.species for a in drawn}) == len(SPECIES)


def test_held_out_looks_never_occur_otherwise() -> None:
    rng = random.Random(1)
    held_out = {(look.colour, look.eyes) for look in CONCEPTS.values()}
    assert not any((a.colour, a.eyes) in held_out for a in (random_attributes(rng) for _ in range(5000)))


def test_captions_use_words_of_the_tags_only() -> None:
    rng = random.Random(2)
    for _ in range(200):
        shown = random_attributes(rng)
        tags = {tag.replace("_", " ") for group in shown.tags().values() for tag in group}
        assert set(filter(None, caption(shown, rng).split(", "))) <= tags


def test_posts_pass_the_content_policy() -> None:
    policy = load_policy()
    assert [policy.refuses(post.record) for post in demo_posts(concept="moss", count=20, seed=4)] == [None] * 20


@needs_shared
def test_tags_and_implications_are_the_sites_own() -> None:
    import csv

    with (E621 / "e621_tags_2026-04-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["name"]: int(row["category"]) for row in csv.DictReader(stream)}
    with (E621 / "tag_implications_2025-05-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        steps = [
            (r["antecedent_name"], r["consequent_name"]) for r in csv.DictReader(stream) if r["status"] == "active"
        ]

    def implied(tag: str) -> set[str]:
        found: set[str] = set()
        fresh = {tag}
        while fresh:
            fresh = {after for before, after in steps if before in fresh} - found
            found |= fresh
        return found

    for species, chain in SPECIES.items():
        copyrights = Attributes(**PLAIN | {"species": species}).tags()["copyright"]
        assert {*chain, *copyrights} == implied(species)
    rng = random.Random(3)
    for _ in range(300):
        for category, number in (("species", 5), ("general", 0), ("copyright", 3)):
            for tag in random_attributes(rng).tags()[category]:
                assert known[tag] == number, tag
