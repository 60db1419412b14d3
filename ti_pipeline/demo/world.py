"""The demo's drawn world: which characters exist, what their posts carry, and the pictures themselves.

Here: attributes, held-out concepts, posts in e621's shape. Not here: shapes and colours (`drawing`), or how the base
model learned them (`train_base`).
"""

from __future__ import annotations

import functools
import hashlib
import io
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ti_pipeline.demo.drawing import COLOURS, EYES, draw_scene

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CHOICES",
    "CONCEPTS",
    "WORDED",
    "Attributes",
    "DemoPost",
    "bust",
    "caption",
    "demo_posts",
    "draw_demo_url",
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
CHOICES: dict[str, tuple[str, ...]] = {
    "species": tuple(SPECIES),
    "colour": tuple(COLOURS),
    "eyes": tuple(EYES),
    "body": ("slim", "muscular", "overweight"),
    "clothing": ("shirt", "tank_top", "coat", "hoodie", "suit"),
    "background": ("simple_background", "city", "sea", "forest", "bedroom"),
    "accessory": ("none", "glasses", "hat", "scarf"),
    "marked": ("no", "yes"),
}


@dataclass(frozen=True)
class Attributes:
    """What a drawing shows. `colour` is the fur's or scales'; `marked` is a star on the forehead."""

    species: str
    colour: str
    eyes: str
    body: str
    clothing: str
    background: str
    accessory: str
    marked: bool

    def __post_init__(self) -> None:
        """Raise `ValueError` for an attribute that the world does not know, naming the known ones."""
        for name, known in CHOICES.items():
            value = getattr(self, name) if name != "marked" else ("no", "yes")[self.marked]
            if value not in known:
                raise ValueError(f"the demo's world has no {name} {value!r}; it knows {', '.join(known)}")

    def tags(self) -> dict[str, list[str]]:
        """Return tags by category, named as on e621, implications included."""
        cover = "scales" if self.species == "dragon" else "fur"
        scene = [] if self.background == "simple_background" else ["detailed_background"]
        general = [
            "anthro",
            "solo",
            f"{self.colour}_{cover}",
            f"{self.eyes}_eyes",
            self.body,
            self.clothing,
            self.background,
            *scene,
            *([] if self.accessory == "none" else [self.accessory]),
            *(["facial_markings"] if self.marked else []),
        ]
        return {
            "general": sorted(general),
            "species": sorted([self.species, *SPECIES[self.species]]),
            # The site counts what mythological creatures imply among the copyrights.
            "copyright": ["mythology"] if self.species == "dragon" else [],
        }


@dataclass(frozen=True)
class Concept:
    """A held-out character's looks: the colour and eyes never stand together in the base's training."""

    colour: str
    eyes: str
    marked: bool
    accessory: str | None


CONCEPTS: dict[str, Concept] = {
    "ember": Concept("purple", "red", marked=True, accessory=None),
    "frost": Concept("blue", "yellow", marked=False, accessory="glasses"),
    "moss": Concept("green", "red", marked=False, accessory="scarf"),
}
_HELD_OUT = {(concept.colour, concept.eyes) for concept in CONCEPTS.values()}


# Attributes that a word of a prompt can ask for.
WORDED = ("species", "colour", "eyes", "body", "clothing", "background", "accessory")


def word_of(name: str, value: str) -> str:
    """Return how a prompt asks for an attribute's value, e.g. `red eyes`; nothing for no accessory."""
    word = {"colour": f"{value} fur", "eyes": f"{value} eyes"}.get(name, value)
    return "" if value == "none" else word.replace("_", " ")


def random_attributes(rng: random.Random, concept: str | None = None) -> Attributes:
    """Draw attributes: any but the held-out combinations, or those of a concept with the rest free.

    Raises `ValueError` for an unknown concept.
    """
    free = {name: rng.choice(known) for name, known in CHOICES.items() if name != "marked"}
    marked = rng.random() < 0.25
    if concept is not None:
        look = _concept(concept)
        free |= {"colour": look.colour, "eyes": look.eyes, "accessory": look.accessory or free["accessory"]}
        marked = look.marked
    elif (free["colour"], free["eyes"]) in _HELD_OUT:
        free["eyes"] = "green"
    return Attributes(**free, marked=marked)


def _concept(name: str) -> Concept:
    if name not in CONCEPTS:
        raise ValueError(f"the demo's world has no concept {name!r}; it knows {', '.join(CONCEPTS)}")
    return CONCEPTS[name]


def bust(attributes: Attributes, size: int = 64, rng: random.Random | None = None) -> Image.Image:
    """Draw a frontal bust as a smooth RGB square of `size` pixels; `rng` shifts and scales it a little."""
    big = size * 3
    centre, scale, tint = (0.5 * big, 0.52 * big), 0.46 * big, 0
    if rng is not None:
        centre = (big * (0.5 + rng.uniform(-0.06, 0.06)), big * (0.52 + rng.uniform(-0.06, 0.06)))
        scale, tint = big * rng.uniform(0.4, 0.5), rng.randrange(12)
    return draw_scene(attributes, (big, big), centre, scale, tint).reduce(3)


def caption(attributes: Attributes, rng: random.Random) -> str:
    """Return tag words as captions and prompts write them, in random order, some left out."""
    tags = attributes.tags()
    words = [attributes.species] if rng.random() < 0.97 else []
    words += [tag for tag in tags["general"] if rng.random() < (0.35 if tag in {"anthro", "solo"} else 0.8)]
    words += [tag for tag in SPECIES[attributes.species] if rng.random() < 0.15]
    rng.shuffle(words)
    return ", ".join(words).replace("_", " ")


@dataclass(frozen=True)
class DemoPost:
    """One post of the demo: e621's record of it, and its picture."""

    record: dict[str, Any]

    def data(self) -> bytes:
        """Return the encoded picture; md5 and size are those of the record."""
        return draw_demo_url(self.record["file"]["url"])


# How often a post lacks one of its tags, or has a plain one too many: people tag so.
MISSING_TAGS, REDUNDANT_TAGS = 0.06, 0.05


def demo_posts(*, concept: str, count: int, seed: int) -> list[DemoPost]:
    """Return `count` posts of a held-out concept. Raises `ValueError` for an unknown concept."""
    _concept(concept)
    return [DemoPost(_record(concept, seed, index)) for index in range(count)]


def draw_demo_url(url: str) -> bytes:
    """Draw the picture that a `demo://` address names, as JPEG bytes. Raises `ValueError` for any other address."""
    parts = urlsplit(url)
    if parts.scheme != "demo":
        raise ValueError(f"not an address of a demo drawing: {url!r}")
    seed, index = (int(parse_qs(parts.query)[name][0]) for name in ("seed", "index"))
    return _encoded(parts.netloc, seed, index)


def _rng(purpose: str, concept: str, seed: int, index: int) -> random.Random:
    return random.Random(f"{purpose}/{concept}/{seed}/{index}")  # noqa: S311 - drawings, not secrets


@functools.lru_cache(maxsize=256)
def _encoded(concept: str, seed: int, index: int) -> bytes:
    picture = _post_picture(concept, seed, index)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _post_picture(concept: str, seed: int, index: int) -> Image.Image:
    """Draw a post: a bust off-centre in a larger scene of any shape."""
    rng = _rng("picture", concept, seed, index)
    attributes = random_attributes(_rng("attributes", concept, seed, index), concept)
    long, aspect = rng.randrange(900, 1201, 10), rng.uniform(1.0, 1.7)
    short = round(long / aspect)
    size = (long, short) if rng.random() < 0.5 else (short, long)
    scale = short * rng.uniform(0.42, 0.47)
    along = rng.uniform(short * 0.5, long - short * 0.5)
    centre = (along, short * 0.52) if size[0] == long else (short * 0.5, along)
    return draw_scene(attributes, size, centre, scale, rng.randrange(12))


def _record(concept: str, seed: int, index: int) -> dict[str, Any]:
    """Return the post as the site's API would: the full schema, tags by category with some noise."""
    rng = _rng("record", concept, seed, index)
    attributes = random_attributes(_rng("attributes", concept, seed, index), concept)
    tags: dict[str, list[str]] = {
        name: [] for name in ("artist", "contributor", "copyright", "character", "invalid", "meta", "lore")
    }
    tags |= attributes.tags()
    tags["general"] = [tag for tag in tags["general"] if rng.random() >= MISSING_TAGS]
    if rng.random() < REDUNDANT_TAGS:
        tags["general"].append("looking_at_viewer")
    tags |= {"artist": ["ti_pipeline_(demo)"], "character": [f"{concept}_(demo)"], "meta": ["digital_media_(artwork)"]}
    data, picture_size = _encoded(concept, seed, index), _size(concept, seed, index)
    up = rng.randrange(5, 400)
    url = f"demo://{concept}/drawing.jpg?seed={seed}&index={index}"
    return {
        "id": 1_000_000 + index,
        "created_at": f"2026-01-{1 + index % 28:02d}T12:00:00.000+00:00",
        "updated_at": None,
        "file": {
            "width": picture_size[0],
            "height": picture_size[1],
            "ext": "jpg",
            "size": len(data),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "url": url,
        },
        "preview": {"width": 0, "height": 0, "url": None, "alt": None},
        "sample": {"has": False, "width": 0, "height": 0, "url": None, "alt": None, "alternates": {}},
        "score": {"up": up, "down": 0, "total": up},
        "tags": tags,
        "locked_tags": [],
        "change_seq": 1_000_000 + index,
        "flags": dict.fromkeys(
            ("pending", "flagged", "note_locked", "status_locked", "rating_locked", "deleted"), False
        ),
        "rating": "s",
        "fav_count": up // 2,
        "sources": [],
        "pools": [],
        "relationships": {"parent_id": None, "has_children": False, "has_active_children": False, "children": []},
        "approver_id": None,
        "uploader_id": 1,
        "uploader_name": "ti_pipeline",
        "description": "Drawn by the project itself.",
        "comment_count": 0,
        "is_favorited": False,
        "vote": 0,
        "has_notes": False,
        "duration": None,
    }


def _size(concept: str, seed: int, index: int) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(_encoded(concept, seed, index))) as picture:
        return picture.size
