"""What leaves the house: the report to decide from, the release to hand to others, and what a variant trained on."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ti_pipeline.assets.policy import CATALOG, policy_of, require_allowed_pictures, require_clean_texts
from ti_pipeline.assets.reporting import LogProgress
from ti_pipeline.assets.sending import publish
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import (
    SEPARATOR,
    STUDIES,
    crops_of_variants,
    keys_of,
    plans_of_variants,
    split,
    studies_of_crops,
    studies_of_plans,
    study_partitions,
    study_with_variants,
    variant_partitions,
)
from ti_pipeline.partitions import studies_of_variants as of_variants
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import Study

__all__ = ["dataset", "release", "report"]

_OF_STUDY = (
    "posts",
    "post_tags",
    "tag_frequencies",
    "tag_pairs",
    "images",
    "provenance",
    "image_audit",
    "training_set",
)
_COMPARED = ("evaluation_grids", "votes", "reference_images", "reference_scores", "leaderboard")
_PARTS = {
    "vocabulary": ("plans", studies_of_plans),
    "captions": ("plans", studies_of_plans),
    "crops": ("crops", studies_of_crops),
    "embedding": ("variants", of_variants),
    "evaluation_images": ("variants", of_variants),
    "evaluation_scores": ("variants", of_variants),
}
_COMMON: dict[str, Any] = {
    "partitions_def": study_partitions,
    "group_name": "publishing",
    "code_version": "2",
    "deps": [
        *_OF_STUDY,
        *_COMPARED,
        *study_parts("report"),
        *(dg.AssetDep(name, partition_mapping=mapping) for name, (_, mapping) in _PARTS.items()),
    ],
}


@dg.asset(**_COMMON, kinds={"html"})
def report(context: dg.AssetExecutionContext, store: DataStore) -> dg.MaterializeResult[Any]:
    """One self-contained page with everything a person decides from."""
    from ti_pipeline.publishing.report import write_report

    study = context.partition_key
    with store.work(reads=_folders(study), writes=["reports"]) as root:
        path = root / "reports" / f"{study}.html"
        write_report(_results(study, store), path)
    context.log.info(f"report: {path}")
    return dg.MaterializeResult(metadata={"report": dg.MetadataValue.path(str(path)), "bytes": path.stat().st_size})


@dg.asset(**_COMMON, kinds={"safetensors"})
def release(context: dg.AssetExecutionContext, store: DataStore) -> dg.MaterializeResult[Any]:
    """The best checkpoint as files that A1111, ComfyUI, diffusers and InvokeAI load, with card and attribution."""
    from ti_pipeline.publishing.release import write_release
    from ti_pipeline.publishing.release_index import add_to_index

    study = context.partition_key
    with store.work(reads=_folders(study), writes=[f"releases/{study}"]) as root:
        results = _results(study, store)
        made = write_release(results, root / "releases" / study)
        add_to_index(results, made)
        sent = publish(results, made.folder, store, LogProgress(context))
    context.log.info(f"release: {made.folder}")
    files = "\n".join(f"- `{path.relative_to(made.folder).as_posix()}`" for path in made.files)
    return dg.MaterializeResult(
        metadata={
            "release": dg.MetadataValue.path(str(made.folder)),
            "best checkpoint": made.best_checkpoint,
            "files": dg.MetadataValue.md(files),
            **sent,
        }
    )


class Exporting(dg.Config):
    """How the files of an export are written."""

    name_in_captions: bool = Field(
        default=False,
        description="Put the embedding's name into each caption, as the variant's first template does.",
    )


@dg.asset(
    partitions_def=variant_partitions,
    ins={
        "captions": dg.AssetIn(partition_mapping=plans_of_variants),
        "crops": dg.AssetIn(partition_mapping=crops_of_variants),
        "posts": dg.AssetIn(partition_mapping=study_with_variants),
    },
    deps=CATALOG,
    group_name="publishing",
    code_version="2",
    kinds={"file"},
)
def dataset(
    context: dg.AssetExecutionContext,
    config: Exporting,
    store: DataStore,
    captions: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    posts: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """The crops that a variant trains on, with captions, for other trainers: kohya's `.txt`, `metadata.jsonl`."""
    from ti_pipeline.tagging.budget import trained_captions
    from ti_pipeline.tagging.exports import write_dataset, write_masks

    study, part = split(context.partition_key)
    (written,) = captions.values()
    pictures = pd.concat([table.assign(crop_set=split(key).part) for key, table in crops.items()], ignore_index=True)
    loaded = STUDIES[study]
    policy = policy_of(loaded, store)
    require_clean_texts(loaded, part, written, policy)
    require_allowed_pictures(loaded, pictures, posts, policy)
    told = trained_captions(written, loaded.study.variant(part))
    # A picture that has no caption is not of this plan, or its tagger refused it: neither it nor its mask leaves.
    captioned = pictures.post_id.isin(told.post_id)
    usable = pictures[(pictures.status == "ok") & (pictures.split == "train") & captioned]
    folder, masks = f"exports/{study}/{part}", f"exports/{study}/{part}{SEPARATOR}masks"
    reads = [f"crops/{study}/{split(key).part}" for key in crops]
    with store.work(reads=reads, writes=[folder, masks]) as root:
        count = write_dataset(told, usable, root, root / folder, wording=_wording(loaded.study, part, config))
        masked = write_masks(usable, root, root / masks)
    metadata: dict[str, Any] = {"pictures": count, "folder": dg.MetadataValue.path(str(root / folder))}
    if masked:
        metadata["masks"] = dg.MetadataValue.path(str(root / masks))
    return dg.MaterializeResult(metadata=metadata)


def _wording(study: Study, name: str, config: Exporting) -> Callable[[str], str]:
    """Return how a variant's captions are written into files."""
    from ti_pipeline.tagging.pieces import for_web_uis

    variant = study.variant(name)
    escaped = study.captions[str(variant.captions)].parentheses == "escaped"

    def text(caption: str) -> str:
        told = for_web_uis(caption) if escaped else caption
        if not config.name_in_captions:
            return told
        filled = variant.templates[0].replace("[filewords]", told).replace("[name]", str(variant.token))
        return filled.strip(" ,")

    return text


def _folders(study: str) -> list[str]:
    return ["images", f"crops/{study}", f"embeddings/{study}", f"evaluation/{study}"]


def _results(study: str, store: DataStore) -> Any:
    """Gather a study's tables; parts that were never made (an untrained variant) are left out and named."""
    from upath import UPath

    from ti_pipeline.publishing.inputs import StudyResults

    tables, loaded = Tables(UPath(store.url)), STUDIES[study]
    single: dict[str, Any] = {name: tables.read(name, study) for name in (*_OF_STUDY, *_COMPARED)}
    absent = [name for name, table in single.items() if table is None]
    if absent:
        raise FileNotFoundError(f"study {study}: no table {', '.join(absent)}; run the jobs prepare and compare first")
    parts: dict[str, dict[str, Any]] = {
        name: dict(_present(tables, name, kind, study)) for name, (kind, _) in _PARTS.items()
    }
    warnings = [
        f"{name} of {split(key).part} is not there: it has not been made yet"
        for name, (kind, _) in _PARTS.items()
        for key in keys_of(kind, study)
        if split(key).part not in parts[name]
    ]
    return StudyResults(
        study=loaded.study,
        root=store.root,
        **single,
        vocabularies=parts.pop("vocabulary"),
        embeddings=parts.pop("embedding"),
        losses=_losses(store, study),
        **parts,
        warnings=warnings,
        study_text=loaded.text,
        versions=_versions(),
    )


def _present(tables: Tables, name: str, kind: str, study: str) -> Iterator[tuple[str, Any]]:
    for key in keys_of(kind, study):
        table = tables.read(name, key)
        if table is not None:
            yield split(key).part, table


def _losses(store: DataStore, study: str) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from ti_pipeline.schemas import from_arrow

    variants = STUDIES[study].study.variants
    paths = {name: store.root / "embeddings" / study / name / "losses.parquet" for name in variants}
    return {name: from_arrow(pq.read_table(path)) for name, path in paths.items() if path.exists()}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("ti_pipeline", "dagster", "torch", "diffusers", "transformers")}
