"""Text that others wrote (tags, artists, sources, titles), made safe to show on a page, in Markdown and in CSV.

Escaping of HTML is not here: the page's template engine does it for every value.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

__all__ = ["csv_cell", "markdown_text", "visible", "web_address"]

# Controls, bidirectional and zero-width marks, lone surrogates, private and unassigned codes, odd line ends.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]#|!~$])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""Return text with every character that hides or reorders others written as its code, e.g. `\u202e`.

    Line feeds and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _HIDDEN and c not in "\n\t" else c
        for c in text
    )


def web_address(text: str) -> str | None:
    """Return text if it is a plain http(s) address that a page may link to, else None."""
    if not text.isascii() or any(c in text for c in " \t\r\n\"'<>\\`") or not text.isprintable():
        return None
    try:
        parts = urlsplit(text)
        return text if parts.scheme in {"http", "https"} and parts.hostname else None
    except ValueError:  # e.g. half an IPv6 address: text, but no address
        return None


def markdown_text(text: str) -> str:
    """Return text as one line of Markdown that shows exactly these characters: no markup, no HTML."""
    line = " ".join(visible(text).split())
    escaped = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An entity has no escape of its own left to make: the characters below do not occur in the three above.
    return _MARKDOWN.sub(r"\\\1", escaped)


def csv_cell(text: str) -> str:
    """Return text for a CSV cell; a start that spreadsheets would run as a formula gets an apostrophe before it."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
