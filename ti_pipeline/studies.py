"""The study format: what a person may write in `data/studies/*.yaml`, as pydantic models.

Here: field names, defaults, and the cross references inside one study. Not here: what a single value may be
(`study_fields`), reading files and telling people which line is wrong (`study_files`), and anything that needs
pictures, tags or a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ti_pipeline.study_evaluation import RATING_AXIS, Axis, Evaluation, Grid, Sampler, Version, faults
from ti_pipeline.study_fields import (
    CATEGORIES,
    BaseName,
    Category,
    Day,
    LearningRateText,
    Name,
    NameOrNumber,
    PromptLine,
    Rating,
    Seed,
    Share,
    Side,
    Token,
    distinct,
)
from ti_pipeline.study_parts import BaseModelSource, StudyModel

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


def _over(shared: Any, own: Any) -> Any:
    """Return `own` with what it leaves out taken from `shared`; what is no mapping is for the models to refuse."""
    mine = {} if own is None else own
    return {**shared, **mine} if isinstance(shared, dict) and isinstance(mine, dict) else own


class _SourceBase(StudyModel):
    """What every source may say about content; the fixed exclusion list has no setting (content policy, rule 2)."""

    ratings: list[Rating] = Field(default=["s"], min_length=1, description="Ratings allowed; only `s` by default.")
    exclude_tags: list[str] = Field(
        default=[], description="Tags whose posts are never used, in addition to the fixed exclusion list."
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


Source = Annotated[DemoSource | FolderSource | E621Source | E621ExportSource, Field(discriminator="kind")]


class Shares(StudyModel):
    """Target shares of the training set, judged by tags (text, solo, simple_background); unset = not steered."""

    text: Share | None = Field(default=None, description="Share of pictures with lettering.")
    solo: Share | None = Field(default=None, description="Share of pictures with one subject.")
    simple_background: Share | None = Field(default=None, description="Share of pictures with a simple background.")


PictureFormat = Literal["PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF"]


class Audit(StudyModel):
    """How pictures are measured."""

    text_detector: str | None = Field(
        default=None,
        description="ONNX file of a DBNet text detector (extra `ocr`); its path starts at the study file.",
    )


class Curation(StudyModel):
    """Which pictures make the training set."""

    images: int | None = Field(default=None, ge=1, description="At most this many pictures, best scored first.")
    shares: Shares = Field(default=Shares(), description="Shares that the chosen pictures must have.")
    share_tolerance: Share = Field(default=0.05, description="How far a reached share may lie from its target.")
    min_images: int = Field(default=1, ge=1, description="Fewer pictures than this stop the study.")
    min_side: int = Field(default=64, ge=1, description="Shorter side in pixels, at least.")
    max_aspect: float = Field(default=4.0, ge=1, description="Longer side over shorter side, at most.")
    min_score: int | None = Field(default=None, description="Post score, at least.")
    min_sharpness: float = Field(default=0.0, ge=0, description="Variance of the Laplacian at 256 px, at least.")
    min_detail: float = Field(default=0.0, ge=0, le=8, description="Entropy of grey levels in bits, at least.")
    max_lettering: Share = Field(default=1.0, description="Share of the picture that lettering covers, at most.")
    formats: list[PictureFormat] | None = Field(default=None, description="Only files of these formats.")
    animations: bool = Field(default=True, description="Use the first frame of animations; else leave them out.")
    ratings: list[Literal["s", "q", "e"]] | None = Field(default=None, description="Only posts of these ratings.")
    solo: bool | None = Field(default=None, description="Only posts that are tagged solo, or only others.")
    require_tags: list[str] = Field(default=[], description="Only posts with all of these tags.")
    forbid_tags: list[str] = Field(default=[], description="Only posts with none of these tags.")
    drop_duplicates: bool = Field(default=True, description="Keep one picture of each near-duplicate group.")
    validation_share: Share = Field(default=0.1, le=0.5, description="Share of pictures held out for measuring.")


class FocalWeights(StudyModel):
    """How much each detector pulls the crop; null = unused. Weights are renormalised over detectors that fired."""

    face: Share | None = Field(default=0.9, description="Heads that a cascade finds, and what looks like eyes.")
    saliency: Share | None = Field(default=0.9, description="What differs from the picture's usual texture.")
    corners: Share | None = 0.25
    entropy: Share | None = 0.15


class _Cropping(StudyModel):
    """How crops are cut: what named crop sets inherit from `crops`."""

    focal: FocalWeights = FocalWeights()
    headroom: Annotated[float, Field(ge=0, le=0.2)] = Field(
        default=0.05, description="How much room a subject has above it, beyond below, as a share of the side."
    )
    focal_points: str | None = Field(
        default=None,
        description="CSV with post_id, x, y (shares) of focal points given by hand; its path starts at the study file.",
    )
    head_detector: str | None = Field(
        default=None,
        description="ONNX file that finds heads (YOLOv8's format), in place of OpenCV's cascade; see `focal_points`.",
    )
    max_upscale: float = Field(default=2.0, ge=1, description="Pictures that need more upscaling are left out.")
    background: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")] = Field(
        default="#ffffff", description="Colour under transparent pixels."
    )
    format: Literal["png", "webp"] = Field(default="png", description="Format of the crops; both are lossless.")
    keep: Literal["face", "subject"] = Field(
        default="face",
        description="What a box is placed around: the face, or as much of the whole subject as it holds.",
    )
    aspect: Literal["square", "buckets"] = Field(
        default="square",
        description="Squares, or shapes near each picture's own: sides in multiples of 64, of the square's area.",
    )
    split_above: float | None = Field(
        default=None, ge=1, description="Pictures that are longer than so many times their width are cut in several."
    )
    split_overlap: float = Field(default=0.2, ge=0, lt=1, description="How much neighbours of a cut share, at least.")
    flip: bool = Field(default=False, description="Also the mirror image of each crop.")
    resize: Literal["gamma", "linear"] = Field(
        default="gamma", description="What resizing averages: values as they are stored, as web UIs do, or light."
    )


class CropSet(_Cropping):
    """The training set of one curation, cropped to one square size around its focal point."""

    size: Side = Field(description="Side of the square in pixels.")
    curation: Name = Field(default="default", description="Name of the curation whose pictures are cropped.")

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.aspect == "buckets" and self.size % 64:
            raise ValueError(f"aspect: buckets wants a size that is a multiple of 64, not {self.size}")
        if self.aspect == "buckets" and self.split_above is not None:
            raise ValueError("aspect: buckets keeps long pictures long; remove it or split_above")
        return self


class Crops(_Cropping):
    """Crop sets: one per size in `sizes`, named by it, and named ones in `sets`, which inherit the other fields."""

    sizes: Annotated[list[Side], distinct] = Field(
        default=[512, 768], description="Sizes of crop sets without a name of their own."
    )
    sets: dict[NameOrNumber, CropSet] = Field(default={}, description="Named crop sets, beside those of `sizes`.")

    def named(self) -> dict[str, CropSet]:
        """Return every crop set by name, those of `sizes` first; `sets` may redefine one of them."""
        shared = {name: getattr(self, name) for name in _Cropping.model_fields}
        return {str(size): CropSet(size=size, **shared) for size in self.sizes} | self.sets

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Give named crop sets what is set for all."""
        if not isinstance(data, dict) or not isinstance(data.get("sets"), dict):
            return data
        shared = {key: data[key] for key in _Cropping.model_fields if key in data}
        return data | {"sets": {name: _over(shared, own) for name, own in data["sets"].items()}}

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.sizes and not self.sets:
            raise ValueError("give at least one size in `sizes` or one crop set in `sets`")
        return self


class Coverage(StudyModel):
    """A vocabulary of few tags with which the most pictures have enough to say."""

    tags: int = Field(ge=1, description="At most this many tags in the vocabulary.")
    per_picture: int = Field(default=1, ge=1, description="How many of them a picture should have.")
    informative_below: Share = Field(
        default=0.5, description="Tags on more than this share of the pictures tell little: they are not chosen."
    )


class CaptionPlan(StudyModel):
    """How a caption is made from a post's tags."""

    source: Literal["none", "e621", "tagger"] = "e621"
    categories: list[Category] | None = Field(default=None, description="Categories kept; null keeps all.")
    drop_categories: list[Category] = Field(default=[], description="Categories left out.")
    order: list[Category] = Field(default=["species", "general"], description="These categories first, so ordered.")
    order_by: Literal["share", "name"] = Field(
        default="share", description="Order within a category: the commoner tag first, or by name."
    )
    drop: list[str] = Field(default=[], description="Tags dropped; `*` is a wildcard.")
    keep: list[str] = Field(
        default=[], description="Tags kept whatever the other rules say, the drop list too; `*` is a wildcard."
    )
    min_count: int = Field(default=1, ge=1, description="Tags on fewer pictures are dropped.")
    min_share: Share = Field(default=0.0, description="Tags on a smaller share of the pictures are dropped.")
    max_share: Share = Field(default=1.0, description="Tags on a larger share of the pictures are dropped.")
    implications: Literal["keep", "most_specific", "most_general"] = Field(
        default="keep",
        description="Of a picture's tags that imply each other keep all, the most special, or the most general.",
    )
    merge_synonyms: Share | None = Field(
        default=None,
        gt=0,
        description="Of two tags whose Jaccard index (pictures with both over pictures with either) reaches this, "
        "only the commoner is kept.",
    )
    budgets: dict[Category, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="At most this many tags of a category in the vocabulary, commonest first."
    )
    coverage: Coverage | None = Field(
        default=None, description="Choose the tags with which the most pictures have enough of them."
    )
    balance: Share | None = Field(
        default=None,
        gt=0,
        description="Choose the largest vocabulary in whose captions, after `per_image`, each tag keeps this share.",
    )
    per_image: int | None = Field(default=None, ge=1, description="At most this many tags in one caption.")
    per_image_by: Literal["rarity", "information"] = Field(
        default="rarity",
        description="Which tags a picture keeps: the rarest, or those that together say most (rarity, depth in the "
        "implication tree, and unlikeness to those already chosen).",
    )
    underscores: Literal["spaces", "kept"] = "spaces"
    parentheses: Literal["kept", "escaped", "stripped"] = Field(
        default="kept",
        description="`escaped` writes `\\(`, for web UIs that read (…) as a weight; training here never does.",
    )
    tagger: str | None = Field(default=None, description="Name of the tagger, for `source: tagger`.")
    tagger_model: str | None = Field(
        default=None, description="The tagger's `.onnx` file; relative paths start at the study file."
    )
    tagger_tags: str | None = Field(
        default=None,
        description="Its list of tags: `.csv` with a column `name`, or one tag a line; `selected_tags.csv` or "
        "`tags.txt` beside the model if unset.",
    )
    tagger_threshold: Share = Field(default=0.75, description="Tags the tagger is less sure of are left out.")

    @model_validator(mode="after")
    def _window_is_open(self) -> Self:
        if self.min_share > self.max_share:
            raise ValueError(
                f"min_share {self.min_share:g} is above max_share {self.max_share:g}: no tag could be kept"
            )
        return self

    def kept_categories(self) -> list[str]:
        """Return the categories this plan uses, in caption order."""
        wanted = CATEGORIES if self.categories is None else self.categories
        kept = [c for c in wanted if c not in self.drop_categories]
        return [c for c in self.order if c in kept] + [c for c in kept if c not in self.order]


class Stage(StudyModel):
    """One part of a variant's training: its own pictures, number of updates and learning rate."""

    crop: NameOrNumber = Field(description="Crop set whose pictures are trained on.")
    steps: int = Field(ge=1, description="Optimizer updates of this stage.")
    learning_rate: LearningRateText | None = Field(
        default=None, description="Rate or schedule, its steps counted from the stage's start; the variant's if unset."
    )


class Variant(StudyModel):
    """One embedding to train. `common:` gives values to all variants of a study; a variant overrides them."""

    vectors: int = Field(ge=1, le=75, description="Vectors per token (CLIP's context holds 75).")
    base: BaseName = Field(description="Name of an entry of `base_models`.")
    captions: Name | None = Field(default=None, description="Caption plan; may be left out if the study has one.")
    crop: NameOrNumber | None = Field(default=None, description="Crop set; may be left out if the study has one.")
    resolution: Side | None = Field(default=None, description="Training size in pixels; the crop's own if unset.")
    clip_skip: int = Field(default=1, ge=1, le=12, description="Use the n-th last hidden state (1 = the last).")
    steps: int | None = Field(default=None, ge=1, description="Optimizer updates, at most.")
    epochs: int | None = Field(default=None, ge=1, description="Passes over the pictures, at most.")
    stages: list[Stage] = Field(
        default=[],
        description="Parts of the training one after another, in place of `crop`, `steps` and `epochs`: for example "
        "simple backgrounds first, then complex ones at a lower rate. Crop sets of one size.",
    )
    learning_rate: LearningRateText = Field(
        default=0.005,
        description="A number (0.005) or A1111's schedule (`0.005:100, 1e-3:1000, 1e-5`: rate until that step).",
    )
    batch_size: int = Field(default=1, ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    lr_scheduler: Literal["constant", "cosine"] = Field(
        default="constant", description="Shape laid over the learning rate: as it is, or falling to 0 as half a cosine."
    )
    warmup_steps: int = Field(default=0, ge=0, description="Updates in which the learning rate rises from 0.")
    optimizer: Literal["adamw", "lion", "prodigy"] = Field(
        default="adamw",
        description="adamw, or (extra `optimizers`) lion or prodigy; prodigy finds its own rate: learning_rate 1.",
    )
    seed: Seed | None = Field(default=None, description="Seed of every draw; the study's seed if unset.")
    start: Literal["text", "vocabulary", "file"] = Field(
        default="text",
        description="What the vectors start from: `initializer`, draws with the vocabulary's mean and standard "
        "deviation, or `initializer_file`.",
    )
    initializer: str = Field(default="*", description="Text whose token vectors start the embedding; empty = zeros.")
    initializer_file: str | None = Field(
        default=None,
        description="An embedding to go on from (`start: file`), in any web UI's format; relative paths start at the "
        "study file.",
    )
    templates: list[PromptLine] = Field(
        default=["[name], [filewords]"],
        min_length=1,
        description="Prompt lines, one drawn per picture and step; [name] is the embedding, [filewords] the caption.",
    )
    shuffle_tags: bool = Field(default=False, description="Shuffle a caption's tags at each step.")
    drop_tags: Share = Field(default=0.0, description="Chance of each tag to be left out at each step.")
    keep_tags: int = Field(default=0, ge=0, description="This many first tags are neither shuffled nor left out.")
    long_prompts: Literal["fit", "chunks", "cut"] = Field(
        default="fit",
        description="What happens beyond CLIP's 75 tokens: captions lose the tags that tell least until they fit, or "
        "prompts are encoded in chunks of 75 as in A1111, or cut off. Prompts without a caption are cut for `fit`.",
    )
    latents: Literal["once", "deterministic", "random"] = Field(
        default="once", description="Sample each latent once, take its mean, or sample anew at each step."
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_clip: float | None = Field(default=None, gt=0, description="Largest gradient norm.")
    min_snr_gamma: float | None = Field(
        default=None,
        gt=0,
        description="Weigh each timestep's loss by min(SNR, this) / SNR (v-prediction: SNR + 1); 5 is usual.",
    )
    masked_loss: bool = Field(
        default=False, description="Train on the opaque part of pictures that have transparency, not on what is behind."
    )
    noise_offset: float = Field(
        default=0.0, ge=0, le=1, description="Noise of this deviation on a whole channel of a latent; 0.05 is usual."
    )
    max_norm: float | None = Field(
        default=None, gt=0, description="Longest a vector may be, in mean lengths of the base's own token vectors."
    )
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="Checkpoints hold the vectors' moving average with this decay."
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop when this many checkpoints in a row have not lowered validation loss."
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Keep a checkpoint each n updates (and the last).")
    token: Token | None = Field(
        default=None,
        description="Name of the embedding in prompts and files; may contain {study} and {variant}.",
    )
    note: str | None = Field(default=None, description="Remarks, for people.")

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.stages:
            if any(given is not None for given in (self.steps, self.epochs, self.crop)):
                raise ValueError("`stages` bring crop and steps: set crop, steps and epochs to null beside them")
        elif self.steps is None and self.epochs is None:
            raise ValueError("give steps, epochs or both (whichever ends first)")
        return self

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if (self.start == "file") != (self.initializer_file is not None):
            raise ValueError("`start: file` and `initializer_file` go together: give both or neither")
        return self


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
                "token": (variant.token or name).replace("{study}", self.name).replace("{variant}", name),
            }
        )

    def crops_of(self, name: str) -> list[str]:
        """Return the crop sets that a variant trains on, in order, each once."""
        variant = self.variants[name]
        if variant.stages:
            return list(dict.fromkeys(stage.crop for stage in variant.stages))
        return [variant.crop or next(iter(self.crops.named()))]

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Give variants the values of `common`, and named curations those of `curation`."""
        if not isinstance(data, dict):
            return data
        merged = dict(data)
        for common, named in (("common", "variants"), ("curation", "curations")):
            if isinstance(data.get(named), dict):
                merged[named] = {name: _over(data.get(common, {}), own) for name, own in data[named].items()}
        return merged

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        broken = list(_broken_references(self))
        if broken:
            wanted = "; ".join(f"{'.'.join(location)}: no {name!r}" for location, name, _ in broken)
            raise PydanticCustomError("broken_references", "{wanted}", {"wanted": wanted, "broken": broken})
        for name, variant in self.variants.items():
            sizes = sorted({self.crops.named()[crop].size for crop in self.crops_of(name)})
            if len(sizes) > 1 and variant.resolution is None:
                raise ValueError(
                    f"variants.{name}: its stages' crop sets have the sizes {sizes}; give a resolution to train at"
                )
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
    for name, crop in crops.items():
        if crop.curation not in curations:
            yield ("crops", "sets", name, "curation"), crop.curation, curations
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
