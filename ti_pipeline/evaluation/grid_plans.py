"""Which grids a study gets: from its table of pictures to rows and columns.

Within one grid only what stands on its two sides differs. Not here: how a grid is drawn (`grids`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.suites import SuiteError
from ti_pipeline.study_evaluation import NAME_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pandas as pd

    from ti_pipeline.studies import Study
    from ti_pipeline.study_evaluation import Dimension, Grid, Version

__all__ = ["ACROSS", "GridPlan", "best_steps", "plan_grids", "with_versions"]

ACROSS = "best"  # in the place of a variant: the best checkpoints of several
_VERSIONS = ("variant", "version")
_SETTINGS = ("sampler", "steps", "cfg")
_ASKED = ("question", "unwanted", "seed", *_SETTINGS, "size")


@dataclass(frozen=True)
class GridPlan:
    """What one grid shows: `images` are its cells, with `row` and `column` naming their places."""

    grid: Grid
    axis: str
    variant: str
    images: pd.DataFrame
    rows: list[str]
    columns: list[str]
    fixed: str

    @property
    def first(self) -> Any:
        """Return the picture that the grid's name and settings are those of."""
        return next(self.images.itertuples())


def plan_grids(
    study: Study,
    images: pd.DataFrame,
    *,
    best: Mapping[str, int] | None = None,
    references: pd.DataFrame | None = None,
) -> Iterator[GridPlan]:
    """Yield a study's grids from its `evaluation_images`, or from what `with_versions` made of them.

    Where variants stand against each other, each shows the step that `best` names (the last one, if it names none), and
    the `references` (`reference_images`) stand above them.
    """
    import pandas as pd

    marked = images if "is_version" in images else images.assign(study=study.name, is_version=False)
    own = marked[~marked.is_version]
    last = own.groupby("variant").step.max()
    chosen = own[own.step == own.variant.map(last.to_dict() | dict(best or {}))]
    for grid in study.evaluation.all_grids(own.variant.nunique()):
        sides = (grid.y, grid.x)
        shown = own if "checkpoint" in sides else chosen
        if "variant" in sides and references is not None:
            shown = pd.concat([references.assign(study=study.name, is_version=False), chosen])
        if "version" in sides:
            shown = pd.concat([chosen, marked[marked.is_version]])
        if grid.axes:
            shown = shown[shown.axis.isin(grid.axes)]
        yield from _of_grid(study, grid, shown)


def best_steps(board: pd.DataFrame) -> dict[str, int]:
    """Return the step of each variant's best checkpoint overall, from a `leaderboard` table."""
    overall = board[(board.axis == "overall") & board.candidate].sort_values("rank")
    return {str(row.variant): int(row.step) for row in overall.drop_duplicates("variant").itertuples()}


def with_versions(study: Study, images: pd.DataFrame, others: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Return the pictures of a study with those of its `versions` that answer the same questions.

    New columns are `study` and `is_version`: a version may also be an earlier checkpoint of the study itself.
    `others` are `evaluation_images` by study and variant. The same question is the same prompts but for the embedding's
    name, with the same seed, sampler, settings and size; it gets the axis and the value that this study gives it.
    Raises `SuiteError` for a version that was not evaluated, or answered nothing that was asked here.
    """
    import pandas as pd

    own = _asked(images).assign(study=study.name, is_version=False)
    here = own.drop_duplicates(list(_ASKED))[[*_ASKED, "axis", "value"]]
    added = []
    for version in study.evaluation.versions:
        theirs = _asked(_rows_of(version, others)).drop(columns=["axis", "value"])
        same = theirs.merge(here, on=list(_ASKED), how="inner").assign(study=version.study, is_version=True)
        if same.empty:
            raise SuiteError(
                f"evaluation.versions: {version.study}/{version.variant} has no picture of a prompt, seed, sampler and"
                f" size that {study.name} asks for: give both studies the same axes, seeds, samplers and sizes"
            )
        added.append(same)
    return pd.concat([own, *added], ignore_index=True)


def _rows_of(version: Version, others: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    name, table = f"{version.study}/{version.variant}", others.get((version.study, version.variant))
    if table is None or table.empty:
        raise SuiteError(f"evaluation.versions: {name} has no pictures: run the job evaluate for it")
    step = int(table.step.max()) if version.step is None else version.step
    if step not in set(table.step):
        known = ", ".join(map(str, sorted(set(table.step))))
        raise SuiteError(f"evaluation.versions: {name} was not evaluated at step {step} (was at: {known})")
    return table[table.step == step]


def _asked(images: pd.DataFrame) -> pd.DataFrame:
    """Add what was asked: the prompts with a mark in the place of the embedding's name."""

    def marked(texts: pd.Series[str]) -> list[str]:
        return [text.replace(token, NAME_MARK) for text, token in zip(texts, images.token, strict=True)]

    return images.assign(question=marked(images.prompt), unwanted=marked(images.negative))


def _of_grid(study: Study, grid: Grid, shown: pd.DataFrame) -> Iterator[GridPlan]:
    sides = (grid.y, grid.x)
    placed = shown.assign(row=_labels(shown, grid.y, sides), column=_labels(shown, grid.x, sides))
    keys = list(_fixed(study, sides))
    for _, cells in placed.groupby(keys, sort=False):
        ordered = cells.sort_values("step", kind="stable") if "checkpoint" in sides else cells
        yield GridPlan(
            grid=grid,
            axis=str(cells.axis.iloc[0]),
            variant=ACROSS if set(sides) & set(_VERSIONS) else str(cells.variant.iloc[0]),
            images=ordered.drop_duplicates(["row", "column"]),
            rows=list(dict.fromkeys(ordered.row)),
            columns=list(dict.fromkeys(ordered.column)),
            fixed=_said(cells.iloc[0], sides),
        )


def _labels(images: pd.DataFrame, side: Dimension, sides: Sequence[Dimension]) -> list[str]:
    """Return what a cell's row or column is called."""
    with_cfg, bases = "cfg" not in sides, images.base.nunique()
    made: dict[str, Callable[[Any], str]] = {
        "value": lambda row: str(row.value),
        "checkpoint": lambda row: str(row.checkpoint),
        "variant": lambda row: str(row.checkpoint) if row.variant or bases == 1 else f"{row.checkpoint} ({row.base})",
        "version": lambda row: f"{row.study}/{row.checkpoint}",
        "seed": lambda row: f"seed {row.seed}",
        "sampler": lambda row: f"{row.sampler}, {row.steps} steps" + (f", CFG {row.cfg:g}" if with_cfg else ""),
        "cfg": lambda row: f"CFG {row.cfg:g}",
        "size": lambda row: f"{row.size} px",
        "clip_skip": lambda row: f"clip skip {row.clip_skip}",
    }
    return [made[side](row) for row in images.itertuples()]


def _fixed(study: Study, sides: Sequence[Dimension]) -> Iterator[str]:
    """Yield the columns that are the same within one grid."""
    yield "axis"
    if "value" not in sides:
        yield "value"
    if not set(sides) & set(_VERSIONS):
        yield "variant"
    if "seed" not in sides:
        yield "seed"
    if "sampler" not in sides:
        yield from ("sampler", "steps")
        if "cfg" not in sides:
            yield "cfg"
    if "size" not in sides:
        yield "size"
    if "clip_skip" not in sides and study.evaluation.clip_skips:  # else each variant has its own
        yield "clip_skip"


def _said(cell: pd.Series[Any], sides: Sequence[Dimension]) -> str:
    """Return what is the same within a grid, for its title."""
    told = [str(cell.axis)]
    if "value" not in sides:
        told.append(str(cell.value))
    if not {"checkpoint", *_VERSIONS} & set(sides):
        told.append(str(cell.checkpoint))
    if "seed" not in sides:
        told.append(f"seed {cell.seed}")
    if "sampler" not in sides:
        told.append(f"{cell.sampler}, {cell.steps} steps" + ("" if "cfg" in sides else f", CFG {cell.cfg:g}"))
    if "size" not in sides:
        told.append(f"{cell['size']} px")
    if "clip_skip" not in sides and cell.clip_skip > 1:
        told.append(f"clip skip {cell.clip_skip}")
    return " · ".join(told)
