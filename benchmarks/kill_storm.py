"""Kill storm: trainings that are killed, terminated and interrupted at random end as calm ones do, to the bit.

    python benchmarks/kill_storm.py [--recipes N] [--kills N] [--seed N]

Each random recipe is trained once in peace, and once by processes that get SIGKILL, SIGTERM or SIGINT after a random
while, some in two processes that share the work, some first asked for fewer updates and made longer later. Then every
file of the two folders must be the same, no process may be left, and nothing half-written may lie about. Prints what
was sent and writes `benchmarks/results/<date>-kill_storm.json`. The models are tiny and random; needs /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MARK = "TI_KILL_STORM"
CHOICES: dict[str, list[Any]] = {
    "vectors": [1, 3, 5],
    "batch_size": [1, 2, 3],
    "gradient_accumulation": [1, 2],
    "checkpoint_every": [7, 20, 1000],
    "learning_rate": [0.005, "0.01:20, 1e-3"],
    "optimizer": ["adamw", "lion"],
    "latents": ["once", "random"],
    "shuffle_tags": [False, True],
    "drop_tags": [0.0, 0.5],
    "ema_decay": [None, 0.9],
    "max_norm": [None, 1.0],
    "noise_offset": [0.0, 0.1],
    "precision": ["fp32", "bf16"],
}


def make_root(root: Path) -> Any:
    """Write five crops of noise; return their table and captions."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    (root / "crops").mkdir(parents=True)
    posts, rows = (11, 12, 15, 20, 31), []
    for post in posts:
        path = root / "crops" / f"{post}.png"
        pixels = np.random.default_rng(post).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        split = "validation" if post == 31 else "train"
        rows.append({"post_id": post, "status": "ok", "split": split, "path": f"crops/{post}.png", "sha256": sha256})
    crops = pd.DataFrame(rows).assign(alpha_sha256=pd.array([None] * len(rows), dtype="str"))
    return crops, pd.DataFrame({"post_id": posts, "caption": ["wolf, snow", "red fur, wolf", "", "fox, night", "fox"]})


def job_of(recipe: dict[str, Any], steps: int, root: Path, bases: Path) -> Any:
    """Return the job of a recipe in a data folder."""
    from ti_pipeline.inversion.training_runs import VariantJob
    from ti_pipeline.studies import BaseModelSource, Variant

    crops, captions = recipe["data"]
    own = {name: value for name, value in recipe.items() if name in CHOICES}
    fixed: dict[str, Any] = {
        "base": "tiny",
        "captions": "none",
        "crop": "64",
        "resolution": 64,
        "seed": 5,
    }
    variant = Variant(**fixed, **own, token="zz", steps=steps)
    source, folder = BaseModelSource(folder="tiny"), root / "embeddings" / "s" / "a"
    return VariantJob("s", "a", variant, source, bases, {"64": crops}, captions, folder)


def train(path: Path) -> None:
    """Train a job of a file: what runs in a process of its own."""
    import torch

    from ti_pipeline.inversion.training_runs import train_variants

    torch.set_num_threads(1)
    jobs, root, processes = pickle.loads(path.read_bytes())
    train_variants(jobs, root=root, processes=processes)


def start(job: Any, root: Path, processes: int) -> Any:
    """Start a training in a process of its own, forked from one that has read torch and diffusers already."""
    path = root / "job.pickle"
    path.write_bytes(pickle.dumps(([job], root, processes)))
    started = multiprocessing.get_context("forkserver").Process(target=train, args=(path,))
    started.start()
    return started


def left_behind() -> list[int]:
    """Return the processes of this storm that still run."""
    mark, found = f"{MARK}={os.getpid()}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z" and mark in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def files(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def storm(recipe: dict[str, Any], root: Path, bases: Path, kills: int, draw: random.Random) -> Counter[str]:
    """Train a recipe while it is being killed; return what was sent."""
    sent: Counter[str] = Counter()
    before = left_behind()  # the process that the others are forked from, and those that keep account of it
    for steps in recipe["lengths"]:
        while True:
            process = start(job_of(recipe, steps, root, bases), root, recipe["processes"])
            number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            wait = draw.uniform(0.3, 1.2) * recipe["seconds"] if sum(sent.values()) < kills else None
            process.join(wait)
            if process.is_alive():
                os.kill(process.pid, number)
                sent[number.name] += 1
                process.join(120)
                until = time.monotonic() + 90
                while (left := set(left_behind()) - set(before)) and time.monotonic() < until:
                    time.sleep(0.2)
                if left:
                    raise SystemExit(f"{number.name} left processes behind: {left}")
                continue
            if process.exitcode:
                raise SystemExit(f"a training failed by itself: exit code {process.exitcode}")
            break
    return sent


def main() -> None:
    """Storm, compare, print and write."""
    from ti_pipeline.files import write_json
    from ti_pipeline_tests.tiny_models import build_tiny_base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=25)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.environ |= {MARK: str(os.getpid()), "OMP_NUM_THREADS": "1"}
    draw, sent, worked = random.Random(given.seed), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as work:
        build_tiny_base(Path(work) / "bases" / "tiny")
        for number in range(given.recipes):
            recipe = {name: draw.choice(values) for name, values in CHOICES.items()}
            steps = draw.randint(60, 120)
            recipe["lengths"] = [draw.randint(20, steps - 1), steps] if draw.random() < 0.5 else [steps]
            recipe["processes"] = draw.choice([1, 1, 2])
            calm, wild = Path(work) / f"{number}-calm", Path(work) / f"{number}-wild"
            recipe["data"] = make_root(calm)
            make_root(wild)
            for length in recipe["lengths"]:
                began = time.monotonic()
                quiet = start(job_of(recipe, length, calm, Path(work) / "bases"), calm, recipe["processes"])
                quiet.join()
                if quiet.exitcode:
                    raise SystemExit("a calm training failed")
                recipe["seconds"] = time.monotonic() - began
            own = -(-given.kills * (number + 1) // given.recipes) - sum(sent.values())
            now = storm(recipe, wild, Path(work) / "bases", own, draw)
            sent += now
            expected, found = files(calm / "embeddings"), files(wild / "embeddings")
            others = sorted(name for name in expected | found if expected.get(name) != found.get(name))
            if others:
                del recipe["data"]
                raise SystemExit(f"recipe {number + 1} came out otherwise after {dict(now)} in {others}: {recipe}")
            worked[f"{recipe['processes']} processes, {len(recipe['lengths'])} lengths"] += 1
            print(f"recipe {number + 1}: {dict(now)}, as calm as ever", flush=True)
    print(f"{given.recipes} recipes, {dict(sent)}: every file as in calm runs, no process left")
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-kill_storm.json"
    write_json(path, {"recipes": given.recipes, "sent": dict(sent), "kinds": dict(worked), "seed": given.seed})
    print(f"written to {path}")


if __name__ == "__mp_main__":  # in the process that trainings are forked from
    from diffusers import DDIMScheduler, StableDiffusionPipeline  # noqa: F401
    from transformers import CLIPTextModel  # noqa: F401


if __name__ == "__main__":
    main()
