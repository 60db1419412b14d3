"""Vocabulary and captions: one partition per caption plan of a study."""

from typing import Any

import dagster as dg
import pandas as pd

from ti_pipeline.assets.policy import CATALOG, policy_of
from ti_pipeline.assets.reporting import by_partition, picture
from ti_pipeline.partitions import STUDIES, plan_partitions, split, study_with_plans
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import CaptionPlan

__all__ = ["captions", "vocabulary"]

_COMMON: dict[str, Any] = {
    "partitions_def": plan_partitions,
    "group_name": "captions",
    "kinds": {"parquet", "pandas"},
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "code_version": "1",
}


def _plan(key: str) -> CaptionPlan:
    return STUDIES[split(key).study].study.captions[split(key).part]


@dg.asset(
    **_COMMON,
    ins={"tag_frequencies": dg.AssetIn(partition_mapping=study_with_plans)},
    deps=CATALOG,
)
def vocabulary(
    context: dg.AssetExecutionContext, store: DataStore, tag_frequencies: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Which tags captions of this plan may use; every dropped tag keeps the rule and the numbers that dropped it."""
    from ti_pipeline.tagging.plots import vocabulary_plot
    from ti_pipeline.tagging.vocabulary import reduce_vocabulary

    def compute(key: str) -> pd.DataFrame:
        policy = policy_of(STUDIES[split(key).study], store)
        frequencies = tag_frequencies[split(key).study]
        # A harmless tag may contain an excluded word; in a caption it would read as that word.
        worded = {tag for tag in frequencies.tag if policy.refuses_text(tag)}
        return reduce_vocabulary(frequencies, _plan(key), policy.excluded | worded)

    def describe(_key: str, table: pd.DataFrame) -> dict[str, Any]:
        kept = table[table.kept].category.value_counts()
        return {
            "kept": dg.MetadataValue.json({str(k): int(v) for k, v in kept.items()}),
            "kept and dropped": picture(vocabulary_plot(table), "bars: kept and dropped tags per category"),
        }

    return by_partition(context, compute, describe)


@dg.asset(
    **_COMMON,
    ins={name: dg.AssetIn(partition_mapping=study_with_plans) for name in ("posts", "post_tags")},
)
def captions(
    context: dg.AssetExecutionContext,
    posts: dict[str, pd.DataFrame],
    post_tags: dict[str, pd.DataFrame],
    vocabulary: dict[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """One caption per kept post, made of the plan's vocabulary in the plan's order."""
    from ti_pipeline.tagging.captions import write_captions

    def compute(key: str) -> pd.DataFrame:
        study = split(key).study
        kept = posts[study].loc[posts[study].status == "kept", "post_id"]
        return write_captions(kept, post_tags[study], vocabulary[key], _plan(key))

    def describe(_key: str, table: pd.DataFrame) -> dict[str, Any]:
        sample = "\n".join(f"- `{caption}`" for caption in table.caption.head(8))
        return {
            "tags per caption": float(table.tag_count.mean()) if len(table) else 0.0,
            "examples": dg.MetadataValue.md(sample or "none"),
        }

    return by_partition(context, compute, describe)
