"""Posts, their tags and how often each tag occurs: one partition per study."""

from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
from pydantic import Field
from upath import UPath

from ti_pipeline.assets.policy import CATALOG, exclusions_taken, policy_of
from ti_pipeline.assets.reporting import LogProgress, picture
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import OPTIONAL, Tables
from ti_pipeline.partitions import STUDIES, study_partitions
from ti_pipeline.resources import DataStore, E621Site, PostsDump

if TYPE_CHECKING:
    from ti_pipeline.sources import Reading
    from ti_pipeline.sources.dump import Dumps

__all__ = ["PostsConfig", "post_tags", "posts", "tag_frequencies", "tag_pairs"]

_COMMON: dict[str, Any] = {
    "partitions_def": study_partitions,
    "group_name": "tags",
    "kinds": {"parquet", "pandas"},
    "code_version": "1",
}


_SHOWN = 12  # reasons in the log; all are in the metadata


class PostsConfig(dg.Config):
    """How `posts` of a search are made."""

    ask_site: bool = Field(
        default=True,
        description="Ask the site; otherwise make the table again from the answers kept in `raw/e621/<study>/`.",
    )
    redraw: bool = Field(default=False, description="Draw the posts of a random search anew; otherwise they stay.")


@dg.asset(**_COMMON | {"group_name": "source", "code_version": "2"}, deps=[*CATALOG, *study_parts("posts")])
def posts(
    context: dg.AssetExecutionContext,
    config: PostsConfig,
    store: DataStore,
    e621: E621Site,
    posts_dump: PostsDump,
) -> dg.MaterializeResult[Any]:
    """Posts of the study's source that the content policy allows; each left-out post keeps its reason."""
    from ti_pipeline.e621.records import posts_table

    reading = _read_source(context, config, store, e621, _dumps(store, posts_dump))
    loaded = STUDIES[context.partition_key]
    table = posts_table(reading.records, policy_of(loaded, store))
    taken = exclusions_taken(loaded, store, reading.records)
    for entry in [entry for entry, posts_taken in taken.items() if not posts_taken]:
        context.log.warning(f"{entry!r} takes no post: is it spelled as the source's posts have it?")
    for note in reading.notes[:20]:
        context.log.warning(note)
    context.log.info("; ".join(_fates(table)))
    metadata = _posts_metadata(table, reading.notes) | ({"posts taken by exclusions": taken} if taken else {})
    if reading.answers is not None:
        metadata["answers"] = dg.MetadataValue.path(f"{store.url}/{_answers(context)}/{reading.answers.name}")
    return dg.MaterializeResult(value=table, metadata=metadata)


def _answers(context: dg.AssetExecutionContext) -> str:
    """Return the folder of the data folder that keeps what the site answered."""
    return f"raw/e621/{context.partition_key}"


def _read_source(
    context: dg.AssetExecutionContext, config: PostsConfig, store: DataStore, e621: E621Site, dumps: "Dumps"
) -> "Reading":
    from ti_pipeline.sources import fetch_posts

    loaded = STUDIES[context.partition_key]
    with store.work(reads=[_answers(context)], writes=[_answers(context)], alone=["e621"]) as root:
        return fetch_posts(
            loaded.study.source,
            folder=loaded.path.parent,
            answers=root / _answers(context),
            client=e621.client,
            dumps=dumps,
            seed=loaded.study.seed,
            ask_site=config.ask_site,
            redraw=config.redraw,
            progress=LogProgress(context),
        )


def _dumps(store: DataStore, posts_dump: PostsDump) -> "Dumps":
    """Converted dumps stay on this machine: they are large, and made again from the dump in a minute or two."""
    from ti_pipeline.sources.dump import Dumps

    known = Tables(UPath(store.url)).read("tag_aliases", None)
    aliases = {} if known is None else dict(zip(known.antecedent, known.consequent, strict=True))
    return Dumps(store.root / "e621_export", posts_dump.path, aliases)


def _fates(table: pd.DataFrame) -> list[str]:
    """Return how many posts were kept, and how many dropped, by reason, the commonest first."""
    reasons = table.loc[table.status == "dropped", "reason"].value_counts()
    shown = [f"{count} dropped: {reason}" for reason, count in reasons.head(_SHOWN).items()]
    more = [f"{reasons.iloc[_SHOWN:].sum()} more for other reasons"] if len(reasons) > _SHOWN else []
    return [f"{int((table.status == 'kept').sum())} of {len(table)} posts kept", *shown, *more]


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


@dg.asset(
    **_COMMON | {"code_version": "2"},
    ins={name: dg.AssetIn(metadata=OPTIONAL) for name in ("tag_catalog", "training_set")},
)
def tag_frequencies(
    context: dg.AssetExecutionContext,
    posts: pd.DataFrame,
    post_tags: pd.DataFrame,
    tag_catalog: pd.DataFrame,
    training_set: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """How many pictures carry each tag, per category, beside the whole site where the catalog knows it."""
    from ti_pipeline.demo.posts import demo_catalog
    from ti_pipeline.tagging.frequencies import entropy
    from ti_pipeline.tagging.frequencies import tag_frequencies as count
    from ti_pipeline.tagging.incidence import incidence_of
    from ti_pipeline.tagging.plots import coverage_plot, frequency_plot

    if STUDIES[context.partition_key].study.source.kind == "demo":
        tag_catalog = demo_catalog()  # its posts are not the site's
    kept, trained_on = int((posts.status == "kept").sum()), training_set.post_id[training_set.kept].unique()
    table = count(post_tags, tag_catalog, posts_count=kept, trained_on=trained_on)
    coverage = coverage_plot(incidence_of(post_tags, table.tag.tolist(), kept))
    return dg.MaterializeResult(
        value=table,
        metadata={
            "entropy of a tag, bits": entropy(table["count"].to_numpy()),
            "commonest tags": picture(frequency_plot(table), "bars: the commonest tags"),
            "coverage": picture(coverage, "lines: pictures with enough tags as the vocabulary grows"),
        },
    )


@dg.asset(**_COMMON, ins={"tag_implications": dg.AssetIn(metadata=OPTIONAL)})
def tag_pairs(
    post_tags: pd.DataFrame, tag_frequencies: pd.DataFrame, tag_implications: pd.DataFrame
) -> dg.MaterializeResult[Any]:
    """Which tags stand together: candidates for merging, and what implications repeat in captions."""
    from ti_pipeline.tagging.frequencies import tag_pairs as pair
    from ti_pipeline.tagging.implications import closure

    table = pair(tag_frequencies, post_tags, implied=closure(tag_implications, tag_frequencies.tag.tolist()))
    return dg.MaterializeResult(value=table, metadata={"implied": int(table.implied.sum())})
