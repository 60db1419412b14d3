"""Names made ready to be looked for, as tags and in texts.

Not here: when two spellings are the same name (`spelling`), or which names are refused (`policy`).
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from ti_pipeline.e621.spelling import heads, is_plain, spelling, words

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Names", "names_of"]

_PARTING = re.compile(r"[\s,;|\uff0c\uff1b\uff5c\u3001]+")  # what people put between tags


class Names:
    """A list of names; `*` in one stands for any characters. Use `names_of`, which keeps what it made."""

    def __init__(self, names: frozenset[str]) -> None:
        """Look all names up once."""
        listed = sorted(name for name in names if "*" not in name)
        self._keys = {key: name for name in listed if (key := spelling(name))}
        # Plays of symbols (`:3`) have no words, and are compared as they are.
        self._phrases = {words(name): name for name in listed if is_plain(name)}
        self._by_first_word: dict[str, list[tuple[str, ...]]] = {}
        for parts in map(str.split, self._phrases):
            self._by_first_word.setdefault(parts[0], []).append(tuple(parts))
        wild = sorted(name for name in names if "*" in name)
        self._wild_keys = [re.compile(_wild(name, spelling, ".*")) for name in wild]
        self._wild_words = [
            (re.compile(f"(?<= ){_wild(name, lambda piece: words(piece).strip(), '[^ ]*')}(?= )"), name)
            for name in wild
        ]

    def has(self, tag: str) -> bool:
        """Tell whether a tag is one of the names in any spelling, whatever brackets or numbers stand behind."""
        key, read = spelling(tag), heads(tag)
        return (
            key in self._keys
            or any(head in self._phrases for head in read)
            or any(pattern.fullmatch(key) for pattern in self._wild_keys)
        )

    def said_in(self, text: str) -> str | None:
        """Return the name that comes first in a text, in whole words, or None."""
        said = words(text)
        parts = said.split()
        for start, part in enumerate(parts):
            for phrase in self._by_first_word.get(part, ()):
                if tuple(parts[start : start + len(phrase)]) == phrase:
                    return self._phrases[f" {' '.join(phrase)} "]
        found = next((name for pattern, name in self._wild_words if pattern.search(said)), None)
        pieces = [*text.split(","), *_PARTING.split(text)]
        return found or next((self._keys[key] for piece in pieces if (key := spelling(piece)) in self._keys), None)


@functools.lru_cache(maxsize=64)  # the same for all policies of a study, and most of all in tests
def names_of(names: frozenset[str]) -> Names:
    """Return names ready to be looked for."""
    return Names(names)


def _wild(name: str, written: Callable[[str], str], any_: str) -> str:
    """Return a regular expression for a name with stars, its other parts `written` as what it is compared with."""
    blank = written("a b").removeprefix("a").removesuffix("b")
    pieces = []
    for piece in name.split("*"):
        ends = [blank if re.match(r"[\s_-]", side) else "" for side in (piece[:1], piece[-1:])]
        inner = re.escape(written(piece))
        pieces.append(f"{ends[0]}{inner}{ends[1]}" if inner else ends[0])
    return any_.join(pieces)
