"""How one tag is written: as a piece of a caption, and in files that web UIs read.

A caption's pieces stand between its commas. Different tags are different pieces (`reduction.same_words` sees to it),
and nothing in a piece means anything else to the tokenizer, a template or a caption's reader.
Not here: which tags a caption says (`per_picture`), or captions themselves (`captions`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ti_pipeline.studies import CaptionPlan

__all__ = ["for_web_uis", "piece", "readable"]

_PLACEHOLDERS = re.compile(r"\[+(name|filewords)\]+")
# CLIP's marks of a text's ends: as text they would be taken for the ends themselves.
_ENDS = re.compile(r"<\|((?:start|end)oftext)\|>", re.IGNORECASE)
# Control characters and separators of lines part words; marks without width (direction of writing, byte order, break
# hints) do not. Neither is text to learn from, and in logs and file names they do harm. Joiners stay: emoji need them.
_PARTING = re.compile(r"[,\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WIDTHLESS = re.compile(r"[\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_WORD = re.compile(r"[^\W_]{2}")
# Brackets around a word; those of `:(` and `(o)_(o)` are the tag itself.
_AROUND_WORDS = re.compile(r"\(([^()]*[^\W_]{2}[^()]*)\)")
_BRACKETS = re.compile(r"[()\[\]]")


def readable(tag: str) -> str:
    """Return a tag as one piece of a caption, underscores kept; empty if there is nothing to read in it.

    A comma would read as two tags: it becomes a space, as do control characters; marks without width go. The brackets
    of [name] and [filewords] go too, because templates would fill them in, and so do those of CLIP's marks of ends.
    """
    text = " ".join(_PARTING.sub(" ", _WIDTHLESS.sub("", tag)).split())
    while (bare := _ENDS.sub(r"\1", _PLACEHOLDERS.sub(r"\1", text))) != text:
        text = bare
    return text if text.strip("_ ") else ""


def piece(tag: str, plan: CaptionPlan) -> str:
    """Return a tag as captions of the plan say it.

    Underscores part words, so those of emoticons (`^_^`, `o_o`: tags without two letters in a row) stay as they are.
    """
    text = readable(tag)
    if plan.underscores == "spaces" and _WORD.search(text):
        text = " ".join(text.replace("_", " ").split())
    while plan.parentheses == "stripped" and (bare := _AROUND_WORDS.sub(r"\1", text)) != text:
        text = " ".join(bare.split())
    return text


def for_web_uis(text: str) -> str:
    r"""Return a caption with its brackets escaped (`\(`), for prompts in which plain ones are weights."""
    return _BRACKETS.sub(r"\\\g<0>", text)
