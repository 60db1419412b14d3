"""The sampler: cells of many prompts, seeds, checkpoints and variants in shared batches.

A picture does not depend on its batch: its noise comes from its own seed on the processor, in fp32 whatever the device
and precision, and guidance, scheduler and decoder work row by row. Samplers are diffusers' schedulers. Not here: which
cells (`suites`).
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.batches import computed_batches
from ti_pipeline.evaluation.infotext import infotext, write_png
from ti_pipeline.files import sha256_of

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

    # Embeddings' vectors by the sha256 of their files: names and checkpoints of two studies may be the same.
    Vectors = Mapping[str, torch.Tensor]
    # Encoded prompts, one row each, by embeddings, clip skip, what is done with long ones, and text.
    TextStates = dict[tuple[Any, ...], States]

__all__ = ["Suite", "draw_pictures", "drawn_batches", "render_suites", "scheduler_settings"]

# Text chunks of a picture: which cell it is, and the state of the study that asked for it.
_CELL, _STUDY = "ti_cell", "ti_study"
_MOST_TEXTS = 512  # encoded prompts kept in memory: about 120 MB at width 768 in fp32


@dataclass(frozen=True)
class Suite:
    """The cells of one variant, the folder of their pictures, and what their texts and their table say of the study."""

    cells: Sequence[Cell]
    folder: str
    base: str = ""
    study: str = ""
    study_fingerprint: str = ""
    paths: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Name each cell's picture, relative to the data folder."""
        object.__setattr__(self, "paths", {cell.cell: f"{self.folder}/{cell.cell}.png" for cell in self.cells})


def render_suites(
    suites: Sequence[Suite],
    *,
    load: Callable[[], tuple[Base, Vectors]],
    root: Path,
    batch_size: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[pd.DataFrame]:
    """Render the cells of one base model that are not there yet; return each suite's `evaluation_images` table.

    `load` gives the base and the vectors by their files' sha256, and is called only if there is anything to draw. A
    whole picture carries its cell's identity and is kept (with the fingerprint of the study that first asked for it);
    pictures of cells that are no longer asked for are removed. When the device's memory runs out, the batch is halved;
    raises `torch.OutOfMemoryError` when one picture is too much.
    """
    from PIL import Image

    missing = [(suite, cell) for suite in suites for cell in _unfinished(suite, root)]
    total = sum(len(suite.cells) for suite in suites)
    done = total - len(missing)
    if progress is not None:
        progress(done, total, "pictures")
    if missing:
        base, vectors = load()
        for batch, pictures in drawn_batches([cell for _, cell in missing], batch_size, base, vectors):
            drawn = {id(cell): pixels for cell, pixels in zip(batch, pictures, strict=True)}
            for suite, cell in missing:
                if id(cell) in drawn:
                    picture = Image.fromarray(drawn[id(cell)])
                    write_png(picture, root / suite.paths[cell.cell], _chunks(cell, suite, base))
            done += len(batch)
            if progress is not None:
                progress(done, total, "pictures")
    return [_table(suite, root) for suite in suites]


def _unfinished(suite: Suite, root: Path) -> list[Cell]:
    """Return the cells without a whole picture; pictures that nobody asks for are removed."""
    wanted = {root / path for path in suite.paths.values()}
    for stray in (root / suite.folder).glob("*.png"):
        if stray not in wanted:
            stray.unlink()
    return [cell for cell in suite.cells if not _is_finished(root / suite.paths[cell.cell], cell.cell)]


def drawn_batches(
    cells: Sequence[Cell], batch_size: int, base: Base, vectors: Vectors
) -> Iterator[tuple[Sequence[Cell], NDArray[np.uint8]]]:
    """Yield batches with their pictures; cells share one when sampler, steps and size are the same."""

    def kind(cell: Cell) -> tuple[Any, ...]:
        return (cell.sampler, cell.steps, cell.size)

    texts: TextStates = {}
    for _, group in itertools.groupby(sorted(cells, key=kind), key=kind):
        yield from computed_batches(
            list(group), batch_size, lambda batch: draw_pictures(batch, base=base, vectors=vectors, texts=texts)
        )


def draw_pictures(
    cells: Sequence[Cell], *, base: Base, vectors: Vectors, texts: TextStates | None = None
) -> NDArray[np.uint8]:
    """Draw cells that share sampler, steps and size; return uint8 [b, size, size, 3].

    `texts` keeps encoded prompts from call to call. Latents and the scheduler's arithmetic are fp32 in every precision.
    """
    import numpy as np
    import torch

    first = cells[0]
    scheduler = _scheduler(base, first.sampler, first.steps)
    noises = [torch.Generator().manual_seed(cell.seed) for cell in cells]
    side = first.size // base.latent_factor
    shape = (int(base.unet.config.in_channels), side, side)
    latents = _noise(noises, shape, base) * scheduler.init_noise_sigma
    guidance = torch.tensor([cell.cfg for cell in cells], device=base.device, dtype=torch.float32).view(-1, 1, 1, 1)
    options: dict[str, Any] = {"generator": noises} if first.sampler == "Euler a" else {}
    with torch.inference_mode():
        states = _encode(cells, base, vectors, {} if texts is None else texts)
        for time in scheduler.timesteps:
            model_input = scheduler.scale_model_input(torch.cat([latents, latents]), time).to(base.dtype)
            without, with_prompt = base.unet(model_input, time, **states.options()).sample.float().chunk(2)
            noise = without + guidance * (with_prompt - without)
            latents = scheduler.step(noise, time, latents, **options).prev_sample.float()
        decoded = base.vae.decode((latents / base.vae.config.scaling_factor).to(base.vae.dtype)).sample
    pixels = (decoded.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return np.asarray((pixels * 255).round().astype("uint8"))


def _noise(generators: list[torch.Generator], shape: tuple[int, ...], base: Base) -> torch.Tensor:
    """Return each picture's first noise from its own seed, drawn on the processor in fp32 whatever the device."""
    import torch

    drawn = [torch.randn((1, *shape), generator=generator, dtype=torch.float32) for generator in generators]
    return base.put(torch.cat(drawn))


def scheduler_settings(sampler: str, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return diffusers' class of a sampler, and what to give its `from_config` beside a base's scheduler `config`.

    Configurations saved by other classes lack fields, or have some that mean another sampler. What is set is what
    diffusers' own Stable Diffusion pipelines repair (`steps_offset` 1, `clip_sample` off: latents are no pixels and go
    beyond 1); where nothing is said, the last step goes to the schedule's first noise level, as those models were made.
    """
    if sampler == "DDIM":
        repaired = {"clip_sample": False, "set_alpha_to_one": config.get("set_alpha_to_one", False)}
        return "DDIMScheduler", repaired | {"steps_offset": 1}
    if sampler == "Euler a":
        return "EulerAncestralDiscreteScheduler", {"steps_offset": 1}
    spacing = {"use_karras_sigmas": True, "use_exponential_sigmas": False, "use_beta_sigmas": False}
    solver = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "use_lu_lambdas": False}
    return "DPMSolverMultistepScheduler", solver | spacing | {"steps_offset": 1}


def _scheduler(base: Base, sampler: str, steps: int) -> Any:
    import diffusers

    kind, settings = scheduler_settings(sampler, base.scheduler_config)
    with warnings.catch_warnings():
        # diffusers turns tensors into arrays in a way that NumPy 2 announces the end of.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        scheduler = getattr(diffusers, kind).from_config(base.scheduler_config, **settings)
        scheduler.set_timesteps(steps, device=base.device)
    return scheduler


def _encode(cells: Sequence[Cell], base: Base, vectors: Vectors, known: TextStates) -> States:
    """Return the states of all negative prompts, then of all prompts; each different one is encoded once.

    The same name stands for other vectors in another checkpoint.
    """
    from ti_pipeline.inversion.conditioning import encode_prompts, joined

    def states(cell: Cell, text: str) -> States:
        named = cell.named
        key = (named, cell.clip_skip, cell.long_prompts, text)
        if key not in known:
            if len(known) >= _MOST_TEXTS:
                known.clear()
            own = {name: vectors[sha256].to(base.device) for name, sha256 in named}
            known[key] = encode_prompts(base, [text], own, clip_skip=cell.clip_skip, long_prompts=cell.long_prompts)
        return known[key]

    texts = [(cell, cell.negative) for cell in cells] + [(cell, cell.prompt) for cell in cells]
    return joined([states(cell, text) for cell, text in texts])


def _chunks(cell: Cell, suite: Suite, base: Base) -> dict[str, str]:
    """Return a picture's text chunks."""
    settings = _settings(cell, base) | {"Study": suite.study, "Study hash": suite.study_fingerprint[:10]}
    told = {key: value for key, value in settings.items() if value != ""}
    return {
        "parameters": infotext(cell.prompt, cell.negative, told),
        _CELL: cell.cell,
        _STUDY: suite.study_fingerprint,
    }


def _settings(cell: Cell, base: Base) -> dict[str, object]:
    """Return the settings line in A1111's order; Clip skip only above 1.

    RNG says where the noise was drawn: without it, A1111 takes the GPU's and draws another picture.
    """
    return {
        "Steps": cell.steps,
        "Sampler": cell.sampler,
        "CFG scale": cell.cfg,
        "Seed": cell.seed,
        "Size": f"{cell.size}x{cell.size}",
        "Model hash": base.identity[:10],
        "Model": base.name,
        **({"Clip skip": cell.clip_skip} if cell.clip_skip > 1 else {}),
        "RNG": "CPU",
        "TI hashes": ", ".join(f"{name}: {sha256[:12]}" for name, sha256 in cell.named),
        "Checkpoint": cell.checkpoint,
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


def _table(suite: Suite, root: Path) -> pd.DataFrame:
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    columns = [column.name for column in TABLES["evaluation_images"].columns]
    rows = [
        {name: getattr(cell, name) for name in columns if hasattr(cell, name)}
        | {"base": suite.base, "path": path, "sha256": sha256_of(root / path)}
        for cell, path in zip(suite.cells, suite.paths.values(), strict=True)
    ]
    return pd.DataFrame(rows, columns=columns) if rows else TABLES["evaluation_images"].empty()
