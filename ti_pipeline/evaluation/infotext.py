"""Infotext: the `parameters` text that A1111 writes into pictures and other tools read back.

Prompt (may span lines), `Negative prompt: …` (also if it is empty: ComfyUI imports no text without that line), then
one line of `Key: value` pairs. Values with a comma, colon or line break are quoted as JSON.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from PIL import Image

__all__ = ["infotext", "infotext_with", "parse_infotext", "write_png"]

# The expression that readers use for the last line.
_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_FEWEST_PAIRS = 3
_NEGATIVE = "Negative prompt:"


def infotext(prompt: str, negative: str, settings: Mapping[str, object]) -> str:
    """Return the text of one picture; `settings` in the order in which they should stand."""
    return "\n".join([prompt, f"{_NEGATIVE} {negative}", _pairs(settings)])


def infotext_with(text: str, settings: Mapping[str, object]) -> str:
    """Return an infotext with more settings behind its own; an empty text has none of its own."""
    return f"{text}, {_pairs(settings)}" if text else _pairs(settings)


def _pairs(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {_quoted(str(value))}" for key, value in settings.items())


def _quoted(value: str) -> str:
    # Quotes and outer spaces are quoted too: readers would take them for their own.
    needs_it = value != value.strip() or re.search(r'[,:\n"]', value)
    return json.dumps(value, ensure_ascii=False) if needs_it else value


def _unquoted(value: str) -> str:
    try:
        read = json.loads(value) if value.startswith('"') else value
    except ValueError:  # other programs leave quotes as they are
        return value
    return str(read)


def parse_infotext(text: str) -> dict[str, str]:
    """Return prompt, negative prompt (as `Prompt`, `Negative prompt`) and all settings of an infotext.

    The negative prompt starts at the first line that begins with its mark; a last line of fewer than three pairs is
    part of the prompt, as readers have it.
    """
    *lines, last = text.strip().split("\n")
    pairs = _PAIR.findall(last)
    if len(pairs) < _FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    start = next((index for index, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).removeprefix(_NEGATIVE)
    found = {"Prompt": "\n".join(lines[:start]), "Negative prompt": negative.strip()}
    return found | {key: _unquoted(value) for key, value in pairs}


def write_png(picture: Image.Image, path: Path, chunks: Mapping[str, str]) -> Path:
    """Write a picture with its text chunks, whole or not at all; return its path."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    with write_atomically(path) as aside:
        picture.save(aside, "PNG", pnginfo=info)
    return path
