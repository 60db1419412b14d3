"""Checks of what tables and files say: policy, pictures, crops, captions, training, grids.

Blocking where going on would train on something it must not, or waste a GPU.
"""

import dagster as dg
import pandas as pd

from ti_pipeline.assets.policy import policy_of
from ti_pipeline.checks.contracts import Frames, table_check, verdict
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import STUDIES, keys_of, split
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import Variant

__all__ = ["CONTENT_CHECKS"]


def _stored(store: DataStore, table: str, partition: str | None) -> pd.DataFrame:
    """Return a table that the checked one was made from (empty where it was never made)."""
    from upath import UPath

    from ti_pipeline.schemas import TABLES

    frame = Tables(UPath(store.url)).read(table, partition)
    return TABLES[table].empty() if frame is None else frame


def _excluded_in(store: DataStore, frames: Frames) -> list[str]:
    problems = []
    for key, frame in frames.items():
        policy = policy_of(STUDIES[split(key).study], store)
        found = [tag for tag in sorted(set(frame.tag)) if policy.refuses_tags([tag])]
        problems += [f"{key}: excluded tag {tag!r}" for tag in found]
    return problems


@table_check("post_tags", blocking=True, description="No tag of the content policy's exclusion list.")
def no_excluded_tags_in_posts(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    return verdict(_excluded_in(store, frames))


@table_check("vocabulary", blocking=True, description="No excluded tag is kept for captions.")
def no_excluded_tags_in_vocabulary(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    return verdict(_excluded_in(store, {k: f[f.kept] for k, f in frames.items()}))


@table_check("captions", blocking=True, description="No caption says an excluded tag.")
def no_excluded_tags_in_captions(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    problems = []
    for key, frame in frames.items():
        policy = policy_of(STUDIES[split(key).study], store)
        said = {text: tag for text in sorted(set(frame.caption)) if (tag := policy.refuses_text(text))}
        problems += [f"{key}: {text!r} says {tag!r}" for text, tag in said.items()]
    return verdict(problems)


@table_check("training_set", blocking=True, description="No picture of a post that the content policy refuses.")
def no_refused_pictures(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    from ti_pipeline.e621.records import refused

    problems = []
    for study, frame in frames.items():
        posts = _stored(store, "posts", study)
        used = posts[posts.post_id.isin(frame.post_id[frame.kept])]
        reasons = refused(used, policy_of(STUDIES[study], store))
        problems += [f"{study}: post {post_id}: {reason}" for post_id, reason in reasons.items()]
    return verdict(problems)


@table_check("training_set", blocking=True, description="No two kept pictures are the same or nearly so.")
def no_duplicate_pictures(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    problems = []
    for study, frame in frames.items():
        audit = _stored(store, "image_audit", study).set_index("post_id")
        group_of = audit.duplicate_of.fillna(audit.index.to_series()).astype("int64")
        for name, curation in STUDIES[study].study.named_curations().items():
            kept = frame.loc[(frame.curation == name) & frame.kept, "post_id"]
            groups = kept.map(group_of)
            twins = sorted(kept[groups.duplicated(keep=False)])
            if curation.drop_duplicates and twins:
                problems.append(f"{study}: curation {name} keeps near-duplicates: {twins[:10]}")
    return verdict(problems)


@table_check("training_set", blocking=True, description="Every curation keeps at least its `min_images`.")
def enough_pictures(frames: Frames) -> dg.AssetCheckResult:
    problems = []
    for study, frame in frames.items():
        for name, curation in STUDIES[study].study.named_curations().items():
            kept = int(frame.loc[frame.curation == name, "kept"].sum())
            if kept < curation.min_images:
                problems.append(f"{study}: curation {name} keeps {kept}, wants {curation.min_images}")
    return verdict(problems)


@table_check("crops", blocking=True, description="Each crop is RGB, exactly its size, and has no padding.")
def crops_are_exact(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    from ti_pipeline.imaging.verify import crop_problems

    problems = []
    for key, frame in frames.items():
        audit = _stored(store, "image_audit", split(key).study)
        problems += [f"{key}: {problem}" for problem in crop_problems(frame, audit, store.root)]
    return verdict(problems)


@table_check("crops", blocking=True, description="At least one picture to train on.")
def something_to_train_on(frames: Frames) -> dg.AssetCheckResult:
    empty = [key for key, f in frames.items() if not ((f.status == "ok") & (f.split == "train")).any()]
    return verdict([f"{key}: no crop to train on" for key in empty])


@table_check("captions", description="Captions fit into the tokens that their variants' vectors leave of 75.")
def captions_fit(frames: Frames) -> dg.AssetCheckResult:
    cut = {k: n for key, frame in frames.items() for k, n in _cut_captions(key, frame).items() if n}
    words = ", ".join(f"{variant}: {n}" for variant, n in cut.items())
    return dg.AssetCheckResult(
        passed=not cut,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"captions whose tail is cut, per variant: {words}" if cut else None,
        metadata={"cut captions": dg.MetadataValue.json(cut)},
    )


@table_check("captions", description="Vectors, tags and pictures are in proportion (a warning, with its source).")
def vectors_suit_captions(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    from ti_pipeline.tagging.advice import advise
    from ti_pipeline.tagging.tokens import clip_tokenizer

    found = [
        advise(name, variant, _stored(store, "vocabulary", key), captions, clip_tokenizer())
        for key, captions in frames.items()
        for name, variant in _variants_of(key)
    ]
    warnings = [f"{advice.variant}: {words}" for advice in found for words in advice.warnings]
    return dg.AssetCheckResult(
        passed=not warnings,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(warnings[:3]) or None,
        metadata={"how many vectors?": dg.MetadataValue.md("\n".join(f"- {words}" for words in warnings) or "fine")},
    )


@table_check("embedding", blocking=True, description="Hardly an update was skipped: at most a tenth of them.")
def losses_are_finite(store: DataStore, frames: Frames) -> dg.AssetCheckResult:
    import numpy as np
    import pyarrow.parquet as pq

    problems = []
    for key in frames:
        study, part = split(key)
        path = store.root / "embeddings" / study / part / "losses.parquet"
        numbers = pq.read_table(path, columns=["loss", "gradient_norm", "vector_norm"]).to_pandas()
        skipped = int((~np.isfinite(numbers)).any(axis=1).sum())
        if skipped > len(numbers) / 10:
            problems.append(f"{key}: {skipped} of {len(numbers)} updates had numbers that are not finite")
    return verdict(problems)


@table_check("embedding", blocking=True, description="Training moved the vectors away from their start.")
def embedding_moved(frames: Frames) -> dg.AssetCheckResult:
    still = [f"{key}: {row.checkpoint}" for key, f in frames.items() for row in f.itertuples() if row.moved <= 0]
    return verdict([f"{name} equals its initial vectors" for name in still])


@table_check("evaluation_grids", description="No grid lacks a picture.")
def grids_are_complete(frames: Frames) -> dg.AssetCheckResult:
    lacking = [row for frame in frames.values() for row in frame[frame.missing > 0].itertuples()]
    return verdict([f"{row.grid}: {row.missing} pictures missing" for row in lacking])


def _variants_of(key: str) -> list[tuple[str, Variant]]:
    """Return the variants, with their names, that use a caption plan."""
    study, plan = split(key)
    names = [split(variant_key).part for variant_key in keys_of("variants", study)]
    variants = [(name, STUDIES[study].study.variant(name)) for name in names]
    return [(name, variant) for name, variant in variants if variant.captions == plan]


def _cut_captions(key: str, captions: pd.DataFrame) -> dict[str, int]:
    """Return, per variant that uses this plan and lets captions be cut, how many of them lose their tail."""
    from ti_pipeline.tagging.budget import captions_over_budget
    from ti_pipeline.tagging.tokens import clip_tokenizer

    cut = {}
    for name, variant in _variants_of(key):
        if variant.long_prompts == "cut":
            template = max(variant.templates, key=len)
            over = captions_over_budget(
                captions, vectors=variant.vectors, tokenizer=clip_tokenizer(), template=template
            )
            cut[name] = len(over)
    return cut


CONTENT_CHECKS = (
    no_excluded_tags_in_posts,
    no_excluded_tags_in_vocabulary,
    no_excluded_tags_in_captions,
    no_refused_pictures,
    no_duplicate_pictures,
    enough_pictures,
    crops_are_exact,
    something_to_train_on,
    captions_fit,
    vectors_suit_captions,
    losses_are_finite,
    embedding_moved,
    grids_are_complete,
)
