"""When two spellings are the same tag, and when a text says a tag.

Here: comparing names only. Not here: which names are refused (`policy`), or how captions write tags (`tagging`).
"""

from __future__ import annotations

import functools
import re
import unicodedata

__all__ = ["heads", "is_plain", "plurals", "spelling", "words"]

_SEPARATORS = re.compile(r"[\s_\-‐-―]+")  # noqa: RUF001 - the range of Unicode's hyphens and dashes is meant
# What prompts put around words: `\(` for a bracket that is meant, `(tag:1.2)` or `tag:1.2` for how much it counts.
_ESCAPE = re.compile(r"\\+(?=[()\[\]{}<>])")
_WEIGHT = re.compile(r":\s*[+-]?(?:\d+(?=\s*[)\]}>])|\d*\.\d+|\d+\.)")
_NOT_A_WORD = re.compile(r"[\W_]+")
# CLIP parts letters from digits before anything else: `word2` is the tokens of `word` and of `2`.
_LETTER_MEETS_DIGIT = re.compile(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])")
_OUTER_NUMBERS = re.compile(r"^(?: \d+)+(?= )|(?<= )(?:\d+ )+$")
_PLAIN = re.compile(r"[\w\s\-‐-―/'’.,!()]+")  # noqa: RUF001 - typographic dashes and apostrophes are meant
# Characters without ink that Unicode counts as letters or symbols: Hangul fillers and the blank of braille.
_BLANK = "\u115f\u1160\u2800"


def _folded(text: str) -> str:
    """Return text without case, width, accents and invisible characters (NFKD, casefold, no marks or formats)."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in decomposed if not _is_invisible(c))


@functools.lru_cache(maxsize=2**16)
def _is_invisible(char: str) -> bool:
    kind = unicodedata.category(char)
    return kind in {"Mn", "Me", "Cf"} or char in _BLANK or (kind == "Cc" and not char.isspace())


@functools.lru_cache(maxsize=2**16)  # a tag occurs on many posts
def spelling(tag: str) -> str:
    """Return a key that is equal for all spellings of one whole tag: case, width, spaces, dashes, escaped brackets.

    Symbols stay, so that `:3` and `3` are different tags.
    """
    return _SEPARATORS.sub("_", _ESCAPE.sub("", _folded(tag))).strip("_")


def words(text: str) -> str:
    """Return the words of a text as CLIP parts them, folded, one space between and around, without a prompt's weights.

    Letters and digits part (`word2` is two words, as it is two tokens). A phrase is in a text where
    `words(phrase) in words(text)`; whole words only, since both ends are spaces.
    """
    inner = _NOT_A_WORD.sub(" ", _LETTER_MEETS_DIGIT.sub(" ", _WEIGHT.sub(" ", _folded(text)))).strip()
    return f" {inner} " if inner else ""


def plurals(tag: str) -> list[str]:
    """Return the regular plurals of a tag of one plain word, as CLIP would be asked for them; none of other tags."""
    if not re.fullmatch(r"[a-z]{3,}", tag) or tag.endswith("s"):
        return []
    if re.search(r"[^aeiou]y$", tag):
        return [f"{tag[:-1]}ies", f"{tag}s"]
    return [f"{tag}s", f"{tag}es"] if re.search(r"(?:x|z|ch|sh|o)$", tag) else [f"{tag}s"]


def is_plain(tag: str) -> bool:
    """Tell whether a tag is words (with the usual punctuation) and not an emoticon or another play of symbols."""
    return _PLAIN.fullmatch(_folded(tag)) is not None and bool(words(tag))


@functools.lru_cache(maxsize=2**16)
def heads(tag: str) -> tuple[str, ...]:
    """Return the words of a tag, and those before each of its brackets: `young_(lore)` is also `young`.

    Each of them also without numbers at its ends: `word2` and `3_words` are the word.
    """
    folded = _folded(tag)
    parts = [folded, *(folded[: match.start()] for match in re.finditer(r"\(", folded))]
    found = [inner for inner in map(words, parts) if inner]
    return tuple(dict.fromkeys([*found, *(_OUTER_NUMBERS.sub("", inner) for inner in found)]))
