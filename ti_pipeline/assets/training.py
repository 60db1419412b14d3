"""Training: one embedding per variant; variants of one run share their base model and train together."""

import hashlib
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ti_pipeline.assets.policy import CATALOG, policy_of, require_allowed_pictures, require_clean_texts
from ti_pipeline.assets.reporting import LogProgress, picture
from ti_pipeline.assets.sending import checkpoint_sender, finish_checkpoints
from ti_pipeline.assets.study import study_parts
from ti_pipeline.partitions import (
    STUDIES,
    Key,
    crops_of_variants,
    plans_of_variants,
    split,
    study_with_variants,
    variant_partitions,
)
from ti_pipeline.resources import DataStore
from ti_pipeline.turns import EVERY_GPU, GPU

__all__ = ["embedding"]


class Training(dg.Config):
    """How a run trains; what it trains stands in the study."""

    processes: int = Field(
        default=1, ge=1, description="Processes that share each batch, a GPU of this machine to each."
    )
    tensorboard: bool = Field(default=False, description="Write TensorBoard's event files beside the checkpoints.")


@dg.asset(
    partitions_def=variant_partitions,
    ins={
        **{name: dg.AssetIn(partition_mapping=plans_of_variants) for name in ("captions", "vocabulary")},
        "crops": dg.AssetIn(partition_mapping=crops_of_variants),
        **{name: dg.AssetIn(partition_mapping=study_with_variants) for name in ("posts", "provenance", "training_set")},
    },
    deps=[*CATALOG, *study_parts("embedding")],
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="training",
    kinds={"pytorch", "parquet"},
    code_version="1",
)
def embedding(
    context: dg.AssetExecutionContext,
    config: Training,
    store: DataStore,
    captions: dict[str, pd.DataFrame],
    vocabulary: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    posts: dict[str, pd.DataFrame],
    provenance: dict[str, pd.DataFrame],
    training_set: dict[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Checkpoints of the trained embedding: the base stays frozen, only the variant's own vectors move."""
    from ti_pipeline.inversion.training_runs import train_variants

    keys = [split(key) for key in context.partition_keys]
    for key in keys:
        _require_allowed(key, store, captions, crops, posts)
    origins = {key: _origin(key, provenance[key.study], training_set[key.study]) for key in keys}
    folders = {key: f"embeddings/{key.study}/{key.part}" for key in keys}
    reads = ["latents", *(f"crops/{crops_key.study}/{crops_key.part}" for crops_key in map(split, crops))]
    alone = [GPU if config.processes == 1 else EVERY_GPU, *folders.values()]
    with store.work(reads=reads, writes=[*folders.values(), "latents"], alone=alone) as root:
        jobs = [_job(key, root / folders[key], captions, vocabulary, crops, origins[key]) for key in keys]
        with checkpoint_sender(keys, store, root, context.log.info):
            results = train_variants(
                jobs,
                root=root,
                progress=LogProgress(context),
                processes=config.processes,
                tensorboard=config.tensorboard,
                tell=context.log.info,
            )
        tables = {key: results[str(key)].checkpoints for key in keys}
        sent = finish_checkpoints(tables, store, root, context.log.warning)
    for key in keys:
        context.add_asset_metadata(_metadata(key, results[str(key)]) | sent[key], partition_key=str(key))
    return {str(key): table for key, table in tables.items()}


def _require_allowed(
    key: Key,
    store: DataStore,
    captions: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    posts: dict[str, pd.DataFrame],
) -> None:
    """Ask the content policy once more, of today's catalog: the last gate before a variant is trained."""
    loaded = STUDIES[key.study]
    policy = policy_of(loaded, store)
    require_clean_texts(loaded, key.part, captions[_plan_of(key)], policy)
    for crop in loaded.study.crops_of(key.part):
        require_allowed_pictures(loaded, crops[str(Key(key.study, crop))], posts[key.study], policy)


def _plan_of(key: Key) -> str:
    return str(Key(key.study, str(STUDIES[key.study].study.variant(key.part).captions)))


def _origin(key: Key, provenance: pd.DataFrame, training_set: pd.DataFrame) -> dict[str, str]:
    """Return what a checkpoint's file says of the pictures: the hash of their attribution, and the licence note."""
    from ti_pipeline.publishing.attribution import attribution_csv, attribution_table, curations_of

    study = STUDIES[key.study].study
    used = attribution_csv(attribution_table(provenance, training_set, curations_of(study, [key.part])))
    found = {"attribution_sha256": hashlib.sha256(used.encode()).hexdigest()}
    return found | ({"licence": study.source.licence} if study.source.licence else {})


def _job(
    key: Key,
    folder: Any,
    captions: dict[str, pd.DataFrame],
    vocabulary: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    origin: dict[str, str],
) -> Any:
    from ti_pipeline.inversion.training_runs import VariantJob
    from ti_pipeline.tagging.budget import trained_captions
    from ti_pipeline.tagging.concept import started

    loaded = STUDIES[key.study]
    variant = loaded.study.variant(key.part)
    return VariantJob(
        study=key.study,
        name=key.part,
        variant=started(variant, vocabulary[_plan_of(key)]),
        base_source=loaded.study.base_models[variant.base],
        base_folder=loaded.path.parent,
        crops={crop: _usable(key, crop, crops, captions) for crop in loaded.study.crops_of(key.part)},
        captions=trained_captions(captions[_plan_of(key)], variant),
        folder=folder,
        origin=origin,
    )


def _usable(key: Key, crop: str, crops: dict[str, pd.DataFrame], captions: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a crop set's pictures that may be trained on: a plan's tagger takes some out by giving them no caption."""
    table, plan = crops[str(Key(key.study, crop))], split(_plan_of(key)).part
    tagged = STUDIES[key.study].study.captions[plan].source == "tagger"
    return table[table.post_id.isin(captions[_plan_of(key)].post_id)] if tagged else table


def _metadata(key: Key, result: Any) -> dict[str, Any]:
    from ti_pipeline.inversion.applied import as_table
    from ti_pipeline.inversion.losses import course_plot

    last = result.checkpoints.iloc[-1]
    return {
        "course": picture(
            course_plot(result.losses, result.checkpoints), "losses, errors by timestep, gradient and vector norms"
        ),
        "losses": dg.MetadataValue.json(result.summary),
        "what applied": dg.MetadataValue.md(as_table(result.applied)),
        "last checkpoint": str(last.checkpoint),
        "short hash": str(last.short_hash),
        "reused": bool(result.reused),
    }
