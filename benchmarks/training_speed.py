"""Training speed: the product's trainer beside diffusers' own textual-inversion example, in the same run.

    python benchmarks/training_speed.py [--peer textual_inversion.py] [--shape demo|sd15] [--device cpu|cuda]
                                        [--updates N] [--rounds N] [--peak-tflops N] [--smoke] [--compile]

`--peer` is the path of `examples/textual_inversion/textual_inversion.py` of a diffusers checkout, run unchanged;
without it nothing is compared with it. The example imports torchvision for one flip: where torchvision is not
installed, a flip by Pillow stands in. `--shape demo` is the demo's base model at 64 px; `sd15` has Stable
Diffusion 1.5's exact architecture with random weights, at 512 px in bf16, meant for a GPU.

Every way runs in a process of its own, in several rounds one after another; a way's time is the median over all
updates but the first five of a round, and the best round counts. Prints milliseconds per sample, samples per second,
peak memory and ratios, and how much of the machine the arithmetic of forward and needed backward uses: its FLOPs as
counted, over those that large matrix products reach in the same run (`share_of_matmul`), and over the card's data sheet
(`--peak-tflops`: dense bf16, without sparsity). On a GPU it also counts how often an update made the processor wait.
Writes `benchmarks/results/<date>-training_speed-<shape>-<device>.json`. `--smoke` runs every way once, for a few
updates of a shrunken model, and writes nothing: does the code run? `--compile` compiles our UNet.
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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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
    compiled: bool = False


def ways(shape: str) -> list[Way]:
    """Return what is compared. Four variants one after another are each measured alone."""
    together, sizes = (8, 16, 32, 64), (1, 8) if shape == "demo" else (1, 4)
    exact = "fp32" if shape == "demo" else "bf16"
    found = [Way(f"diffusers' example, batch {batch}, {exact}", (8,), batch, exact, peer=True) for batch in sizes]
    for precision in dict.fromkeys((exact, "bf16")):
        found += [Way(f"one variant, batch {batch}, {precision}", (8,), batch, precision) for batch in sizes]
    found += [Way(f"one variant of {n} vectors, batch 1, {exact}", (n,), 1, exact) for n in together if n != 8]
    return [*found, Way(f"four variants together, batch 1 each, {exact}", together, 1, exact)]


def make_base(shape: str, folder: Path, *, smoke: bool = False) -> Path:
    """Write the base model in fp32, as the example wants it; for a smoke test with few channels and layers."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(DEMO)
    pipeline.text_encoder.float()
    if shape == "sd15":
        torch.manual_seed(0)
        pipeline.register_modules(**sd15_parts(smoke=smoke))
    pipeline.save_pretrained(folder)
    return folder


def sd15_parts(*, smoke: bool = False) -> dict[str, Any]:
    """Return UNet, text encoder and autoencoder of Stable Diffusion 1.5 with random weights.

    After the parts' config.json in https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    channels = (64, 64, 64, 64) if smoke else (320, 640, 1280, 1280)
    width = 96 if smoke else 768
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2 if smoke else 12,
        num_attention_heads=12,
    )
    return {
        "unet": UNet2DConditionModel(
            sample_size=64, cross_attention_dim=width, attention_head_dim=8, block_out_channels=channels
        ),
        "text_encoder": CLIPTextModel(text),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 32, 32) if smoke else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=512,
        ),
    }


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
    """Run one way in this process: seconds of its median update, peak memory; of ours FLOPs and waits an update."""
    found: dict[str, Any] = {}
    times = _peer_times(way, place) if way.peer else _own_times(way, place, found)
    steps = [b - a for a, b in itertools.pairwise(times[WARM_UP:])]
    return {"seconds": statistics.median(steps), "memory": _peak_memory(place.device)} | found


def matmul_rate(device: str, precision: str) -> float:
    """Return the FLOP/s of a product of large matrices, the best of many: what this machine can do at most."""
    import torch

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    side = 1536 if device == "cpu" else 8192
    a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return float(2 * side**3 / best)


def _peak_memory(device: str) -> float:
    """Return the peak of the GPU's memory, or else of the process's, in MiB."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def prepared(way: Way, place: Place) -> tuple[Any, Callable[[int, int], Any]]:
    """Return the base, and a function that starts a run of so many vectors and updates on the pictures."""
    import pandas as pd
    import torch

    from ti_pipeline.files import sha256_of
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.latents import Latents, encode_crops
    from ti_pipeline.inversion.variant_state import Pictures, Run
    from ti_pipeline.studies import BaseModelSource, Variant

    folder = Path(place.base)
    base = load_base(
        "base", BaseModelSource(folder=str(folder)), folder=folder, device=place.device, precision=way.precision
    )
    if place.compiled:
        base.unet = torch.compile(base.unet, dynamic=False)
    paths = sorted(Path(place.pictures).iterdir())
    root = Path(place.pictures).parent
    named = pd.DataFrame({"path": [p.relative_to(root) for p in paths], "sha256": [sha256_of(p) for p in paths]})
    latents = encode_crops(base, named, root=root, resolution=place.side)
    shown = Pictures(list(range(len(paths))), [CAPTION] * len(paths), latents)
    nothing = Pictures([], [], Latents([], []))

    def start(vectors: int, updates: int) -> Run:
        settings = Variant(
            base="base", vectors=vectors, steps=updates, batch_size=way.batch, seed=1, checkpoint_every=10**6
        )
        return Run.start(f"zz{vectors}", settings, base, shown, nothing)

    return base, start


def _own_times(way: Way, place: Place, found: dict[str, Any]) -> list[float]:
    """Return when each update was done: `train` is called as the product calls it, its clock read at every update."""
    from ti_pipeline.inversion import trainer

    base, run = prepared(way, place)
    times: list[float] = []
    found["flops"] = flops_of_an_update(lambda updates: [run(vectors, updates) for vectors in way.vectors], base)
    if place.device == "cuda":
        found["waits"] = _waits(lambda: trainer.train(base, [run(8, 10)], save=lambda *_: None)) / 10
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
    return times


def flops_of_an_update(runs: Callable[[int], list[Any]], base: Any) -> int:
    """Return the FLOPs of an update of runs: what a second one adds, since the last is measured as a checkpoint."""
    from torch.utils.flop_counter import FlopCounterMode

    from ti_pipeline.inversion import trainer

    counted = []
    for updates in (1, 2):
        with FlopCounterMode(display=False) as counter:
            trainer.train(base, runs(updates), save=lambda *_: None)
        counted.append(counter.get_total_flops())
    return counted[1] - counted[0]


def _waits(work: Callable[[], object]) -> int:
    """Return how often the processor waited for the GPU, as torch itself tells."""
    import warnings

    import torch

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in told)


def _peer_times(way: Way, place: Place) -> list[float]:
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
    return times


def in_own_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Return what a function finds in a fresh interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def table(
    rounds: dict[Way, list[dict[str, Any]]], rates: dict[str, float], peak_tflops: float | None
) -> list[dict[str, Any]]:
    """Return a row per way, its best round, with ratios to the peer at the same batch and at batch 1."""
    best = {way: min(found, key=lambda row: row["seconds"]) for way, found in rounds.items()}
    per_sample = {way: row["seconds"] / way.samples for way, row in best.items()}
    peers = {way.batch: seconds for way, seconds in per_sample.items() if way.peer}
    rows = []
    for way, row in best.items():
        used = row.get("flops", 0) / row["seconds"]
        rows.append(
            {
                "way": way.name,
                "ms_per_sample": round(per_sample[way] * 1e3, 3),
                "samples_per_second": round(1 / per_sample[way], 2),
                "peak_mib": round(row["memory"]),
                "times_peer_same_batch": _ratio(peers.get(way.batch), per_sample[way]),
                "times_peer_batch_1": _ratio(peers.get(1), per_sample[way]),
                **({"gflop_per_sample": round(row["flops"] / way.samples / 1e9, 3)} if used else {}),
                **({"share_of_matmul": round(used / rates[way.precision], 4)} if used else {}),
                **({"share_of_peak": round(used / 1e12 / peak_tflops, 4)} if used and peak_tflops else {}),
                **({"waits_per_update": row["waits"]} if "waits" in row else {}),
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
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    if given.smoke:
        given.updates, given.rounds = WARM_UP + 3, 1
    rounds, rates = run(given)
    rows, gain = table(rounds, rates, given.peak_tflops), gain_of_together(rounds)
    for row in rows:
        faster = row["times_peer_batch_1"]
        beside = "" if faster is None else f"  {faster:6.2f} × the example at batch 1"
        share = f"  {row['share_of_matmul']:.1%} of large matrix products" if "share_of_matmul" in row else ""
        print(f"{row['way']:44} {row['ms_per_sample']:9.2f} ms a sample {row['peak_mib']:7} MiB{beside}{share}")
    print(f"four variants together: {gain:.2f} × the throughput of one after another")
    if not given.smoke:
        gflops = {precision: round(rate / 1e9, 1) for precision, rate in rates.items()}
        found = {"matmul_gflops": gflops, "ways": rows, "gain_of_together": round(gain, 3)}
        print(f"written to {write_results(given, found)}")


def run(given: argparse.Namespace) -> tuple[dict[Way, list[dict[str, Any]]], dict[str, float]]:
    """Measure each way in each round, and the machine's own rate for each precision."""
    side = 64 if given.shape == "demo" or given.smoke else 512
    rounds: dict[Way, list[dict[str, Any]]] = {way: [] for way in ways(given.shape) if given.peer or not way.peer}
    precisions = dict.fromkeys(way.precision for way in rounds)
    rates = {precision: in_own_process(matmul_rate, given.device, precision) for precision in precisions}
    with tempfile.TemporaryDirectory() as work:
        place = Place(
            base=str(make_base(given.shape, Path(work) / "base", smoke=given.smoke)),
            pictures=str(make_pictures(Path(work) / "pictures", side)),
            side=side,
            device=given.device,
            peer=str(given.peer.resolve()) if given.peer else None,
            updates=given.updates,
            compiled=given.compile,
        )
        for number in range(given.rounds):
            for way, found in rounds.items():
                found.append(measured(way, place) if given.smoke else in_own_process(measured, way, place))
                each = found[-1]["seconds"] / way.samples * 1e3
                print(f"round {number + 1}: {way.name}: {each:.2f} ms a sample", flush=True)
    return rounds, rates


def write_results(given: argparse.Namespace, found: dict[str, Any]) -> Path:
    """Write the numbers with the machine and the settings; return where."""
    import torch

    from ti_pipeline.files import write_json

    name = torch.cuda.get_device_name() if given.device == "cuda" else platform.processor() or platform.machine()
    machine = {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    kind = f"{given.shape}-{given.device}{'-compiled' * given.compile}"
    if given.device == "cpu" and machine["threads"] != machine["cores"]:
        kind += f"-{machine['threads']}-thread"
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-training_speed-{kind}.json"
    write_json(path, {"machine": machine, "settings": vars(given) | {"peer": bool(given.peer)}, **found})
    return path


if __name__ == "__main__":
    main()
