"""Jobs: what people and schedulers run. All of them work in one process.

`catalog`, `train`, `evaluate` and `compare` are plain asset jobs. A Dagster asset job has one kind of partition;
`prepare` (a study, with its plans and crop sets) and `demo` (everything) therefore run the asset jobs that they are
made of one after the other, each as a run of its own, visible in the UI.
"""

from typing import Any

import dagster as dg
from pydantic import Field

from ti_pipeline.partitions import STUDIES, Key, keys_of, study_partitions
from ti_pipeline.resources import DataStore

__all__ = ["DEMO_STUDY", "JOBS"]

DEMO_STUDY = "demo"


def _asset_job(name: str, description: str, *assets: str) -> Any:
    selection = dg.AssetSelection.assets(*assets)
    return dg.define_asset_job(name, selection, description=description, executor_def=dg.in_process_executor)


_PREPARE_STUDY = (
    "posts",
    "post_tags",
    "tag_frequencies",
    "tag_pairs",
    "images",
    "provenance",
    "image_audit",
    "training_set",
)
ASSET_JOBS = (
    _asset_job(
        "catalog",
        "The site's tags, aliases, implications and do-not-post lists.",
        "tag_catalog",
        "tag_aliases",
        "tag_implications",
        "do_not_post",
    ),
    _asset_job("prepare_study", "From posts to the training set (part of `prepare`).", *_PREPARE_STUDY),
    _asset_job(
        "prepare_captions", "Vocabulary and captions (part of `prepare`).", "tagger_tags", "vocabulary", "captions"
    ),
    _asset_job("prepare_crops", "Crops (part of `prepare`).", "crops"),
    _asset_job("train", "Train a variant, or a range of variants in one process.", "embedding"),
    _asset_job("evaluate", "Render and score a variant's checkpoints.", "evaluation_images", "evaluation_scores"),
    _asset_job("export", "A variant's pictures and captions for other trainers.", "dataset"),
    _asset_job(
        "compare",
        "References, grids, leaderboard, report and release of a study.",
        "reference_images",
        "reference_scores",
        "evaluation_grids",
        "votes",
        "leaderboard",
        "report",
        "release",
    ),
)


def _run(context: dg.OpExecutionContext, job: str, keys: list[str]) -> None:
    """Run an asset job over one partition or a range of them, in this process; raise if it fails."""
    tags = {"ti_pipeline/started_by": context.run_id}
    if len(keys) == 1:
        tags["dagster/partition"] = keys[0]
    else:
        tags |= {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    context.log.info(f"{job}: {', '.join(keys)}")
    result = context.repository_def.get_job(job).execute_in_process(
        instance=context.instance, tags=tags, raise_on_error=False
    )
    if not result.success:
        raise dg.Failure(f"{job} failed for {', '.join(keys)}: {_first_failure(result)}", allow_retries=False)


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the innermost message of the first failed step."""
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None)
        if event.is_step_failure and error is not None:
            while error.cause is not None:
                error = error.cause
            return f"{event.step_key}: {error.message.strip()}"
    return f"see run {result.run_id}"


def _prepare(context: dg.OpExecutionContext, study: str) -> None:
    _run(context, "prepare_study", [study])
    _run(context, "prepare_captions", keys_of("plans", study))
    _run(context, "prepare_crops", keys_of("crops", study))


@dg.op
def prepare_study_and_parts(context: dg.OpExecutionContext) -> None:
    """Posts to training set, then captions of every plan and crops of every crop set of the study."""
    _prepare(context, context.partition_key)


@dg.op
def everything(context: dg.OpExecutionContext) -> None:
    """The whole graph for the study `demo`."""
    _prepare(context, DEMO_STUDY)
    variants = keys_of("variants", DEMO_STUDY)
    for job in ("train", "evaluate"):
        _run(context, job, variants)
    _run(context, "compare", [DEMO_STUDY])


@dg.job(partitions_def=study_partitions, executor_def=dg.in_process_executor)
def prepare() -> None:
    """Everything a study needs before training: posts to training set, captions, crops."""
    prepare_study_and_parts()


@dg.job(executor_def=dg.in_process_executor)
def demo() -> None:
    """The whole graph for the study `demo`, from drawings to the report."""
    everything()


class PurgeConfig(dg.Config):
    """Whose pictures to remove."""

    artist: str = Field(description="The artist's tag; other names of the same artist are found by the catalog.")


@dg.op
def purge_pictures(context: dg.OpExecutionContext, config: PurgeConfig, store: DataStore) -> None:
    """Remove an artist's pictures and what was cut from them, opt the artist out, list what was trained on them."""
    from ti_pipeline.sources.purge import READS, WRITES, purge_artist

    crops_of = {
        str(Key(name, variant)): [str(Key(name, crop)) for crop in loaded.study.crops_of(variant)]
        for name, loaded in STUDIES.items()
        for variant in loaded.study.variants
    }
    with store.work(reads=READS, writes=WRITES, alone=["e621"]) as root:
        table = purge_artist(config.artist, root=root, crops_of=crops_of)
    for row in table[table.done != "removed"].itertuples():
        context.log.warning(f"{row.done}: {row.kind} {row.item} (study {row.study})")
    counts = table.groupby(["done", "kind"]).size()
    told = {f"{done}: {kind}": int(number) for (done, kind), number in counts.items()}
    context.log.info(f"{config.artist} is opted out; {told or 'nothing of this artist is stored'}")
    studies = ", ".join(sorted(set(table.study) - {""}))
    if studies:
        context.log.info(f"run the jobs prepare, train, evaluate and compare again for: {studies}")
    context.add_output_metadata(told)


@dg.config_mapping
def _purge_config(config: PurgeConfig) -> dg.RunConfig:
    return dg.RunConfig(ops={"purge_pictures": config})


@dg.job(executor_def=dg.in_process_executor, config=_purge_config)
def purge() -> None:
    """Remove an artist's pictures and what was made of them, and never use the artist again: `artist: NAME`."""
    purge_pictures()


JOBS = (*ASSET_JOBS, prepare, demo, purge)
