"""What the shapes have in common: tags in any of their usual forms, ratings in words. Not here: any one shape."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BLANKS", "RATINGS", "ShapeError", "facts", "rating_of", "strictest", "tag_name", "tag_names"]

BLANKS = " \t\r\n"  # not str.strip's own choice: the site has a tag that is one control character
# Ratings by any of the words in use; `sensitive` is not safe here. Words that nobody knows count as the strictest.
RATINGS = {"safe": "s", "s": "s", "general": "s", "g": "s"}
RATINGS |= {"questionable": "q", "q": "q", "sensitive": "q", "explicit": "e", "e": "e"}
# Tags of the site have commas, too, but no blanks: a comma between blank-separated tags is part of one.
_DIVIDED = re.compile(r"[,;|](?:[ \t\r\n]|\Z)|[\uff0c\u3001]|\A[^ \t\r\n]+[,;|][^ \t\r\n]+\Z")
_WANTED = {"id": int, "score": dict, "fav_count": int, "sources": list, "flags": dict}


class ShapeError(ValueError):
    """An object's tags are not tags; the message says what they are instead."""


def tag_name(text: str) -> str:
    """Return a tag as the site writes it, so that `Blue Eyes` and `blue_eyes` are counted as one."""
    return re.sub(f"[{BLANKS}]+", "_", text.strip(BLANKS)).lower()


def tag_names(value: object, *, divided: str = "blanks") -> list[str]:
    """Return tags from a list of texts or of objects with names, a mapping of tags to numbers, or one text.

    A text is `divided` by blanks, unless commas with blanks behind them, semicolons or bars divide it. Raises
    `ShapeError` for anything else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        value = re.split(
            r"[,\uff0c\u3001;|]" if divided == "commas" or _DIVIDED.search(value) else r"[ \t\r\n]+", value
        )
    if isinstance(value, dict) and all(isinstance(number, int | float) for number in value.values()):
        value = list(value)
    if not isinstance(value, list):
        raise ShapeError("tags are neither a list of texts nor a text")
    names = [_name(entry) for entry in value]
    return list(dict.fromkeys(name for name in map(tag_name, names) if name))


def _name(entry: object) -> str:
    """Return a list's entry: a text, or the name of an object that says more about a tag."""
    if isinstance(entry, dict):
        entry = next((entry[key] for key in ("name", "tag", "keyword_name", "label") if key in entry), None)
    if not isinstance(entry, str):
        raise ShapeError("tags are neither a list of texts nor a text")
    return entry


def rating_of(word: object, scale: Mapping[str, str] = RATINGS) -> str | None:
    """Return the rating of a site's word for one, on its `scale`, or None without a word; unknown words count as e."""
    return None if word is None or word == "" else scale.get(str(word).strip().lower(), "e")


def strictest(*ratings: str | None) -> str | None:
    """Return the strictest of some ratings; None where none is known."""
    return max((rating for rating in ratings if rating is not None), key="sqe".index, default=None)


def facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an object tells in e621's own fields, as far as it is of their types, and the picture's size."""
    found = {field: data[field] for field, kind in _WANTED.items() if isinstance(data.get(field), kind)}
    if isinstance(data.get("score"), int):
        found["score"] = {"total": data["score"]}
    if _is_time(data.get("created_at")):
        found["created_at"] = data["created_at"]
    own = data.get("file")
    file = own if isinstance(own, dict) else data
    found["file"] = {side: file[side] for side in ("width", "height") if isinstance(file.get(side), int)}
    return found


def _is_time(value: object) -> bool:
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True
