"""Base models: finding them, telling them apart, and loading their frozen parts.

Here: folders, single files and hub ids. Not here: what is computed with them (`conditioning`, `trainer`, the sampler).
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import sha256_of

if TYPE_CHECKING:
    import torch

    from ti_pipeline.studies import BaseModelSource

__all__ = ["Base", "BaseModelError", "base_identity", "load_base"]


class BaseModelError(ValueError):
    """A base model cannot be found, loaded or used; the message names it and what to set."""


@dataclass
class Base:
    """A frozen Stable Diffusion base: its parts in evaluation mode, none of them requiring gradients."""

    name: str
    identity: str
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    prediction_type: str
    width: int
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_factor(self) -> int:
        """Return how many pixels one latent position spans on each side (8 for Stable Diffusion)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def require_width(self, width: int, what: str) -> None:
        """Raise `BaseModelError` when `what` has vectors of another width than this base's text encoder."""
        if width != self.width:
            raise BaseModelError(
                f"{what} has vectors of width {width}, but the text encoder of base model {self.name!r} has width"
                f" {self.width} (768: Stable Diffusion 1.x, 1024: 2.x): it belongs to another kind of base model"
            )


def _place(name: str, source: BaseModelSource, folder: Path) -> Path | str:
    """Return the local path or hub id. Raises `BaseModelError` where none is set or nothing is there."""
    field = f"base_models.{name}"
    if source.hub is not None:
        return source.hub
    given = source.folder if source.folder is not None else source.file
    if given is None:
        raise BaseModelError(
            f"{field} has no folder, file or hub: set one of them in the study to where the model lies"
        )
    path = folder / Path(os.path.expandvars(given)).expanduser()
    wanted = path / "model_index.json" if source.folder is not None else path
    if not wanted.is_file():
        raise BaseModelError(f"{field}: {path} is not there{' or no diffusers folder' if source.folder else ''}")
    return path


def base_identity(name: str, source: BaseModelSource, *, folder: Path) -> str:
    """Return a hex sha256 over the weights (hub models: over id and revision), without loading them.

    `folder` is that of the study file. Raises `BaseModelError` when there is no model.
    """
    place = _place(name, source, folder)
    if isinstance(place, str):
        return hashlib.sha256(f"hub:{place}@{source.revision or 'main'}".encode()).hexdigest()
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    files = (
        [place] if place.is_file() else sorted(p for part in parts for p in (place / part).rglob("*") if p.is_file())
    )
    digest = hashlib.sha256()
    for path in files:
        state = path.stat()
        digest.update(_sha256(str(path), state.st_size, state.st_mtime_ns).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _sha256(path: str, _size: int, _changed: int) -> str:
    return sha256_of(path)


def load_base(
    name: str, source: BaseModelSource, *, folder: Path, device: str = "auto", precision: str = "fp32"
) -> Base:
    """Load a base model for training or sampling.

    `device` is `auto` (CUDA where there is one), or a torch device; `precision` is fp32, fp64, bf16 or fp16.
    Raises `BaseModelError` when it is missing or its files cannot be read.
    """
    import torch

    place = _place(name, source, folder)
    dtype = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    try:
        pipeline = _pipeline(place, source)
    except Exception as error:  # noqa: BLE001 - loaders raise whatever their formats raise; the cause is kept
        raise BaseModelError(f"base_models.{name}: {place} cannot be loaded: {error}{_hint(source)}") from error
    parts = [pipeline.unet, pipeline.vae, pipeline.text_encoder]
    for part in parts:
        part.to(device=on, dtype=dtype).eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature
    return Base(
        name=name,
        identity=base_identity(name, source, folder=folder),
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        prediction_type=str(pipeline.scheduler.config.prediction_type),
        width=int(pipeline.text_encoder.config.hidden_size),
        device=on,
        dtype=dtype,
    )


def _pipeline(place: Path | str, source: BaseModelSource) -> Any:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    options = {"safety_checker": None, "requires_safety_checker": False}
    if isinstance(place, Path) and place.is_file():
        return StableDiffusionPipeline.from_single_file(str(place), **options)
    return StableDiffusionPipeline.from_pretrained(
        place, revision=source.revision, local_files_only=isinstance(place, Path), **options
    )


def _hint(source: BaseModelSource) -> str:
    if source.hub is not None:
        return " (hub models need the network once; or download it and set `folder`)"
    if source.file is not None:
        return " (single files need the model's configuration from the hub once; or convert it and set `folder`)"
    return ""
