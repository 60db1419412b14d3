"""Training profile: where the time of an update goes, and how far it is from what the machine's arithmetic allows.

    python benchmarks/training_profile.py [--shape demo|sd15] [--device cpu|cuda] [--batch N ...] [--updates N]

Trains one variant of 8 vectors as `training_speed.py` does. Prints, for each batch size, the parts of an update by the
clock (drawing, text encoder, UNet, backward, the optimizer's update), its operations by torch's profiler, its FLOPs
(forward and needed backward) and the least time they would take at the rate of large matrix products on this machine,
measured in the same run. Writes `benchmarks/results/<date>-training_profile-<shape>-<device>.json`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from training_speed import (
    RESULTS,
    WARM_UP,
    Place,
    Way,
    flops_of_an_update,
    make_base,
    make_pictures,
    matmul_rate,
    prepared,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# Words in the names of torch's operations, told apart in this order.
KINDS = {
    "attention": ("attention",),
    "convolutions": ("conv",),
    "matrix products": ("mm", "linear"),
    "norms": ("norm",),
    "copies": ("copy", "cat", "contiguous", "clone", "fill", "zero"),
    "elementwise": ("add", "mul", "div", "gelu", "silu", "sigmoid", "sub", "pow", "mean", "sum", "softmax"),
}


def parts_of(way: Way, place: Place) -> dict[str, float]:
    """Return the median milliseconds of an update by its parts; `between` is what the whole has beyond them."""
    import torch

    from ti_pipeline.inversion import trainer

    base, start = prepared(way, place)
    spent: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            found = work(*arguments, **options)
            if place.device == "cuda":
                torch.cuda.synchronize()
            spent[part].append((begin, time.perf_counter()))
            return found

        return call

    places: list[tuple[str, Any, str]] = [
        ("drawing", trainer, "_draw"),
        ("text encoder", trainer, "encode_tokens"),
        ("UNet forward", base.unet, "forward"),
        ("backward", torch.autograd, "backward"),
        ("optimizer and log", trainer, "_update"),
    ]
    with contextlib.ExitStack() as patched:
        for part, owner, name in places:
            patched.enter_context(mock.patch.object(owner, name, timed(part, getattr(owner, name))))
        trainer.train(base, [start(8, place.updates)], save=lambda *_: None)
    found = {
        part: statistics.median(end - begin for begin, end in times[WARM_UP:]) * 1e3 for part, times in spent.items()
    }
    starts = [begin for begin, _ in spent["drawing"]][WARM_UP:]
    whole = statistics.median(b - a for a, b in itertools.pairwise(starts)) * 1e3
    return {part: round(ms, 3) for part, ms in (found | {"between": whole - sum(found.values())}).items()}


def kinds_of(way: Way, place: Place) -> dict[str, float]:
    """Return the milliseconds an update spends in operations of each kind (torch's profiler, self time on the CPU)."""
    from torch.profiler import ProfilerActivity, profile

    from ti_pipeline.inversion import trainer

    base, start = prepared(way, place)
    trainer.train(base, [start(8, WARM_UP)], save=lambda *_: None)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        trainer.train(base, [start(8, place.updates)], save=lambda *_: None)
    spent: dict[str, float] = collections.defaultdict(float)
    for event in profiler.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "everything else")
        spent[kind] += event.self_cpu_time_total / 1e3 / place.updates
    return {kind: round(value, 3) for kind, value in sorted(spent.items(), key=lambda pair: -pair[1])}


def profiled(batch: int, place: Place, precision: str) -> dict[str, Any]:
    """Return everything about one batch size."""
    way = Way("profile", (8,), batch, precision)
    base, start = prepared(way, place)
    flops = flops_of_an_update(lambda updates: [start(8, updates)], base)
    parts, rate = parts_of(way, place), matmul_rate(place.device, precision)
    return {
        "parts_ms": parts,
        "update_ms": round(sum(parts.values()), 3),
        "kinds_ms": kinds_of(way, place) if place.device == "cpu" else {},
        "gflop": round(flops / 1e9, 3),
        "matmul_gflops": round(rate / 1e9, 1),
        "least_ms": round(flops / rate * 1e3, 3),
        "share_of_matmul": round(flops / rate * 1e3 / sum(parts.values()), 3),
    }


def main() -> None:
    """Measure, print and write."""
    import torch

    from ti_pipeline.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["demo", "sd15"], default="demo")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--updates", type=int, default=40)
    given = parser.parse_args()
    side, precision = (64, "fp32") if given.shape == "demo" else (512, "bf16")
    found = {}
    with tempfile.TemporaryDirectory() as work:
        base, pictures = make_base(given.shape, Path(work) / "base"), make_pictures(Path(work) / "pictures", side)
        place = Place(str(base), str(pictures), side, given.device, None, given.updates)
        for batch in given.batch:
            found[f"batch {batch}"] = one = profiled(batch, place, precision)
            print(f"batch {batch}: {one['update_ms']:.1f} ms an update; {one['gflop']:.2f} GFLOP, at least ", end="")
            print(f"{one['least_ms']:.1f} ms at {one['matmul_gflops']:.0f} GFLOP/s ({one['share_of_matmul']:.0%})")
            for title in ("parts_ms", "kinds_ms"):
                print("  " + ", ".join(f"{name} {value:.1f}" for name, value in one[title].items()))
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-training_profile-{given.shape}-{given.device}.json"
    write_json(path, {"threads": torch.get_num_threads(), "torch": torch.__version__, **found})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
