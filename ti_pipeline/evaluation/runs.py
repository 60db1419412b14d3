"""Evaluation over whole variants: choose checkpoints, load their files, render and score.

Here: what connects tables with the sampler and the scorer. Not here: how a picture is drawn (`sampler`) or judged
(`scorers`).
"""

from __future__ import annotations

import datetime
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ti_pipeline.contracts import TableError
from ti_pipeline.schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd
    import torch

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.evaluation.sampler import Suite
    from ti_pipeline.evaluation.scorers import Scorer
    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.evaluation.tagger_judge import TaggerJudge
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.studies import Axis
    from ti_pipeline.study_files import LoadedStudy

    Progress = Callable[[int, int, str], None]

SCORING = "4"  # raise it when the same pictures would get other scores

__all__ = [
    "concept_pictures",
    "judges",
    "kept_scores",
    "render_planned",
    "render_variants",
    "require_known_checkpoints",
    "score_variant",
    "together",
    "write_study_grids",
]

TRAINED_ON = "trained on"
FEWEST_HELD_OUT = 8  # with fewer, what held-out pictures reach among themselves is mostly chance


def together(table: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all frames, or an empty frame of the contract. Raises `TableError` when there are none."""
    import pandas as pd

    if not frames:
        raise TableError(f"there is no table {table} of any variant: run the job evaluate for at least one variant")
    return pd.concat(list(frames.values()), ignore_index=True)[[c.name for c in TABLES[table].columns]]


def require_known_checkpoints(scores: pd.DataFrame, embeddings: Mapping[str, pd.DataFrame]) -> None:
    """Raise `TableError` when a scored checkpoint is no longer in the embedding tables (trained anew since)."""
    known = {name for frame in embeddings.values() for name in frame.checkpoint}
    unknown = sorted(set(scores.checkpoint) - known)
    if unknown:
        raise TableError(f"scores of checkpoints that are gone: {', '.join(unknown)}; run the job evaluate again")


def render_variants(
    wanted: Mapping[str, tuple[LoadedStudy, str, pd.DataFrame]],
    *,
    policies: Mapping[str, ContentPolicy],
    rankings: Mapping[str, pd.DataFrame],
    implications: pd.DataFrame | None = None,
    root: Path,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Render the suites of several variants; those of one base model share it in memory, and its batches.

    `wanted` maps a partition key to the study, the variant's name and its `embedding` table; `policies` and `rankings`
    have every study's content policy and `tag_frequencies` by the study's name; `implications` are the catalog's.
    Returns one `evaluation_images` table per key. Raises what base models, embedding files and suites raise, and
    `PolicyError` for a prompt that names what the content policy excludes.
    """
    from ti_pipeline.evaluation.suites import axes_of

    planned = {}
    for key, (loaded, name, checkpoints) in wanted.items():
        axes = axes_of(loaded.study, rankings.get(loaded.study.name), implications)
        planned[key] = _planned(loaded, name, checkpoints, axes, root)
        require_clean_prompts(planned[key].suite.cells, loaded, policies[loaded.study.name])
    return render_planned(planned, root=root, progress=progress)


def render_planned(
    planned: Mapping[str, Planned], *, root: Path, progress: Progress | None = None
) -> dict[str, pd.DataFrame]:
    """Draw what is planned and not there yet; those of one base model share it in memory, and its batches."""
    from ti_pipeline.evaluation.sampler import render_suites

    tables: dict[str, pd.DataFrame] = {}
    for sharing in _by_kind(planned):
        first = next(iter(sharing.values()))
        found = render_suites(
            [one.suite for one in sharing.values()],
            load=functools.partial(_load, list(sharing.values())),
            root=root,
            batch_size=first.loaded.study.evaluation.batch_size,
            progress=progress,
        )
        tables |= dict(zip(sharing, found, strict=True))
    return {key: tables[key] for key in planned}


@dataclass(frozen=True)
class Planned:
    """A suite of a variant or of references, with the files of the embeddings that it names by their sha256."""

    loaded: LoadedStudy
    base: str
    identity: str
    precision: str
    suite: Suite
    files: dict[str, Path]


def _planned(
    loaded: LoadedStudy, name: str, checkpoints: pd.DataFrame, axes: Mapping[str, Axis], root: Path
) -> Planned:
    """Return what is to be rendered of one variant; nothing heavy is loaded."""
    from ti_pipeline.evaluation.suites import cells_for

    study, variant = loaded.study, loaded.study.variant(name)
    base = base_of(loaded, variant.base)
    cells = cells_for(
        study,
        name,
        checkpoints,
        base.identity,
        axes=axes,
        others={other: sha256 for other, (_, sha256) in base.others.items()},
        precision=base.precision,
    )
    files = {str(row.sha256): root / str(row.safetensors_path) for row in checkpoints.itertuples()}
    return planned_cells(loaded, base, cells, f"evaluation/{study.name}/{name}", files)


class BaseOf(NamedTuple):
    """A study's base model as its pictures are drawn with it, and the further embeddings that prompts may name."""

    name: str
    identity: str
    precision: str
    others: dict[str, tuple[Path, str]]


def base_of(loaded: LoadedStudy, name: str) -> BaseOf:
    """Return what identifies a base model's pictures; nothing heavy is loaded."""
    from ti_pipeline.inversion.base_models import base_identity

    study = loaded.study
    identity = base_identity(name, study.base_models[name], folder=loaded.path.parent)
    return BaseOf(name, identity, _precision(study.evaluation.precision), _other_embeddings(loaded))


def planned_cells(
    loaded: LoadedStudy, base: BaseOf, cells: Sequence[Cell], folder: str, files: Mapping[str, Path]
) -> Planned:
    """Return cells to draw into `folder`; `files` are the embeddings' by their sha256."""
    from ti_pipeline.evaluation.sampler import Suite
    from ti_pipeline.files import fingerprint

    study = loaded.study
    return Planned(
        loaded=loaded,
        base=base.name,
        identity=base.identity,
        precision=base.precision,
        suite=Suite(
            cells=cells,
            folder=folder,
            base=base.name,
            study=study.name,
            study_fingerprint=fingerprint(study.model_dump(mode="json")),
        ),
        files={**files, **{sha256: path for path, sha256 in base.others.values()}},
    )


def _precision(wanted: str) -> str:
    """Return what will really be computed with: only CUDA has fast numbers of 16 bits."""
    import torch

    return wanted if torch.cuda.is_available() else "fp32"


def _other_embeddings(loaded: LoadedStudy) -> dict[str, tuple[Path, str]]:
    """Return the files of `evaluation.embeddings` and their sha256, by the names that prompts use."""
    from ti_pipeline.files import sha256_of
    from ti_pipeline.inversion.embedding_files import EmbeddingFileError

    found = {}
    for name, text in loaded.study.evaluation.embeddings.items():
        path = loaded.path.parent / Path(os.path.expandvars(text)).expanduser()
        if not path.is_file():
            raise EmbeddingFileError(f"{loaded.path.name}: evaluation.embeddings.{name}: there is no file {path}")
        found[name] = path, sha256_of(path)
    return found


def _by_kind(planned: Mapping[str, Planned]) -> Iterator[dict[str, Planned]]:
    """Yield variants that can share batches: of one base model, computed alike, in batches of one size."""
    kinds: dict[tuple[str, str, int], dict[str, Planned]] = {}
    for key, one in planned.items():
        kind = one.identity, one.precision, one.loaded.study.evaluation.batch_size
        kinds.setdefault(kind, {})[key] = one
    yield from kinds.values()


def _load(planned: Sequence[Planned]) -> tuple[Base, dict[str, torch.Tensor]]:
    """Return the base model of variants that share it, and the vectors of all files that their cells name."""
    from ti_pipeline.inversion.base_models import load_base

    vectors = {sha256: tensor for one in planned for sha256, tensor in _vectors(one).items()}
    first = planned[0]
    source, folder = first.loaded.study.base_models[first.base], first.loaded.path.parent
    return load_base(first.base, source, folder=folder, precision=first.precision), vectors


def _vectors(planned: Planned) -> dict[str, torch.Tensor]:
    """Load the files that the cells name; each must still be the one that was planned with."""
    from ti_pipeline.files import sha256_of
    from ti_pipeline.inversion.embedding_files import EmbeddingFileError, load_embedding

    used = {cell.embedding_sha256 for cell in planned.suite.cells if cell.token}
    used |= {sha256 for cell in planned.suite.cells for _, sha256 in cell.others}
    loaded = {}
    for sha256 in sorted(used):
        path = planned.files[sha256]
        if not path.exists() or sha256_of(path) != sha256:
            raise EmbeddingFileError(f"{path} is gone or was changed since training; run the job train again")
        loaded[sha256] = load_embedding(path).vectors
    return loaded


def require_clean_prompts(cells: Sequence[Cell], loaded: LoadedStudy, policy: ContentPolicy) -> None:
    """Raise `PolicyError` for a finished prompt that names an excluded tag.

    Loading a study checks its prompts and values one by one and without the catalog; only here are they put together.
    """
    texts = {
        (text, f"{loaded.path.name}: evaluation.axes.{cell.axis} with the value {cell.value!r}")
        for cell in cells
        for text in (cell.prompt, cell.negative)
    }
    for text, where in sorted(texts):
        policy.require_clean_text(text, where)


def score_variant(
    loaded: LoadedStudy,
    images: pd.DataFrame,
    crops: pd.DataFrame,
    *,
    root: Path,
    folder: str,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score a variant's pictures with the study's scorer, against the concept's own pictures.

    Returns an `evaluation_scores` table, kept in `folder` (see `kept_scores`). Raises `ScorerError` when a scorer
    cannot be loaded.
    """
    from ti_pipeline.evaluation.scorers import score_images
    from ti_pipeline.evaluation.suites import axes_shown

    own, _ = concept_pictures(crops)
    trained = crops[(crops.status == "ok") & (crops.split == "train")]
    axes = axes_shown(loaded.study, images)

    def score() -> pd.DataFrame:
        by = judges(loaded)
        shown, learned = ([root / str(path) for path in frame.path] for frame in (own, trained))
        return score_images(
            images,
            axes,
            by.scorer,
            root=root,
            references=shown,
            trained=learned,
            embeddings=list(loaded.study.evaluation.embeddings),
            likeness=by.likeness,
            tagger=by.tagger,
            progress=progress,
        )

    judged = [images.cell.tolist(), images.sha256.tolist(), own.sha256.tolist(), trained.sha256.tolist()]
    rules = [{name: axis.model_dump() for name, axis in axes.items()}]
    return kept_scores("evaluation_scores", root / folder / "scores.parquet", loaded, [*judged, *rules], score)


def concept_pictures(crops: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the crops that pictures are held against, and which they are.

    The held-out ones, or where there are fewer than 8 of them all that are usable: those trained on are then what
    likeness is measured by, which flatters an embedding that copies them.
    """
    good = crops[crops.status == "ok"].drop_duplicates("path")
    held_out = good[good.split == "validation"]
    if len(held_out) >= FEWEST_HELD_OUT:
        return held_out, "held out"
    return good, TRAINED_ON


class Judges(NamedTuple):
    """What pictures are judged by: the scorer, whose eyes tell likeness (often the scorer's), and a tagger if any."""

    scorer: Scorer
    likeness: Scorer
    tagger: TaggerJudge | None


def judges(loaded: LoadedStudy) -> Judges:
    """Load a study's judges. Raises `ScorerError` or `TaggerError` for what cannot be loaded."""
    from ti_pipeline.evaluation.eyes import load_eyes
    from ti_pipeline.evaluation.scorers import load_scorer
    from ti_pipeline.evaluation.tagger_judge import TaggerJudge
    from ti_pipeline.tagging.tagger import load_tagger

    suite, folder = loaded.study.evaluation, loaded.path.parent
    scorer = load_scorer(suite.scorer, folder=folder)
    tagger = None
    if suite.tagger is not None:
        model, tags = _tagger_files(loaded)
        tagger = TaggerJudge(load_tagger(model, tags, name="of evaluation.tagger"), suite.tagger.threshold)
    return Judges(scorer, scorer if suite.likeness is None else load_eyes(suite.likeness, folder=folder), tagger)


def _tagger_files(loaded: LoadedStudy) -> tuple[Path, Path | None]:
    """Return the model and the list of `evaluation.tagger`, the latter where the study says it."""
    named = loaded.study.evaluation.tagger
    places = [] if named is None else [named.model, named.tags]
    found = [loaded.path.parent / Path(os.path.expandvars(text)).expanduser() if text else None for text in places]
    return found[0] or Path(), found[1]


def kept_scores(
    table: str, path: Path, loaded: LoadedStudy, judged: Sequence[object], score: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Return scores from their file where they are of the same pictures by the same judges, else make and keep them."""
    import pyarrow.parquet as pq

    from ti_pipeline.evaluation.scorers import scorer_identity
    from ti_pipeline.files import fingerprint, sha256_of, write_atomically
    from ti_pipeline.schemas import from_arrow

    suite = loaded.study.evaluation
    models = [model for model in (suite.scorer, suite.likeness) if model is not None]
    by = [scorer_identity(model, folder=loaded.path.parent) for model in models]
    if suite.tagger is not None:
        by += [sha256_of(path) for path in _tagger_files(loaded) if path is not None and path.is_file()]
        by.append(str(suite.tagger.threshold))
    key = fingerprint([SCORING, *judged, by]).encode()
    if path.exists() and (pq.read_schema(path).metadata or {}).get(b"fingerprint") == key:
        return from_arrow(pq.read_table(path))
    found = score()
    arrow = TABLES[table].to_arrow(found)
    with write_atomically(path) as aside:
        pq.write_table(arrow.replace_schema_metadata({b"fingerprint": key}), aside)
    return found


def write_study_grids(
    loaded: LoadedStudy,
    images: Mapping[tuple[str, str], pd.DataFrame],
    scores: Sequence[pd.DataFrame],
    *,
    best: Mapping[str, int],
    references: pd.DataFrame,
    root: Path,
    folder: str,
) -> pd.DataFrame:
    """Write a study's grids and return the `evaluation_grids` table.

    `images` are `evaluation_images` by study and variant, of this study and of its `versions`; `best` names a step of
    each variant, `references` are `reference_images`. Raises `TableError` when this study has no pictures, and what
    `grid_plans.with_versions` raises.
    """
    from ti_pipeline.evaluation.grid_plans import plan_grids, with_versions
    from ti_pipeline.evaluation.grids import write_grids
    from ti_pipeline.files import fingerprint

    study = loaded.study
    own = together("evaluation_images", {part: table for (of, part), table in images.items() if of == study.name})
    shown = with_versions(study, own, images) if study.evaluation.versions else own
    return write_grids(
        plan_grids(study, shown, best=best, references=references),
        root=root,
        folder=folder,
        title=f"{study.name}: {study.title}" if study.title else study.name,
        date=str(study.date or _newest_day(root / str(path) for path in shown.path)),
        fingerprint=fingerprint(study.model_dump(mode="json")),
        scores=together("evaluation_scores", {str(at): table for at, table in enumerate(scores)}),
    )


def _newest_day(paths: Iterable[Path]) -> datetime.date:
    """Return the day (UTC) on which the newest of these pictures was made; a day of today's would change every run."""
    newest = max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)
    return datetime.datetime.fromtimestamp(newest, datetime.UTC).date()
