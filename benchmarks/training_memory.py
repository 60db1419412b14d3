"""Training memory: what encoding and an update need at most on Stable Diffusion 1.5's shape, counted without a GPU.

    python benchmarks/training_memory.py [--smoke]

Runs the product's own encoding and loss with tensors that have shapes and no content (torch's `FakeTensorMode`), and
counts every storage while it is alive. Counted are tensors: a GPU's libraries add their workspaces, and
its allocator rounds up. Prints GiB for each, the frozen base included where it is there, and writes
`benchmarks/results/<date>-training_memory.json`. `--smoke` counts a shrunken model and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
from training_speed import CAPTION, RESULTS, sd15_parts

GIB = 2**30


def base_of(precision: str, *, smoke: bool, device: str = "cpu") -> Any:
    """Return the base with parts that have no content; to be called within the mode."""
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.clip_vocabulary import clip_tokenizer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    parts = sd15_parts(smoke=smoke)  # fake tensors cannot be converted: made in their types at once
    torch.set_default_dtype(dtype)
    try:
        parts |= {name: part for name, part in sd15_parts(smoke=smoke).items() if name != "vae"}
    finally:
        torch.set_default_dtype(torch.float32)
    for part in parts.values():
        part.eval().requires_grad_(False)
    width = int(parts["text_encoder"].config.hidden_size)
    return Base(
        name="counted",
        identity="",
        tokenizer=clip_tokenizer(),
        scheduler_config={},
        prediction_type="epsilon",
        width=width,
        device=torch.device(device),
        dtype=dtype,
        **parts,
    )


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that operators make, from when they are made until nothing holds them."""

    def __init__(self) -> None:
        """Count nothing yet."""
        super().__init__()
        self._known: set[int] = set()
        self._now, self.most = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and count what is new in what came of it."""
        out = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self._now)
        return out

    def _gone(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._now -= size


def peak(modules: list[Any], work: Any) -> float:
    """Return the most bytes alive at once in GiB, the modules' own included."""
    own = sum(part.numel() * part.element_size() for module in modules for part in module.parameters())
    with Alive() as alive:
        work()
    return float(own + alive.most) / GIB


def encoding(side: int, batch: int, *, smoke: bool) -> float:
    """Return the peak of encoding pictures of so many pixels a side; only the autoencoder is there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.inference_mode():
        base = base_of("fp32", smoke=smoke)
        pixels = torch.zeros(batch, 3, side, side)
        return peak([base.vae], lambda: base.vae.encode(pixels).latent_dist.mean)


def update(precision: str, vectors: tuple[int, ...], *, checkpointing: bool, side: int, smoke: bool) -> float:
    """Return the peak of an update of variants trained together; UNet and text encoder are there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from ti_pipeline.inversion import trainer

    with FakeTensorMode():
        base = base_of(precision, smoke=smoke)
        if checkpointing:
            base.keep_no_activations()
        latent = side // 8
        settings = SimpleNamespace(long_prompts="cut", clip_skip=1)
        runs: list[Any] = [
            SimpleNamespace(
                key=f"zz{n}", name=f"zz{n}", variant=settings, vectors=torch.zeros(n, base.width, requires_grad=True)
            )
            for n in vectors
        ]
        batches = [
            trainer.Batch(
                torch.zeros(1, 4, latent, latent),
                torch.zeros(1, 4, latent, latent),
                torch.zeros(1, dtype=torch.long),
                torch.ones(1),
                [f"{run.name}, {CAPTION}"],
            )
            for run in runs
        ]

        def work() -> None:
            errors = trainer._errors(base, runs, batches)
            torch.autograd.backward([error.mean() for error in errors])

        return peak([base.unet, base.text_encoder], work)


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    sides = (64,) if smoke else (512, 768, 1024)
    found = {
        f"encoding, {side} px, {batch} at once, fp32": encoding(side, batch, smoke=smoke)
        for side in sides
        for batch in (1, 8)
    }
    for precision in ("fp32", "bf16"):
        for vectors in ((8,), (8, 16, 32, 64)):
            for checkpointing in (False, True):
                name = f"{len(vectors)} variants at once, {precision}" + ", gradient checkpointing" * checkpointing
                found[name] = update(
                    precision, vectors, checkpointing=checkpointing, side=64 if smoke else 512, smoke=smoke
                )
    for name, gib in found.items():
        print(f"{name:60} {gib:7.2f} GiB", flush=True)
    if not smoke:
        from ti_pipeline.files import write_json

        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-training_memory.json"
        write_json(path, {"gib": {name: round(gib, 3) for name, gib in found.items()}})
        print(f"written to {path}")


if __name__ == "__main__":
    main()
