"""Vocabulary and captions: one partition per caption plan of a study."""

from collections import Counter
from typing import Any

import dagster as dg
import pandas as pd

from ti_pipeline.assets.policy import CATALOG, policy_of
from ti_pipeline.assets.reporting import LogProgress, by_partition, picture
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import OPTIONAL
from ti_pipeline.partitions import STUDIES, plan_partitions, split, study_and_contrasts, study_with_plans
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import CaptionPlan

__all__ = ["captions", "tagger_tags", "vocabulary"]

_COMMON: dict[str, Any] = {
    "partitions_def": plan_partitions,
    "group_name": "captions",
    "kinds": {"parquet", "pandas"},
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "code_version": "2",
}
_TOLD = 20  # posts named in the log
_IMPLICATIONS = {"tag_implications": dg.AssetIn(metadata=OPTIONAL)}


def _of_study(*names: str) -> dict[str, dg.AssetIn]:
    return {name: dg.AssetIn(partition_mapping=study_with_plans) for name in names}


def _plan(key: str) -> CaptionPlan:
    return STUDIES[split(key).study].study.captions[split(key).part]


@dg.asset(
    **_COMMON | {"kinds": {"parquet", "onnx"}},
    ins={"images": dg.AssetIn(partition_mapping=study_with_plans, metadata=OPTIONAL)},
    deps=study_parts("tagger_tags"),
)
def tagger_tags(
    context: dg.AssetExecutionContext, store: DataStore, images: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """What the plan's tagger sees on each picture, above its threshold; empty for plans without a tagger."""
    from ti_pipeline.schemas import TABLES
    from ti_pipeline.tagging.tagger import TaggerError, tag_pictures

    def compute(key: str) -> pd.DataFrame:
        study, plan = STUDIES[split(key).study], _plan(key)
        if plan.source != "tagger":
            return TABLES["tagger_tags"].empty()
        found = images.get(split(key).study)
        if found is None:
            raise TaggerError(f"{key}: the tagger needs the study's pictures; materialize images first")
        with store.work(reads=["images"], writes=[]) as root:
            return tag_pictures(found, root, plan, folder=study.path.parent, progress=LogProgress(context))

    return by_partition(context, compute, lambda _key, table: {"tags": int(table.tag.nunique())})


@dg.asset(
    **_COMMON,
    ins={"tag_frequencies": dg.AssetIn(partition_mapping=study_and_contrasts)} | _of_study("post_tags") | _IMPLICATIONS,
    deps=[*(name for name in CATALOG if name not in _IMPLICATIONS), *study_parts("vocabulary")],
)
def vocabulary(
    context: dg.AssetExecutionContext,
    store: DataStore,
    tag_frequencies: dict[str, pd.DataFrame],
    post_tags: dict[str, pd.DataFrame],
    tagger_tags: dict[str, pd.DataFrame],
    tag_implications: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Which tags captions of this plan may use; every dropped tag keeps the rule and the numbers that dropped it."""
    from ti_pipeline.tagging.comparison import compare_strategies, strategies_of
    from ti_pipeline.tagging.concept import lift_over
    from ti_pipeline.tagging.plots import comparison_plot, vocabulary_plot
    from ti_pipeline.tagging.seen import seen_tags
    from ti_pipeline.tagging.tagger import counted_like
    from ti_pipeline.tagging.tokens import clip_tokenizer
    from ti_pipeline.tagging.vocabulary import reduce_vocabulary

    def given(key: str) -> tuple[pd.DataFrame, pd.DataFrame, frozenset[str]]:
        study = split(key).study
        frequencies, uses = tag_frequencies[study], post_tags[study]
        if _plan(key).source == "tagger":
            uses = seen_tags(tagger_tags[key])
            frequencies = counted_like(frequencies, uses)
        if (contrast := _plan(key).contrast) is not None:
            frequencies = lift_over(frequencies, tag_frequencies[contrast])
        policy = policy_of(STUDIES[study], store)
        # A harmless tag may contain an excluded word; in a caption it would read as that word.
        worded = {tag for tag in frequencies.tag if policy.refuses_text(tag)}
        return frequencies, uses, policy.excluded | worded

    def compute(key: str) -> pd.DataFrame:
        frequencies, uses, excluded = given(key)
        return reduce_vocabulary(frequencies, uses, _plan(key), excluded, tag_implications)

    def describe(key: str, table: pd.DataFrame) -> dict[str, Any]:
        kept = table[table.kept].category.value_counts()
        shown = {
            "kept": dg.MetadataValue.json({str(k): int(v) for k, v in kept.items()}),
            "kept and dropped": picture(vocabulary_plot(table), "bars: kept and dropped tags per category"),
        }
        if _plan(key).source == "none":
            return shown
        frequencies, uses, excluded = given(key)
        plans = {f"this plan: {split(key).part}": _plan(key)}
        plans |= strategies_of(_plan(key), implications=not tag_implications.empty)
        compared = compare_strategies(
            frequencies,
            uses,
            plans,
            excluded=excluded,
            implications=tag_implications,
            tokenizer=clip_tokenizer(),
        )
        return shown | {
            "compared": dg.MetadataValue.md(compared.to_markdown(index=False, floatfmt=".3g")),
            "compared, as bars": picture(comparison_plot(compared), "bars: what each way to reduce achieves"),
        }

    return by_partition(context, compute, describe)


@dg.asset(
    **_COMMON | {"code_version": "3"},
    ins=_of_study("posts", "post_tags") | _IMPLICATIONS,
    deps=[*(name for name in CATALOG if name not in _IMPLICATIONS), *study_parts("captions")],
)
def captions(
    context: dg.AssetExecutionContext,
    store: DataStore,
    posts: dict[str, pd.DataFrame],
    post_tags: dict[str, pd.DataFrame],
    tagger_tags: dict[str, pd.DataFrame],
    vocabulary: dict[str, pd.DataFrame],
    tag_implications: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """One caption per kept post: of the plan's vocabulary in the plan's order, or what lies beside the picture.

    A post that the plan's tagger finds excluded words or another rating on has none, so it is not trained.
    """
    from ti_pipeline.tagging.captions import write_captions
    from ti_pipeline.tagging.seen import refused_by_tagger, seen_tags, with_sidecars

    left_out: dict[str, dict[str, int]] = {}

    def compute(key: str) -> pd.DataFrame:
        study, plan = split(key).study, _plan(key)
        kept = posts[study].loc[posts[study].status == "kept", "post_id"]
        refused = refused_by_tagger(tagger_tags[key], policy_of(STUDIES[study], store))
        for post_id, reason in sorted(refused.items())[:_TOLD]:
            context.log.warning(f"{key}: post {post_id} is left out of training: {reason}")
        left_out[key] = dict(Counter(refused.values()))
        uses = seen_tags(tagger_tags[key]) if plan.source == "tagger" else post_tags[study]
        table = write_captions(kept[~kept.isin(list(refused))], uses, vocabulary[key], plan, tag_implications)
        return with_sidecars(table, posts[study]) if plan.source == "sidecar" else table

    def describe(key: str, table: pd.DataFrame) -> dict[str, Any]:
        sample = "\n".join(f"- `{caption}`" for caption in table.caption.head(8))
        return {
            "pictures taken out by the tagger": dg.MetadataValue.json(left_out[key]),
            "tags per caption": float(table.tag_count.mean()) if len(table) else 0.0,
            "examples": dg.MetadataValue.md(sample or "none"),
        }

    return by_partition(context, compute, describe)
