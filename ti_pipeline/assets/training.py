"""Training: one embedding per variant; variants of one run share their base model and train together."""

from typing import Any

import dagster as dg
import pandas as pd

from ti_pipeline.assets.policy import CATALOG, policy_of, require_allowed_pictures, require_clean_texts
from ti_pipeline.assets.reporting import LogProgress, picture
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

__all__ = ["embedding"]


@dg.asset(
    partitions_def=variant_partitions,
    ins={
        "captions": dg.AssetIn(partition_mapping=plans_of_variants),
        "crops": dg.AssetIn(partition_mapping=crops_of_variants),
        "posts": dg.AssetIn(partition_mapping=study_with_variants),
    },
    deps=CATALOG,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="training",
    kinds={"pytorch", "parquet"},
    pool="gpu",
    code_version="1",
)
def embedding(
    context: dg.AssetExecutionContext,
    store: DataStore,
    captions: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    posts: dict[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Checkpoints of the trained embedding: the base stays frozen, only the variant's own vectors move."""
    from ti_pipeline.inversion.training_runs import train_variants

    keys = [split(key) for key in context.partition_keys]
    for key in keys:
        loaded = STUDIES[key.study]
        policy = policy_of(loaded, store)
        require_clean_texts(loaded, key.part, captions[_plan_of(key)], policy)
        for crop in loaded.study.crops_of(key.part):
            require_allowed_pictures(loaded, crops[str(Key(key.study, crop))], posts[key.study], policy)
    folders = [f"embeddings/{key.study}/{key.part}" for key in keys]
    reads = ["latents", *(f"crops/{crops_key.study}/{crops_key.part}" for crops_key in map(split, crops))]
    with store.work(reads=reads, writes=[*folders, "latents"]) as root:
        jobs = {key: _job(key, root / folder, captions, crops) for key, folder in zip(keys, folders, strict=True)}
        results = train_variants(list(jobs.values()), root=root, progress=LogProgress(context))
    for key in keys:
        context.add_asset_metadata(_metadata(key, results[str(key)]), partition_key=str(key))
    return {str(key): results[str(key)].checkpoints for key in keys}


def _plan_of(key: Key) -> str:
    return str(Key(key.study, str(STUDIES[key.study].study.variant(key.part).captions)))


def _job(key: Key, folder: Any, captions: dict[str, pd.DataFrame], crops: dict[str, pd.DataFrame]) -> Any:
    from ti_pipeline.inversion.training_runs import VariantJob
    from ti_pipeline.tagging.budget import trained_captions

    loaded = STUDIES[key.study]
    variant = loaded.study.variant(key.part)
    return VariantJob(
        study=key.study,
        name=key.part,
        variant=variant,
        base_source=loaded.study.base_models[variant.base],
        base_folder=loaded.path.parent,
        crops={crop: crops[str(Key(key.study, crop))] for crop in loaded.study.crops_of(key.part)},
        captions=trained_captions(captions[_plan_of(key)], variant),
        folder=folder,
    )


def _metadata(key: Key, result: Any) -> dict[str, Any]:
    from ti_pipeline.inversion.losses import loss_plot

    last = result.checkpoints.iloc[-1]
    return {
        "loss": picture(loss_plot({key.part: result.losses}), "line: loss per update"),
        "losses": dg.MetadataValue.json(result.summary),
        "last checkpoint": str(last.checkpoint),
        "short hash": str(last.short_hash),
        "reused": bool(result.reused),
    }
