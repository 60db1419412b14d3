"""Plots of tags, as PNG bytes: small enough for the UI's event log, legible on a phone."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frequency_plot", "vocabulary_plot"]

_COLOURS = {
    "general": "#3b6ea8",
    "species": "#d9822b",
    "artist": "#b0a030",
    "character": "#4d9a55",
    "copyright": "#9a5aa8",
    "meta": "#888888",
}


def frequency_plot(frequencies: pd.DataFrame, top: int = 30) -> bytes:
    """Return bars of the commonest tags, coloured by category."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = frequencies.head(top).iloc[::-1]
    figure = Figure(figsize=(6.4, 0.9 + 0.2 * max(1, len(shown))), layout="constrained")
    axes = figure.subplots()
    colours = [_COLOURS.get(str(category), "#555555") for category in shown.category]
    axes.barh(range(len(shown)), shown.share, color=colours)
    axes.set_yticks(range(len(shown)), [_printable(tag) for tag in shown.tag], fontsize=8, parse_math=False)
    axes.set_xlabel("share of pictures")
    axes.set_xlim(0, 1)
    present = [category for category in _COLOURS if category in set(shown.category)]
    if present:
        axes.legend(handles=[Patch(color=_COLOURS[name], label=name) for name in present], fontsize=8)
    return _png(figure)


def vocabulary_plot(vocabulary: pd.DataFrame) -> bytes:
    """Return bars of how many tags of each category were kept and dropped."""
    from matplotlib.figure import Figure

    counts = vocabulary.pivot_table(index="category", columns="kept", values="tag", aggfunc="count", fill_value=0)
    counts = counts.reindex(columns=[True, False], fill_value=0)
    figure = Figure(figsize=(6.4, 0.9 + 0.3 * max(1, len(counts))), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(counts)), counts[True], color="#4d9a55", label="kept")
    axes.barh(range(len(counts)), counts[False], left=counts[True], color="#cccccc", label="dropped")
    axes.set_yticks(range(len(counts)), [str(name) for name in counts.index], fontsize=8)
    axes.set_xlabel("tags")
    axes.legend(fontsize=8)
    return _png(figure)


def _printable(tag: str) -> str:
    """Escape what a plot cannot show (control and bidirectional marks), and shorten what would not fit."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in tag)
    return shown if len(shown) <= 32 else shown[:31] + "…"


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A tag may be written in letters that the font lacks; a box in a plot is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
