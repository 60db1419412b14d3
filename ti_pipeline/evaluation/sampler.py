"""The sampler: cells of many prompts, seeds and checkpoints in shared batches.

A picture does not depend on its batch: its noise comes from its own seed on the processor, and guidance, scheduler
and decoder work row by row. Samplers are diffusers' schedulers. Not here: which cells (`suites`).
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.infotext import infotext
from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.conditioning import States
    from ti_pipeline.inversion.embedding_files import Embedding

    # Encoded prompts, one row each, by checkpoint, clip skip, what is done with long ones, and text.
    TextStates = dict[tuple[str, int, str, str], States]

__all__ = ["draw_pictures", "drawn_batches", "render_cells"]

# Text chunks of a picture: which cell it is, and the state of the study that asked for it.
_CELL, _STUDY = "ti_cell", "ti_study"
_MOST_TEXTS = 512  # encoded prompts kept in memory: about 120 MB at width 768 in fp32


def render_cells(
    cells: Sequence[Cell],
    *,
    load: Callable[[], tuple[Base, Mapping[str, Embedding]]],
    root: Path,
    folder: str,
    batch_size: int,
    infotext_extra: Mapping[str, object],
    study_fingerprint: str = "",
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Render the cells that are not there yet and return the `evaluation_images` table of all.

    `load` gives the base model and the vectors by checkpoint, and is called only if there is anything to draw. A whole
    picture carries its cell's identity and is kept (with
    the fingerprint of the study that first asked for it); pictures of cells that are no longer asked for are removed.
    When the device's memory runs out, the batch is halved; raises `torch.OutOfMemoryError` when one picture is too
    much.
    """
    wanted = {cell.cell: root / folder / f"{cell.cell}.png" for cell in cells}
    for stray in (root / folder).glob("*.png"):
        if stray.stem not in wanted:
            stray.unlink()
    missing = [cell for cell in cells if not _is_finished(wanted[cell.cell], cell.cell)]
    done = len(cells) - len(missing)
    if progress is not None:
        progress(done, len(cells), "pictures")
    if not missing:
        return _table(cells, wanted, root)
    base, embeddings = load()
    for batch, pictures in drawn_batches(missing, batch_size, base, embeddings):
        for cell, pixels in zip(batch, pictures, strict=True):
            chunks = {
                "parameters": infotext(cell.prompt, cell.negative, _settings(cell, base, infotext_extra)),
                _CELL: cell.cell,
                _STUDY: study_fingerprint,
            }
            _save(pixels, wanted[cell.cell], chunks)
        done += len(batch)
        if progress is not None:
            progress(done, len(cells), "pictures")
    return _table(cells, wanted, root)


def drawn_batches(
    cells: Sequence[Cell], batch_size: int, base: Base, embeddings: Mapping[str, Embedding]
) -> Iterator[tuple[Sequence[Cell], NDArray[np.uint8]]]:
    """Yield batches with their pictures; cells share one when sampler, steps, size and clip skip are the same."""
    import torch

    def kind(cell: Cell) -> tuple[Any, ...]:
        return (cell.sampler, cell.steps, cell.size, cell.clip_skip)

    texts: TextStates = {}
    for _, group in itertools.groupby(sorted(cells, key=kind), key=kind):
        rest, room = list(group), batch_size
        while rest:
            batch = rest[:room]
            try:
                pictures = draw_pictures(batch, base=base, embeddings=embeddings, texts=texts)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                room = len(batch) // 2
                pictures = None
            if pictures is None:  # only here: while the error is handled, its frames hold the memory
                torch.cuda.empty_cache()
                continue
            yield batch, pictures
            rest = rest[len(batch) :]


def draw_pictures(
    cells: Sequence[Cell],
    *,
    base: Base,
    embeddings: Mapping[str, Embedding],
    texts: TextStates | None = None,
) -> NDArray[np.uint8]:
    """Draw cells that share sampler, steps, size and clip skip; return uint8 [b, size, size, 3].

    `texts` keeps encoded prompts from call to call; it must not outlive `embeddings`.
    """
    import numpy as np
    import torch

    first = cells[0]
    scheduler = _scheduler(base, first.sampler, first.steps)
    noises = [torch.Generator().manual_seed(cell.seed) for cell in cells]
    side = first.size // base.latent_factor
    shape = (int(base.unet.config.in_channels), side, side)
    latents = _noise(noises, shape, base) * scheduler.init_noise_sigma
    guidance = torch.tensor([cell.cfg for cell in cells], device=base.device, dtype=base.dtype).view(-1, 1, 1, 1)
    options: dict[str, Any] = {"generator": noises} if first.sampler == "Euler a" else {}
    with torch.inference_mode():
        states = _encode(cells, base, embeddings, {} if texts is None else texts)
        for time in scheduler.timesteps:
            model_input = scheduler.scale_model_input(torch.cat([latents, latents]), time)
            without, with_prompt = base.unet(model_input, time, **states.options()).sample.chunk(2)
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


def _scheduler(base: Base, sampler: str, steps: int) -> Any:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler

    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "DDIM": (DDIMScheduler, {}),
        "Euler a": (EulerAncestralDiscreteScheduler, {}),
        "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    }
    kind, settings = kinds[sampler]
    with warnings.catch_warnings():
        # diffusers turns tensors into arrays in a way that NumPy 2 announces the end of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler = kind.from_config(base.scheduler_config, **settings)
        scheduler.set_timesteps(steps, device=base.device)
    return scheduler


def _encode(cells: Sequence[Cell], base: Base, embeddings: Mapping[str, Embedding], known: TextStates) -> States:
    """Return the states of all negative prompts, then of all prompts; each different one is encoded once.

    The same name stands for other vectors in another checkpoint.
    """
    from ti_pipeline.inversion.conditioning import encode_prompts, joined

    def states(cell: Cell, text: str) -> States:
        key = (cell.checkpoint, cell.clip_skip, cell.long_prompts, text)
        if key not in known:
            if len(known) >= _MOST_TEXTS:
                known.clear()
            vectors = {cell.token: embeddings[cell.checkpoint].vectors.to(base.device)}
            known[key] = encode_prompts(base, [text], vectors, clip_skip=cell.clip_skip, long_prompts=cell.long_prompts)
        return known[key]

    texts = [(cell, cell.negative) for cell in cells] + [(cell, cell.prompt) for cell in cells]
    return joined([states(cell, text) for cell, text in texts])


def _save(pixels: NDArray[np.uint8], path: Path, chunks: Mapping[str, str]) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    with write_atomically(path) as aside:
        Image.fromarray(pixels).save(aside, "PNG", pnginfo=info)


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
            return picture.info.get(_CELL) == cell
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for damaged files
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
