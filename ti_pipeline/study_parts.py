"""What several parts of a study have in common: how strict they are read, and where a model lies.

Here: the base of all parts, and parts that more than one other part uses. Not here: the parts themselves (`studies`,
`study_pictures`, `study_training`, `study_evaluation`).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["BaseModelSource", "StudyModel", "over"]


class StudyModel(BaseModel):
    """A part of a study: unknown fields are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseModelSource(StudyModel):
    """Where a base model lies: exactly one of `folder`, `file`, `hub`; none at all until its owner fills it in."""

    folder: str | None = Field(default=None, description="A diffusers folder; relative paths start at the study file.")
    file: str | None = Field(default=None, description="A single `.safetensors` or `.ckpt` file.")
    config: str | None = Field(
        default=None, description="For a `file` that is not Stable Diffusion 1.x: a diffusers folder of its kind."
    )
    hub: str | None = Field(default=None, description="A Hugging Face hub id, e.g. `CompVis/stable-diffusion-v1-4`.")
    revision: str | None = Field(default=None, description="Hub revision (branch, tag or commit).")
    prediction: Literal["epsilon", "v_prediction"] | None = Field(
        default=None,
        description="What its UNet predicts, noise or velocity, where neither its configuration nor a `.yaml` of the "
        "same name beside a file says it.",
    )
    published_as: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="The hub id under which others find a model that lies in a `folder` or `file` here; for cards.",
    )
    note: str | None = Field(default=None, description="What this model is, for people.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.folder, self.file, self.hub)) > 1:
            raise ValueError("give one of folder, file and hub, not several")
        if self.config is not None and self.file is None:
            raise ValueError("config belongs to a file; folders and hub models have their own")
        return self


def over(shared: Any, own: Any) -> Any:
    """Return `own` with what it leaves out taken from `shared`; what is no mapping is for the models to refuse."""
    mine = {} if own is None else own
    return {**shared, **mine} if isinstance(shared, dict) and isinstance(mine, dict) else own
