"""What a study may say about its training: captions, and the variants of which each becomes an embedding.

Here: fields, defaults, and what one field demands of another. Not here: rules that need the rest of the study
(`studies`), or the work itself (`tagging`, `inversion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ti_pipeline.inversion.schedules import parse_learning_rate
from ti_pipeline.study_fields import (
    CATEGORIES,
    BaseName,
    Category,
    LearningRateText,
    Name,
    NameOrNumber,
    PromptLine,
    Seed,
    Share,
    Side,
    Token,
)
from ti_pipeline.study_parts import StudyModel
from ti_pipeline.study_recipes import with_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CaptionPlan", "Coverage", "Stage", "Variant"]


# Tagged, so that a fault in a list is reported as one of the list.
Concept = Annotated[
    Annotated[Literal["auto"], Tag("auto")] | Annotated[list[str], Field(min_length=1), Tag("tags")],
    Discriminator(lambda value: "tags" if isinstance(value, list) else "auto"),
]


class Coverage(StudyModel):
    """A vocabulary of few tags with which the most pictures have enough to say."""

    tags: int = Field(ge=1, description="At most this many tags in the vocabulary.")
    per_picture: int = Field(default=1, ge=1, description="How many of them a picture should have.")
    informative_below: Share = Field(
        default=0.5, description="Tags on more than this share of the pictures tell little: they are not chosen."
    )
    min_pictures: int = Field(default=2, ge=1, description="Tags on fewer pictures are not chosen.")


class CaptionPlan(StudyModel):
    """How a caption is made from a post's tags."""

    source: Literal["none", "e621", "tagger", "sidecar"] = Field(
        default="e621",
        description="What captions are made of: nothing, the posts' own tags, what a tagger sees, or (`sidecar`) the "
        "captions that lie beside a folder's pictures, as they stand; of their tags where there is none.",
    )
    categories: list[Category] | Literal["all"] | None = Field(
        default=None,
        description="Categories kept, or `all`; null keeps those that `budgets` names, or else species and general.",
    )
    drop_categories: list[Category] = Field(default=[], description="Categories left out.")
    order: list[Category] = Field(default=["species", "general"], description="These categories first, so ordered.")
    order_by: Literal["share", "name"] = Field(
        default="share", description="Order within a category: the commoner tag first, or by name."
    )
    curation: Name | None = Field(
        default=None,
        description="Curation on whose pictures tags are counted; unset: those of all variants that use this plan.",
    )
    replace: dict[str, str] = Field(
        default={}, description="Tags that are counted and written as others, all at once: `{old: new}`."
    )
    drop: list[str] = Field(default=[], description="Tags dropped; `*` is a wildcard.")
    keep: list[str] = Field(
        default=[], description="Tags kept whatever the other rules say, the drop list too; `*` is a wildcard."
    )
    concept: Concept | None = Field(
        default=None,
        description="Tags of what is learned, which captions then do not say: a list (`*` is a wildcard), or `auto`: "
        "those that nearly all trained pictures share (70 %) and that are rare elsewhere (a third as common).",
    )
    contrast: Name | None = Field(
        default=None,
        description="For `concept: auto`: a study of other pictures, in the place of the site's counts of tags.",
    )
    constant: Literal["keep", "drop"] = Field(
        default="keep", description="What to do with tags that all pictures have: they tell no picture from another."
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
        "only the one that the site has more often is kept; not where one implies the other.",
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
        default="information",
        description="Which tags a caption keeps under `per_image`, and longest where its prompt has little room: those "
        "that together say most (entropy over the pictures, depth in the implication tree, unlikeness to those already "
        "chosen), or the rarest.",
    )
    at_least: dict[Category, Annotated[int, Field(ge=0)]] = Field(
        default={"species": 1},
        description="Of each category so many tags are kept before all others, where a picture has them.",
    )
    underscores: Literal["spaces", "kept"] = "spaces"
    parentheses: Literal["kept", "escaped", "stripped"] = Field(
        default="kept",
        description="`escaped` writes `\\(` into exports, for web UIs that read (…) as a weight; training here never "
        "does. `stripped` leaves the brackets around words out.",
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
    def _contrast_has_a_use(self) -> Self:
        if self.contrast is not None and self.concept != "auto":
            raise ValueError("`contrast` is what `concept: auto` compares with: set that, or leave contrast out")
        return self

    @model_validator(mode="after")
    def _window_is_open(self) -> Self:
        if self.min_share > self.max_share:
            raise ValueError(
                f"min_share {self.min_share:g} is above max_share {self.max_share:g}: no tag could be kept"
            )
        return self

    def kept_categories(self) -> list[str]:
        """Return the categories this plan uses, in caption order."""
        wanted: Sequence[str] = list(self.budgets) or ["species", "general"]
        if self.categories is not None:
            wanted = CATEGORIES if self.categories == "all" else self.categories
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

    recipe: Literal["classic", "fast"] = Field(
        default="classic",
        description="What fields stand for that the variant does not set: `classic` is what A1111 does, `fast` what "
        "learned most in the least time: optimizer directional, learning_rate 0.1 falling as a cosine, timesteps "
        "spread, min_snr_gamma 5, batch_size 4, checkpoint_every 50.",
    )
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
    lr_scheduler: Literal["constant", "cosine", "linear"] = Field(
        default="constant",
        description="Shape laid over the learning rate: as it is, or falling to 0 as half a cosine or in a line.",
    )
    warmup_steps: int = Field(default=0, ge=0, description="Updates in which the learning rate rises from 0.")
    optimizer: Literal["adamw", "lion", "prodigy", "directional"] = Field(
        default="adamw",
        description="adamw, or (extra `optimizers`) lion or prodigy; prodigy finds its own rate, which learning_rate "
        "multiplies: 1 if unset. `directional` (Kim et al. 2025, arXiv 2512.13672) keeps vectors as long as the "
        "vocabulary's words and only turns them, by learning_rate radians at each update: 0.05 is usual.",
    )
    seed: Seed | None = Field(default=None, description="Seed of every draw; the study's seed if unset.")
    start: Literal["text", "vocabulary", "file", "concept"] = Field(
        default="text",
        description="What the vectors start from: `initializer`, draws with the vocabulary's mean and standard "
        "deviation, `initializer_file`, or the words of the concept's own tags (those that `concept` of the caption "
        "plan leaves out), so that training begins at what words can say.",
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
    caption_dropout: Share = Field(default=0.0, description="Chance of the whole caption to be left out at each step.")
    keep_tags: int = Field(default=0, ge=0, description="This many first tags are neither shuffled nor left out.")
    long_prompts: Literal["fit", "chunks", "cut"] = Field(
        default="fit",
        description="What happens beyond CLIP's 75 tokens: captions lose the tags that tell least until they fit, or "
        "prompts are encoded in chunks of 75 as in A1111, or cut off. Prompts without a caption are cut for `fit`.",
    )
    latents: Literal["once", "deterministic", "random"] = Field(
        default="once", description="Sample each latent once, take its mean, or sample anew at each step."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Of the frozen base: bf16 on a GPU that has it and else fp32, or as said."
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Compute activations twice instead of keeping them, for less memory and the same numbers: from the "
        "first time that the memory runs out, always, or never.",
    )
    gradient_clip: float | None = Field(default=None, gt=0, description="Largest gradient norm.")
    min_snr_gamma: float | None = Field(
        default=None,
        gt=0,
        description="Weigh each timestep's loss by min(SNR, this) / SNR (v-prediction: SNR + 1); 5 is usual.",
    )
    timesteps: Literal["random", "spread"] = Field(
        default="random",
        description="Draw each sample's timestep by itself, or spread them evenly over batches and updates (a sequence "
        "of low discrepancy), which makes the gradient less noisy.",
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
        description="Name of the embedding in prompts and files; may contain {study} and {variant}. The variant's name "
        "in lower case if unset.",
    )
    note: str | None = Field(default=None, description="Remarks, for people.")

    @model_validator(mode="before")
    @classmethod
    def _follows_a_recipe(cls, values: Any) -> Any:
        return with_recipe(values)

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.stages:
            if any(given is not None for given in (self.steps, self.epochs, self.crop)):
                raise ValueError("`stages` bring crop and steps: set crop, steps and epochs to null beside them")
        elif self.steps is None and self.epochs is None:
            raise ValueError("give steps, epochs or both (whichever ends first)")
        return self

    @model_validator(mode="before")
    @classmethod
    def _prodigy_scales_its_own_rate(cls, values: Any) -> Any:
        """Give prodigy the rate it is made for where the study says none: it multiplies what it finds itself."""
        if isinstance(values, dict) and values.get("optimizer") == "prodigy" and "learning_rate" not in values:
            return values | {"learning_rate": 1.0}
        return values

    @model_validator(mode="after")
    def _has_an_effect(self) -> Self:
        """Refuse what would train nothing."""
        rates = [self.learning_rate, *(stage.learning_rate for stage in self.stages)]
        fastest = max(rate for text in rates if text is not None for rate, _ in parse_learning_rate(text).pieces)
        if self.optimizer == "prodigy" and fastest < 0.1:
            raise ValueError(
                f"learning_rate {fastest:g} would train nothing: prodigy finds its own rate and multiplies it, set 1"
            )
        return self

    @model_validator(mode="after")
    def _lengths_are_whose(self) -> Self:
        if self.optimizer == "directional" and (self.max_norm is not None or self.gradient_clip is not None):
            raise ValueError(
                "`optimizer: directional` keeps one length and normalises gradients: leave out max_norm and "
                "gradient_clip"
            )
        return self

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if (self.start == "file") != (self.initializer_file is not None):
            raise ValueError("`start: file` and `initializer_file` go together: give both or neither")
        return self

    def decisive(self) -> dict[str, Any]:
        """Return what decides the trained vectors, as JSON has it: neither remarks nor the recipe's name.

        Fields that came later are left out where they say what was always done: earlier trainings stay what they are.
        """
        values = self.model_dump(mode="json", exclude={"note", "recipe"})
        return {name: value for name, value in values.items() if (name, value) not in _ALWAYS_DONE}


_ALWAYS_DONE = [("timesteps", "random")]
