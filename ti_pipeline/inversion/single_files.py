"""Single files: checkpoints as web UIs keep them (`.safetensors`, `.ckpt`), loaded without a network.

A single file has weights and no configuration. Those of Stable Diffusion 1.x, all of one shape, get the one in `sd1/`;
any other can be given one (`config`, a diffusers folder of its kind), or takes the hub's. As in A1111, a `.yaml` of the
same name beside the file says whether it predicts v. Not here: folders, hub models, identities (`base_models`).
"""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.clip_vocabulary import clip_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import StableDiffusionPipeline

__all__ = ["load_single_file", "prediction_type_beside"]

# Two tensors tell Stable Diffusion 1.x: latents of four channels go in, and text states of width 768 are attended to.
_FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_ATTENDS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def load_single_file(file: Path, config: Path | None = None) -> StableDiffusionPipeline:
    """Return the pipeline of a checkpoint; `config` is a diffusers folder that says what shape its parts have.

    Nothing of a pickle is executed. Raises what the loaders of the formats raise, and `ValueError` for a `.yaml` that
    cannot be read.
    """
    from diffusers import StableDiffusionPipeline

    options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None}
    if config is not None:
        options["config"] = str(config)
    elif _is_sd1(file):
        options |= {"config": str(importlib.resources.files(__package__) / "sd1"), "tokenizer": clip_tokenizer()}
    pipeline = StableDiffusionPipeline.from_single_file(str(file), local_files_only="config" in options, **options)
    if (predicts := prediction_type_beside(file)) is not None:
        pipeline.scheduler.register_to_config(prediction_type=predicts)
    return pipeline


def _is_sd1(file: Path) -> bool:
    shapes = _shapes(file)
    return shapes.get(_FIRST, ())[1:2] == (4,) and shapes.get(_ATTENDS, ())[1:2] == (768,)


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the two tensors, of those that are there, without reading the others."""
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, framework="pt") as tensors:
            there = set(tensors.keys())
            return {key: tuple(tensors.get_slice(key).get_shape()) for key in (_FIRST, _ATTENDS) if key in there}
    import torch

    loaded = torch.load(file, map_location="meta", weights_only=True)
    tensors = loaded.get("state_dict", loaded)
    return {key: tuple(tensors[key].shape) for key in (_FIRST, _ATTENDS) if key in tensors}


def prediction_type_beside(file: Path) -> str | None:
    """Return what a checkpoint predicts by the `.yaml` of the same name beside it; None where there is none.

    Raises `ValueError` when it cannot be read.
    """
    import yaml

    path = file.with_suffix(".yaml")
    if not path.is_file():
        return None
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        parameterization = said["model"]["params"].get("parameterization", "eps")
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no configuration of a Stable Diffusion checkpoint; repair or remove it") from error
    return {"eps": "epsilon", "v": "v_prediction"}.get(parameterization, str(parameterization))
