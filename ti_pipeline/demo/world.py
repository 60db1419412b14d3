"""The demo's drawn world: which characters exist, what they are tagged with, and how a picture of one is drawn.

Here: attributes, held-out concepts and styles, captions, busts. Not here: posts (`posts`), shapes and colours
(`drawing`), or how the base model learned them (`train_base`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.demo.bodies import BUILDS
from ti_pipeline.demo.drawing import draw_scene
from ti_pipeline.demo.pen import COLOURS, EYES
from ti_pipeline.demo.scenery import BACKGROUNDS
from ti_pipeline.demo.styles import HELD_OUT_STYLES, STYLES

if TYPE_CHECKING:
    import random

    from PIL import Image

__all__ = [
    "CHOICES",
    "CONCEPTS",
    "HELD_OUT_STYLES",
    "IMPLIED",
    "SPECIES",
    "TRAINED_STYLES",
    "WORDED",
    "Attributes",
    "Concept",
    "bust",
    "caption",
    "concept_named",
    "prompt",
    "random_attributes",
    "word_of",
]

# Species with the site's implications, nearest first.
SPECIES: dict[str, tuple[str, ...]] = {
    "domestic_dog": ("canis", "canine", "canid", "mammal"),
    "wolf": ("canis", "canine", "canid", "mammal"),
    "fox": ("canine", "canid", "mammal"),
    "tiger": ("pantherine", "felid", "mammal"),
    "lion": ("pantherine", "felid", "mammal"),
    "domestic_cat": ("felis", "feline", "felid", "mammal"),
    "bear": ("mammal",),
    "dragon": ("mythological_scalie", "mythological_creature", "scalie"),
}
# What the site's implications add to the general tags that the world uses.
IMPLIED: dict[str, tuple[str, ...]] = {
    "big_muscles": ("muscular",),
    "shirt": ("topwear", "clothing"),
    "tank_top": ("shirt", "topwear", "clothing"),
    "coat": ("topwear", "clothing"),
    "pants": ("bottomwear", "clothing"),
    "shorts": ("bottomwear", "clothing"),
    "swimwear": ("clothing",),
    "glasses": ("eyewear",),
    "hat": ("headwear", "headgear", "clothing"),
    "waving": ("gesture",),
    "sea": ("water",),
    "onsen": ("hot_spring", "water"),
    "facial_markings": ("head_markings", "markings"),
}
TRAINED_STYLES = tuple(name for name in STYLES if name not in HELD_OUT_STYLES)
CHOICES: dict[str, tuple[str, ...]] = {
    "species": tuple(SPECIES),
    "colour": tuple(COLOURS),
    "eyes": tuple(EYES),
    "body": tuple(BUILDS),
    "clothing": ("none", "shirt", "tank_top", "coat", "pants", "shorts", "swimwear"),
    "background": tuple(BACKGROUNDS),
    "accessory": ("none", "glasses", "hat", "scarf"),
    "marking": ("none", "star", "spots"),
    "expression": ("neutral", "smile", "open_mouth", "angry"),
    "pose": ("standing", "waving"),
    "style": tuple(STYLES),
}
# What people draw most: how often the first choice is taken before the rest share what remains.
_USUAL = {"accessory": 0.4, "marking": 0.6, "expression": 0.55, "pose": 0.8, "style": 0.72}
# Attributes that a word of a prompt can ask for, among choices that the base model knows.
WORDED = ("species", "colour", "eyes", "body", "clothing", "background", "accessory", "marking", "expression", "pose")
_UNSAID = {"none", "neutral", "standing", "flat"}


@dataclass(frozen=True)
class Attributes:
    """What a drawing shows. `colour` is the fur's or scales'; the rest have the values of `CHOICES`."""

    species: str
    colour: str
    eyes: str
    body: str
    clothing: str
    background: str
    accessory: str = "none"
    marking: str = "none"
    expression: str = "neutral"
    pose: str = "standing"
    style: str = "flat"

    def __post_init__(self) -> None:
        """Raise `ValueError` for an attribute that the world does not know, naming the known ones."""
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"the demo's world has no {name} {value!r}; it knows {', '.join(known)}")

    def tags(self) -> dict[str, list[str]]:
        """Return tags by category, named as on e621 and sorted, without what the site's implications add."""
        general = ["anthro", *(_tag(name, self) for name in WORDED if name != "species")]
        general += [] if self.background == "simple_background" else ["detailed_background"]
        meta = ["monochrome"] if STYLES[self.style].hollow else []
        return {
            "general": sorted(tag for tag in general if tag),
            "species": [self.species],
            # The site counts what mythological creatures imply among the copyrights.
            "copyright": ["mythology"] if self.species == "dragon" else [],
            "meta": meta,
            "artist": [f"{self.style}_(artist)"],
        }


def _tag(name: str, a: Attributes) -> str:
    """Return the tag of one attribute; nothing where there is nothing to say, or nothing to see."""
    value: str = getattr(a, name)
    if value in _UNSAID or (name in {"colour", "eyes"} and STYLES[a.style].hollow):
        return ""
    covered = "scales" if a.species == "dragon" else "fur"
    return {"colour": f"{value}_{covered}", "eyes": f"{value}_eyes", "marking": _MARKINGS.get(value, "")}.get(
        name, value
    )


_MARKINGS = {"star": "facial_markings", "spots": "spots"}


@dataclass(frozen=True)
class Concept:
    """A held-out character's looks: the colour and eyes never stand together in the base's training."""

    colour: str
    eyes: str
    marking: str
    accessory: str | None

    def looks(self) -> dict[str, str]:
        """Return the attributes that every picture of the character has."""
        worn = {} if self.accessory is None else {"accessory": self.accessory}
        return {"colour": self.colour, "eyes": self.eyes, "marking": self.marking} | worn


CONCEPTS: dict[str, Concept] = {
    "ember": Concept("purple", "red", marking="star", accessory=None),
    "frost": Concept("blue", "yellow", marking="none", accessory="glasses"),
    "moss": Concept("green", "red", marking="spots", accessory="scarf"),
}
_HELD_OUT = {(concept.colour, concept.eyes) for concept in CONCEPTS.values()}


def word_of(name: str, value: str) -> str:
    """Return how a prompt asks for an attribute's value, e.g. `red eyes`; nothing for what goes without saying.

    Raises `ValueError` for an unknown attribute or value, naming the known ones.
    """
    if name not in CHOICES:
        raise ValueError(f"the demo's world has no attribute {name!r}; it knows {', '.join(CHOICES)}")
    if value not in CHOICES[name]:
        raise ValueError(f"the demo's world has no {name} {value!r}; it knows {', '.join(CHOICES[name])}")
    if value in _UNSAID:
        return ""
    word = {"colour": f"{value} fur", "eyes": f"{value} eyes", "marking": _MARKINGS.get(value, "")}.get(name, value)
    return word.replace("_", " ")


def prompt(attributes: Attributes, names: tuple[str, ...] = WORDED) -> str:
    """Return a prompt that asks for the named attributes."""
    words = ", ".join(filter(None, (word_of(name, getattr(attributes, name)) for name in names)))
    return words.replace(" fur", " scales") if attributes.species == "dragon" else words


def concept_named(name: str) -> dict[str, str]:
    """Return the attributes that make a held-out character or style.

    Raises `ValueError` for an unknown one, naming the known ones.
    """
    if name in HELD_OUT_STYLES:
        return {"style": name}
    if name not in CONCEPTS:
        known = ", ".join((*CONCEPTS, *HELD_OUT_STYLES))
        raise ValueError(f"the demo's world has no concept {name!r}; it knows {known}")
    return CONCEPTS[name].looks()


def random_attributes(rng: random.Random, concept: str | None = None, style: str | None = None) -> Attributes:
    """Draw attributes: any but the held-out combinations and styles, or those of a concept with the rest free.

    `concept` names a held-out character or style. Raises `ValueError` for an unknown concept or style.
    """
    free = {name: _choice(rng, name) for name in CHOICES}
    if concept not in CONCEPTS and (free["colour"], free["eyes"]) in _HELD_OUT:
        free["eyes"] = "green"
    if concept is not None:
        free |= concept_named(concept)
    return Attributes(**(free if style is None else free | {"style": style}))


def _choice(rng: random.Random, name: str) -> str:
    known = TRAINED_STYLES if name == "style" else CHOICES[name]
    if name not in _USUAL:
        return rng.choice(known)
    return known[0] if rng.random() < _USUAL[name] else rng.choice(known[1:])


# How far a square crop's figure strays: the centre in parts of the side, the unit as a share of it.
_SHIFT, _UNIT = 0.05, (0.42, 0.48)
_PAIR_UNIT = 0.62  # of the unit that a single figure has


def bust(
    attributes: Attributes, size: int = 64, rng: random.Random | None = None, beside: Attributes | None = None
) -> Image.Image:
    """Draw a character as a square crop shows it: smooth RGB, `size` pixels; `rng` shifts and scales it a little.

    With a second one `beside` it, the first stands on the left and both are smaller.
    """
    big = size * 3
    x, y, unit, tint = 0.5, 0.53, 0.45, 0
    if rng is not None:
        x, y = x + rng.uniform(-_SHIFT, _SHIFT), y + rng.uniform(-_SHIFT, _SHIFT)
        unit, tint = rng.uniform(*_UNIT), rng.randrange(12)
    if beside is None:
        return draw_scene(attributes, (big, big), (x * big, y * big), unit * big, tint).reduce(3)
    y, unit = y + 0.08, unit * _PAIR_UNIT
    second = (beside, ((x + 0.23) * big, y * big))
    return draw_scene(attributes, (big, big), ((x - 0.23) * big, y * big), unit * big, tint, second).reduce(3)


def caption(attributes: Attributes, rng: random.Random, beside: Attributes | None = None) -> str:
    """Return tag words as captions and prompts write them, in random order, some left out."""
    words = ["solo" if beside is None else "duo"] if beside is not None or rng.random() < 0.3 else []
    for shown in (attributes, *([] if beside is None else [beside])):
        tags = shown.tags()
        words += [shown.species] if rng.random() < 0.97 else []
        words += [tag for tag in tags["general"] if rng.random() < (0.3 if tag in _PLAIN else 0.85)]
        words += [tag for tag in SPECIES[shown.species] if rng.random() < 0.12]
        words += [tag for tag in (*tags["artist"], *tags["meta"]) if rng.random() < 0.6]
    words = list(dict.fromkeys(words))
    rng.shuffle(words)
    return ", ".join(words).replace("_", " ")


_PLAIN = {"anthro", "detailed_background"}
