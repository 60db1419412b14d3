"""The report: one self-contained HTML page per study, everything a person decides from.

Here: putting the sections into the page, its escaping and its security policy. Not here: what the sections say
(`verdict`, `sections`, `figures`, `attribution`).

The page has no clock, makes no request (its content security policy forbids any) and needs no script.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.decision import in_words, rule_of
from ti_pipeline.evaluation.people import groups_that_met
from ti_pipeline.evaluation.references import HELD_OUT
from ti_pipeline.evaluation.runs import TRAINED_ON
from ti_pipeline.files import write_atomically
from ti_pipeline.publishing import attribution, figures, first_screen, sections
from ti_pipeline.publishing.pairs import contenders, pairwise
from ti_pipeline.publishing.pictures import PICTURE_BYTES
from ti_pipeline.publishing.strips import strip_groups
from ti_pipeline.publishing.untrusted import visible, web_address
from ti_pipeline.publishing.verdict import (
    OVERALL,
    beside,
    boards,
    measures,
    mismatches,
    mismatches_by_value,
    peoples_agreements,
    peoples_standings,
    place_of,
    verdict,
)
from ti_pipeline.tagging.tokens import CLIP_TOKENIZER

if TYPE_CHECKING:
    from pathlib import Path

    import jinja2

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.publishing.pairs import Meeting
    from ti_pipeline.publishing.verdict import Standing, Verdict
    from ti_pipeline.tagging.advice import Advice

__all__ = ["render_report", "write_report"]

_MOST_PICTURES_LISTED = 1000


def write_report(results: StudyResults, path: Path) -> None:
    """Write the page, UTF-8, atomically. The same results give the same bytes."""
    page = render_report(results)
    with write_atomically(path) as aside:
        aside.write_bytes(page.encode("utf-8"))


def render_report(results: StudyResults) -> str:
    """Return the page as HTML."""
    templates = files("ti_pipeline.publishing") / "templates"
    style, script = ((templates / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js.j2"))
    page = _environment().from_string((templates / "report.html.j2").read_text(encoding="utf-8"))
    return str(page.render(_context(results) | _inline(style, script)))


def _environment() -> jinja2.Environment:
    """Return a template engine that escapes every value, and shows what hides in it."""
    import jinja2
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        if value is None:
            return "–"
        return value if isinstance(value, Markup) else visible(str(value))

    environment = jinja2.Environment(
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["web_address"] = lambda text: web_address(str(text))
    return environment


def _inline(style: str, script: str) -> dict[str, Any]:
    """Return our own style and script, unescaped, with a policy that lets exactly these in and nothing out."""
    from markupsafe import Markup

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    policy = (
        f"default-src 'none'; img-src data:; style-src {allowed(style)}; script-src {allowed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}  # noqa: S704 - our own files


def _context(results: StudyResults) -> dict[str, Any]:
    """Return everything the template shows."""
    study = results.study
    commonest_tags, plan_plots = figures.tag_plots(results)
    compared = sections.compared_plans(results, CLIP_TOKENIZER)
    plots: dict[str, Any] = {
        "compared_plot": figures.compared_plot(compared),
        "axis_plots": figures.axis_plots(results),
        "score_by_step": figures.score_by_step(results),
        "loss_curves": figures.loss_curves(results),
        "norm_curves": figures.norm_curves(results),
        "commonest_tags": commonest_tags,
        "plan_plots": plan_plots,
        "coverage_curves": figures.coverage_curves(results),
        "training_sheet": figures.training_sheet(results),
        "crop_sheets": figures.crop_sheets(results),
    }
    spent = sum(len(one.data) for one in figures.pictures_in(plots))
    strips, too_many = strip_groups(results, at_most=(PICTURE_BYTES - spent) // 3)
    spent += sum(len(strip.data) for group in strips for strip in group.strips.values())
    grids, lost = figures.grids(results, spent=spent)
    board, decided = boards(results), verdict(results)
    meetings = pairwise(results, contenders(board.get(OVERALL, [])))
    advice = sections.vector_advice(results, CLIP_TOKENIZER)
    curations = sections.curation_facts(results)
    return plots | {
        "study": study,
        "results": results,
        "overall": OVERALL,
        "verdict": decided,
        "boards": board,
        "beside": {axis: beside(results, axis) for axis in board},
        "rule": in_words(rule_of(study)["prefer"]),
        "intervals": {axis: _intervals(rows) for axis, rows in board.items()},
        "meetings": meetings,
        **_first_screen(results, decided, meetings),
        "strips": strips,
        "checkpoints": list(dict.fromkeys(row.checkpoint for row in board.get(OVERALL, []))),
        "mismatches": _by_axis(results),
        "value_mismatches": mismatches_by_value(results),
        "measures": measures(results),
        "people": peoples_standings(results),
        "agreements": peoples_agreements(results),
        "groups": groups_that_met(results.votes),
        "raters": sorted(set(results.votes.rater)),
        "scorer": place_of(study.evaluation.scorer),
        "grids": grids,
        "stages": sections.stages(results),
        "curations": curations,
        "pixels_and_tags": sections.pixels_and_tags(results),
        "plans": sections.plan_facts(results),
        "advice": advice,
        "compared_plans": list(compared.itertuples()),
        "top_pairs": list(results.tag_pairs.head(20).itertuples()),
        "losses": sections.loss_facts(results),
        "recipe": sections.recipe(results),
        "commands": sections.commands(results),
        "warnings": [*results.warnings, *lost, *too_many, *_own_warnings(results, advice, curations)],
        **_attribution(results),
    }


def _first_screen(results: StudyResults, decided: Verdict | None, meetings: list[Meeting]) -> dict[str, Any]:
    """Return what the template's first screen shows beside the verdict."""
    shown: dict[str, Any] = {
        "compared_pictures": [],
        "own_pictures": None,
        "points": [],
        "gains": [],
        "first_scores": [],
    }
    shown |= {"undecided": [], "uncounted": [], "stand_in": False, "likeness_judge": None}
    shown |= {"field": first_screen.FIELD, "ticks": first_screen.ticks()}
    if decided is None:
        return shown
    board, suite = results.leaderboard, results.study.evaluation
    axes = board[board.axis.isin(decided.axes)]
    apart = axes[axes.candidate & (axes.p < 1) & ~axes.tied & (axes["rank"] > 1)]
    own = results.reference_scores[results.reference_scores.checkpoint == HELD_OUT]
    of_first = board[board.checkpoint == decided.first.checkpoint].set_index("axis")
    return shown | {
        "compared_pictures": first_screen.before_and_after(results, decided.first.checkpoint),
        "own_pictures": first_screen.own_pictures(results, decided.first.variant),
        "points": first_screen.points(results),
        "gains": first_screen.gains(results, decided, meetings),
        "first_scores": [(name, of_first.loc[name]) for name in ("obedience", "likeness") if name in of_first.index],
        "undecided": [axis for axis in decided.axes if axis not in set(apart.axis)] if decided.compared > 1 else [],
        "uncounted": sorted(set(axes.axis[~axes.counted])),
        "stand_in": bool((own.value == TRAINED_ON).any()),
        "likeness_judge": place_of(suite.likeness) if suite.likeness else None,
    }


def _by_axis(results: StudyResults) -> dict[str, list[Any]]:
    axes: dict[str, list[Any]] = {}
    for row in mismatches(results):
        axes.setdefault(row.axis, []).append(row)
    return axes


def _intervals(rows: list[Standing]) -> list[tuple[float, float, float]]:
    """Return low, score and high of each row in percent of the width that all of them together span."""
    least, most = min(row.low for row in rows), max(row.high for row in rows)

    def place(score: float) -> float:
        return 2 + 96 * (score - least) / ((most - least) or 1.0)

    return [(place(row.low), place(row.score), place(row.high)) for row in rows]


def _own_warnings(results: StudyResults, advice: list[Advice] | None, curations: list[dict[str, Any]]) -> list[str]:
    """Return what the tables themselves give reason to warn of."""
    found = [f"{row.variant}: {words}" for row in advice or [] for words in row.warnings]
    found += [
        f"curation {curation['name']}: the share of {share['name']} is {share['reached']:.1%}, "
        f"wanted {share['target']:.1%}"
        for curation in curations
        for share in curation["shares"]
        if share["off"]
    ]
    incomplete = results.evaluation_grids[results.evaluation_grids.missing > 0]
    found += [f"{row.grid}: {row.missing} pictures are missing" for row in incomplete.itertuples()]
    found += [
        f"{row.checkpoint}: {row.copies} of its pictures look like copies of pictures that were trained on"
        for row in measures(results)
        if row.copies
    ]
    failed = int((results.images.status == "failed").sum())
    return [*found, f"{failed} pictures could not be fetched"] if failed else found


def _attribution(results: StudyResults) -> dict[str, Any]:
    curations = attribution.curations_of(results.study, results.study.variants)
    table = attribution.attribution_table(results.provenance, results.training_set, curations)
    return {
        "artists": attribution.artists_counted(table),
        "attribution": list(table.head(_MOST_PICTURES_LISTED).itertuples()),
        "attribution_total": len(table),
    }
