"""Infotext: the `parameters` text that A1111 writes into pictures and other tools read back.

Prompt (may span lines), `Negative prompt: …` (left out if empty), then one line of `Key: value` pairs. Values with a
comma, colon or line break are quoted as JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["infotext", "parse_infotext"]

# The expression that readers use for the last line.
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_FEWEST_PAIRS = 3


def infotext(prompt: str, negative: str, settings: Mapping[str, object]) -> str:
    """Return the text of one picture; `settings` in the order in which they should stand."""
    lines = [prompt]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items()))
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r"[,:\n]", value) else value


def parse_infotext(text: str) -> dict[str, str]:
    """Return prompt, negative prompt (as `Prompt`, `Negative prompt`) and all settings of an infotext."""
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    head, marker, negative = "\n".join(lines).partition("Negative prompt: ")
    found = {"Prompt": head.rstrip("\n"), "Negative prompt": negative if marker else ""}
    return found | {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}
