"""The report: one self-contained page with everything a person decides from.

Pictures are inside the page, nothing is requested from anywhere, and nothing in it depends on the clock. The page
itself is `templates/report.html.j2`; here is what fills it.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import write_atomically
from ti_pipeline.publishing.attribution import attribution_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["write_report"]

_GRID_WIDTH = 1400
_MOST_GRIDS = 60


def write_report(results: StudyResults, path: Path) -> None:
    """Write the page of a study."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ti_pipeline.publishing"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        study=results.study,
        warnings=[*results.warnings, *_cut_warnings(results)],
        study_text=results.study_text,
        versions=results.versions,
        **_decision(results),
        **_training(results),
        **_data(results),
        grids=_grids(results),
        commands=_commands(results),
    )
    with write_atomically(path) as aside:
        aside.write_text(page, encoding="utf-8")


def _decision(results: StudyResults) -> dict[str, Any]:
    """Return the leaderboard's side: the best, how sure, per axis, and the plots."""
    from ti_pipeline.evaluation.statistics import leaderboard_plot, steps_plot

    board = results.leaderboard
    overall = board[board.axis == "overall"].sort_values("rank")
    best = overall.iloc[0]
    axes = [str(axis) for axis in board.axis.unique() if axis != "overall"]
    columns = list(overall.checkpoint)
    by_place = {(str(row.axis), str(row.checkpoint)): row for row in board.itertuples()}
    return {
        "best": best,
        "tied": [str(name) for name in overall.checkpoint[overall.tied] if name != best.checkpoint],
        "axes": axes,
        "checkpoints": columns,
        "scores": by_place,
        "pictures": int(best.pictures),
        "scorer": results.study.evaluation.scorer.folder or results.study.evaluation.scorer.hub,
        "ranking_plot": _data_uri(leaderboard_plot(board)),
        "steps_plot": _data_uri(steps_plot(board)),
        "verdicts": _verdicts(board),
    }


def _verdicts(board: pd.DataFrame) -> list[dict[str, str]]:
    """Return the log's table: input, contender 1, contender 2, conclusion, for the two best of each axis."""
    rows = []
    for axis, of_axis in board.groupby("axis", sort=False):
        first, *rest = of_axis.sort_values("rank").itertuples()
        if not rest:
            continue
        second = rest[0]
        sure = "the same" if first.score == second.score else "leads"
        reaches = " (within its interval)" if second.high >= first.score and sure == "leads" else ""
        rows.append(
            {
                "input": str(axis),
                "first": f"{first.checkpoint} {first.score:.3f}",
                "second": f"{second.checkpoint} {second.score:.3f}",
                "conclusion": "the same" if sure == "the same" else f"{first.checkpoint} leads{reaches}",
            }
        )
    return rows


def _training(results: StudyResults) -> dict[str, Any]:
    from ti_pipeline.inversion.losses import loss_plot, loss_summary

    variants = []
    for name in results.study.variants:
        entry: dict[str, Any] = {"name": name, "settings": results.study.variant(name), "trained": False}
        if name in results.embeddings and name in results.losses:
            table = results.embeddings[name]
            entry |= {
                "trained": True,
                "losses": loss_summary(results.losses[name]),
                "checkpoints": list(table.itertuples()),
            }
        variants.append(entry)
    plot = _data_uri(loss_plot(results.losses)) if results.losses else None
    return {"variants": variants, "loss_plot": plot}


def _data(results: StudyResults) -> dict[str, Any]:
    """Return what was trained on: counts with reasons, shares against targets, tags, attribution."""
    from ti_pipeline.imaging.contact_sheet import contact_sheet
    from ti_pipeline.tagging.plots import frequency_plot

    curations = []
    for name, curation in results.study.named_curations().items():
        rows = results.training_set[results.training_set.curation == name]
        kept = rows[rows.kept]
        shares = [
            {
                "name": share,
                "reached": float(kept[share].mean()) if len(kept) else 0.0,
                "target": getattr(curation.shares, share),
            }
            for share in ("solo", "simple_background", "text")
        ]
        left_out = {str(k): int(v) for k, v in rows.loc[~rows.kept, "reason"].value_counts().items()}
        splits = {str(k): int(v) for k, v in kept.split.value_counts().items()}
        curations.append({"name": name, "kept": len(kept), "splits": splits, "shares": shares, "left_out": left_out})
    sheets = {
        name: _data_uri(contact_sheet([results.root / p for p in table.path[table.status == "ok"].head(40)]))
        for name, table in results.crops.items()
    }
    dropped = results.posts[results.posts.status == "dropped"].reason.value_counts()
    site = "https://e621.net" if results.study.source.kind == "e621" else None
    return {
        "curations": curations,
        "posts_kept": int((results.posts.status == "kept").sum()),
        "posts_dropped": {str(k): int(v) for k, v in dropped.items()},
        "sheets": sheets,
        "tag_plot": _data_uri(frequency_plot(results.tag_frequencies)),
        "plans": [_plan(results, name) for name in results.vocabularies],
        "attribution": list(attribution_table(results.posts, results.training_set, site=site).itertuples()),
    }


def _plan(results: StudyResults, name: str) -> dict[str, Any]:
    vocabulary = results.vocabularies[name]
    kept = vocabulary[vocabulary.kept]
    captions = results.captions.get(name)
    return {
        "name": name,
        "kept": {str(k): int(v) for k, v in kept.category.value_counts().items()},
        "dropped": int((~vocabulary.kept).sum()),
        "top": [(str(row.tag), float(row.share)) for row in kept.head(40).itertuples()],
        "tags_per_caption": float(captions.tag_count.mean()) if captions is not None and len(captions) else 0.0,
        "examples": [] if captions is None else [str(c) for c in captions.caption.head(5)],
    }


def _cut_warnings(results: StudyResults) -> list[str]:
    """Return a sentence per variant whose vectors leave few tokens for its captions."""
    from ti_pipeline.tagging.captions import token_budget

    return [
        f"{name}: {variant.vectors} vectors leave {token_budget(variant.vectors)} tokens of 75 for the rest of a prompt"
        for name, variant in results.study.variants.items()
        if token_budget(variant.vectors) < 20
    ]


def _grids(results: StudyResults) -> list[dict[str, Any]]:
    """Return the grids as pictures, the comparisons of variants first."""
    table = results.evaluation_grids
    ordered = table.assign(first=table.variant != "best").sort_values(["first", "grid"], kind="stable")
    return [
        {
            "title": f"{row.variant}: {row.axis}, seed {row.seed}, {row.sampler}, {row.size} px",
            "alt": f"grid of {row.rows} checkpoints by {row.columns} values of {row.axis}",
            "variant": str(row.variant),
            "uri": _picture_uri(results.root / str(row.path)),
        }
        for row in ordered.head(_MOST_GRIDS).itertuples()
    ]


def _commands(results: StudyResults) -> list[str]:
    study, variants = results.study.name, list(results.study.variants)
    run = "dagster job execute -m ti_pipeline.definitions -j"
    span = (
        f'\'{{"dagster/asset_partition_range_start": "{study}__{variants[0]}",'
        f' "dagster/asset_partition_range_end": "{study}__{variants[-1]}"}}\''
    )
    of_study = f'\'{{"dagster/partition": "{study}"}}\''
    return [
        f"{run} prepare --tags {of_study}",
        f"{run} train --tags {span}",
        f"{run} evaluate --tags {span}",
        f"{run} compare --tags {of_study}",
    ]


def _picture_uri(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_GRID_WIDTH, _GRID_WIDTH * 3), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    return _data_uri(stream.getvalue())


def _data_uri(data: bytes) -> str:
    kind = {b"\x89PNG": "png", b"RIFF": "webp"}.get(data[:4], "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
