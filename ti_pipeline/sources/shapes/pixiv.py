"""Pixiv as gallery-dl writes it: tags in any language, and what is only for adults as a number.

Source: gallery-dl's extractor of that name: `x_restrict` 0 all ages, 1 R-18, 2 R-18G; `sanity_level` 2 to 6, where 4
and more is not for everybody; `rating` General, R-18, R-18G.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, rating_of, strictest, tag_name, tag_names

__all__ = ["matches", "read"]

_RESTRICTED = {"0": "s", "1": "e", "2": "e"}
_LEVELS = {"0": "s", "2": "s", "4": "q", "6": "e"}
_SCALE = {"general": "s", "all-ages": "s", "r-18": "e", "r-18g": "e"}


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a work of Pixiv."""
    return data.get("category") == "pixiv" or "x_restrict" in data


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a work tells: its tags, and their translations where they were asked for."""
    general = [*tag_names(data.get("tags")), *tag_names(data.get("translated_tags"))]
    tags = {"general": list(dict.fromkeys(general))} if general else {}
    user = data.get("user")
    account = str(user.get("account") or user.get("name") or "") if isinstance(user, dict) else ""
    if artist := tag_name(account):
        tags["artist"] = [artist]
    rating = strictest(
        rating_of(data.get("x_restrict"), _RESTRICTED),
        rating_of(data.get("sanity_level"), _LEVELS),
        rating_of(data.get("rating"), _SCALE),
    )
    found = facts(data) | {"tags": tags}
    return found | ({} if rating is None else {"rating": rating})
