"""Latents: crops through the base's autoencoder once, kept on disk for every variant with the same base and crops.

The cache holds each picture's distribution (mean and deviation), so that all ways of sampling share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.files import fingerprint, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd
    import torch

    from ti_pipeline.inversion.base_models import Base

__all__ = ["Latents", "encode_crops"]

_BATCH = 8


@dataclass(frozen=True)
class Latents:
    """Distributions of latents, unscaled: `mean` and `deviation` are float32 [pictures, channels, height, width]."""

    mean: torch.Tensor
    deviation: torch.Tensor


def encode_crops(
    base: Base,
    crops: pd.DataFrame,
    *,
    root: Path,
    resolution: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Latents:
    """Return the latents of crops (rows with `path` and `sha256`) at `resolution` pixels, from the cache if there.

    The cache's name is made of the base's identity, the crops' sha256 and the resolution; a damaged one is made anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    key = fingerprint([base.identity, str(base.vae.dtype), resolution, crops.sha256.tolist()])
    path = root / "latents" / f"{key}.safetensors"
    if path.exists():
        try:
            stored = load_file(path)
            return Latents(stored["mean"], stored["deviation"])
        except (SafetensorError, KeyError):
            path.unlink()
    latents = _encode(base, [root / str(p) for p in crops.path], resolution, progress)
    with write_atomically(path) as aside:
        save_file({"mean": latents.mean, "deviation": latents.deviation}, aside)
    return latents


def _encode(
    base: Base, paths: list[Path], resolution: int, progress: Callable[[int, int, str], None] | None
) -> Latents:
    import torch

    means, deviations = [], []
    with torch.inference_mode():
        for start in range(0, len(paths), _BATCH):
            batch = torch.stack([_pixels(path, resolution) for path in paths[start : start + _BATCH]])
            posterior = base.vae.encode(batch.to(base.device, base.vae.dtype)).latent_dist
            means.append(posterior.mean.float().cpu())
            deviations.append(posterior.std.float().cpu())
            if progress is not None:
                progress(min(start + _BATCH, len(paths)), len(paths), "latents")
    return Latents(torch.cat(means).contiguous(), torch.cat(deviations).contiguous())


def _pixels(path: Path, resolution: int) -> torch.Tensor:
    """Return a picture as float32 [3, resolution, resolution] in -1..1."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as picture:
        square = picture.convert("RGB")
        if square.size != (resolution, resolution):
            square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
        pixels = np.asarray(square, dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
