"""Which plots, contact sheets and grids the report shows, with the words that say what is on them.

Here: calling the drawing functions of the other packages. Not here: encoding for the page (`pictures`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.publishing.pictures import PICTURE_BYTES, Picture, picture, shrunk

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = [
    "axis_plots",
    "compared_plot",
    "coverage_curves",
    "crop_sheets",
    "grids",
    "loss_curves",
    "norm_curves",
    "score_by_step",
    "tag_plots",
    "training_sheet",
]

_CROPS_SHOWN = 32
_MOST_GRIDS = 400


def axis_plots(results: StudyResults) -> dict[str, Picture]:
    """Return, per axis of the leaderboard, the checkpoints with their scores and intervals."""
    from ti_pipeline.evaluation.statistics import leaderboard_plot

    board = results.leaderboard
    plots = {}
    for axis in dict.fromkeys(map(str, board.axis)):
        first = board[(board.axis == axis) & (board["rank"] == 1)].iloc[0]
        alt = f"{axis}: scores of checkpoints with 95 % intervals; {first.checkpoint} leads with {first.score:.3f}"
        plots[axis] = picture(leaderboard_plot(board, axis), alt)
    return plots


def score_by_step(results: StudyResults) -> Picture | None:
    """Return overall score against optimizer updates, a line per variant; None when nothing was measured."""
    from ti_pipeline.evaluation.statistics import steps_plot

    if results.leaderboard.empty:
        return None
    variants = ", ".join(dict.fromkeys(map(str, results.leaderboard.variant[results.leaderboard.candidate])))
    return picture(steps_plot(results.leaderboard), f"overall score against updates, one line per variant: {variants}")


def loss_curves(results: StudyResults) -> Picture | None:
    """Return every trained variant's running mean loss; None when none is trained."""
    from ti_pipeline.inversion.losses import loss_plot

    if not results.losses:
        return None
    return picture(loss_plot(results.losses), f"running mean loss against updates: {', '.join(results.losses)}")


def norm_curves(results: StudyResults) -> Picture | None:
    """Return every trained variant's mean vector norm; None when none is trained."""
    from ti_pipeline.inversion.losses import norm_plot

    if not results.losses:
        return None
    return picture(norm_plot(results.losses), f"mean norm of the vectors against updates: {', '.join(results.losses)}")


def tag_plots(results: StudyResults) -> tuple[Picture | None, dict[str, Picture]]:
    """Return the commonest tags, and per caption plan what was kept of each category."""
    from ti_pipeline.tagging.plots import frequency_plot, vocabulary_plot

    frequencies = results.tag_frequencies
    commonest = None
    if len(frequencies):
        first = frequencies.iloc[0]
        alt = f"shares of the commonest tags; first {first.tag} on {first.share:.0%} of the pictures"
        commonest = picture(frequency_plot(frequencies), alt)
    plans = {}
    for name, vocabulary in results.vocabularies.items():
        if len(vocabulary):
            alt = f"plan {name}: {int(vocabulary.kept.sum())} tags kept of {len(vocabulary)}, by category"
            plans[name] = picture(vocabulary_plot(vocabulary), alt)
    return commonest, plans


def coverage_curves(results: StudyResults) -> Picture | None:
    """Return how many pictures have enough tags as the vocabulary grows; None without a tag."""
    from ti_pipeline.tagging.frequencies import pictures_counted
    from ti_pipeline.tagging.incidence import incidence_of
    from ti_pipeline.tagging.plots import coverage_plot

    frequencies = results.tag_frequencies
    if frequencies.empty:
        return None
    uses = incidence_of(results.post_tags, frequencies.tag.tolist(), pictures_counted(frequencies))
    return picture(coverage_plot(uses), "share of pictures with at least 1, 3, 5 and 10 tags, by vocabulary size")


def compared_plot(compared: pd.DataFrame) -> Picture | None:
    """Return what each plan's vocabulary achieves as bars; None where there are no plans."""
    from ti_pipeline.tagging.plots import comparison_plot

    if compared.empty:
        return None
    return picture(comparison_plot(compared), f"what the plans achieve: {', '.join(compared.strategy)}")


def training_sheet(results: StudyResults) -> Picture:
    """Return a contact sheet of kept and left-out pictures of every curation."""
    from ti_pipeline.imaging.contact_sheet import kept_and_rejected_sheet

    data = kept_and_rejected_sheet(results.training_set, results.root)
    return picture(data, "a sample of the pictures that were kept, and of those left out with their reasons")


def crop_sheets(results: StudyResults) -> dict[str, Picture]:
    """Return, per crop set that any variant trains on, an even sample of its crops."""
    from ti_pipeline.imaging.contact_sheet import contact_sheet

    used = {crop for name in results.study.variants for crop in results.study.crops_of(name)}
    sheets = {}
    for name, crops in results.crops.items():
        good = crops[(crops.status == "ok") & crops.path.notna()]
        if name not in used or good.empty:
            continue
        shown = good.iloc[:: -(-len(good) // _CROPS_SHOWN)]
        data = contact_sheet([results.root / path for path in shown.path])
        sheets[name] = picture(data, f"{len(shown)} of {len(good)} crops of the set {name}")
    return sheets


def grids(results: StudyResults, *, spent: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the grids by axis, comparisons of variants first, and a sentence for each that cannot be shown.

    `spent` is how many bytes the page's other pictures take; the grids share what is left.
    """
    table = results.evaluation_grids
    table = table.assign(order=table.variant != "best").sort_values("order", kind="stable")
    there = table[table.path.map(lambda path: (results.root / path).is_file()).astype(bool)]
    lost = [f"the grid {path} is gone: run the job compare again" for path in sorted(set(table.path) - set(there.path))]
    if len(there) > _MOST_GRIDS:
        lost.append(f"{len(there) - _MOST_GRIDS} of {len(there)} grids are not on this page; all lie with their tables")
        there = there.head(_MOST_GRIDS)
    if there.empty:
        return [], lost
    room = max(1_000_000, PICTURE_BYTES - spent)
    encoded = dict(zip(there.path, shrunk([results.root / path for path in there.path], at_most=room), strict=True))
    axes: dict[str, list[dict[str, Any]]] = {}
    for row in there.itertuples():
        entry = {"row": row, "picture": picture(encoded[row.path], _words(row)), "title": _title(row)}
        axes.setdefault(str(row.axis), []).append(entry)
    return [{"axis": axis, "grids": entries} for axis, entries in axes.items()], lost


def _title(row: Any) -> str:
    who = "last checkpoints against each other" if row.variant == "best" else f"checkpoints of {row.variant}"
    return f"{who}: {row.fixed.removeprefix(row.axis).strip(' ·')}"


def _words(row: Any) -> str:
    return f"grid of {row.axis}, {row.y} ({row.rows}) by {row.x} ({row.columns}): {_title(row)}"


def pictures_in(*parts: Any) -> list[Picture]:
    """Return every picture in nested lists, tuples and dictionaries."""
    found: list[Picture] = []
    for part in parts:
        if isinstance(part, Picture):
            found.append(part)
        elif isinstance(part, dict):
            found += pictures_in(*part.values())
        elif isinstance(part, list | tuple):
            found += pictures_in(*part)
    return found
