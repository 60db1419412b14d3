"""Vocabulary and captions: one partition per caption plan of a study."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ti_pipeline.assets.policy import CATALOG, policy_of
from ti_pipeline.assets.reporting import LogProgress, by_partition, picture
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import OPTIONAL
from ti_pipeline.partitions import STUDIES, plan_partitions, split, study_and_contrasts, study_with_plans
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import CaptionPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.tagging.trained import Pictures

__all__ = ["Comparing", "captions", "tagger_tags", "vocabulary"]

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


class Comparing(dg.Config):
    """What `vocabulary` shows beside the table."""

    compare: bool | None = Field(
        default=None,
        description="Show what other ways to reduce would give; if unset, with up to 2,000 trained pictures.",
    )

    def wanted(self, pictures: int) -> bool:
        """Tell whether plans are compared that are counted on so many pictures: it takes some ten times as long."""
        return pictures <= _COMPARED_UP_TO if self.compare is None else self.compare


_COMPARED_UP_TO = 2000
_TRAINED = {"training_set": dg.AssetIn(partition_mapping=study_with_plans, metadata=OPTIONAL)}


def _pictures(
    context: dg.AssetExecutionContext, key: str, training_set: dict[str, pd.DataFrame], posts: pd.DataFrame
) -> "Pictures":
    """Return the pictures that a plan is counted on, and those that it writes captions for."""
    from ti_pipeline.schemas import TABLES
    from ti_pipeline.tagging.trained import pictures_of_plan

    name, plan = split(key)
    study = STUDIES[name].study
    trained = study.curations_of_plan(plan)
    chosen = training_set.get(name, TABLES["training_set"].empty())
    if chosen.empty:
        context.log.warning(f"{key}: no training set is made yet, so tags are counted on all kept posts")
    elif study.captions[plan].curation is None and len(trained) > 1:
        context.log.info(f"{key}: tags are counted on the pictures of {', '.join(trained)} together; see `curation`")
    return pictures_of_plan(study, plan, chosen, posts)


def _uses(key: str, post_tags: dict[str, pd.DataFrame], tagger_tags: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the tags that a plan's captions are made of: the site's or a tagger's, some replaced by others."""
    from ti_pipeline.tagging.seen import seen_tags
    from ti_pipeline.tagging.trained import replaced

    plan = _plan(key)
    found = seen_tags(tagger_tags[key]) if plan.source == "tagger" else post_tags[split(key).study]
    return replaced(found, plan.replace)


def _counted(
    key: str, uses: pd.DataFrame, pictures: "NDArray[np.int64]", tag_frequencies: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return the tags of uses counted on pictures, with how many times commoner they are there than elsewhere."""
    from ti_pipeline.tagging.concept import lift_over, lift_over_site
    from ti_pipeline.tagging.trained import counted_tags, renamed

    plan = _plan(key)
    of_study = renamed(tag_frequencies[split(key).study], plan.replace, by="site_count")
    table = counted_tags(uses, pictures, of_study.set_index("tag").site_count)
    if plan.contrast is not None:
        return lift_over(table, renamed(tag_frequencies[plan.contrast], plan.replace, by="count"))
    # The study's frequencies know the site's counts of its posts' tags alone, not of what a tagger may see.
    return table if plan.source == "tagger" else lift_over_site(table, of_study)


@dg.asset(
    **_COMMON | {"code_version": "4"},
    ins=_of_study("posts", "post_tags")
    | {"tag_frequencies": dg.AssetIn(partition_mapping=study_and_contrasts)}
    | _TRAINED
    | _IMPLICATIONS,
    deps=[*(name for name in CATALOG if name not in _IMPLICATIONS), *study_parts("vocabulary")],
)
def vocabulary(
    context: dg.AssetExecutionContext,
    config: Comparing,
    store: DataStore,
    posts: dict[str, pd.DataFrame],
    tag_frequencies: dict[str, pd.DataFrame],
    post_tags: dict[str, pd.DataFrame],
    tagger_tags: dict[str, pd.DataFrame],
    training_set: dict[str, pd.DataFrame],
    tag_implications: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Which tags captions of this plan may use; every dropped tag keeps the rule and the numbers that dropped it."""
    from ti_pipeline.tagging.plots import vocabulary_plot
    from ti_pipeline.tagging.seen import refused_by_tagger
    from ti_pipeline.tagging.vocabulary import reduce_vocabulary

    given: dict[str, tuple[pd.DataFrame, pd.DataFrame, frozenset[str]]] = {}
    counted: dict[str, int] = {}

    def compute(key: str) -> pd.DataFrame:
        study, uses = split(key).study, _uses(key, post_tags, tagger_tags)
        policy = policy_of(STUDIES[study], store)
        refused = refused_by_tagger(tagger_tags[key], policy)
        pictures = _pictures(context, key, training_set, posts[study]).without(refused).counted
        counted[key] = len(pictures)
        table = _counted(key, uses, pictures, tag_frequencies)
        # A harmless tag may contain an excluded word; in a caption it would read as that word.
        worded = {tag for tag in table.tag if policy.refuses_text(tag)}
        given[key] = table, uses[uses.post_id.isin(pictures)], policy.excluded | worded
        return reduce_vocabulary(*given[key][:2], _plan(key), given[key][2], tag_implications)

    def describe(key: str, table: pd.DataFrame) -> dict[str, Any]:
        kept = table[table.kept].category.value_counts()
        shown = {
            "trained pictures": counted[key],
            "kept": dg.MetadataValue.json({str(k): int(v) for k, v in kept.items()}),
            "kept and dropped": picture(vocabulary_plot(table), "bars: kept and dropped tags per category"),
        }
        if _plan(key).source == "none" or not config.wanted(counted[key]):
            return shown
        return shown | _compared(key, *given[key], tag_implications)

    return by_partition(context, compute, describe)


def _compared(
    key: str, frequencies: pd.DataFrame, uses: pd.DataFrame, excluded: frozenset[str], implications: pd.DataFrame
) -> dict[str, Any]:
    """Return what other ways to reduce would give, as a table and as bars."""
    from ti_pipeline.tagging.comparison import compare_strategies, strategies_of
    from ti_pipeline.tagging.plots import comparison_plot
    from ti_pipeline.tagging.tokens import clip_tokenizer

    plans = {f"this plan: {split(key).part}": _plan(key)}
    plans |= strategies_of(_plan(key), implications=not implications.empty)
    compared = compare_strategies(
        frequencies, uses, plans, excluded=excluded, implications=implications, tokenizer=clip_tokenizer()
    )
    return {
        "compared": dg.MetadataValue.md(compared.to_markdown(index=False, floatfmt=".3g")),
        "compared, as bars": picture(comparison_plot(compared), "bars: what each way to reduce achieves"),
    }


@dg.asset(
    **_COMMON | {"code_version": "4"},
    ins=_of_study("posts", "post_tags") | _TRAINED | _IMPLICATIONS,
    deps=[*(name for name in CATALOG if name not in _IMPLICATIONS), *study_parts("captions")],
)
def captions(
    context: dg.AssetExecutionContext,
    store: DataStore,
    posts: dict[str, pd.DataFrame],
    post_tags: dict[str, pd.DataFrame],
    tagger_tags: dict[str, pd.DataFrame],
    vocabulary: dict[str, pd.DataFrame],
    training_set: dict[str, pd.DataFrame],
    tag_implications: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """One caption per picture of the training set: of the plan's vocabulary in its order, or what lies beside it.

    A picture that the plan's tagger finds excluded words or another rating on has none, so it is not trained.
    """
    from ti_pipeline.tagging.captions import write_captions
    from ti_pipeline.tagging.seen import refused_by_tagger, with_sidecars

    left_out: dict[str, dict[str, int]] = {}

    def compute(key: str) -> pd.DataFrame:
        study, plan = split(key).study, _plan(key)
        refused = refused_by_tagger(tagger_tags[key], policy_of(STUDIES[study], store))
        for post_id, reason in sorted(refused.items())[:_TOLD]:
            context.log.warning(f"{key}: post {post_id} is left out of training: {reason}")
        left_out[key] = dict(Counter(refused.values()))
        pictures = _pictures(context, key, training_set, posts[study]).without(refused)
        uses = _uses(key, post_tags, tagger_tags)
        table = write_captions(
            pictures.captioned, uses, vocabulary[key], plan, tag_implications, counted_on=pictures.counted
        )
        return with_sidecars(table, posts[study]) if plan.source == "sidecar" else table

    def describe(key: str, table: pd.DataFrame) -> dict[str, Any]:
        sample = "\n".join(f"- `{caption}`" for caption in table.caption.head(8))
        return {
            "pictures taken out by the tagger": dg.MetadataValue.json(left_out[key]),
            "tags per caption": float(table.tag_count.mean()) if len(table) else 0.0,
            "examples": dg.MetadataValue.md(sample or "none"),
        }

    return by_partition(context, compute, describe)
