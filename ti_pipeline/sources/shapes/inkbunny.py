"""Inkbunny as gallery-dl writes it: keywords with blanks, and a rating by number, by name, and by what it is for.

Source: Inkbunny's API description (rating_id 0, 1, 2) and gallery-dl's extractor of that name.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, rating_of, strictest, tag_name, tag_names

__all__ = ["matches", "read"]

_NUMBERS = {"0": "s", "1": "q", "2": "e"}
_NAMES = {"general": "s", "mature": "q", "adult": "e"}
_REASONS = {
    "nudity": "q",
    "nudity_-_nonsexual_nudity_exposing_breasts_or_genitals": "q",
    "violence": "q",
    "mild_violence": "q",
}


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a submission of Inkbunny."""
    return data.get("category") == "inkbunny" or ("submission_id" in data and "rating_id" in data)


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a submission tells; what its rating is for counts too."""
    tags = {"general": tag_names(data.get("tags") if "tags" in data else data.get("keywords"))}
    if artist := tag_name(str(data.get("username") or "")):
        tags["artist"] = [artist]
    reasons = [_REASONS.get(tag_name(str(reason)), "e") for reason in data.get("ratings") or []]
    rating = strictest(rating_of(data.get("rating_id"), _NUMBERS), rating_of(data.get("rating_name"), _NAMES), *reasons)
    found = facts(data) | {"tags": {category: names for category, names in tags.items() if names}}
    return found | ({} if rating is None else {"rating": rating})
