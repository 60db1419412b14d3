"""The drawn world: attributes that show, tags that are the site's own, held-out looks that stay held out."""

import csv
import random
from dataclasses import replace
from functools import cache

import pytest
from PIL import Image, ImageChops

from ti_pipeline.demo.world import (
    CHOICES,
    CONCEPTS,
    HELD_OUT_STYLES,
    IMPLIED,
    SPECIES,
    WORDED,
    Attributes,
    bust,
    caption,
    prompt,
    random_attributes,
    word_of,
)
from ti_pipeline_tests.shared_data import E621, needs_shared

WOLF = Attributes("wolf", "grey", "blue", "slim", "shirt", "city")


def different(one: Image.Image, other: Image.Image) -> float:
    """Share of pixels that differ."""
    difference = ImageChops.difference(one, other).convert("L").point(lambda value: 255 * (value > 8))
    return difference.histogram()[255] / (one.width * one.height)


@cache
def site_implications() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    with (E621 / "tag_implications_2025-05-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["status"] == "active":
                found.setdefault(row["antecedent_name"], set()).add(row["consequent_name"])
    return found


@cache
def implied_by_the_site(tag: str) -> frozenset[str]:
    direct = site_implications().get(tag, set())
    return frozenset(direct.union(*(implied_by_the_site(after) for after in direct)))


@pytest.mark.parametrize("name", CHOICES)
def test_each_value_of_an_attribute_looks_different_at_64_pixels(name: str) -> None:
    drawn = {value: bust(replace(WOLF, **{name: value})) for value in CHOICES[name]}
    values = list(drawn)
    for index, one in enumerate(values):
        for other in values[index + 1 :]:
            assert different(drawn[one], drawn[other]) > 0.003, (one, other)


def test_a_second_character_shows() -> None:
    lion = replace(WOLF, species="lion", colour="orange")
    assert different(bust(WOLF, beside=lion), bust(WOLF, beside=replace(lion, colour="green"))) > 0.05


def test_the_unknown_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"no species 'unicorn'; it knows domestic_dog, wolf"):
        replace(WOLF, species="unicorn")
    with pytest.raises(ValueError, match=r"no concept 'nobody'; it knows ember, frost, moss, sepia, neon"):
        random_attributes(random.Random(0), "nobody")
    with pytest.raises(ValueError, match=r"no attribute 'weight'; it knows species, colour"):
        word_of("weight", "heavy")
    with pytest.raises(ValueError, match=r"no body 'heavy'; it knows slim, muscular"):
        word_of("body", "heavy")


def test_a_concept_looks_the_same_whatever_else_varies() -> None:
    rng = random.Random(0)
    for name, look in CONCEPTS.items():
        drawn = [random_attributes(rng, name) for _ in range(50)]
        for attribute, value in look.looks().items():
            assert {getattr(a, attribute) for a in drawn} == {value}
        assert {a.species for a in drawn} == set(SPECIES)


def test_a_held_out_style_is_a_concept_too() -> None:
    rng = random.Random(0)
    for style in HELD_OUT_STYLES:
        drawn = [random_attributes(rng, style) for _ in range(50)]
        assert {a.style for a in drawn} == {style}
        assert {a.species for a in drawn} == set(SPECIES)


def test_held_out_looks_and_styles_never_occur_otherwise() -> None:
    rng = random.Random(1)
    held_out = {(look.colour, look.eyes) for look in CONCEPTS.values()}
    drawn = [random_attributes(rng) for _ in range(5000)]
    assert not any((a.colour, a.eyes) in held_out or a.style in HELD_OUT_STYLES for a in drawn)
    for name in set(CHOICES) - {"style"}:
        assert {getattr(a, name) for a in drawn} == set(CHOICES[name])


def test_captions_use_words_of_the_tags_only() -> None:
    rng = random.Random(2)
    for _ in range(200):
        shown = random_attributes(rng)
        tags = {tag.replace("_", " ") for group in shown.tags().values() for tag in group}
        tags |= {tag.replace("_", " ") for tag in SPECIES[shown.species]} | {"solo"}
        assert set(filter(None, caption(shown, rng).split(", "))) <= tags


def test_prompts_ask_in_the_words_of_captions() -> None:
    red_eyed = replace(WOLF, eyes="red", marking="star", accessory="hat", background="simple_background")
    assert prompt(red_eyed) == "wolf, grey fur, red eyes, slim, shirt, simple background, hat, facial markings"
    assert prompt(replace(WOLF, species="dragon"), ("species", "colour")) == "dragon, grey scales"
    assert {word_of(n, v) for n in WORDED for v in CHOICES[n]} - {""} >= {"big muscles", "tank top", "open mouth"}


@needs_shared
def test_tags_and_implications_are_the_sites_own() -> None:
    with (E621 / "e621_tags_2026-04-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["name"]: int(row["category"]) for row in csv.DictReader(stream)}
    for species, chain in SPECIES.items():
        copyrights = replace(WOLF, species=species).tags()["copyright"]
        assert {*chain, *copyrights} == implied_by_the_site(species)
    for tag, chain in IMPLIED.items():
        assert set(chain) == implied_by_the_site(tag), tag
    rng = random.Random(3)
    for _ in range(300):
        tags = random_attributes(rng).tags()
        for category, number in (("species", 5), ("general", 0), ("copyright", 3), ("meta", 7)):
            for tag in tags[category]:
                assert known[tag] == number, tag
        # What the site implies, the world must say; fur and scales are spelled out in `posts`.
        spelled = {tag for tag in tags["general"] if implied_by_the_site(tag)}
        assert {tag for tag in spelled if not tag.endswith(("_fur", "_scales"))} <= set(IMPLIED)
