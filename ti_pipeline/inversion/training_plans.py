"""Training plans: what a job trains on, and the fingerprint of everything that decides the way its vectors take.

Where that way ends, and which checkpoints are kept of it, decides nothing of it: `steps`, `epochs`, `checkpoint_every`
and `patience` are not part of the fingerprint, so a training can be made longer or be looked at more closely. Not here:
files and states (`training_files`), or the training itself (`training_runs`, `trainer`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import fingerprint, sha256_of
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.variant_state import initializer_path, stages_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import BaseModelSource, Variant

__all__ = ["Plan", "VariantJob", "crop_files", "make_plan"]

METHOD = "3"  # part of every fingerprint: raise it when the same settings would give other vectors
_ENDS = ("steps", "epochs", "checkpoint_every", "patience")  # where the way ends, and what is kept of it
_SILENT = ("note", "gradient_checkpointing")  # no bit of the vectors depends on these
_OF_THE_END = ("cosine", "linear")  # shapes of the learning rate that depend on how long the training is


@dataclass(frozen=True)
class VariantJob:
    """A variant to train: resolved settings, where its base lies, its crop sets by name, captions, and its folder."""

    study: str
    name: str
    variant: Variant
    base_source: BaseModelSource
    base_folder: Path
    crops: Mapping[str, pd.DataFrame]
    captions: pd.DataFrame
    folder: Path
    origin: Mapping[str, str] = field(default_factory=dict)  # whose pictures these are: written into the files

    @property
    def key(self) -> str:
        """The variant's partition key."""
        return f"{self.study}__{self.name}"


@dataclass(frozen=True)
class Plan:
    """A checked job, the rows it trains on in order of post ids, and the fingerprint of what decides its way.

    `recipe` are its settings as they are used, `asked` those that say where it ends and what is kept.
    """

    job: VariantJob
    identity: str
    rows: pd.DataFrame
    data_fingerprint: str
    fingerprint: str
    recipe: dict[str, Any]
    asked: dict[str, Any]

    @property
    def group(self) -> tuple[str, str, int, int]:
        """What variants must share to be trained together."""
        variant = self.job.variant
        return (self.identity, variant.precision, variant.clip_skip, variant.resolution or 0)


def make_plan(job: VariantJob, *, precision: str | None = None) -> Plan:
    """Check a job and fingerprint it; `precision` in place of what `auto` means on this machine.

    Raises `TrainingError` naming the variant and what is missing.
    """
    from ti_pipeline.inversion.base_models import base_identity, resolved_precision

    used = resolved_precision(precision or job.variant.precision)
    job = replace(job, variant=job.variant.model_copy(update={"precision": used}))
    rows = _rows(job)
    identity = base_identity(job.variant.base, job.base_source, folder=job.base_folder)
    shown = ["post_id", "split", "sha256", "caption", "stage", *(["alpha_sha256"] * job.variant.masked_loss)]
    data = fingerprint(rows[shown].values.tolist())
    recipe = job.variant.decisive()
    way, asked = _way_and_end(recipe, rows)
    decides = {
        "method": METHOD,
        "study": job.study,
        "name": job.name,
        "base": identity,
        "variant": way,
        "start": _sha256_of_start(job),
        "data": data,
    }
    return Plan(job, identity, rows, data, fingerprint(decides), recipe, asked)


def _way_and_end(recipe: dict[str, Any], rows: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that decide the way of the updates, and those that say where it ends and what is kept."""
    way = {name: value for name, value in recipe.items() if name not in {*_ENDS, *_SILENT}}
    asked = {name: recipe[name] for name in _ENDS}
    stages = [dict(stage) for stage in recipe["stages"]]
    if stages:
        asked["last_stage"] = stages[-1].pop("steps")
        way["stages"] = stages
    if recipe["lr_scheduler"] in _OF_THE_END:
        way["end"] = [asked["steps"], asked["epochs"], asked.get("last_stage")]
    if not _name_matters(recipe, rows):
        way.pop("token")
    return way, asked


def _name_matters(recipe: dict[str, Any], rows: pd.DataFrame) -> bool:
    """Tell whether prompts with another name in the embedding's place could have other tokens around it.

    They could where its name stands elsewhere, too, or right beside a letter, with which it would make one word.
    """
    name = str(recipe["token"]).casefold()
    texts = [template.replace("[name]", " ") for template in recipe["templates"]] + rows.caption.unique().tolist()
    glued = any(re.search(r"\w\[name\]|\[name\]\w", template) for template in recipe["templates"])
    return glued or any(name in text.casefold() for text in texts)


def _rows(job: VariantJob) -> pd.DataFrame:
    import pandas as pd

    parts = []
    for index, crop in enumerate(crop for crop, _ in stages_of(job.variant)):
        good = job.crops[crop][job.crops[crop].status == "ok"].sort_values(["post_id", "path"])
        if not (good.split == "train").any():
            raise TrainingError(f"{job.key}: there is no picture to train on in its crop set {crop!r}")
        parts.append(good.assign(stage=index))
    rows = pd.concat(parts, ignore_index=True).merge(job.captions[["post_id", "caption"]], on="post_id", how="left")
    uncaptioned = rows.loc[rows.caption.isna(), "post_id"].tolist()
    if uncaptioned:
        raise TrainingError(f"{job.key}: no caption for posts {uncaptioned[:5]}; make the captions again")
    if job.variant.masked_loss and "alpha_sha256" not in rows:
        raise TrainingError(f"{job.key}: masked_loss needs crops that know their transparency; make the crops again")
    if job.variant.patience is not None and not held_out(rows).any():
        raise TrainingError(
            f"{job.key}: patience waits for the loss on held-out pictures, and none is held out: raise "
            "`curation.validation_share`, or leave patience out"
        )
    return rows


def held_out(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are measured on: what has not been trained on in any stage, shown once."""
    trained = rows.split == "train"
    return ~rows.post_id.isin(rows.post_id[trained]) & ~rows.post_id.duplicated()


def _sha256_of_start(job: VariantJob) -> str | None:
    if job.variant.start != "file":
        return None
    path = initializer_path(job.variant, job.base_folder)
    return sha256_of(path) if path.is_file() else None  # a missing one is told when the variant starts


def crop_files(rows: pd.DataFrame, *, masked: bool) -> Iterator[tuple[Path, str]]:
    """Yield each file that is trained on, relative to the data folder, with its sha256."""
    from pathlib import Path

    from ti_pipeline.imaging.alpha import alpha_path

    yield from zip(map(Path, rows.path), rows.sha256, strict=True)
    if masked:
        transparent = rows[rows.alpha_sha256.notna()]
        yield from zip(map(alpha_path, map(Path, transparent.path)), transparent.alpha_sha256, strict=True)
