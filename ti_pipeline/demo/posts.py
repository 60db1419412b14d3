"""The demo's posts: drawings in larger scenes with e621's full record, noise in their tags and flaws at known rates.

Here: what a post shows (`Truth`), its picture's bytes, its record. Not here: attributes and their tags (`world`).
Everything follows from (concept, seed, index), so a post can be drawn again from its address alone.
"""

from __future__ import annotations

import functools
import hashlib
import io
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ti_pipeline.demo.drawing import draw_scene
from ti_pipeline.demo.styles import HELD_OUT_STYLES
from ti_pipeline.demo.world import CHOICES, IMPLIED, SPECIES, Attributes, concept_named, random_attributes

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

__all__ = [
    "FLAWS",
    "MISSING_TAGS",
    "PAIRS",
    "REDUNDANT_TAGS",
    "WIDE",
    "WRONG_TAGS",
    "DemoPost",
    "Truth",
    "demo_catalog",
    "demo_posts",
    "draw_demo_url",
]

# How many posts in a hundred have each flaw; at most one each.
FLAWS: dict[str, float] = {
    "lettering": 0.06,
    "signature": 0.06,
    "sketch": 0.04,
    "near_duplicate": 0.04,
    "wrong_extension": 0.02,
    "tiny": 0.02,
}
PAIRS, WIDE = 0.25, 1.3  # this share of the pictures at least so wide shows a second character
# People tag so: a tag in this share is missing; a post in this share has one too many, or one that is not true.
MISSING_TAGS, REDUNDANT_TAGS, WRONG_TAGS = 0.06, 0.05, 0.04
_WORDS = ("HELLO!", "GOOD DAY", "NICE HAT?", "SO SUNNY")
_FIRST_ID = 1_000_000


@dataclass(frozen=True)
class Truth:
    """What a post shows, known because it was drawn so.

    `size` in pixels; `centre` of the main character's bust and its `unit` in pixels of the full drawing, the bust being
    about two units high; `flaw` is a name of `FLAWS` or nothing.
    """

    attributes: Attributes
    beside: Attributes | None
    size: tuple[int, int]
    centre: tuple[float, float]
    unit: float
    tint: int
    flaw: str | None


@dataclass(frozen=True)
class DemoPost:
    """One post of the demo: e621's record of it, its picture, and what it truly shows."""

    record: dict[str, Any]
    truth: Truth

    def data(self) -> bytes:
        """Return the encoded picture; md5 and size are those of the record."""
        return draw_demo_url(self.record["file"]["url"])


def demo_posts(*, concept: str, count: int, seed: int) -> list[DemoPost]:
    """Return `count` posts of a held-out character, or in a held-out style.

    Raises `ValueError` for an unknown concept, naming the known ones.
    """
    concept_named(concept)
    return [DemoPost(_record(concept, seed, index), _truth(concept, seed, index)) for index in range(count)]


def demo_catalog(posts: int = 2000) -> pd.DataFrame:
    """Return how often each tag stands on so many posts of anything: the demo's site (columns tag, post_count)."""
    import pandas as pd

    counts: Counter[str] = Counter()
    for index in range(posts):
        shown = _drawn(None, 0, index, None)
        for tags in _tags(shown, None, _rng("record", "anything", 0, index)).values():
            counts.update(tags)
    rows = sorted(counts.items())
    return pd.DataFrame({"tag": [tag for tag, _ in rows], "post_count": [count for _, count in rows]})


def draw_demo_url(url: str) -> bytes:
    """Draw the picture that a `demo://` address names, as JPEG bytes. Raises `ValueError` for any other address."""
    parts = urlsplit(url)
    if parts.scheme != "demo":
        raise ValueError(f"not an address of a demo drawing: {url!r}")
    seed, index = (int(parse_qs(parts.query)[name][0]) for name in ("seed", "index"))
    return _encoded(parts.netloc, seed, index)[0]


def _rng(purpose: str, concept: str | None, seed: int, index: int) -> random.Random:
    return random.Random(f"{purpose}/{concept}/{seed}/{index}")  # noqa: S311 - drawings, not secrets


def _flaw(concept: str, seed: int, index: int) -> str | None:
    drawn = _rng("flaw", concept, seed, index).random()
    for name, share in FLAWS.items():
        drawn -= share
        if drawn < 0:
            return None if name == "near_duplicate" and index == 0 else name
    return None


@functools.lru_cache(maxsize=4096)
def _truth(concept: str, seed: int, index: int) -> Truth:
    flaw = _flaw(concept, seed, index)
    if flaw == "near_duplicate":
        return replace(_truth(concept, seed, index - 1), flaw=flaw)
    return _drawn(concept, seed, index, flaw)


def _drawn(concept: str | None, seed: int, index: int, flaw: str | None) -> Truth:
    """Return a drawing of the concept, or of anything that the base knows."""
    rng = _rng("picture", concept, seed, index)
    attributes = random_attributes(_rng("attributes", concept, seed, index), concept)
    if flaw == "sketch":
        attributes = replace(attributes, style="outline_only", background="simple_background")
    long, aspect = rng.randrange(900, 1601, 10), rng.uniform(1.0, 2.0)
    short = round(long / aspect)
    wide = rng.random() < 0.5
    unit = short * rng.uniform(0.42, 0.47)
    along, across = rng.uniform(short * 0.5, long - short * 0.5), short * 0.53
    size, centre = ((long, short), (along, across)) if wide else ((short, long), (short * 0.5, max(along, across)))
    beside = None
    if rng.random() < PAIRS and wide and aspect >= WIDE:
        beside = _companion(attributes, _rng("companion", concept, seed, index))
    return Truth(attributes, beside, size, centre, unit, rng.randrange(12), flaw)


def _companion(attributes: Attributes, rng: random.Random) -> Attributes:
    return replace(random_attributes(rng, style=attributes.style), background=attributes.background)


def _picture(truth: Truth) -> Image.Image:
    """Draw a post's picture at twice its size and reduce it, so that edges are smooth."""
    (width, height), (x, y), unit = truth.size, truth.centre, truth.unit
    beside = None
    if truth.beside is not None:
        side = 1 if x < width / 2 else -1
        beside = (truth.beside, (2 * (x + side * 1.5 * unit), 2 * y))
    big = draw_scene(truth.attributes, (2 * width, 2 * height), (2 * x, 2 * y), 2 * unit, truth.tint, beside)
    picture = big.reduce(2)
    if truth.flaw == "lettering":
        _write(picture, _WORDS[truth.tint % len(_WORDS)], (0.06 * width, 0.04 * height), 0.11 * min(truth.size))
    elif truth.flaw == "signature":
        _write(picture, "ti demo 26", (0.68 * width, 0.93 * height), 0.04 * min(truth.size))
    elif truth.flaw == "tiny":
        picture.thumbnail((220, 220))
    elif truth.flaw == "near_duplicate":
        picture = picture.resize((round(width * 0.93), round(height * 0.93)))
    return picture


def _write(picture: Image.Image, words: str, place: tuple[float, float], height: float) -> None:
    """Write large words or a small signature: dark ink with a light edge, so that they show on any ground."""
    from PIL import ImageDraw, ImageFont

    font = ImageFont.load_default(size=height)
    ink = ImageDraw.Draw(picture)
    ink.text(place, words, font=font, fill=(20, 20, 25), stroke_width=max(1, round(height / 12)), stroke_fill="white")


@functools.lru_cache(maxsize=256)
def _encoded(concept: str, seed: int, index: int) -> tuple[bytes, tuple[int, int]]:
    """Return a post's JPEG and its size in pixels."""
    truth = _truth(concept, seed, index)
    picture, stream = _picture(truth), io.BytesIO()
    picture.save(stream, "JPEG", quality=80 if truth.flaw == "near_duplicate" else 92)
    return stream.getvalue(), picture.size


def _tags(truth: Truth, concept: str | None, rng: random.Random) -> dict[str, list[str]]:
    """Return the post's tags by category as people would have set them, implications included."""
    found: dict[str, set[str]] = {
        name: set()
        for name in ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")
    }
    for shown in (truth.attributes, *([] if truth.beside is None else [truth.beside])):
        for category, tags in shown.tags().items():
            found[category] |= {tag for tag in tags if category != "general" or rng.random() >= MISSING_TAGS}
    found["general"].add("solo" if truth.beside is None else "duo")
    if rng.random() < WRONG_TAGS:
        found["general"] -= {truth.attributes.body}
        found["general"].add(rng.choice([body for body in CHOICES["body"] if body != truth.attributes.body]))
    if rng.random() < REDUNDANT_TAGS:
        found["general"].add("looking_at_viewer")
    found["general"] |= {"text"} if truth.flaw == "lettering" else set()
    found["meta"] |= {"digital_media_(artwork)"}
    found["meta"] |= {truth.flaw} if truth.flaw in {"signature", "sketch"} else set()
    found["character"] |= set() if concept is None or concept in HELD_OUT_STYLES else {f"{concept}_(demo)"}
    for species in sorted(found["species"]):
        found["species"] |= set(SPECIES[species])
    for tag in sorted(found["general"]):
        found["general"] |= set(_implied(tag))
    return {category: sorted(tags) for category, tags in found.items()}


def _implied(tag: str) -> tuple[str, ...]:
    for cover in ("fur", "scales"):
        if tag.endswith(f"_{cover}"):
            return (cover, f"{tag.removesuffix(cover)}body")
    return IMPLIED.get(tag, ())


def _record(concept: str, seed: int, index: int) -> dict[str, Any]:
    """Return the post as the site's API would: the full schema."""
    rng = _rng("record", concept, seed, index)
    truth = _truth(concept, seed, index)
    data, (width, height) = _encoded(concept, seed, index)
    ext = "png" if truth.flaw == "wrong_extension" else "jpg"
    up, number = rng.randrange(5, 400), _FIRST_ID + index
    down = rng.randrange(up // 5 + 1)
    parent = number - 1 if truth.flaw == "near_duplicate" else None
    return {
        "id": number,
        "created_at": f"2026-01-{1 + index % 28:02d}T12:00:00.000+00:00",
        "updated_at": None,
        "file": {
            "width": width,
            "height": height,
            "ext": ext,
            "size": len(data),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "url": f"demo://{concept}/drawing.{ext}?seed={seed}&index={index}",
        },
        "preview": {"width": 0, "height": 0, "url": None, "alt": None},
        "sample": {"has": False, "width": 0, "height": 0, "url": None, "alt": None, "alternates": {}},
        "score": {"up": up, "down": -down, "total": up - down},
        "tags": _tags(truth, concept, rng),
        "locked_tags": [],
        "change_seq": number,
        "flags": dict.fromkeys(
            ("pending", "flagged", "note_locked", "status_locked", "rating_locked", "deleted"), False
        ),
        "rating": "s",
        "fav_count": up // 2,
        "sources": [f"https://example.org/drawings/{number}"] if rng.random() < 0.5 else [],
        "pools": [],
        "relationships": {
            "parent_id": parent,
            "has_children": False,
            "has_active_children": False,
            "children": [],
        },
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
