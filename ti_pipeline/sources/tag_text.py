"""Text sidecars: tags and captions as people write them into `.txt`, `.caption` and `.tags`, told apart by content.

One tag a line (hydrus, `species:wolf`), tags divided by commas of any script (kohya), semicolons, bars or blanks, and
sentences, one a line; file names tell nothing. What stands in a file is its caption as it stands, whatever else is read
from it. Not here: JSON (`shapes`), which file belongs to which picture (`sidecars`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES
from ti_pipeline.sources.shapes.fields import BLANKS, rating_of, strictest, tag_name

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["read_text"]

_NAMESPACES = {name: name for name in CATEGORY_NAMES} | {"creator": "artist", "series": "copyright"}
_COMMAS = re.compile(r"[,\uff0c\u3001]")
_RARER = re.compile(
    r"[;|\uff1b\uff5c]"
)  # also parts of emoticons, so that they divide only where words are on both sides
_WORD = re.compile(r"\w")
_END = re.compile(r"[.!?\u3002]['\")]*$")
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|with|wearing|while|\w{3,}ing)\b", re.IGNORECASE)
_START = re.compile(r"(?:an?|this|these|there|it|he|she|they)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(?:an?|the|is|are)\b", re.IGNORECASE)
_SMALL = re.compile(r"\b(?:of|in|on|at|with|and|to|by|from|for|up|over|under)\b", re.IGNORECASE)
_WEIGHTED = re.compile(r"^[(\[{]+([^()\[\]{}]+?):\s*[\d.]+[)\]}]+$")
_ESCAPED = re.compile(r"\\([()\[\]])")


def read_text(text: str) -> dict[str, Any]:
    """Return what a text sidecar tells of a record: `tags` by category, `captions`, and `rating` if it is said."""
    lines = [line for line in (line.strip(BLANKS) for line in text.split("\n")) if line]
    one_a_line = len(lines) > 1 and not any(_divided(line) or _is_sentence(line) for line in lines)
    tags: dict[str, list[str]] = {}
    ratings: list[str | None] = []
    for line in lines:
        for name in _names(_tag_pieces(line, one_a_line)):
            space, colon, rest = name.partition(":")
            rest = rest.strip("_")
            if colon and rest and space == "rating":
                ratings.append(rating_of(rest))
            elif colon and rest and space in _NAMESPACES:
                tags.setdefault(_NAMESPACES[space], []).append(rest)
            else:
                tags.setdefault("general", []).append(name)
    rating = strictest(*ratings)
    found: dict[str, Any] = {"tags": tags, "captions": [", ".join(lines)] if one_a_line else lines}
    return found if rating is None else found | {"rating": rating}


def _names(pieces: Iterable[str]) -> list[str]:
    """Return tags in the site's spelling; brackets that are escaped, or that weigh a tag, go."""
    plain = [_WEIGHTED.sub(r"\1", piece.strip(BLANKS)) for piece in pieces]
    return [name for name in (tag_name(_ESCAPED.sub(r"\1", piece)) for piece in plain) if name]


def _divided(line: str) -> list[str]:
    """Return the pieces of a line that has something between its tags; nothing of one that has not."""
    if _COMMAS.search(line):
        return _COMMAS.split(line)
    pieces = _RARER.split(line)
    return pieces if len(pieces) > 1 and all(_WORD.search(piece) for piece in pieces if piece.strip(BLANKS)) else []


def _tag_pieces(line: str, one_a_line: bool) -> list[str]:
    """Return what of a line is tags: nothing of a sentence, all of other lines."""
    pieces, words = _divided(line), line.split()
    if pieces:
        sentences = sum(len(piece.split()) for piece in pieces if _is_sentence(piece))
        whole = _END.search(line) is not None and len(words) > len(pieces) * 2
        return [] if whole or 2 * sentences >= len(words) else pieces
    if _is_sentence(line):
        return []
    underscored, spaced = (sum(sign in word.strip(sign) for word in words) for sign in "_:")
    written_apart = len(words) > 1 and (underscored > 0 or spaced > 1)
    if not written_apart and not one_a_line and len(words) > 3 and _ARTICLE.search(line):
        return []  # a short sentence, as `photo of a wolf`
    # One line of plain words is a list of tags where it is longer than most tags are, and nothing holds it together.
    return words if written_apart or (len(words) > 2 and not one_a_line and not _SMALL.search(line)) else [line]


def _is_sentence(text: str) -> bool:
    """Tell whether a piece between commas, or a line without any, is a sentence rather than a tag."""
    count = len(text.split())
    starts = _START.match(text.strip()) is not None
    if _END.search(text.strip()) and (count > 3 or (count > 1 and starts)):
        return True
    return count > 4 and (starts or _VERB.search(text) is not None)
