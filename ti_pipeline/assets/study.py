"""The study file as assets: what each part of it says today, so that the graph knows what is out of date, and why.

These assets are observed, never made: their version is the fingerprint of a part of the file. `observe` records those
that have changed; every run does it first, and a sensor between runs. Not here: what a part means (`studies`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg

from ti_pipeline.files import fingerprint, sha256_of
from ti_pipeline.partitions import (
    SEPARATOR,
    STUDIES,
    crops_partitions,
    plan_partitions,
    split,
    study_partitions,
    study_with_variants,
    variant_partitions,
)
from ti_pipeline.study_files import LoadedStudy

__all__ = ["STUDY_PARTS", "changed_parts", "observe", "studies_of_run", "study_parts"]

Prints = Iterator[tuple[str, str]]


def _print(value: Any, folder: Path, *files: str | None) -> str:
    """Return the fingerprint of a part without its defaults, and of small files that it names."""
    plain = value.model_dump(mode="json", exclude_defaults=True) if hasattr(value, "model_dump") else value
    paths = [folder / Path(name).expanduser() for name in files if name]
    return fingerprint([plain, *(sha256_of(path) if path.is_file() else None for path in paths)])


def _source(name: str, loaded: LoadedStudy) -> Prints:
    source, seed = loaded.study.source, loaded.study.seed
    yield name, _print([_print(source, loaded.path.parent), seed], loaded.path.parent, source.opt_out_file)


def _curation(name: str, loaded: LoadedStudy) -> Prints:
    study, folder = loaded.study, loaded.path.parent
    curations = {key: _print(curation, folder) for key, curation in study.named_curations().items()}
    yield name, _print([curations, _print(study.audit, folder), study.seed], folder)


def _captions(name: str, loaded: LoadedStudy) -> Prints:
    for plan, captions in loaded.study.captions.items():
        # Tags are counted on the pictures of the variants that use the plan.
        trained_on = loaded.study.curations_of_plan(plan)
        yield f"{name}{SEPARATOR}{plan}", _print([_print(captions, loaded.path.parent), trained_on], loaded.path.parent)


def _crops(name: str, loaded: LoadedStudy) -> Prints:
    for key, crops in loaded.study.crops.named().items():
        yield f"{name}{SEPARATOR}{key}", _print(crops, loaded.path.parent, crops.focal_points)


def _variants(name: str, loaded: LoadedStudy) -> Prints:
    study, folder = loaded.study, loaded.path.parent
    for key in study.variants:
        variant = study.variant(key)
        base = _print(study.base_models[variant.base], folder)
        yield f"{name}{SEPARATOR}{key}", _print([_print(variant, folder), base], folder)


def _evaluation(name: str, loaded: LoadedStudy) -> Prints:
    yield name, _print([_print(loaded.study.evaluation, loaded.path.parent), loaded.study.seed], loaded.path.parent)


def _text(name: str, loaded: LoadedStudy) -> Prints:
    yield name, fingerprint(loaded.text)


# By asset: what it says, its partitions, how its versions are found, and which assets are made by it.
_PARTS: Final[dict[str, tuple[str, Any, Callable[[str, LoadedStudy], Prints], tuple[str, ...]]]] = {
    "study_source": ("Where posts come from.", study_partitions, _source, ("posts", "provenance")),
    "study_curation": ("Which pictures are used.", study_partitions, _curation, ("image_audit", "training_set")),
    "study_captions": ("The caption plan.", plan_partitions, _captions, ("tagger_tags", "vocabulary", "captions")),
    "study_crops": ("The crop set.", crops_partitions, _crops, ("crops",)),
    "study_variant": ("What is trained, and how.", variant_partitions, _variants, ("embedding",)),
    "study_evaluation": (
        "How checkpoints are judged.",
        study_partitions,
        _evaluation,
        (
            *("evaluation_images", "evaluation_scores", "reference_images", "reference_scores"),
            *("evaluation_grids", "leaderboard"),
        ),
    ),
    "study_text": ("The whole file, as the report shows it.", study_partitions, _text, ("report", "release")),
}
_OF_VARIANT = ("evaluation_images", "evaluation_scores")

STUDY_PARTS: Final = tuple(
    dg.AssetSpec(
        name, description=f"{what} A part of the study file.", partitions_def=keys, group_name="study", kinds={"yaml"}
    )
    for name, (what, keys, _, _) in _PARTS.items()
)


def study_parts(asset: str) -> list[dg.AssetDep]:
    """Return the parts of the study file that an asset is made by, as dependencies."""
    mapping = study_with_variants if asset in _OF_VARIANT else None
    parts = [part for part, (_, _, _, users) in _PARTS.items() if asset in users]
    return [dg.AssetDep(part, partition_mapping=mapping) for part in parts]


def changed_parts(studies: Mapping[str, LoadedStudy], known: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield part, partition and fingerprint of what differs from `known` (fingerprints by part and partition)."""
    for part, (_, keys, prints, _) in _PARTS.items():
        there = set(keys.get_partition_keys())
        for name, loaded in studies.items():
            for key, version in prints(name, loaded):
                if key in there and known.get(f"{part}/{key}") != version:
                    yield part, key, version


def studies_of_run(tags: Mapping[str, str]) -> dict[str, LoadedStudy]:
    """Return the studies that a run with these tags is about."""
    names = (f"dagster/{tag}" for tag in ("partition", "asset_partition_range_start", "asset_partition_range_end"))
    found = {split(tags[name]).study for name in names if name in tags}
    return {name: loaded for name, loaded in STUDIES.items() if name in found}


_CURSOR = "ti_pipeline/study_parts"


def observe(instance: dg.DagsterInstance, studies: Mapping[str, LoadedStudy] = STUDIES) -> int:
    """Record each part of `studies` that has changed since it was last recorded; return how many have."""
    storage = instance.daemon_cursor_storage
    known: dict[str, str] = json.loads(storage.get_cursor_values({_CURSOR}).get(_CURSOR) or "{}")
    changed = list(changed_parts(studies, known))
    for part, key, version in changed:
        tags = {"dagster/data_version": version}
        instance.report_runless_asset_event(dg.AssetObservation(part, partition=key, tags=tags))
    if changed:
        storage.set_cursor_values({_CURSOR: json.dumps(known | {f"{p}/{k}": v for p, k, v in changed})})
    return len(changed)
