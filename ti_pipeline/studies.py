"""The study format: what a person may write in `data/studies/*.yaml`, as pydantic models.

Here: sources, the study as a whole, and the cross references inside it. Not here: its larger parts (`study_pictures`,
`study_training`, `study_evaluation`; other modules import them from here), what a single value may be
(`study_fields`), reading files and telling people which line is wrong (`study_files`), and anything that needs
pictures, tags or a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ti_pipeline.study_evaluation import RATING_AXIS, Axis, Evaluation, Grid, Sampler, Version, faults
from ti_pipeline.study_fields import (
    CATEGORIES,
    BaseName,
    Day,
    Name,
    Rating,
    Seed,
)
from ti_pipeline.study_parts import BaseModelSource, StudyModel, over
from ti_pipeline.study_pictures import Audit, Crops, CropSet, Curation, FocalWeights, Shares
from ti_pipeline.study_training import CaptionPlan, Coverage, Stage, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CATEGORIES",
    "Axis",
    "BaseModelSource",
    "CaptionPlan",
    "Coverage",
    "CropSet",
    "Crops",
    "Curation",
    "DemoSource",
    "E621ExportSource",
    "E621Source",
    "Evaluation",
    "FocalWeights",
    "FolderSource",
    "Grid",
    "Publish",
    "Sampler",
    "Shares",
    "Source",
    "Stage",
    "Study",
    "Variant",
    "Version",
]


class _SourceBase(StudyModel):
    """What every source may say about content; the fixed exclusion list has no setting (content policy, rule 2)."""

    ratings: list[Rating] = Field(default=["s"], min_length=1, description="Ratings allowed; only `s` by default.")
    exclude_tags: list[str] = Field(
        default=[],
        description="Tags whose posts are never used, in addition to the fixed exclusion list; `*` is a wildcard.",
    )
    do_not_post: Literal["drop", "keep"] = Field(
        default="drop", description="What to do with posts of artists on the do-not-post list."
    )
    opt_out_file: str | None = Field(
        default=None, description="Text file with one artist a line whose pictures are never used."
    )
    licence: str | None = Field(
        default=None, description="Licence of the pictures, where they have one; stands in provenance and attribution."
    )

    @field_validator("exclude_tags")
    @classmethod
    def _exclusions_mean_something(cls, entries: list[str]) -> list[str]:
        from ti_pipeline.e621.exclusions import excluded_names

        for entry in entries:
            excluded_names(entry)  # a ValueError for one that could take no post, or would take all
        return entries


class DemoSource(_SourceBase):
    """Pictures drawn by the project itself; needs no network."""

    kind: Literal["demo"]
    concept: str = Field(default="ember", description="Which of the drawn world's held-out characters to learn.")
    pictures: int = Field(default=60, ge=1, le=5000, description="How many posts to draw.")


class FolderSource(_SourceBase):
    """A folder of pictures (nested as it likes) with tag sidecars of any of the three usual kinds."""

    kind: Literal["folder"]
    path: str | None = Field(
        default=None,
        description="The folder; relative paths start at the study file. Environment variables expand.",
    )
    assume_rating: Rating | None = Field(
        default=None,
        description="Rating of pictures whose sidecar has none. Without it such pictures are left out.",
    )


class _SearchBase(_SourceBase):
    """What every search may say."""

    query: str | None = Field(default=None, description="The search; left empty until its owner fills it in.")
    limit: int = Field(default=500, ge=1, le=100_000, description="At most this many posts.")


class E621Source(_SearchBase):
    """A search on e621, written as on the site."""

    kind: Literal["e621"]


class E621ExportSource(_SearchBase):
    """The same search in the site's posts dump; only the records of its hits are asked from the site."""

    kind: Literal["e621_export"]
    dump: str | None = Field(
        default=None,
        description=(
            "The dump (`posts.csv.gz`) or its folder; relative paths start at the study file. Environment variables "
            "expand. `TI_POSTS_DUMP` if unset; without either, it is downloaded from the site once."
        ),
    )

    time_zone: str = Field(
        default="America/New_York",
        description="Whose days `date:` and `age:` of the query mean. The site takes those of the asker's account, "
        "whose default this is.",
    )

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError):
            raise ValueError(f"there is no time zone {name!r}: write UTC, or a name such as Europe/Berlin") from None
        return name


Source = Annotated[DemoSource | FolderSource | E621Source | E621ExportSource, Field(discriminator="kind")]


class Publish(StudyModel):
    """Where finished releases are sent, beside the data folder; nowhere unless a study says so."""

    url: str = Field(
        min_length=1,
        description="Folder or fsspec address (`s3://`, `gs://`, `hf://`, a mounted drive) for the releases' folders.",
    )
    checkpoints: bool = Field(
        default=True,
        description="Also send each checkpoint as soon as it is trained, to `checkpoints/` of the address.",
    )


class Release(StudyModel):
    """What a finished release says of itself."""

    license: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9.+-]*$",
        description="The embedding's licence in the card, by Hugging Face's ids (`cc-by-4.0`, `creativeml-openrail-m`, "
        "`other`); none is claimed unless you give one.",
    )
    recipe: Literal["cleaned", "full"] = Field(
        default="cleaned",
        description="`study.yaml` of a release: without paths, searches and addresses, or the file as it is.",
    )


class Study(StudyModel):
    """One YAML file: everything from the source to the evaluation of its variants."""

    name: Name = Field(description="The study's name; also the file's name without `.yaml`.")
    title: str = Field(default="", description="Heading of the report.")
    description: str = Field(default="", description="What the study asks, for people; stands in report and card.")
    seed: Seed = Field(default=0, description="Seed of every draw that has none of its own.")
    date: Day | None = Field(
        default=None, description="Date in the titles of grids; the day of the newest picture in use if unset."
    )
    source: Source
    base_models: dict[BaseName, BaseModelSource] = Field(min_length=1)
    audit: Audit = Audit()
    curation: Curation = Curation()
    curations: dict[Name, Curation] = Field(
        default={}, description="Named curations; unset fields come from `curation`."
    )
    crops: Crops = Crops()
    captions: dict[Name, CaptionPlan] = Field(default={"none": CaptionPlan(source="none")}, min_length=1)
    common: dict[str, Any] = Field(default={}, description="Values for every variant that does not set its own.")
    variants: dict[Name, Variant] = Field(min_length=1)
    evaluation: Evaluation = Evaluation()
    release: Release = Release()
    publish: Publish | None = Field(default=None, description="Where releases are sent; null keeps them here.")

    def named_curations(self) -> dict[str, Curation]:
        """Return every curation by name; `default` is the study's own `curation`."""
        return {"default": self.curation} | self.curations

    def variant(self, name: str) -> Variant:
        """Return a variant with its open references (captions, crop, resolution, seed, token) filled in."""
        variant = self.variants[name]
        crop = self.crops_of(name)[0]
        return variant.model_copy(
            update={
                "captions": variant.captions or next(iter(self.captions)),
                "crop": crop,
                "resolution": variant.resolution or self.crops.named()[crop].size,
                "seed": self.seed if variant.seed is None else variant.seed,
                # In lower case, since diffusers finds no name with a capital letter whole (publishing.card).
                "token": (variant.token or name.lower()).replace("{study}", self.name).replace("{variant}", name),
            }
        )

    def crops_of(self, name: str) -> list[str]:
        """Return the crop sets that a variant trains on, in order, each once."""
        variant = self.variants[name]
        if variant.stages:
            return list(dict.fromkeys(stage.crop for stage in variant.stages))
        return [variant.crop or next(iter(self.crops.named()))]

    def curations_of_plan(self, plan: str) -> list[str]:
        """Return the curations of the variants that use a caption plan, each once; the first of all if none does."""
        crops = self.crops.named()
        used = [
            crops[crop].curation
            for name in self.variants
            if self.variant(name).captions == plan
            for crop in self.crops_of(name)
        ]
        return list(dict.fromkeys(used)) or [next(iter(self.named_curations()))]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Give variants the values of `common`, and named curations those of `curation`."""
        if not isinstance(data, dict):
            return data
        merged = dict(data)
        for common, named in (("common", "variants"), ("curation", "curations")):
            if isinstance(data.get(named), dict):
                merged[named] = {name: over(data.get(common, {}), own) for name, own in data[named].items()}
        return merged

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        broken = list(_broken_references(self))
        if broken:
            wanted = "; ".join(f"{'.'.join(location)}: no {name!r}" for location, name, _ in broken)
            raise PydanticCustomError("broken_references", "{wanted}", {"wanted": wanted, "broken": broken})
        crops = self.crops.named()
        several = {name: sorted({crops[crop].size for crop in self.crops_of(name)}) for name in self.variants}
        unsized: list[tuple[tuple[str | int, ...], str]] = [
            (("variants", name, "resolution"), f"its stages' crop sets have the sizes {sizes}: say at which it trains")
            for name, sizes in several.items()
            if len(sizes) > 1 and self.variants[name].resolution is None
        ]
        if unsized:
            raise faults(unsized)
        return self

    @model_validator(mode="after")
    def _patience_has_something_to_wait_for(self) -> Self:
        crops, curations = self.crops.named(), self.named_curations()
        found: list[tuple[tuple[str | int, ...], str]] = [
            (("variants", name, "patience"), "waits for the loss on held-out pictures, and validation_share is 0")
            for name, variant in self.variants.items()
            if variant.patience is not None
            and not any(curations[crops[crop].curation].validation_share for crop in self.crops_of(name))
        ]
        if found:
            raise faults(found)
        return self

    @model_validator(mode="after")
    def _starts_have_words(self) -> Self:
        plans = {name: self.captions[str(self.variant(name).captions)] for name in self.variants}
        wordless: list[tuple[tuple[str | int, ...], str]] = [
            (("variants", name, "start"), "starts from the concept's tags, and its caption plan has no `concept`")
            for name, variant in self.variants.items()
            if variant.start == "concept" and plans[name].concept is None
        ]
        if wordless:
            raise faults(wordless)
        return self

    @model_validator(mode="after")
    def _ratings_are_allowed(self) -> Self:
        allowed = self.source.ratings
        found = [
            (("evaluation", "axes", name), problem)
            for name, axis in self.evaluation.axes.items()
            if (problem := _rating_problem(name, axis, allowed)) is not None
        ]
        if found:
            raise faults(found)
        return self

    @model_validator(mode="after")
    def _embeddings_have_names_of_their_own(self) -> Self:
        own = {str(self.variant(name).token).lower(): name for name in self.variants}
        found: list[tuple[tuple[str | int, ...], str]] = [
            (("evaluation", "embeddings", other), f"is the name of the variant {own[other.lower()]} in prompts already")
            for other in self.evaluation.embeddings
            if other.lower() in own
        ]
        if found:
            raise faults(found)
        return self


def _rating_problem(name: str, axis: Axis, allowed: list[Rating]) -> str | None:
    if axis.rating not in allowed:
        return f"asks for rating {axis.rating!r}, but source.ratings allows only {', '.join(allowed)}"
    if name == RATING_AXIS and axis.rating == "s":
        return "an axis of this name asks for ratings beyond s: say which in `rating`, and allow it in source.ratings"
    return None


def _broken_references(study: Study) -> Iterator[tuple[tuple[str, ...], str, list[str]]]:
    """Yield field, name and the known names for each name that the study uses and does not define."""
    curations, crops = list(study.named_curations()), study.crops.named()
    named: dict[tuple[str, ...], str] = {("crops", "sets", name): crop.curation for name, crop in crops.items()}
    named |= {("captions", name): plan.curation for name, plan in study.captions.items() if plan.curation is not None}
    for location, curation in named.items():
        if curation not in curations:
            yield (*location, "curation"), curation, curations
    for name, variant in study.variants.items():
        if variant.base not in study.base_models:
            yield ("variants", name, "base"), variant.base, list(study.base_models)
        if variant.captions is not None and variant.captions not in study.captions:
            yield ("variants", name, "captions"), variant.captions, list(study.captions)
        if variant.crop is not None and variant.crop not in crops:
            yield ("variants", name, "crop"), variant.crop, list(crops)
        for index, stage in enumerate(variant.stages):
            if stage.crop not in crops:
                yield ("variants", name, "stages", str(index), "crop"), stage.crop, list(crops)
