"""Jobs: what people and schedulers run. All of them work in one process.

`catalog`, `train`, `evaluate`, `export` and `compare` are plain asset jobs. A Dagster asset job has one kind of
partition; `prepare`, `study` (everything), `demo` (`study` for the demo) and `verify` therefore have a step for each
asset job that they are made of, which runs it as a run of its own. So a stopped or failed run goes on from the step
where it ended, and what a step runs can be seen, and stopped, with it.
"""

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg
from pydantic import Field

from ti_pipeline.command_line import remember_failure
from ti_pipeline.partitions import (
    STUDIES,
    Key,
    crops_partitions,
    keys_of,
    plan_partitions,
    study_partitions,
    variant_partitions,
)
from ti_pipeline.resources import DataStore

__all__ = ["DEMO_STUDY", "JOBS", "KEYS_OF_JOBS"]

DEMO_STUDY = "demo"


@dg.failure_hook
def tell_failure(context: dg.HookContext) -> None:
    """Keep the reason of a failed step for the end of what a command prints."""
    error = context.op_exception
    if isinstance(error, dg.DagsterExecutionInterruptedError):
        reason = "stopped; give the same command again to go on"
    else:
        reason = str(getattr(error, "description", None) or error) or type(error).__name__
    remember_failure(f"{context.job_name}, {context.op.name}: {reason}")


def _job(name: str, description: str, selection: dg.AssetSelection) -> Any:
    return dg.define_asset_job(
        name, selection, description=description, executor_def=dg.in_process_executor, hooks={tell_failure}
    )


def _asset_job(name: str, description: str, *assets: str) -> Any:
    return _job(name, description, dg.AssetSelection.assets(*assets))


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
_CHECKED = {
    "study": (*_PREPARE_STUDY, "evaluation_grids", "votes", "leaderboard", "report", "release"),
    "plans": ("tagger_tags", "vocabulary", "captions"),
    "crops": ("crops",),
    "variants": ("embedding", "evaluation_images", "evaluation_scores", "dataset"),
}
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
    *(
        _job(
            f"verify_{kind}",
            f"Checks only, of what has this kind of partition: {', '.join(assets)} (part of `verify`).",
            dg.AssetSelection.checks_for_assets(*assets),
        )
        for kind, assets in _CHECKED.items()
    ),
)


def _execute(context: dg.OpExecutionContext, job: str, keys: Sequence[str]) -> dg.ExecuteInProcessResult:
    """Run an asset job over one partition or a range of them, in this process."""
    tags = {"ti_pipeline/started_by": context.run_id}
    if len(keys) == 1:
        tags["dagster/partition"] = keys[0]
    else:
        tags |= {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    context.log.info(f"{job}: {', '.join(keys)}")
    result = context.repository_def.get_job(job).execute_in_process(
        instance=context.instance, tags=tags, raise_on_error=False
    )
    if any(_was_interrupted(event) for event in result.all_events):  # a signal came: it is for this run, too
        remember_failure(f"{job}: stopped; give the same command again to go on")
        raise dg.DagsterExecutionInterruptedError
    return result


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    error = getattr(event.event_specific_data, "error", None)
    return bool(event.is_step_failure and error and error.cls_name == "DagsterExecutionInterruptedError")


def _run(context: dg.OpExecutionContext, job: str, keys: Sequence[str]) -> None:
    """Run an asset job as `_execute` does; raise if it fails."""
    result = _execute(context, job, keys)
    if result.success:
        return
    raise dg.Failure(f"{job} failed for {', '.join(keys)}: {_first_failure(result)}", allow_retries=False)


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    """Return what the first failed step says itself, without what Dagster wraps around it."""
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None)
        if event.is_step_failure and error is not None:
            said = error.cause or error
            return f"{event.step_key}: {said.message.strip().partition(': ')[2] or said.message.strip()}"
    return f"see run {result.run_id}"


def _study(context: dg.OpExecutionContext) -> str:
    """Return the study of a run; the job `demo` has no partition."""
    return context.partition_key if context.has_partition_key else DEMO_STUDY


@dg.op(out=dg.Out(dg.Nothing))
def prepared(context: dg.OpExecutionContext) -> None:
    """Posts to training set, then captions of every plan and crops of every crop set of the study."""
    study = _study(context)
    _run(context, "prepare_study", [study])
    _run(context, "prepare_captions", keys_of("plans", study))
    _run(context, "prepare_crops", keys_of("crops", study))


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def trained(context: dg.OpExecutionContext) -> None:
    """All variants of the study, in one process."""
    _run(context, "train", keys_of("variants", _study(context)))


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def evaluated(context: dg.OpExecutionContext) -> None:
    """Pictures and scores of all variants."""
    _run(context, "evaluate", keys_of("variants", _study(context)))


@dg.op(ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def compared(context: dg.OpExecutionContext) -> None:
    """Grids, leaderboard, report and release."""
    _run(context, "compare", [_study(context)])


@dg.job(partitions_def=study_partitions, executor_def=dg.in_process_executor, hooks={tell_failure})
def prepare() -> None:
    """Everything a study needs before training: posts to training set, captions, crops."""
    prepared()


@dg.job(partitions_def=study_partitions, executor_def=dg.in_process_executor, hooks={tell_failure})
def study() -> None:
    """Everything for one study, from posts to the release; stopped anywhere, the same command goes on."""
    compared(evaluated(trained(prepared())))


@dg.op
def checked(context: dg.OpExecutionContext) -> None:
    """All checks of what is stored of the study, by kind of partition; fails with what they found."""
    study = context.partition_key
    found: list[str] = []
    for job, keys in {
        "verify_study": [study],
        **{f"verify_{kind}": keys_of(kind, study) for kind in ("plans", "crops", "variants")},
    }.items():
        result = _execute(context, job, keys)
        failed = [
            check
            for check in result.get_asset_check_evaluations()
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR  # a warning is advice
        ]
        found += [f"{check.asset_key.to_user_string()}: {check.description or check.check_name}" for check in failed]
        if not result.success and not failed:
            found.append(_first_failure(result))
    if found:
        raise dg.Failure(f"{len(found)} checks of {study} failed: " + "; ".join(found), allow_retries=False)


@dg.job(partitions_def=study_partitions, executor_def=dg.in_process_executor, hooks={tell_failure})
def verify() -> None:
    """Check all that is stored of a study, and change nothing."""
    checked()


@dg.job(executor_def=dg.in_process_executor, hooks={tell_failure})
def demo() -> None:
    """The job `study` for the study `demo`, from drawings to the report."""
    compared(evaluated(trained(prepared())))


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


@dg.job(config=_purge_config, executor_def=dg.in_process_executor, hooks={tell_failure})
def purge() -> None:
    """Remove an artist's pictures and what was made of them, and never use the artist again: `artist: NAME`."""
    purge_pictures()


JOBS = (*ASSET_JOBS, prepare, study, demo, verify, purge)

# The partition keys of every job that has some, for commands that name one.
KEYS_OF_JOBS: Final[dict[str, Sequence[str]]] = {
    **dict.fromkeys(
        ("prepare", "prepare_study", "study", "compare", "verify", "verify_study"),
        study_partitions.get_partition_keys(),
    ),
    **dict.fromkeys(("prepare_captions", "verify_plans"), plan_partitions.get_partition_keys()),
    **dict.fromkeys(("prepare_crops", "verify_crops"), crops_partitions.get_partition_keys()),
    **dict.fromkeys(("train", "evaluate", "export", "verify_variants"), variant_partitions.get_partition_keys()),
}
