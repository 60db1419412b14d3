"""Pictures: fetched, audited, chosen and cropped. Partitions: study, and crop set for the crops."""

import itertools
from typing import Any

import dagster as dg
import pandas as pd
from upath import UPath

from ti_pipeline.assets.policy import CATALOG, policy_of
from ti_pipeline.assets.reporting import LogProgress, by_partition, picture
from ti_pipeline.assets.study import study_parts
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import STUDIES, Key, crops_partitions, split, study_partitions, study_with_crops
from ti_pipeline.resources import DataStore, E621Site

__all__ = ["crops", "image_audit", "images", "provenance", "training_set"]

_COMMON: dict[str, Any] = {
    "partitions_def": study_partitions,
    "group_name": "pictures",
    "kinds": {"parquet", "pillow"},
    "code_version": "1",
}


def _reasons(table: pd.DataFrame, left_out: pd.Series) -> dg.JsonMetadataValue:
    return dg.MetadataValue.json({str(k): int(v) for k, v in table.loc[left_out, "reason"].value_counts().items()})


@dg.asset(**_COMMON)
def images(
    context: dg.AssetExecutionContext, store: DataStore, e621: E621Site, posts: pd.DataFrame
) -> dg.MaterializeResult[Any]:
    """The pictures of kept posts, checked against the stated size and md5; every other post has its reason."""
    from ti_pipeline.sources import fetch_images

    with store.work(reads=["images"], writes=["images"], alone=["e621"]) as root:
        table = fetch_images(posts, root=root, client=e621.client, progress=LogProgress(context))
    missing = table.status.isin(["failed", "skipped"])
    megabytes = float(table.drop_duplicates("path").file_size.sum()) / 1e6
    pictures = int((table.status == "ok").sum())
    metadata: dict[str, Any] = {"pictures": pictures, "megabytes": megabytes, "left out": _reasons(table, missing)}
    return dg.MaterializeResult(value=table, metadata=metadata)


@dg.asset(**_COMMON, deps=study_parts("provenance"))
def provenance(
    context: dg.AssetExecutionContext, store: DataStore, posts: pd.DataFrame, images: pd.DataFrame
) -> dg.MaterializeResult[Any]:
    """Whose every stored picture is, and where and when it came from; pictures no longer in use are kept account of."""
    from ti_pipeline.sources.provenance import provenance_table

    study = context.partition_key
    earlier = Tables(UPath(store.url)).read("provenance", study)
    with store.work(reads=["images"]) as root:
        table = provenance_table(posts, images, root=root, source=STUDIES[study].study.source, earlier=earlier)
    known = int((table.artists.map(len) > 0).sum())
    return dg.MaterializeResult(
        value=table, metadata={"with an artist": known, "no longer in use": int((~table.in_use).sum())}
    )


@dg.asset(**_COMMON | {"code_version": "4"}, deps=study_parts("image_audit"))
def image_audit(
    context: dg.AssetExecutionContext, store: DataStore, images: pd.DataFrame, post_tags: pd.DataFrame
) -> dg.MaterializeResult[Any]:
    """What each picture really is: decoded format and size, sharpness, detail, background, near-duplicates."""
    from ti_pipeline.imaging.audit import audit_images
    from ti_pipeline.imaging.text_detector import TextDetector
    from ti_pipeline.imaging.text_recognizer import TextRecognizer

    loaded = STUDIES[context.partition_key]
    models, folder = loaded.study.audit, loaded.path.parent
    detector = None
    if models.text_detector and models.text_recognizer:
        detector = TextDetector(folder / models.text_detector, TextRecognizer(folder / models.text_recognizer))
    with store.work(reads=["images"]) as root:
        table = audit_images(images, post_tags, root=root, text_detector=detector, progress=LogProgress(context))
    failed = table.status != "ok"
    return dg.MaterializeResult(
        value=table,
        metadata={
            "usable": int((~failed).sum()),
            "left out": _reasons(table, failed),
            "near-duplicates": int(table.duplicate_of.notna().sum()),
        },
    )


@dg.asset(**_COMMON | {"code_version": "5"}, deps=[*CATALOG, *study_parts("training_set")])
def training_set(
    context: dg.AssetExecutionContext,
    store: DataStore,
    posts: pd.DataFrame,
    post_tags: pd.DataFrame,
    images: pd.DataFrame,
    image_audit: pd.DataFrame,
) -> dg.MaterializeResult[Any]:
    """Which pictures each curation of the study uses, with target shares met; each one left out has its reason."""
    from ti_pipeline.e621.records import refused
    from ti_pipeline.imaging.agreement import agreement, as_markdown
    from ti_pipeline.imaging.contact_sheet import kept_and_rejected_sheet
    from ti_pipeline.imaging.curation import select_training_set

    loaded = STUDIES[context.partition_key]
    study = loaded.study
    reasons = refused(posts, policy_of(loaded, store))  # of a catalog or an opt-out that came after `posts`
    allowed = posts[~posts.post_id.isin(reasons)]
    table = select_training_set(
        allowed,
        post_tags,
        images,
        image_audit,
        study.named_curations(),
        seed=study.seed,
        warn=context.log.warning,
    )
    with store.work(reads=["images"]) as root:
        sheet = kept_and_rejected_sheet(table, root)
    metadata = {
        "kept": dg.MetadataValue.json({str(k): int(v) for k, v in table.groupby("curation").kept.sum().items()}),
        "left out": _reasons(table, ~table.kept),
        "pixels and tags": dg.MetadataValue.md(as_markdown(agreement(image_audit, post_tags))),
        "refused since posts were read": dg.MetadataValue.json({str(k): v for k, v in reasons.items()}),
        "kept and rejected": picture(sheet, "contact sheet of kept and rejected pictures"),
    }
    return dg.MaterializeResult(value=table, metadata=metadata)


@dg.asset(
    **_COMMON | {"partitions_def": crops_partitions},
    ins={"training_set": dg.AssetIn(partition_mapping=study_with_crops)},
    deps=study_parts("crops"),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def crops(
    context: dg.AssetExecutionContext, store: DataStore, training_set: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """The training set cut to one square size around each picture's focal point."""
    from ti_pipeline.imaging.contact_sheet import contact_sheet
    from ti_pipeline.imaging.crop import crop_pictures

    tables: dict[str, pd.DataFrame] = {}
    keys = sorted(map(split, context.partition_keys))
    for study, of_study in itertools.groupby(keys, key=lambda key: key.study):
        jobs = {str(key): _crop_job(key) for key in of_study}
        with store.work(reads=["images"], writes=[job.folder for job in jobs.values()]) as root:
            made = crop_pictures(training_set[study], list(jobs.values()), root=root, progress=LogProgress(context))
        tables |= dict(zip(jobs, made, strict=True))

    def describe(_key: str, table: pd.DataFrame) -> dict[str, Any]:
        good = table[table.status == "ok"]
        sheet = contact_sheet([store.root / path for path in good.path.head(48)])
        return {
            "crops": len(good),
            "left out": _reasons(table, table.status != "ok"),
            "contact sheet": picture(sheet, "contact sheet of crops"),
        }

    return by_partition(context, tables.__getitem__, describe)


def _crop_job(key: Key) -> Any:
    from ti_pipeline.imaging.crop import CropJob, read_focal_points
    from ti_pipeline.imaging.head_detector import HeadDetector

    loaded = STUDIES[key.study]
    crop_set, folder = loaded.study.crops.named()[key.part], loaded.path.parent
    return CropJob(
        folder=f"crops/{key.study}/{key.part}",
        crop_set=crop_set,
        focal_points=read_focal_points(folder / crop_set.focal_points) if crop_set.focal_points else {},
        head_detector=HeadDetector(folder / crop_set.head_detector, crop_set.head_classes)
        if crop_set.head_detector
        else None,
    )
