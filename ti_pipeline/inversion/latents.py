"""Latents: crops through the base's autoencoder once, kept on disk for every variant with the same base and crops.

The cache holds each picture's distribution (mean and deviation), so that all ways of sampling share it, stacked by
shape. Masks of transparent pictures are made from their alpha beside the crops, which costs nothing worth keeping.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.files import fingerprint, write_atomically
from ti_pipeline.imaging.alpha import alpha_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd
    import torch

    from ti_pipeline.inversion.base_models import Base

__all__ = ["Latents", "crop_sides", "encode_crops", "latent_masks"]

_UNIT = 64  # pixels: sides of buckets are multiples of it, so that every UNet of Stable Diffusion can halve them


@dataclass(frozen=True)
class Latents:
    """Distributions of pictures' latents, unscaled: float32 [channels, height, width] each, of one shape or several.

    `masks` is empty, or has for each picture float32 [1, height, width] in 0..1 or None, where all of it counts.
    """

    mean: Sequence[torch.Tensor]
    deviation: Sequence[torch.Tensor]
    masks: Sequence[torch.Tensor | None] = ()

    def at(self, places: Sequence[int]) -> Latents:
        """Return those of some pictures."""
        masks = [self.masks[i] for i in places] if self.masks else ()
        return Latents([self.mean[i] for i in places], [self.deviation[i] for i in places], masks)


def crop_sides(crops: pd.DataFrame, resolution: int) -> list[tuple[int, int]]:
    """Return each crop's (width, height) in training, pixels.

    Squares are trained at `resolution`. Crops of aspect buckets (with `width` and `height`) keep their own sides where
    their set's `size` is the resolution; else the sides are scaled with it, to the nearest multiples of 64.
    """
    if "width" not in crops:
        return [(resolution, resolution)] * len(crops)

    def scaled(side: int, size: int) -> int:
        return side if size == resolution else max(1, round(side * resolution / size / _UNIT)) * _UNIT

    return [
        (resolution, resolution) if width == height else (scaled(width, size), scaled(height, size))
        for width, height, size in zip(crops.width, crops.height, crops["size"], strict=True)
    ]


def encode_crops(
    base: Base,
    crops: pd.DataFrame,
    *,
    root: Path,
    resolution: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Latents:
    """Return the latents of crops (rows with `path` and `sha256`) at `crop_sides`, from the cache if there.

    The cache's name is made of the base's identity, the crops' sha256 and sides; a damaged one is made anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    sides = crop_sides(crops, resolution)
    key = fingerprint([base.identity, str(base.vae.dtype), sides, crops.sha256.tolist()])
    path = root / "latents" / f"{key}.safetensors"
    if path.exists():
        try:
            return _of_stacks(load_file(path), sides)
        except (SafetensorError, KeyError):
            path.unlink()
    stacks = _encode(base, [root / str(p) for p in crops.path], sides, progress)
    with write_atomically(path) as aside:
        save_file(stacks, aside)
    return _of_stacks(stacks, sides)


def _of_stacks(stacks: dict[str, torch.Tensor], sides: list[tuple[int, int]]) -> Latents:
    """Return pictures one after another; a stack holds those of one shape in that order."""
    rows = {side: iter(range(len(sides))) for side in sides}
    places = [(f"{width}x{height}", next(rows[width, height])) for width, height in sides]
    return Latents(*([stacks[f"{what} {side}"][row] for side, row in places] for what in ("mean", "deviation")))


def _encode(
    base: Base,
    paths: list[Path],
    sides: list[tuple[int, int]],
    progress: Callable[[int, int, str], None] | None,
) -> dict[str, torch.Tensor]:
    import torch

    stacks, done = {}, 0
    with torch.inference_mode(), base.encoding() as vae:
        for width, height in dict.fromkeys(sides):
            chosen = [path for path, side in zip(paths, sides, strict=True) if side == (width, height)]
            means, deviations = [], []
            # One at a time: latents then do not depend on how much memory is free, and as little as possible is needed.
            for path in chosen:
                pixels = _pixels(path, (width, height))[None]
                posterior = vae.encode(pixels.to(base.device, vae.dtype)).latent_dist
                means.append(posterior.mean.float().cpu())
                deviations.append(posterior.std.float().cpu())
                done += 1
                if progress is not None:
                    progress(done, len(paths), "latents")
            stacks[f"mean {width}x{height}"] = torch.cat(means).contiguous()
            stacks[f"deviation {width}x{height}"] = torch.cat(deviations).contiguous()
    return stacks


def _pixels(path: Path, sides: tuple[int, int]) -> torch.Tensor:
    """Return a picture as float32 [3, height, width] in -1..1."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as picture:
        resized = picture.convert("RGB")
        if resized.size != sides:
            resized = resized.resize(sides, Image.Resampling.LANCZOS)
        pixels = np.asarray(resized, dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def latent_masks(crops: pd.DataFrame, *, root: Path, resolution: int, latent_factor: int) -> list[torch.Tensor | None]:
    """Return for each crop how much of each latent position is opaque, or None for a crop without transparency.

    Float32 [1, height, width] in 0..1: the mean of the alpha over the pixels of the position (area resampling).
    """
    import numpy as np
    import torch
    from PIL import Image

    masks: list[torch.Tensor | None] = []
    for path, known, sides in zip(crops.path, crops.alpha_sha256, crop_sides(crops, resolution), strict=True):
        if not isinstance(known, str):
            masks.append(None)
            continue
        with Image.open(alpha_path(root / path)) as alpha:
            small = alpha.convert("F").resize([side // latent_factor for side in sides], Image.Resampling.BOX)
        masks.append(torch.from_numpy(np.asarray(small) / np.float32(255))[None])
    return masks
