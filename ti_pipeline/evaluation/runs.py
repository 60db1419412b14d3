"""Evaluation over whole variants: choose checkpoints, load their files, render and score.

Here: what connects tables with the sampler and the scorer. Not here: how a picture is drawn (`sampler`) or judged
(`scorers`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ti_pipeline.contracts import TableError
from ti_pipeline.schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.embedding_files import Embedding
    from ti_pipeline.study_files import LoadedStudy

    Progress = Callable[[int, int, str], None]

_SCORING = "2"  # raise it when the same pictures would get other scores

__all__ = ["render_variants", "require_known_checkpoints", "score_variant", "together"]


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
    root: Path,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Render the suite of several variants; those of one base model after another share it in memory.

    `wanted` maps a partition key to the study, the variant's name and its `embedding` table; `policies` has every
    study's content policy by the study's name. Returns one `evaluation_images` table per key. Raises what base models,
    embedding files and suites raise, and `PolicyError` for a prompt that names what the content policy excludes.
    """
    from ti_pipeline.evaluation.sampler import render_cells
    from ti_pipeline.evaluation.suites import cells_for
    from ti_pipeline.files import fingerprint
    from ti_pipeline.inversion.base_models import base_identity

    bases: dict[str, Base] = {}
    tables = {}
    for key, (loaded, name, checkpoints) in wanted.items():
        variant = loaded.study.variant(name)
        source, folder = loaded.study.base_models[variant.base], loaded.path.parent
        identity = base_identity(variant.base, source, folder=folder)
        cells = cells_for(loaded.study, name, checkpoints, identity)
        _require_clean_prompts(cells, loaded, policies[loaded.study.name])
        tables[key] = render_cells(
            cells,
            load=functools.partial(_load, bases, loaded, name, identity, cells, checkpoints, root),
            root=root,
            folder=f"evaluation/{loaded.study.name}/{name}",
            batch_size=loaded.study.evaluation.batch_size,
            infotext_extra={"Study": loaded.study.name},
            study_fingerprint=fingerprint(loaded.study.model_dump(mode="json")),
            progress=progress,
        )
    return tables


def _load(
    bases: dict[str, Base],
    loaded: LoadedStudy,
    name: str,
    identity: str,
    cells: list[Cell],
    checkpoints: pd.DataFrame,
    root: Path,
) -> tuple[Base, dict[str, Embedding]]:
    """Return a variant's base model, kept in `bases` for the next one, and its checkpoints' vectors."""
    from ti_pipeline.inversion.base_models import load_base

    variant = loaded.study.variant(name)
    embeddings = _embeddings(cells, checkpoints, root, str(variant.token))
    if identity not in bases:
        bases.clear()  # one base model in memory at a time
        bases[identity] = load_base(variant.base, loaded.study.base_models[variant.base], folder=loaded.path.parent)
    return bases[identity], embeddings


def _require_clean_prompts(cells: list[Cell], loaded: LoadedStudy, policy: ContentPolicy) -> None:
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


def _embeddings(cells: list[Cell], checkpoints: pd.DataFrame, root: Path, token: str) -> dict[str, Embedding]:
    """Load the checkpoint files that the cells use; each must still be the file that the table names."""
    import dataclasses

    from ti_pipeline.files import sha256_of
    from ti_pipeline.inversion.embedding_files import EmbeddingFileError, load_embedding

    used = {cell.checkpoint for cell in cells}
    loaded = {}
    for row in checkpoints[checkpoints.checkpoint.isin(used)].itertuples():
        path = root / str(row.safetensors_path)
        if not path.exists() or sha256_of(path) != row.sha256:
            raise EmbeddingFileError(f"{path} is gone or was changed since training; run the job train again")
        loaded[str(row.checkpoint)] = dataclasses.replace(load_embedding(path), name=token)
    return loaded


def score_variant(
    loaded: LoadedStudy,
    images: pd.DataFrame,
    crops: pd.DataFrame,
    *,
    root: Path,
    folder: str,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score a variant's pictures with the study's scorer, against its held-out crops (else those trained on).

    Returns an `evaluation_scores` table. It is kept in `folder` with the fingerprint of pictures, references, axes and
    scorer, and used again while that is the same. Raises `ScorerError` when the scorer cannot be loaded.
    """
    import pyarrow.parquet as pq

    from ti_pipeline.evaluation.scorers import load_scorer, score_images, scorer_identity
    from ti_pipeline.evaluation.suites import axes_of
    from ti_pipeline.files import fingerprint, write_atomically
    from ti_pipeline.schemas import from_arrow

    good = crops[crops.status == "ok"]
    held_out = good[good.split == "validation"]
    references = held_out if len(held_out) else good
    axes, source = axes_of(loaded.study), loaded.study.evaluation.scorer
    trained = good[good.split == "train"]
    judged = [images.cell.tolist(), images.sha256.tolist(), references.sha256.tolist(), trained.sha256.tolist()]
    rules = [_SCORING, {name: axis.model_dump() for name, axis in axes.items()}]
    key = fingerprint([*judged, *rules, scorer_identity(source, folder=loaded.path.parent)]).encode()
    kept = root / folder / "scores.parquet"
    if kept.exists() and (pq.read_schema(kept).metadata or {}).get(b"fingerprint") == key:
        return from_arrow(pq.read_table(kept))
    scorer = load_scorer(source, folder=loaded.path.parent)
    shown, learned = ([root / str(path) for path in frame.path] for frame in (references, trained))
    table = score_images(images, axes, scorer, root=root, references=shown, trained=learned, progress=progress)
    arrow = TABLES["evaluation_scores"].to_arrow(table)
    with write_atomically(kept) as aside:
        pq.write_table(arrow.replace_schema_metadata({b"fingerprint": key}), aside)
    return table
