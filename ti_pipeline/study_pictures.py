"""What a study may say about its pictures: how they are measured, which ones are used, and how they are cropped.

Here: fields, defaults, and what one field demands of another. Not here: rules that need the rest of the study
(`studies`), or the work itself (`imaging`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ti_pipeline.study_fields import Name, NameOrNumber, Share, Side, distinct
from ti_pipeline.study_parts import StudyModel, over

__all__ = ["Audit", "CropSet", "Crops", "Curation", "FocalWeights", "Shares"]


class Shares(StudyModel):
    """Target shares of the training set, to a thousandth, judged as `shares_from` says; unset = not steered."""

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
    text_recognizer: str | None = Field(
        default=None, description="ONNX file of the recogniser that reads what the detector finds, by which it counts."
    )

    @model_validator(mode="after")
    def _found_is_read(self) -> Self:
        if (self.text_detector is None) != (self.text_recognizer is None):
            raise ValueError(
                "`text_detector` and `text_recognizer` go together: a detector alone finds text in nearly every drawing"
            )
        return self


class Curation(StudyModel):
    """Which pictures make the training set."""

    images: int | None = Field(default=None, ge=1, description="At most this many pictures, best scored first.")
    shares: Shares = Field(default=Shares(), description="Shares that the chosen pictures must have.")
    shares_from: Literal["tags", "pixels"] = Field(
        default="tags",
        description="What tells of text and simple backgrounds: tags, or what the audit measured (for pictures without "
        "tags). Of solo, tags alone do.",
    )
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
        description="ONNX file that finds heads (a YOLO that Ultralytics exported), in place of OpenCV's cascade.",
    )
    head_classes: list[str] = Field(
        default=[], description="Which of the detector's classes are heads; unset: those named head or face."
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
        return data | {"sets": {name: over(shared, own) for name, own in data["sets"].items()}}

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.sizes and not self.sets:
            raise ValueError("give at least one size in `sizes` or one crop set in `sets`")
        return self
