"""Posts, their tags and how often each tag occurs: one partition per study."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ti_pipeline.assets.policy import policy_of
from ti_pipeline.assets.reporting import LogProgress, picture
from ti_pipeline.io_managers import OPTIONAL
from ti_pipeline.partitions import STUDIES, study_partitions
from ti_pipeline.resources import DataStore, E621Site

if TYPE_CHECKING:
    from ti_pipeline.sources import Reading

__all__ = ["PostsConfig", "post_tags", "posts", "tag_frequencies"]

_COMMON: dict[str, Any] = {
    "partitions_def": study_partitions,
    "group_name": "tags",
    "kinds": {"parquet", "pandas"},
    "code_version": "1",
}
_CATALOG = {name: dg.AssetIn(metadata=OPTIONAL) for name in ("tag_aliases", "tag_implications")}


class PostsConfig(dg.Config):
    """How `posts` of a search are made."""

    ask_site: bool = Field(
        default=True,
        description="Ask the site; otherwise make the table again from the answers kept in `raw/e621/<study>/`.",
    )


@dg.asset(**_COMMON | {"group_name": "source"}, ins=_CATALOG, pool="e621")
def posts(
    context: dg.AssetExecutionContext,
    config: PostsConfig,
    store: DataStore,
    e621: E621Site,
    tag_aliases: pd.DataFrame,
    tag_implications: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """Posts of the study's source that the content policy allows; each left-out post keeps its reason."""
    from ti_pipeline.e621.records import posts_table

    loaded = STUDIES[context.partition_key]
    policy = policy_of(loaded, tag_aliases, tag_implications)
    reading = _read_source(context, config, store, e621)
    table = posts_table(reading.records, policy)
    for note in reading.notes[:20]:
        context.log.warning(note)
    metadata = _posts_metadata(table, reading.notes)
    if reading.answers is not None:
        metadata["answers"] = dg.MetadataValue.path(f"{store.url}/{_answers(context)}/{reading.answers.name}")
    return dg.MaterializeResult(value=table, metadata=metadata)


def _answers(context: dg.AssetExecutionContext) -> str:
    """Return the folder of the data folder that keeps what the site answered."""
    return f"raw/e621/{context.partition_key}"


def _read_source(context: dg.AssetExecutionContext, config: PostsConfig, store: DataStore, e621: E621Site) -> "Reading":
    from ti_pipeline.sources import fetch_posts

    loaded = STUDIES[context.partition_key]
    with store.work(reads=[_answers(context)], writes=[_answers(context)]) as root:
        return fetch_posts(
            loaded.study.source,
            folder=loaded.path.parent,
            answers=root / _answers(context),
            client=e621.client,
            seed=loaded.study.seed,
            ask_site=config.ask_site,
            progress=LogProgress(context),
        )


def _posts_metadata(table: pd.DataFrame, notes: list[str]) -> dict[str, Any]:
    reasons = table.loc[table.status == "dropped", "reason"].value_counts()
    return {
        "kept": int((table.status == "kept").sum()),
        "dropped": dg.MetadataValue.json({str(k): int(v) for k, v in reasons.items()}),
        "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in notes[:50]) or "none"),
    }


@dg.asset(**_COMMON, ins={"tag_aliases": dg.AssetIn(metadata=OPTIONAL)})
def post_tags(posts: pd.DataFrame, tag_aliases: pd.DataFrame) -> dg.MaterializeResult[Any]:
    """One row per kept post and tag, with old names replaced by those the site uses now."""
    from ti_pipeline.tagging.tags import post_tags_table

    table = post_tags_table(posts, tag_aliases)
    return dg.MaterializeResult(
        value=table,
        metadata={"tags": int(table.tag.nunique()), "aliases known": len(tag_aliases)},
    )


@dg.asset(**_COMMON, ins={"tag_catalog": dg.AssetIn(metadata=OPTIONAL)})
def tag_frequencies(
    posts: pd.DataFrame, post_tags: pd.DataFrame, tag_catalog: pd.DataFrame
) -> dg.MaterializeResult[Any]:
    """How many pictures carry each tag, per category, beside the whole site where the catalog knows it."""
    from ti_pipeline.tagging.frequencies import tag_frequencies as count
    from ti_pipeline.tagging.plots import frequency_plot

    table = count(post_tags, tag_catalog, posts_count=int((posts.status == "kept").sum()))
    return dg.MaterializeResult(
        value=table, metadata={"commonest tags": picture(frequency_plot(table), "bars: the commonest tags")}
    )
