"""What a study may say about its evaluation: axes, samplers, grids, versions to compare with, and the shipped axes.

Here: fields, defaults, and what one field demands of another inside `evaluation`. Not here: from axes to pictures
(`evaluation.suites`), or rules that need the rest of the study (`studies`, `study_files`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ti_pipeline.study_fields import Category, Checkpoints, Name, Positive, Rating, Seed, Side, Token, Values, distinct
from ti_pipeline.study_parts import BaseModelSource, StudyModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DEFAULT_AXES", "NAME_MARK", "RATING_AXIS", "Axis", "Commonest", "Evaluation", "Grid", "Sampler", "Version"]

NAME_MARK = "[name]"
RATING_AXIS = "rating"

Dimension = Literal["value", "checkpoint", "variant", "version", "seed", "sampler", "cfg", "size", "clip_skip"]
ShownScore = Literal["match", "tags", "likeness", "training", "prompt", "diversity", "copy"]


class Sampler(StudyModel):
    """A sampler with its settings, named as web UIs do."""

    name: Literal["DDIM", "Euler a", "DPM++ 2M Karras"] = "DDIM"
    steps: int = Field(default=20, ge=1, le=1000)
    cfg: float = Field(default=7.0, ge=1, le=50, description="Classifier-free guidance scale.")


class Commonest(StudyModel):
    """The study's own commonest tags of a category; names of groups (`canine` beside `wolf`) are passed over."""

    category: Category = "species"
    count: int = Field(default=5, ge=2, le=20)


class Axis(StudyModel):
    """One row of questions to a checkpoint: a prompt in which `search` is replaced by each value in turn."""

    prompt: str = Field(description="[name] is the embedding; must contain the search text.")
    values: Values = Field(
        default=[], description="What takes the place of the search text: a list, or text in CSV as in A1111."
    )
    commonest: Commonest | None = Field(
        default=None, description="In the place of `values`: the commonest tags of the study's own ranking."
    )
    search: str | None = Field(default=None, description="Text to replace; the first value if unset.")
    negative: str = Field(default="", description="Negative prompt.")
    judge: Literal["values", "tags", "tagger"] = Field(
        default="values",
        description="Is the asked value the one that the scorer sees; how many of the prompt's tags show; or do the "
        "value's tags show to `evaluation.tagger`?",
    )
    rating: Rating = Field(
        default="s", description="Rating of what the axis asks for; wider ones need the source's `ratings`."
    )

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if bool(self.values) == (self.commonest is not None):
            raise ValueError("an axis has either `values` (at least one) or `commonest`")
        if self.commonest is not None and not self.search:
            raise ValueError("`commonest` needs `search`, the text to replace")
        return self

    @model_validator(mode="after")
    def _search_occurs(self) -> Self:
        needle = self.search or self.values[0]
        if not needle:
            raise ValueError("the first value is empty; give `search`, the text to replace")
        if needle not in self.prompt and needle not in self.negative:
            raise ValueError(f"the search text {needle!r} is neither in the prompt nor in the negative prompt")
        if NAME_MARK not in self.prompt and NAME_MARK not in self.negative:
            raise ValueError("neither the prompt nor the negative prompt has [name], the place of the embedding")
        return self


# For studies that declare no axes, or leave one of these names empty. Nothing beyond rating s is shipped. `species`
# stands for the study's own ranking, as the seed log did; the other values are those of that log.
DEFAULT_AXES: dict[str, Axis] = {
    "species": Axis(prompt="[name], SPECIES, solo, anthro", search="SPECIES", commonest=Commonest()),
    "body_type": Axis(
        prompt="[name], wolf, muscular, solo, anthro",
        values=["muscular", "big muscular", "slightly chubby", "overweight", "musclegut"],
    ),
    "clothing": Axis(
        prompt="[name], wolf, coat, solo, anthro", values=["coat", "shirt", "pants", "shorts", "loincloth", "underwear"]
    ),
    "background": Axis(
        prompt="[name], wolf, detailed background, city",
        values=["detailed background, city", "detailed background, sea", "detailed background, room"],
    ),
    "multiple": Axis(
        prompt="[name], domestic dog, lion, duo, anthro", values=["domestic dog, lion", "wolf, tiger", "dragon, wolf"]
    ),
    "detail": Axis(
        prompt="[name], wolf, muscular, shirt, smile, blue eyes, sitting, detailed background, city, looking at viewer",
        values=["wolf", "tiger"],
        judge="tags",
    ),
}
_COMBINATION = "combination"
_COMBINATION_PROMPT = "[name], wolf, solo, anthro, detailed background, city"


class Grid(StudyModel):
    """What the columns and the rows of grids are; everything else is the same within one grid."""

    x: Dimension = Field(default="value", description="Columns.")
    y: Dimension = Field(
        default="checkpoint",
        description="Rows. Without `checkpoint` on a side the variant's best is shown; `version` adds `versions`.",
    )
    axes: Annotated[list[Name], distinct] = Field(default=[], description="Only of these axes; of all if empty.")
    scores: Annotated[list[ShownScore], distinct] = Field(default=[], description="Scores written under the cells.")

    @model_validator(mode="after")
    def _two_dimensions(self) -> Self:
        if self.x == self.y:
            raise ValueError(f"columns and rows are both {self.x!r}")
        if {self.x, self.y} == {"variant", "version"}:
            raise ValueError("`version` holds the variants already: put one of the two against something else")
        return self


class Version(StudyModel):
    """A checkpoint of another study, shown beside this study's own where both answered the same prompts."""

    study: Name
    variant: Name
    step: Positive | None = Field(default=None, description="Its step; the last one evaluated if unset.")


class TaggerModel(StudyModel):
    """A tagger that judges axes: a local ONNX file with its list of tags."""

    model: str = Field(description="The .onnx file; relative paths start at the study file.")
    tags: str | None = Field(default=None, description="Its list; `selected_tags.csv`, … beside the model if unset.")
    threshold: float = Field(default=0.35, gt=0, lt=1, description="For tags whose list says none of their own.")


class Evaluation(StudyModel):
    """The evaluation suite: axes × checkpoints × seeds × samplers × sizes × clip skips."""

    axes: dict[Name, Axis] = Field(
        default={},
        description="Axes by name; the shipped ones if there are none. An empty entry is the shipped axis of its name.",
    )
    seeds: Annotated[list[Seed], distinct] = Field(default=[6, 7], min_length=1)
    samplers: Annotated[list[Sampler], distinct] = Field(default=[Sampler()], min_length=1)
    sizes: Annotated[list[Side], distinct] = Field(
        default=[512], min_length=1, description="Sides of the rendered squares in pixels."
    )
    clip_skips: Annotated[list[Annotated[int, Field(ge=1, le=12)]], distinct] = Field(
        default=[], description="CLIP skips to render with; the variant's own if empty."
    )
    checkpoints: Checkpoints = Field(
        default=4, description="How many checkpoints, spread evenly and with the last; or a list of their steps."
    )
    embeddings: dict[Token, str] = Field(
        default={},
        description="Other embeddings' files by the name that prompts use; relative paths start at the study file. The "
        "shipped axis `combination` puts each beside [name].",
    )
    versions: Annotated[list[Version], distinct] = Field(
        default=[], description="Checkpoints of other studies to compare with."
    )
    grids: Annotated[list[Grid], distinct] = Field(
        default=[],
        description="Which grids are drawn; if empty: values by checkpoints, by variants and by versions.",
    )
    long_prompts: Literal["chunks", "cut"] = Field(
        default="chunks",
        description="Prompts beyond 75 tokens are encoded in chunks of 75 as in A1111, or cut as in diffusers.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="Numbers of UNet and text encoder on CUDA; the processor computes in fp32."
    )
    batch_size: int = Field(default=8, ge=1, description="Pictures rendered together.")
    words: str = Field(
        default="",
        description="The concept in words, e.g. `purple fur, red eyes`: what the base draws when told is shown beside.",
    )
    prefer: Literal["balanced", "likeness", "obedience"] = Field(
        default="balanced",
        description="What the best should be best at: both alike, or one of the two twice as much as the other.",
    )
    scorer: BaseModelSource = Field(
        default=BaseModelSource(hub="openai/clip-vit-large-patch14"),
        description="The CLIP or SigLIP model that scores pictures.",
    )
    likeness: BaseModelSource | None = Field(
        default=None,
        description="The model whose eyes tell likeness, e.g. `{hub: facebook/dinov2-base}` (DINO, DINOv2, CLIP"
        " or SigLIP); the scorer's own if unset.",
    )

    tagger: TaggerModel | None = Field(default=None, description="What axes with `judge: tagger` are judged by.")

    @model_validator(mode="after")
    def _axes_have_their_judge(self) -> Self:
        wanting = [name for name, axis in self.axes.items() if axis.judge == "tagger" and self.tagger is None]
        if wanting:
            problem = "is judged by a tagger: name its model in evaluation.tagger"
            raise faults([(("evaluation", "axes", name, "judge"), problem) for name in wanting])
        return self

    def all_axes(self) -> dict[str, Axis]:
        """Return the axes to use: the study's, else the shipped ones, `combination` where it has something to combine.

        Axes of the study's own ranking (`commonest`) have no values yet.
        """
        if self.axes:
            return self.axes
        return DEFAULT_AXES | ({_COMBINATION: combination(self.embeddings)} if self.embeddings else {})

    def all_grids(self, variants: int) -> list[Grid]:
        """Return the grids to draw for a study with so many variants."""
        if self.grids:
            return self.grids
        across = [Grid(y="variant")] if variants > 1 else []
        return [Grid(), *across, *([Grid(y="version")] if self.versions else [])]

    @model_validator(mode="before")
    @classmethod
    def _shipped_axes(cls, data: Any) -> Any:
        """Put the shipped axis where an entry of that name is empty."""
        axes = data.get("axes") if isinstance(data, dict) else None
        if not isinstance(axes, dict):
            return data
        others = data.get("embeddings") if isinstance(data.get("embeddings"), dict) else None
        shipped = DEFAULT_AXES | ({_COMBINATION: combination(others)} if others else {})
        asked = [name for name, axis in axes.items() if axis is None]
        missing = [name for name in asked if name not in shipped]
        found = [(("evaluation", "axes", name), _not_shipped(str(name), list(shipped))) for name in missing]
        if found:
            raise faults(found)
        return data | {"axes": axes | {name: shipped[name] for name in asked}}

    @model_validator(mode="after")
    def _grids_have_axes(self) -> Self:
        known = list(self.all_axes())
        found = [
            (("evaluation", "grids", at, "axes"), f"there is no axis {name!r} (known: {', '.join(known)})")
            for at, grid in enumerate(self.grids)
            for name in grid.axes
            if name not in known
        ]
        if found:
            raise faults(found)
        return self


def combination(embeddings: dict[str, str]) -> Axis:
    """Return the shipped axis that asks whether the embedding still obeys beside another."""
    values = [NAME_MARK, *(f"{NAME_MARK}, {other}" for other in embeddings)]
    return Axis(prompt=_COMBINATION_PROMPT, search=NAME_MARK, values=values, judge="tags")


def _not_shipped(name: str, shipped: list[str]) -> str:
    if name == RATING_AXIS:
        return "no prompts beyond rating s are shipped: write the axis' own prompt and values"
    if name == _COMBINATION:
        return "there is nothing to combine: name other embeddings' files in evaluation.embeddings"
    return f"no axis of this name is shipped (shipped: {', '.join(shipped)}): write its prompt and values"


def faults(found: Sequence[tuple[tuple[str | int, ...], str]]) -> PydanticCustomError:
    """Return an error that says of each location what is wrong there, for rules that look at several fields."""
    told = "; ".join(f"{'.'.join(map(str, location))}: {problem}" for location, problem in found)
    return PydanticCustomError("faults", "{told}", {"told": told, "found": list(found)})
