"""Plots of tags, as PNG bytes: small enough for the UI's event log, legible on a phone.

Not here: computing what is shown (`frequencies`, `vocabulary`, `comparison`).
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from ti_pipeline.studies import CATEGORIES

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.tagging.incidence import Incidence

__all__ = ["comparison_plot", "coverage_plot", "frequency_plot", "vocabulary_plot"]

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


def coverage_plot(uses: Incidence) -> bytes:
    """Return a PNG of lines: the share of pictures with at least 1, 3, 5 and 10 tags as the vocabulary grows."""
    from matplotlib.figure import Figure

    from ti_pipeline.tagging.frequencies import coverage_curve

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for least, colour in ((1, "#3b6ea8"), (3, "#4d9a55"), (5, "#d9822b"), (10, "#9a5aa8")):
        curve = coverage_curve(uses, least) / max(uses.pictures, 1)
        axes.step(range(len(curve)), curve, where="post", color=colour, label=f"{least} or more")
    axes.set(xlabel="tags in the vocabulary, commonest first", ylabel="share of pictures", ylim=(0, 1.02))
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(0, max(len(uses.names), 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="tags of a picture", fontsize=8, title_fontsize=8, frameon=False)
    return _png(figure)


def comparison_plot(table: pd.DataFrame) -> bytes:
    """Return a PNG of bars: what each strategy of `compare_strategies` achieves, a column of bars per measure."""
    from matplotlib.figure import Figure

    shown = table.iloc[::-1]
    places = range(len(shown))
    panels = {
        "tags": "tags",
        "well_covered": "pictures with\n3 tags or more",
        "tags_per_picture": "tags per picture",
        "lowest_share": "rarest tag's\nshare of captions",
    }
    figure = Figure(figsize=(8.4, 1.1 + 0.24 * max(1, len(shown))), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        bars = axes.barh(places, shown[column], color="#3b6ea8")
        form = {"tags": "{:,.0f}", "tags_per_picture": "{:.1f}"}.get(column, "{:.1%}")
        axes.bar_label(bars, [form.format(value) for value in shown[column]], fontsize=7, padding=2)
        axes.set_title(title, fontsize=8)
        axes.set_xticks([])
        axes.margins(x=0.35)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_yticks(places, [_printable(str(name), 40) for name in shown.strategy], fontsize=8, parse_math=False)
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


def _printable(tag: str, most: int = 32) -> str:
    """Escape what a plot cannot show (control and bidirectional marks), and shorten what would not fit."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in tag)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A tag may be written in letters that the font lacks; a box in a plot is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
