"""Partitions: which keys exist, and how those of one asset lead to those of the next.

Keys come from the study files when definitions load: adding a study is adding a file and reloading. The separator is
chosen here once. Not here: what a study means (`studies`) or what is computed for a key (`assets`).
"""

from collections.abc import Callable
from typing import NamedTuple

import dagster as dg

from ti_pipeline.studies import Study
from ti_pipeline.study_files import LoadedStudy, readable_studies, study_folders

__all__ = [
    "FAULTY",
    "SEPARATOR",
    "STUDIES",
    "Key",
    "crops_of_variants",
    "crops_partitions",
    "grids_of_variants",
    "plan_partitions",
    "plans_of_variants",
    "split",
    "studies_of_crops",
    "studies_of_plans",
    "studies_of_variants",
    "study_and_contrasts",
    "study_partitions",
    "study_with_crops",
    "study_with_plans",
    "study_with_variants",
    "variant_partitions",
]

# Safe in file names, shells and addresses; names in studies cannot contain it (studies.NAME_PATTERN).
SEPARATOR = "__"


class Key(NamedTuple):
    """The two parts of a partition key such as `demo__v8`; `part` is a plan, a crop set or a variant."""

    study: str
    part: str

    def __str__(self) -> str:
        return f"{self.study}{SEPARATOR}{self.part}"


def split(key: str) -> Key:
    """Return the parts of a partition key of plans, crops or variants."""
    study, _, part = key.partition(SEPARATOR)
    return Key(study, part)


# Studies by name; and those left out for faults in their files, which are told by every command that names them.
STUDIES: dict[str, LoadedStudy]
FAULTY: dict[str, str]
STUDIES, FAULTY = readable_studies(study_folders())


def _keys(parts: dict[str, list[str]]) -> dict[str, list[str]]:
    return {study: [str(Key(study, part)) for part in names] for study, names in parts.items()}


_PLANS = _keys({name: list(loaded.study.captions) for name, loaded in STUDIES.items()})
_CROPS = _keys({name: list(loaded.study.crops.named()) for name, loaded in STUDIES.items()})
_VARIANTS = _keys({name: list(loaded.study.variants) for name, loaded in STUDIES.items()})


def _definition(keys: dict[str, list[str]]) -> dg.StaticPartitionsDefinition:
    return dg.StaticPartitionsDefinition([key for of_study in keys.values() for key in of_study])


study_partitions = dg.StaticPartitionsDefinition(list(STUDIES))
plan_partitions = _definition(_PLANS)
crops_partitions = _definition(_CROPS)
variant_partitions = _definition(_VARIANTS)

# A mapping is written from the upstream key to the downstream keys that read it.
study_with_plans = dg.StaticPartitionMapping(_PLANS)
study_with_crops = dg.StaticPartitionMapping(_CROPS)
study_with_variants = dg.StaticPartitionMapping(_VARIANTS)


def _contrasts() -> dg.StaticPartitionMapping:
    """Map each study to its plans, and to those of others that tell the concept by contrast with it."""
    read = {study: list(plans) for study, plans in _PLANS.items()}
    for name, loaded in STUDIES.items():
        for plan, captions in loaded.study.captions.items():
            if captions.contrast is not None:
                read[captions.contrast].append(str(Key(name, plan)))
    return dg.StaticPartitionMapping(read)


study_and_contrasts = _contrasts()


def _back(keys: dict[str, list[str]]) -> dg.StaticPartitionMapping:
    return dg.StaticPartitionMapping({key: study for study, of_study in keys.items() for key in of_study})


studies_of_plans = _back(_PLANS)
studies_of_crops = _back(_CROPS)
studies_of_variants = _back(_VARIANTS)


def _used_by_variants(parts: Callable[[Study, str], list[str]]) -> dg.StaticPartitionMapping:
    """Map each plan or crop set to the variants that use it, as `parts` tells by variant; unused ones map to none."""
    used: dict[str, set[str]] = {}
    for name, loaded in STUDIES.items():
        for variant in loaded.study.variants:
            for part in parts(loaded.study, variant):
                used.setdefault(str(Key(name, part)), set()).add(str(Key(name, variant)))
    return dg.StaticPartitionMapping(used)


plans_of_variants = _used_by_variants(lambda study, name: [str(study.variant(name).captions)])
crops_of_variants = _used_by_variants(Study.crops_of)


def _grids() -> dg.StaticPartitionMapping:
    """Map each variant to the studies whose grids show it: its own, and those that name it among their versions."""
    shown = {key: {study} for study, of_study in _VARIANTS.items() for key in of_study}
    for name, loaded in STUDIES.items():
        for version in loaded.study.evaluation.versions:
            shown[str(Key(version.study, version.variant))].add(name)
    return dg.StaticPartitionMapping(shown)


grids_of_variants = _grids()


def keys_of(kind: str, study: str) -> list[str]:
    """Return the keys of one study, in the file's order; `kind` is `plans`, `crops` or `variants`."""
    return {"plans": _PLANS, "crops": _CROPS, "variants": _VARIANTS}[kind][study]
