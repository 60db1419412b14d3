"""Drawing a suite of cells: the product's sampler beside the naive loop, in the same run.

    python benchmarks/evaluation_speed.py [--checkpoints N] [--seeds N] [--rounds N] [--batch N] [--device cpu|cuda]

The naive loop is what a person writes with diffusers: per checkpoint load the embedding into a StableDiffusionPipeline,
then call it once per cell. Both draw the same cells of the demo's base model (20 DDIM steps, CFG 7, 64 px, species ×
checkpoints × seeds) and must draw the same pictures, within 2 of 255. Prints seconds per picture and the ratio, writes
`benchmarks/results/<date>-evaluation_speed-<device>.json`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.embedding_files import Embedding

RESULTS = Path(__file__).parent / "results"
DEMO = Path(__file__).parent.parent / "data" / "base_models" / "demo"
SPECIES = ("domestic dog", "wolf", "tiger", "lion", "dragon")
TOKEN, NEGATIVE, SIDE, STEPS = "zzember", "city", 64, 20


def made_embeddings(base: Base, checkpoints: int) -> dict[str, Embedding]:
    """Return as many embeddings of 8 vectors, draws like the vocabulary's: what they show costs the same."""
    from ti_pipeline.inversion.embedding_files import Embedding
    from ti_pipeline.inversion.variant_state import initial_vectors
    from ti_pipeline.studies import Variant

    starts = [Variant(base="demo", vectors=8, steps=1, start="vocabulary", seed=seed) for seed in range(checkpoints)]
    return {f"v-{n}": Embedding(TOKEN, initial_vectors(base, start).cpu()) for n, start in enumerate(starts)}


def made_cells(base: Base, checkpoints: list[str], seeds: int) -> list[Cell]:
    """Return species × checkpoints × seeds."""
    from ti_pipeline.evaluation.suites import Cell

    return [
        Cell(
            variant="v",
            checkpoint=name,
            step=1,
            axis="species",
            value=species,
            seed=seed,
            sampler="DDIM",
            steps=STEPS,
            cfg=7.0,
            size=SIDE,
            prompt=f"{TOKEN}, {species}, simple background",
            negative=NEGATIVE,
            token=TOKEN,
            embedding_sha256=name,
            clip_skip=1,
            long_prompts="cut",
            base_identity=base.identity,
        )
        for name in checkpoints
        for species in SPECIES
        for seed in range(seeds)
    ]


def drawn_naively(pipeline: Any, cells: list[Cell], embeddings: dict[str, Embedding], work: Path) -> list[Any]:
    """Draw one cell after another as diffusers' documentation shows it."""
    import torch

    from ti_pipeline.inversion.embedding_files import save_safetensors

    pictures, loaded = [], ""
    for cell in cells:
        if cell.checkpoint != loaded:
            if loaded:
                pipeline.unload_textual_inversion()
            save_safetensors(work / "naive.safetensors", embeddings[cell.checkpoint])
            pipeline.load_textual_inversion(str(work / "naive.safetensors"), token=cell.token)
            loaded = cell.checkpoint
        found = pipeline(
            cell.prompt,
            negative_prompt=cell.negative,
            num_inference_steps=cell.steps,
            guidance_scale=cell.cfg,
            height=cell.size,
            width=cell.size,
            generator=torch.Generator().manual_seed(cell.seed),
            output_type="np",
        )
        pictures.append((found.images[0] * 255).round().astype("uint8"))
    pipeline.unload_textual_inversion()
    return pictures


def main() -> None:
    """Measure, compare, print and write."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from ti_pipeline.evaluation.sampler import drawn_batches
    from ti_pipeline.files import write_json
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.studies import BaseModelSource

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    base = load_base("demo", BaseModelSource(folder=str(DEMO)), folder=DEMO, device=given.device)
    pipeline = StableDiffusionPipeline.from_pretrained(DEMO, torch_dtype=torch.float32, safety_checker=None)
    pipeline.text_encoder.float()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.to(given.device).set_progress_bar_config(disable=True)
    embeddings = made_embeddings(base, given.checkpoints)
    vectors = {name: embedding.vectors for name, embedding in embeddings.items()}
    cells = made_cells(base, list(embeddings), given.seeds)
    best = {"naive loop": float("inf"), "sampler": float("inf")}
    with tempfile.TemporaryDirectory() as work:
        drawn_naively(pipeline, cells[:1], embeddings, Path(work))
        list(drawn_batches(cells[:1], 1, base, vectors))
        for number in range(given.rounds):
            start = time.perf_counter()
            theirs = drawn_naively(pipeline, cells, embeddings, Path(work))
            middle = time.perf_counter()
            ours = [picture for _, batch in drawn_batches(cells, given.batch, base, vectors) for picture in batch]
            end = time.perf_counter()
            best = {
                "naive loop": min(best["naive loop"], middle - start),
                "sampler": min(best["sampler"], end - middle),
            }
            print(f"round {number + 1}: naive {middle - start:.1f} s, sampler {end - middle:.1f} s", flush=True)
    apart = max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(theirs, ours, strict=True))
    ratio = best["naive loop"] / best["sampler"]
    for name, seconds in best.items():
        print(f"{name:12} {seconds / len(cells) * 1e3:8.1f} ms a picture")
    print(f"{len(cells)} pictures, {ratio:.2f} × the naive loop, pictures at most {apart} of 255 apart")
    if apart > 2:
        raise SystemExit("the two do not draw the same pictures")
    machine = {
        "device": torch.cuda.get_device_name() if given.device == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-evaluation_speed-{given.device}.json"
    found = {"seconds": best, "pictures": len(cells), "ratio": round(ratio, 3), "most_apart": apart}
    write_json(path, {"machine": machine, "settings": vars(given), **found})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
