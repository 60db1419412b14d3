"""Eyes: the model that tells how near pictures are to a concept, where that is not the scorer's own picture tower.

DINO (Caron et al. 2021) is what the DreamBooth protocol (Ruiz et al. 2023) prefers: trained without texts, it tells
subjects of one class apart, which CLIP hardly does. DINOv2 (Oquab et al. 2023) is its successor; CLIP and SigLIP models
serve as well. Here: loading. Not here: what is measured with the features (`similarity`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.scorers import Scorer, ScorerError, load_scorer, place_of_model

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ti_pipeline.studies import BaseModelSource

__all__ = ["load_eyes"]

_FIELD, _KINDS = "evaluation.likeness", "DINO (ViT), DINOv2, CLIP or SigLIP"
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as DINOv2 was trained with


class _Dino:
    """A DINO model called as the scorers' models are: the class token after the last norm is a picture's feature."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def device(self) -> Any:
        return self.model.device

    def get_image_features(self, pixel_values: torch.Tensor) -> Any:
        return self.model(pixel_values=pixel_values).last_hidden_state[:, 0]


def load_eyes(source: BaseModelSource, *, folder: Path) -> Scorer:
    """Load the model of `evaluation.likeness`, onto CUDA where there is one; `folder` is that of the study file.

    Raises `ScorerError` when there is none, it is of another kind, incomplete, or the hub cannot be reached.
    """
    import torch
    from transformers import PreTrainedConfig

    place = place_of_model(source, folder=folder, field=_FIELD, kinds=_KINDS)
    try:
        kind = PreTrainedConfig.get_config_dict(place, revision=source.revision)[0].get("model_type")
        if kind in ("clip", "siglip"):
            return load_scorer(source, folder=folder)
        if kind not in ("dinov2", "vit"):
            raise ScorerError(f"{_FIELD}: {place} is a model of type {kind}; wanted is one of {_KINDS}")
        model, report, settings = _dino(kind, place, source.revision)
    except ScorerError:
        raise
    except Exception as error:
        hint = " (hub models need the network once)" if source.hub else ""
        raise ScorerError(f"{_FIELD}: {place} cannot be loaded as a DINO model: {error}{hint}") from error
    lacking = [key for key in report["missing_keys"] if not key.startswith("pooler.")]  # DINO has none, nor is it used
    if lacking:  # transformers would go on with random numbers in their place
        raise ScorerError(f"{_FIELD}: {place} is not a whole model: it lacks {min(lacking)}")
    cut, edge = settings.get("crop_size"), settings.get("size", {}).get("shortest_edge")
    cut = cut or settings.get("size", {}).get("height") or model.config.image_size
    return Scorer(
        model=_Dino(model.eval().to("cuda" if torch.cuda.is_available() else "cpu")),
        tokenizer=None,
        size=int(cut["height"] if isinstance(cut, dict) else cut),
        mean=tuple(settings.get("image_mean", _MEAN)),
        deviation=tuple(settings.get("image_std", _DEVIATION)),
        resample=int(settings.get("resample", 3)),
        edge=edge,
    )


def _dino(kind: str, place: Path | str, revision: str | None) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return the model, what its loading said, and how it wants its pictures."""
    from transformers import Dinov2Model, ViTModel
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    options = {"revision": revision, "dtype": "float32", "output_loading_info": True}
    model, report = (Dinov2Model if kind == "dinov2" else ViTModel).from_pretrained(place, **options)
    return model, report, get_image_processor_config(place, revision=revision)
