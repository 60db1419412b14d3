"""The sampler: cells of many prompts, seeds and checkpoints in shared batches.

A picture does not depend on its batch: its noise comes from its own seed on the processor, and guidance, scheduler
and decoder work row by row. Samplers are diffusers' schedulers. Not here: which cells (`suites`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.infotext import infotext
from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.embedding_files import Embedding

__all__ = ["draw_pictures", "render_cells"]

_CHUNK = "ti_cell"


def render_cells(
    cells: Sequence[Cell],
    *,
    base: Base,
    embeddings: Mapping[str, Embedding],
    root: Path,
    folder: str,
    batch_size: int,
    infotext_extra: Mapping[str, object],
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Render the cells that are not there yet and return the `evaluation_images` table of all.

    `embeddings` maps checkpoints to their vectors. A finished picture carries its cell's identity and is kept;
    pictures of cells that are no longer asked for are removed. When memory runs out the batch is halved.
    """
    wanted = {cell.cell: root / folder / f"{cell.cell}.png" for cell in cells}
    for stray in (root / folder).glob("*.png"):
        if stray.stem not in wanted:
            stray.unlink()
    missing = [cell for cell in cells if not _is_finished(wanted[cell.cell], cell.cell)]
    done = len(cells) - len(missing)
    if progress is not None:
        progress(done, len(cells), "pictures")
    for batch in _batches(missing, batch_size):
        for cell, pixels in zip(batch, _halving(batch, base, embeddings), strict=True):
            _save(pixels, wanted[cell.cell], cell, base, infotext_extra)
        done += len(batch)
        if progress is not None:
            progress(done, len(cells), "pictures")
    return _table(cells, wanted, root)


def _batches(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Group cells that can share a batch: same sampler, steps, size and clip skip."""

    def kind(cell: Cell) -> tuple[Any, ...]:
        return (cell.sampler, cell.steps, cell.size, cell.clip_skip)

    batches = []
    for _, group in itertools.groupby(sorted(cells, key=kind), key=kind):
        together = list(group)
        batches += [together[start : start + size] for start in range(0, len(together), size)]
    return batches


def _halving(cells: Sequence[Cell], base: Base, embeddings: Mapping[str, Embedding]) -> list[NDArray[np.uint8]]:
    """Draw a batch; where the device's memory is too small, draw it in halves."""
    import torch

    try:
        return list(draw_pictures(cells, base=base, embeddings=embeddings))
    except torch.OutOfMemoryError:
        if len(cells) == 1:
            raise
        torch.cuda.empty_cache()
        half = len(cells) // 2
        return [*_halving(cells[:half], base, embeddings), *_halving(cells[half:], base, embeddings)]


@dataclass(frozen=True)
class _Texts:
    """Text states of a batch, [b, 77, width] each."""

    with_prompt: torch.Tensor
    without: torch.Tensor


def draw_pictures(cells: Sequence[Cell], *, base: Base, embeddings: Mapping[str, Embedding]) -> NDArray[np.uint8]:
    """Draw cells that share sampler, steps, size and clip skip; return uint8 [b, size, size, 3]."""
    import numpy as np
    import torch

    first = cells[0]
    scheduler = _scheduler(base, first.sampler)
    scheduler.set_timesteps(first.steps, device=base.device)
    noises = [torch.Generator().manual_seed(cell.seed) for cell in cells]
    side = first.size // base.latent_factor
    shape = (int(base.unet.config.in_channels), side, side)
    latents = _noise(noises, shape, base) * scheduler.init_noise_sigma
    guidance = torch.tensor([cell.cfg for cell in cells], device=base.device, dtype=base.dtype).view(-1, 1, 1, 1)
    options = {"generator": noises} if first.sampler == "Euler a" else {"eta": 0.0}
    with torch.inference_mode():
        texts = _encode(cells, base, embeddings)
        states = torch.cat([texts.without, texts.with_prompt])
        for time in scheduler.timesteps:
            model_input = scheduler.scale_model_input(torch.cat([latents, latents]), time)
            without, with_prompt = base.unet(model_input, time, encoder_hidden_states=states).sample.chunk(2)
            noise = without + guidance * (with_prompt - without)
            latents = scheduler.step(noise, time, latents, **options).prev_sample.to(base.dtype)
        decoded = base.vae.decode((latents / base.vae.config.scaling_factor).to(base.vae.dtype)).sample
    pixels = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return np.asarray((pixels * 255).round().astype("uint8"))


def _noise(generators: list[torch.Generator], shape: tuple[int, ...], base: Base) -> torch.Tensor:
    """Return each picture's first noise from its own seed, drawn on the processor whatever the device."""
    import torch

    drawn = [torch.randn((1, *shape), generator=generator, dtype=base.dtype) for generator in generators]
    return torch.cat(drawn).to(base.device)


def _scheduler(base: Base, sampler: str) -> Any:
    from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

    kinds = {"DDIM": DDIMScheduler, "Euler a": EulerAncestralDiscreteScheduler}
    return kinds[sampler].from_config(base.scheduler_config)


def _encode(cells: Sequence[Cell], base: Base, embeddings: Mapping[str, Embedding]) -> _Texts:
    """Encode every different prompt once. The same name stands for other vectors in another checkpoint."""
    import torch

    from ti_pipeline.inversion.conditioning import encode_prompts

    known: dict[tuple[str, str], torch.Tensor] = {}

    def states(cell: Cell, text: str) -> torch.Tensor:
        key = (cell.checkpoint, text)
        if key not in known:
            vectors = {cell.token: embeddings[cell.checkpoint].vectors.to(base.device)}
            known[key] = encode_prompts(base, [text], vectors, clip_skip=cell.clip_skip)
        return known[key]

    return _Texts(
        torch.cat([states(cell, cell.prompt) for cell in cells]),
        torch.cat([states(cell, cell.negative) for cell in cells]),
    )


def _save(pixels: NDArray[np.uint8], path: Path, cell: Cell, base: Base, extra: Mapping[str, object]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_text("parameters", infotext(cell.prompt, cell.negative, _settings(cell, base, extra)))
    chunks.add_text(_CHUNK, cell.cell)
    with write_atomically(path) as aside:
        Image.fromarray(pixels).save(aside, "PNG", pnginfo=chunks)


def _settings(cell: Cell, base: Base, extra: Mapping[str, object]) -> dict[str, object]:
    """Return the settings line in A1111's order; Clip skip only above 1."""
    return {
        "Steps": cell.steps,
        "Sampler": cell.sampler,
        "CFG scale": cell.cfg,
        "Seed": cell.seed,
        "Size": f"{cell.size}x{cell.size}",
        "Model hash": base.identity[:10],
        "Model": base.name,
        **({"Clip skip": cell.clip_skip} if cell.clip_skip > 1 else {}),
        "TI hashes": f"{cell.token}: {cell.embedding_sha256[:12]}",
        "Checkpoint": cell.checkpoint,
        **extra,
    }


def _is_finished(path: Path, cell: str) -> bool:
    """Tell whether a whole picture of exactly this cell is there."""
    from PIL import Image

    if not path.exists():
        return False
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.info.get(_CHUNK) == cell
    except OSError:
        return False


def _table(cells: Sequence[Cell], paths: Mapping[str, Path], root: Path) -> pd.DataFrame:
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    columns = [column.name for column in TABLES["evaluation_images"].columns]
    rows = [
        {name: getattr(cell, name) for name in columns if name not in {"path", "sha256"}}
        | {"path": paths[cell.cell].relative_to(root).as_posix(), "sha256": sha256_of(paths[cell.cell])}
        for cell in cells
    ]
    return pd.DataFrame(rows, columns=columns) if rows else TABLES["evaluation_images"].empty()
