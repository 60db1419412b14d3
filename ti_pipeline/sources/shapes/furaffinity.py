"""FurAffinity as gallery-dl writes it: keywords, and species and gender as the artist chose them from lists.

Source: gallery-dl's extractor of that name (fields, and the three words of the site's ratings).
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, rating_of, tag_name, tag_names

__all__ = ["matches", "read"]

_SCALE = {"general": "s", "mature": "q", "adult": "e"}
_NOT_TOLD = frozenset({"", "unspecified_/_any", "any", "not_specified", "other_/_not_specified", "other"})


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a submission of FurAffinity."""
    return data.get("category") == "furaffinity" or "fa_category" in data


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a submission tells."""
    tags = {"general": tag_names(data.get("tags"))}
    for field, category in (("artist", "artist"), ("species", "species"), ("gender", "general")):
        name = tag_name(str(data.get(field) or ""))
        if name not in _NOT_TOLD:
            tags[category] = list(dict.fromkeys([*tags.get(category, []), name]))
    found = facts(data) | {"tags": {category: names for category, names in tags.items() if names}}
    rating = rating_of(data.get("rating"), _SCALE)
    return found | ({} if rating is None else {"rating": rating})
