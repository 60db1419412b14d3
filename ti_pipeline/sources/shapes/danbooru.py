"""Danbooru and its kin: tags as one text a category, and a scale on which `s` is `sensitive`, not safe.

Source: Danbooru's API help (posts, ratings g, s, q, e) and gallery-dl's extractor of that name, which adds nothing.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes import plain
from ti_pipeline.sources.shapes.fields import rating_of

__all__ = ["matches", "read"]

_SCALE = {
    "g": "s",
    "general": "s",
    "s": "q",
    "sensitive": "q",
    "q": "q",
    "questionable": "q",
    "e": "e",
    "explicit": "e",
}
_STATES = ("deleted", "pending", "flagged")


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a post of Danbooru: it alone has a text of tags for each category."""
    return "tag_string" in data or "tag_string_general" in data


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a post tells; deleted, pending and flagged ones are such here, too."""
    found = plain.read({name: value for name, value in data.items() if name != "rating"})
    size = {"width": data.get("image_width"), "height": data.get("image_height")}
    found["file"] |= {side: pixels for side, pixels in size.items() if isinstance(pixels, int)}
    found["flags"] = {
        state: bool(data.get(f"is_{state}") or (state == "deleted" and data.get("is_banned"))) for state in _STATES
    }
    rating = rating_of(data.get("rating"), _SCALE)
    return found | ({} if rating is None else {"rating": rating})
