"""Training speed: the product's trainer beside diffusers' own textual-inversion example, in the same run.

    python benchmarks/training_speed.py [--peer textual_inversion.py] [--shape demo|sd15] [--device cpu|cuda]
                                        [--updates N] [--rounds N] [--peak-tflops N]

`--peer` is the path of `examples/textual_inversion/textual_inversion.py` of a diffusers checkout, run unchanged;
without it nothing is compared with it. The example imports torchvision for one flip: where torchvision is not
installed, a flip by Pillow stands in. `--shape demo` is the demo's base model at 64 px; `sd15` has Stable
Diffusion 1.5's exact architecture with random weights, at 512 px in bf16, meant for a GPU.

Every way runs in a process of its own, in several rounds one after another; a way's time is the median over all
updates but the first five of a round, and the best round counts. Prints milliseconds per sample, samples per second,
peak memory and ratios; with `--peak-tflops` also the share of that many TFLOP/s which forward and backward use. Writes
`benchmarks/results/<date>-training_speed-<shape>-<device>.json`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DEMO = Path(__file__).parent.parent / "data" / "base_models" / "demo"
PICTURES, WARM_UP, CAPTION = 20, 5, "wolf, red fur, snow"


@dataclass(frozen=True)
class Way:
    """One way of training: vectors of the variants trained together, each one's batch, and the precision."""

    name: str
    vectors: tuple[int, ...] = (8,)
    batch: int = 1
    precision: str = "fp32"
    peer: bool = False

    @property
    def samples(self) -> int:
        """Samples of one update."""
        return self.batch * len(self.vectors)


@dataclass(frozen=True)
class Place:
    """Where and on what is trained."""

    base: str
    pictures: str
    side: int
    device: str
    peer: str | None
    updates: int
    count_flops: bool


def ways(shape: str) -> list[Way]:
    """Return what is compared. Four variants one after another are each measured alone."""
    together, sizes = (8, 16, 32, 64), (1, 8) if shape == "demo" else (1, 4)
    exact = "fp32" if shape == "demo" else "bf16"
    found = [Way(f"diffusers' example, batch {batch}, {exact}", (8,), batch, exact, peer=True) for batch in sizes]
    for precision in dict.fromkeys((exact, "bf16")):
        found += [Way(f"one variant, batch {batch}, {precision}", (8,), batch, precision) for batch in sizes]
    found += [Way(f"one variant of {n} vectors, batch 1, {exact}", (n,), 1, exact) for n in together if n != 8]
    return [*found, Way(f"four variants together, batch 1 each, {exact}", together, 1, exact)]


def make_base(shape: str, folder: Path) -> Path:
    """Write the base model in fp32, as the example wants it."""
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    pipeline = StableDiffusionPipeline.from_pretrained(DEMO, torch_dtype=torch.float32)
    pipeline.text_encoder.float()
    if shape == "sd15":  # https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5: the parts' config.json
        torch.manual_seed(0)
        text = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        widths = (128, 256, 512, 512)
        pipeline.register_modules(
            text_encoder=CLIPTextModel(text),
            unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
            vae=AutoencoderKL(
                block_out_channels=widths,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                sample_size=512,
            ),
        )
    pipeline.save_pretrained(folder)
    return folder


def make_pictures(folder: Path, side: int) -> Path:
    """Write noise as pictures: what is in them costs the same."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def measured(way: Way, place: Place) -> dict[str, Any]:
    """Run one way in this process: seconds of its median update, peak memory, and FLOPs of an update if asked for."""
    times, flops = _peer_times(way, place) if way.peer else _own_times(way, place)
    steps = [b - a for a, b in itertools.pairwise(times[WARM_UP:])]
    return {"seconds": statistics.median(steps), "memory": _peak_memory(place.device), "flops": flops}


def _peak_memory(device: str) -> float:
    """Return the peak of the GPU's memory, or else of the process's, in MiB."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _own_times(way: Way, place: Place) -> tuple[list[float], int]:
    """Return when each update was done: `train` is called as the product calls it, its clock read at every update."""
    import pandas as pd
    import torch

    from ti_pipeline.files import sha256_of
    from ti_pipeline.inversion import trainer
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.latents import Latents, encode_crops
    from ti_pipeline.inversion.variant_state import Pictures, Run
    from ti_pipeline.studies import BaseModelSource, Variant

    folder = Path(place.base)
    base = load_base(
        "base", BaseModelSource(folder=str(folder)), folder=folder, device=place.device, precision=way.precision
    )
    paths = sorted(Path(place.pictures).iterdir())
    root = Path(place.pictures).parent
    named = pd.DataFrame({"path": [p.relative_to(root) for p in paths], "sha256": [sha256_of(p) for p in paths]})
    latents = encode_crops(base, named, root=root, resolution=place.side)
    shown = Pictures(list(range(len(paths))), [CAPTION] * len(paths), latents)
    nothing = Pictures([], [], Latents(latents.mean[:0], latents.deviation[:0]))

    def run(vectors: int, updates: int) -> Run:
        settings = Variant(
            base="base", vectors=vectors, steps=updates, batch_size=way.batch, seed=1, checkpoint_every=10**6
        )
        return Run.start(f"zz{vectors}", settings, base, shown, nothing)

    times: list[float] = []
    flops = 0
    if place.count_flops:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            trainer.train(base, [run(vectors, 1) for vectors in way.vectors], save=lambda *_: None)
        flops = counter.get_total_flops()
    if place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    runs = [run(vectors, place.updates) for vectors in way.vectors]
    every = trainer.GATHER_EVERY if place.device == "cuda" else 1  # only there has the GPU been waited for

    def progress(done: int, _: int, __: str) -> None:
        if done % (every * len(runs)) == 0:
            times.append(time.perf_counter())

    if every == 1:
        trainer.GATHER_EVERY = 1  # progress is told where losses are read, and reading costs nothing on a processor
    trainer.train(base, runs, save=lambda *_: None, progress=progress)
    if every > 1:  # spread the clock's readings over the updates between them
        times = [a + (b - a) * i / every for a, b in itertools.pairwise(times) for i in range(every)]
    return times, flops


def _peer_times(way: Way, place: Place) -> tuple[list[float], int]:
    """Return when each update of diffusers' example was done: its progress bar moves once an update."""
    import random
    import runpy
    import types

    import tqdm.auto
    from diffusers import DiffusionPipeline, StableDiffusionPipeline  # noqa: F401 - before a stand-in for torchvision
    from PIL import ImageOps
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401 - the same

    class RandomHorizontalFlip:
        def __init__(self, p: float) -> None:
            self.p = p

        def __call__(self, picture: Any) -> Any:
            return ImageOps.mirror(picture) if random.random() < self.p else picture

    try:
        import torchvision  # noqa: F401 - the example needs it
    except (ImportError, RuntimeError):
        stand_in = types.ModuleType("torchvision")
        vars(stand_in)["transforms"] = types.SimpleNamespace(RandomHorizontalFlip=RandomHorizontalFlip)
        sys.modules["torchvision"] = stand_in
    times: list[float] = []
    plain = tqdm.auto.tqdm.update

    def update(bar: Any, n: float = 1) -> Any:
        if bar.desc.startswith("Steps"):
            times.append(time.perf_counter())
        return plain(bar, n)

    tqdm.auto.tqdm.update = update
    with tempfile.TemporaryDirectory() as out:
        options = {
            "pretrained_model_name_or_path": place.base,
            "train_data_dir": place.pictures,
            "placeholder_token": "<zz>",
            "initializer_token": "wolf",
            "num_vectors": way.vectors[0],
            "resolution": place.side,
            "train_batch_size": way.batch,
            "max_train_steps": place.updates,
            "save_steps": 10**6,
            "checkpointing_steps": 10**6,
            "learning_rate": 0.005,
            "seed": 1,
            "output_dir": out,
            "report_to": "all",
            "mixed_precision": "no" if way.precision == "fp32" else way.precision,
        }
        sys.argv = [str(place.peer), *(word for key, value in options.items() for word in (f"--{key}", str(value)))]
        runpy.run_path(str(place.peer), run_name="__main__")
    return times, 0


def in_own_process(way: Way, place: Place) -> dict[str, Any]:
    """Return what `measured` finds in a fresh interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, way, place).result()


def table(rounds: dict[Way, list[dict[str, Any]]], peak_tflops: float | None) -> list[dict[str, Any]]:
    """Return a row per way, its best round, with ratios to the peer at the same batch and at batch 1."""
    best = {way: min(found, key=lambda row: row["seconds"]) for way, found in rounds.items()}
    per_sample = {way: row["seconds"] / way.samples for way, row in best.items()}
    peers = {way.batch: seconds for way, seconds in per_sample.items() if way.peer}
    rows = []
    for way, row in best.items():
        used = row["flops"] / row["seconds"] / 1e12
        rows.append(
            {
                "way": way.name,
                "ms_per_sample": round(per_sample[way] * 1e3, 3),
                "samples_per_second": round(1 / per_sample[way], 2),
                "peak_mib": round(row["memory"]),
                "times_peer_same_batch": _ratio(peers.get(way.batch), per_sample[way]),
                "times_peer_batch_1": _ratio(peers.get(1), per_sample[way]),
                **({"share_of_peak": round(used / peak_tflops, 4)} if peak_tflops and row["flops"] else {}),
            }
        )
    return rows


def _ratio(peer: float | None, own: float) -> float | None:
    return None if peer is None else round(peer / own, 2)


def gain_of_together(rounds: dict[Way, list[dict[str, Any]]]) -> float:
    """Return how many times as fast four variants train together as one after another."""
    best = {way: min(row["seconds"] for row in found) for way, found in rounds.items() if not way.peer}
    (together,) = (way for way in best if len(way.vectors) > 1)
    like = {way.vectors: s for way, s in best.items() if way.batch == 1 and way.precision == together.precision}
    alone = [like[(n,)] for n in together.vectors]
    return sum(alone) / best[together]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--shape", choices=["demo", "sd15"], default="demo")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float)
    given = parser.parse_args()
    side = 64 if given.shape == "demo" else 512
    rounds: dict[Way, list[dict[str, Any]]] = {way: [] for way in ways(given.shape) if given.peer or not way.peer}
    with tempfile.TemporaryDirectory() as work:
        place = Place(
            base=str(make_base(given.shape, Path(work) / "base")),
            pictures=str(make_pictures(Path(work) / "pictures", side)),
            side=side,
            device=given.device,
            peer=str(given.peer.resolve()) if given.peer else None,
            updates=given.updates,
            count_flops=given.peak_tflops is not None,
        )
        for number in range(given.rounds):
            for way, found in rounds.items():
                found.append(in_own_process(way, place))
                each = found[-1]["seconds"] / way.samples * 1e3
                print(f"round {number + 1}: {way.name}: {each:.2f} ms a sample", flush=True)
    rows, gain = table(rounds, given.peak_tflops), gain_of_together(rounds)
    for row in rows:
        faster = row["times_peer_batch_1"]
        beside = "" if faster is None else f"  {faster:6.2f} × the example at batch 1"
        share = f"  {row['share_of_peak']:.1%} of the peak" if "share_of_peak" in row else ""
        print(f"{row['way']:44} {row['ms_per_sample']:9.2f} ms a sample {row['peak_mib']:7} MiB{beside}{share}")
    print(f"four variants together: {gain:.2f} × the throughput of one after another")
    path = write_results(given, {"ways": rows, "gain_of_together": round(gain, 3)})
    print(f"written to {path}")


def write_results(given: argparse.Namespace, found: dict[str, Any]) -> Path:
    """Write the numbers with the machine and the settings; return where."""
    import torch

    from ti_pipeline.files import write_json

    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    machine = {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-training_speed-{given.shape}-{given.device}.json"
    write_json(path, {"machine": machine, "settings": vars(given) | {"peer": bool(given.peer)}, **found})
    return path


if __name__ == "__main__":
    main()
