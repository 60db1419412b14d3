"""One blocking check per table, generated from its contract: the stored file has the promised columns and values."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import dagster as dg
import pandas as pd

from ti_pipeline.partitions import crops_partitions, plan_partitions, study_partitions, variant_partitions
from ti_pipeline.schemas import TABLES

__all__ = ["CONTRACT_CHECKS", "PARTITIONS", "Frames", "partitioned_check", "table_check", "verdict"]

Frames = dict[str, pd.DataFrame]

PARTITIONS: dict[str, dg.PartitionsDefinition | None] = {
    **dict.fromkeys(("tag_catalog", "tag_aliases", "tag_implications", "do_not_post"), None),
    **dict.fromkeys(("posts", "post_tags", "tag_frequencies", "tag_pairs"), study_partitions),
    **dict.fromkeys(("images", "image_audit", "provenance"), study_partitions),
    **dict.fromkeys(("training_set", "evaluation_grids", "votes", "leaderboard"), study_partitions),
    **dict.fromkeys(("reference_images", "reference_scores"), study_partitions),
    **dict.fromkeys(("tagger_tags", "vocabulary", "captions"), plan_partitions),
    "crops": crops_partitions,
    **dict.fromkeys(("embedding", "evaluation_images", "evaluation_scores"), variant_partitions),
}


def verdict(problems: list[str], **metadata: Any) -> dg.AssetCheckResult:
    """Return a failed result that lists the problems, or a passed one."""
    shown = "\n".join(f"- {problem}" for problem in problems[:20])
    return dg.AssetCheckResult(
        passed=not problems,
        description=problems[0] if problems else None,
        metadata={"problems": dg.MetadataValue.md(shown or "none"), **metadata},
    )


def table_check(table: str, **options: Any) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    """Return the decorator of a check on a table, partitioned like it (else it would load all partitions)."""

    def decorate(check: Callable[..., Any]) -> dg.AssetChecksDefinition:
        @functools.wraps(check)
        def of_something(**given: Any) -> dg.AssetCheckResult:
            result: dg.AssetCheckResult = check(**given) if given["frames"] else verdict([f"no table {table} is there"])
            return result

        return partitioned_check(table, PARTITIONS[table], **options)(of_something)

    return decorate


def partitioned_check(
    asset: str, partitions: dg.PartitionsDefinition | None, **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    """Return the decorator of a check that is partitioned like its asset."""

    def decorate(check: Callable[..., Any]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Partitioned checks are marked as a preview; without them a check of one partition reads every partition.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, partitions_def=partitions, **options)(check)

    return decorate


def _contract_check(table: str) -> dg.AssetChecksDefinition:
    contract = TABLES[table]

    def check(frames: dict[str, pd.DataFrame]) -> dg.AssetCheckResult:
        problems = [
            f"{key}: {problem}" if key else problem
            for key, frame in frames.items()
            for problem in contract.problems(frame)
        ]
        return verdict(problems, rows=sum(len(frame) for frame in frames.values()))

    return table_check(
        table,
        name="contract",
        blocking=True,
        description=f"{contract.meaning} Columns, types, bounds and key as in the contract.",
    )(check)


CONTRACT_CHECKS = tuple(_contract_check(table) for table in PARTITIONS)
