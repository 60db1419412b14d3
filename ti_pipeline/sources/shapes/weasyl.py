"""Weasyl as gallery-dl writes it: the site's own API object.

Source: Weasyl's API description, and gallery-dl's extractor of that name.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, rating_of, tag_name, tag_names

__all__ = ["matches", "read"]

_SCALE = {"general": "s", "moderate": "q", "mature": "q", "explicit": "e"}


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a submission of Weasyl."""
    return data.get("category") == "weasyl" or "submitid" in data


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a submission tells."""
    general = tag_names(data.get("tags"))
    tags = {"general": general} if general else {}
    if artist := tag_name(str(data.get("owner_login") or data.get("owner") or "")):
        tags["artist"] = [artist]
    rating = rating_of(data.get("rating"), _SCALE)
    return facts(data) | {"tags": tags} | ({} if rating is None else {"rating": rating})
