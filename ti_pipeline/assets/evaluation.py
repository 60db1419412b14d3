"""Evaluation: pictures and scores of every checkpoint (per variant); grids and the leaderboard (per study)."""

from collections.abc import Iterable
from typing import Any

import dagster as dg
import pandas as pd
from upath import UPath

from ti_pipeline.assets.policy import CATALOG, policy_of
from ti_pipeline.assets.reporting import LogProgress, by_partition, picture
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import OPTIONAL
from ti_pipeline.partitions import (
    STUDIES,
    Key,
    crops_of_variants,
    grids_of_variants,
    split,
    studies_of_crops,
    studies_of_variants,
    study_partitions,
    study_with_variants,
    variant_partitions,
)
from ti_pipeline.resources import DataStore
from ti_pipeline.turns import GPU

__all__ = [
    "evaluation_grids",
    "evaluation_images",
    "evaluation_scores",
    "leaderboard",
    "reference_images",
    "reference_scores",
    "votes",
]

_OF_VARIANT: dict[str, Any] = {
    "partitions_def": variant_partitions,
    "backfill_policy": dg.BackfillPolicy.single_run(),
    "group_name": "evaluation",
    "code_version": "2",
}
_OF_STUDY: dict[str, Any] = {
    "partitions_def": study_partitions,
    "group_name": "evaluation",
    "code_version": "2",
}
# A study may be compared before all of its variants are done; the leaderboard then ranks those that are.
_FROM_VARIANTS = dg.AssetIn(partition_mapping=studies_of_variants, metadata=OPTIONAL)


_SHOWN = dg.AssetIn(partition_mapping=grids_of_variants, metadata=OPTIONAL)
# The study's own ranking: an axis may ask for the commonest species.
_RANKING = {
    "tag_frequencies": dg.AssetIn(partition_mapping=study_with_variants),
    "tag_implications": dg.AssetIn(metadata=OPTIONAL),
}


@dg.asset(
    **_OF_VARIANT,
    kinds={"pytorch", "parquet"},
    ins=_RANKING | {"crops": dg.AssetIn(partition_mapping=crops_of_variants)},
    deps=[*(name for name in CATALOG if name not in _RANKING), *study_parts("evaluation_images")],
)
def evaluation_images(
    context: dg.AssetExecutionContext,
    store: DataStore,
    embedding: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
    tag_frequencies: dict[str, pd.DataFrame],
    tag_implications: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """The suite's pictures of every chosen checkpoint; cells already rendered are kept.

    Variants race where the study's seeds are a race and all of them are evaluated in one run.
    """
    from ti_pipeline.evaluation.race_runs import race_variants
    from ti_pipeline.evaluation.runs import render_variants

    folders = {key: f"evaluation/{split(key).study}/{split(key).part}" for key in context.partition_keys}
    racing = [study for study in tag_frequencies if _races(study, folders)]
    reads = [f"embeddings/{split(key).study}/{split(key).part}" for key in folders]
    reads += [path for study in racing for path in (f"crops/{study}", f"evaluation/{study}/references")]
    writes = [*folders.values(), *(f"evaluation/{study}/references" for study in racing)]
    policies = {study: policy_of(STUDIES[study], store) for study in tag_frequencies}
    shared: dict[str, Any] = {"implications": tag_implications, "progress": LogProgress(context)}
    with store.work(reads=reads, writes=writes, alone=[GPU, *writes]) as root:
        plain = {key: split(key) for key in folders if split(key).study not in racing}
        tables = render_variants(
            {key: (STUDIES[study], part, embedding[key]) for key, (study, part) in plain.items()},
            policies=policies,
            rankings=tag_frequencies,
            root=root,
            **shared,
        )
        for study in racing:
            raced = race_variants(
                STUDIES[study],
                {name: embedding[str(Key(study, name))] for name in STUDIES[study].study.variants},
                {split(key).part: table for key, table in crops.items() if split(key).study == study},
                policy=policies[study],
                ranking=tag_frequencies[study],
                root=root,
                **shared,
            )
            tables |= {str(Key(study, name)): table for name, table in raced.items()}
    return by_partition(context, tables.__getitem__, lambda key, table: {"pictures": len(table)})


def _races(study: str, keys: Iterable[str]) -> bool:
    """Tell whether a study's variants are to race, and all of them are among the run's keys."""
    known = STUDIES[study].study
    return not isinstance(known.evaluation.seeds, list) and {str(Key(study, v)) for v in known.variants} <= set(keys)


@dg.asset(
    **_OF_VARIANT,
    kinds={"pytorch", "parquet"},
    ins={"crops": dg.AssetIn(partition_mapping=crops_of_variants)},
    deps=study_parts("evaluation_scores"),
)
def evaluation_scores(
    context: dg.AssetExecutionContext,
    store: DataStore,
    evaluation_images: dict[str, pd.DataFrame],
    crops: dict[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """What the study's scorer sees in each picture: does the asked value win, and how near is the concept?"""
    from ti_pipeline.evaluation.runs import score_variant

    def compute(key: str) -> pd.DataFrame:
        study, part = split(key)
        keys = [str(Key(study, crop)) for crop in STUDIES[study].study.crops_of(part)]
        folder, crops_folders = f"evaluation/{study}/{part}", ["crops/" + "/".join(split(key)) for key in keys]
        with store.work(reads=crops_folders, writes=[folder], alone=[GPU, folder]) as root:
            return score_variant(
                STUDIES[study],
                evaluation_images[key],
                pd.concat([crops[key] for key in keys], ignore_index=True),
                root=root,
                folder=folder,
                progress=LogProgress(context),
            )

    def describe(_key: str, table: pd.DataFrame) -> dict[str, Any]:
        means = table.groupby(["metric", "checkpoint"]).score.mean()
        return {"mean scores": dg.MetadataValue.json({f"{m} {c}": round(v, 4) for (m, c), v in means.items()})}

    return by_partition(context, compute, describe)


@dg.asset(
    **_OF_STUDY,
    kinds={"pytorch", "parquet"},
    ins={"tag_implications": dg.AssetIn(metadata=OPTIONAL), "evaluation_images": _FROM_VARIANTS},
    deps=[*(name for name in CATALOG if name not in _RANKING), *study_parts("reference_images")],
)
def reference_images(
    context: dg.AssetExecutionContext,
    store: DataStore,
    tag_frequencies: pd.DataFrame,
    tag_implications: pd.DataFrame,
    evaluation_images: dict[str, pd.DataFrame],
) -> dg.MaterializeResult[Any]:
    """The suite's prompts drawn without the embedding, and with the concept in words; shared by all variants."""
    from ti_pipeline.evaluation.reference_runs import folder_of, render_references

    loaded, folder = STUDIES[context.partition_key], folder_of(context.partition_key)
    with store.work(reads=[folder], writes=[folder], alone=[GPU, folder]) as root:
        table = render_references(
            loaded,
            policy=policy_of(loaded, store),
            ranking=tag_frequencies,
            implications=tag_implications,
            seeds=sorted({int(seed) for images in evaluation_images.values() for seed in images.seed.unique()}),
            variants={split(key).part for key in evaluation_images},
            root=root,
            progress=LogProgress(context),
        )
    return dg.MaterializeResult(value=table, metadata={"pictures": len(table)})


@dg.asset(
    **_OF_STUDY,
    kinds={"pytorch", "parquet"},
    ins={"crops": dg.AssetIn(partition_mapping=studies_of_crops)},
    deps=study_parts("reference_scores"),
)
def reference_scores(
    context: dg.AssetExecutionContext, store: DataStore, reference_images: pd.DataFrame, crops: dict[str, pd.DataFrame]
) -> dg.MaterializeResult[Any]:
    """What the study's scorer sees in the references, and in the concept's own pictures: the ends of the scale."""
    from ti_pipeline.evaluation.reference_runs import folder_of, score_references

    study = context.partition_key
    folder = folder_of(study)
    with store.work(reads=[folder, f"crops/{study}"], writes=[folder], alone=[GPU, folder]) as root:
        table = score_references(
            STUDIES[study],
            reference_images,
            {split(key).part: frame for key, frame in crops.items()},
            root=root,
            progress=LogProgress(context),
        )
    return dg.MaterializeResult(value=table)


@dg.asset(
    **_OF_STUDY,
    kinds={"pillow", "parquet"},
    ins={"evaluation_images": _SHOWN, "evaluation_scores": _SHOWN},
    deps=study_parts("evaluation_grids"),
)
def evaluation_grids(
    context: dg.AssetExecutionContext,
    store: DataStore,
    evaluation_images: dict[str, pd.DataFrame],
    evaluation_scores: dict[str, pd.DataFrame],
    reference_images: pd.DataFrame,
    reference_scores: pd.DataFrame,
    leaderboard: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """Labelled X/Y grids: checkpoints, variants, and versions of other studies against what they were asked."""
    from ti_pipeline.evaluation.grid_plans import best_steps
    from ti_pipeline.evaluation.grids import grid_thumbnail
    from ti_pipeline.evaluation.likeness import likeness_of_study
    from ti_pipeline.evaluation.runs import together, write_study_grids

    loaded = STUDIES[context.partition_key]
    folder = f"evaluation/{context.partition_key}/grids"
    reads = ["evaluation/" + "/".join(split(key)) for key in evaluation_images]
    own = {key: frame for key, frame in evaluation_scores.items() if split(key).study == context.partition_key}
    scores = together("evaluation_scores", own)
    judged = [*likeness_of_study(loaded.study, scores, reference_scores, shares=True)]
    judged += [frame for key, frame in evaluation_scores.items() if key not in own]
    with store.work(reads=[*reads, f"evaluation/{context.partition_key}/references"], writes=[folder]) as root:
        table = write_study_grids(
            loaded,
            {split(key): frame for key, frame in evaluation_images.items()},
            judged,
            best=best_steps(leaderboard),
            references=reference_images,
            root=root,
            folder=folder,
        )
        shown = picture(grid_thumbnail(root / table.path.iloc[0]), "the first grid")
    return dg.MaterializeResult(value=table, metadata={"missing cells": int(table.missing.sum()), "first grid": shown})


@dg.asset(**_OF_STUDY, kinds={"parquet"}, ins={"evaluation_images": _FROM_VARIANTS})
def votes(
    context: dg.AssetExecutionContext, store: DataStore, evaluation_images: dict[str, pd.DataFrame]
) -> dg.MaterializeResult[Any]:
    """What people said in `make review`, of pictures that are still there."""
    from ti_pipeline.evaluation.votes import gathered_votes, votes_on

    everything = gathered_votes(UPath(store.url) / "votes" / context.partition_key)
    table = votes_on(everything, evaluation_images.values())
    metadata = {"raters": int(table.rater.nunique()), "of pictures that are gone": len(everything) - len(table)}
    return dg.MaterializeResult(value=table, metadata=metadata)


@dg.asset(
    **_OF_STUDY,
    kinds={"parquet", "pandas"},
    ins={
        "embedding": _FROM_VARIANTS,
        "evaluation_scores": _FROM_VARIANTS,
        "votes": dg.AssetIn(metadata=OPTIONAL),
    },
    deps=study_parts("leaderboard"),
)
def leaderboard(
    context: dg.AssetExecutionContext,
    embedding: dict[str, pd.DataFrame],
    evaluation_scores: dict[str, pd.DataFrame],
    reference_scores: pd.DataFrame,
    votes: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """Per axis and overall: every checkpoint with its score, interval and rank; the best is named where any learned."""
    from ti_pipeline.evaluation.decision import rule_of
    from ti_pipeline.evaluation.likeness import likeness_of_study
    from ti_pipeline.evaluation.runs import require_known_checkpoints, together
    from ti_pipeline.evaluation.statistics import leaderboard as rank
    from ti_pipeline.evaluation.statistics import leaderboard_plot

    scores = together("evaluation_scores", evaluation_scores)
    require_known_checkpoints(scores, embedding)
    study = STUDIES[context.partition_key].study
    table = rank(*likeness_of_study(study, scores, reference_scores), votes=votes, **rule_of(study))
    first = table[(table.axis == "overall") & (table["rank"] == 1)].iloc[0]
    return dg.MaterializeResult(
        value=table,
        metadata={
            "best": str(first.checkpoint) if first.best else "nothing was learned",
            "score": f"{first.score:.3f} ({first.low:.3f}–{first.high:.3f})",
            "ranking": picture(leaderboard_plot(table), "checkpoints with scores and intervals"),
        },
    )
