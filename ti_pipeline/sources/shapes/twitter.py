"""Twitter as gallery-dl writes it: what was written is the caption, its hashtags the tags.

Source: gallery-dl's extractor of that name. A tweet that is marked sensitive counts as explicit; one that is not is not
vouched for by anybody, so it has no rating: the study may assume one.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, tag_name, tag_names

__all__ = ["matches", "read"]


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a tweet."""
    return data.get("category") == "twitter" or "tweet_id" in data


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a tweet tells."""
    general = tag_names(data.get("hashtags"))
    tags = {"general": general} if general else {}
    author = data.get("author") if isinstance(data.get("author"), dict) else data.get("user")
    if isinstance(author, dict) and (artist := tag_name(str(author.get("name") or ""))):
        tags["artist"] = [artist]
    found = facts(data) | {"tags": tags}
    sensitive = data.get("sensitive") or data.get("possibly_sensitive") or data.get("sensitive_flags")
    text = data.get("content")
    captions = {"captions": [text.strip()]} if isinstance(text, str) and text.strip() else {}
    return found | captions | ({"rating": "e"} if sensitive else {})
