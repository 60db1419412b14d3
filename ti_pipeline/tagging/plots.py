"""Plots of tags, as PNG bytes: small enough for the UI's event log, legible on a phone.

Not here: computing what is shown (`frequencies`, `vocabulary`).
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from ti_pipeline.studies import CATEGORIES

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frequency_plot", "vocabulary_plot"]

_COLOURS = {
    "general": "#3b6ea8",
    "artist": "#b8a21c",
    "contributor": "#7a6a4f",
    "copyright": "#9a5aa8",
    "character": "#4d9a55",
    "species": "#d9822b",
    "invalid": "#c0392b",
    "meta": "#888888",
    "lore": "#2aa198",
}


def frequency_plot(frequencies: pd.DataFrame, top: int = 30) -> bytes:
    """Return a PNG of bars: the `top` commonest tags of `tag_frequencies`, coloured by category."""
    from matplotlib.patches import Patch

    shown = frequencies.head(top).iloc[::-1]
    figure, axes = _bars([str(tag) for tag in shown.tag], row_inches=0.2)
    axes.barh(range(len(shown)), shown.share, color=[_COLOURS[category] for category in shown.category])
    axes.set_xlabel("share of pictures")
    axes.set_xlim(0, 1)
    present = [category for category in CATEGORIES if category in set(shown.category)]
    if present:
        figure.legend(
            handles=[Patch(color=_COLOURS[name], label=name) for name in present],
            loc="outside upper center",
            ncols=min(5, len(present)),
            fontsize=8,
            frameon=False,
        )
    return _png(figure)


def vocabulary_plot(vocabulary: pd.DataFrame) -> bytes:
    """Return a PNG of bars: how many tags of each category a plan keeps and drops."""
    kept = vocabulary.category[vocabulary.kept].value_counts()
    every = vocabulary.category.value_counts()
    present = [category for category in reversed(CATEGORIES) if category in every.index]
    figure, axes = _bars(present, row_inches=0.3)
    for place, category in enumerate(present):
        count, total = int(kept.get(category, 0)), int(every[category])
        axes.barh(place, total, color="#dddddd")
        axes.barh(place, count, color=_COLOURS[category])
        axes.annotate(
            f"{count} of {total}", (total, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.margins(x=0.2)
    axes.set_xlabel("tags kept (coloured) of all tags")
    return _png(figure)


def _bars(labels: list[str], *, row_inches: float) -> tuple[Any, Any]:
    """Return a figure with one row per label, the first at the bottom. No pyplot: nothing global is touched."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.1 + row_inches * max(1, len(labels))), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), [_printable(label) for label in labels], fontsize=8, parse_math=False)
    axes.set_ylim(-0.7, max(1, len(labels)) - 0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if not labels:
        axes.text(0.5, 0.5, "no tags", transform=axes.transAxes, ha="center")
    return figure, axes


def _printable(tag: str) -> str:
    """Escape what a plot cannot show (control and bidirectional marks), and shorten what would not fit."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in tag)
    return shown if len(shown) <= 32 else shown[:31] + "…"


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A tag may be written in letters that the font lacks; a box in a plot is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
