"""Objects of no known site: e621's own, and what is named as there. Not here: shapes that mean something else by it."""

from __future__ import annotations

from typing import Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES
from ti_pipeline.sources.shapes.fields import facts, rating_of, tag_names

__all__ = ["read"]

_CAPTIONS = ("caption", "captions", "text", "prompt")
_TAGS = ("tags", "tag_string", "keywords")


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what an object tells: tags by category, or flat with `tags_<category>` fields beside them."""
    found = facts(data) | {"tags": _by_category(data)}
    if (rating := rating_of(data.get("rating"))) is not None:
        found["rating"] = rating
    locked = data.get("locked_tags")
    if isinstance(locked, list | str):
        found["locked_tags"] = locked.split() if isinstance(locked, str) else locked
    captions = [data[name] for name in _CAPTIONS if isinstance(data.get(name), str)]
    captions += [
        text for text in data.get("captions") or [] if isinstance(text, str) and isinstance(data["captions"], list)
    ]
    return found | ({"captions": captions} if captions else {})


def _by_category(data: dict[str, Any]) -> dict[str, list[str]]:
    tags = next((data[name] for name in _TAGS if data.get(name) is not None), None)
    if isinstance(tags, dict) and not all(isinstance(number, int | float) for number in tags.values()):
        return {str(category): tag_names(names) for category, names in tags.items()}
    known: dict[str, list[str]] = {name: [] for name in CATEGORY_NAMES}
    for field, value in data.items():
        for start in ("tags_", "tag_string_"):
            if field.startswith(start) and isinstance(value, list | str):
                known.setdefault(field.removeprefix(start), []).extend(tag_names(value))
    placed = {tag for names in known.values() for tag in names}
    known["general"] += [tag for tag in tag_names(tags) if tag not in placed]
    return {category: names for category, names in known.items() if names}
