"""Checks of tables and files against each other: whole, the same files, every row where its source has one.

Not here: what is looked for (`verification`).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from upath import UPath

from ti_pipeline.checks.contracts import Frames, partitioned_check, table_check, verdict
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import STUDIES, split, study_partitions, variant_partitions
from ti_pipeline.resources import DataStore
from ti_pipeline.verification import PROBLEMS_OF_FILES, PROBLEMS_OF_TABLES, Stored

__all__ = ["STORED_CHECKS"]

# What must not go on, for what follows would be made of it.
_BLOCKING = ("images", "captions", "crops", "embedding")
# Which folders of the data folder a table's files lie in; {study} and {part} are those of its key.
_FOLDERS = {
    "images": "images",
    "crops": "crops/{study}/{part}",
    "embedding": "embeddings/{study}/{part}",
    "evaluation_images": "evaluation/{study}/{part}",
    "evaluation_grids": "evaluation/{study}/grids",
    "report": "reports",
    "release": "releases/{study}",
    "dataset": "exports/{study}/{part}",
}


def _problems(asset: str, keys: list[str], store: DataStore, look: Any) -> Iterator[str]:
    """Yield what `look`, given a key and what is stored, finds wrong with each key."""
    tables = Tables(UPath(store.url))
    for key in keys:
        study, part = split(key)
        folder = _FOLDERS.get(asset, "").format(study=study, part=part)
        with store.work(reads=[folder] if folder else []) as root:
            stored = Stored(root, tables.read, STUDIES[study].study)
            yield from (f"{key}: {problem}" for problem in look(key, stored))


def _check_of_table(table: str, problems: Any) -> dg.AssetChecksDefinition:
    def check(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
        found = _problems(table, list(frames), store, lambda key, stored: problems(key, frames[key], stored))
        return verdict(list(found))

    options = {"name": problems.__name__, "description": problems.__doc__}
    return table_check(table, blocking=table in _BLOCKING, **options)(check)


def _check_of_files(asset: str, problems: Any) -> dg.AssetChecksDefinition:
    def check(context: dg.AssetCheckExecutionContext, store: DataStore) -> dg.AssetCheckResult:
        keys = list(context.op_execution_context.partition_keys)
        return verdict(list(_problems(asset, keys, store, problems)))

    partitions = variant_partitions if asset == "dataset" else study_partitions
    options = {"name": "whole", "description": problems.__doc__}
    return partitioned_check(asset, partitions, **options)(check)


STORED_CHECKS = (
    *(_check_of_table(table, problems) for table, several in PROBLEMS_OF_TABLES.items() for problems in several),
    *(_check_of_files(asset, problems) for asset, problems in PROBLEMS_OF_FILES.items()),
)
