"""Benchmarks: the code of those that need a GPU and a large model runs, on a shrunken one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.slow
def test_the_training_benchmark_of_stable_diffusions_shape_runs() -> None:
    command = [sys.executable, str(SCRIPTS / "training_speed.py"), "--shape", "sd15", "--smoke"]
    before = set((SCRIPTS / "results").iterdir())
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = dict(
        re.findall(r"^(\S.*?), bf16 +[\d.]+ ms a sample +\d+ MiB +([\d.]+)% of large matrix products$", told, re.M)
    )
    assert set(rows) == {
        *(f"one variant, batch {batch}" for batch in (1, 4)),
        *(f"one variant of {vectors} vectors, batch 1" for vectors in (16, 32, 64)),
        "four variants together, batch 1 each",
    }
    assert all(0 < float(share) < 100 for share in rows.values())
    assert re.search(r"four variants together: [\d.]+ × the throughput", told)
    assert set((SCRIPTS / "results").iterdir()) == before


def test_stable_diffusions_shape_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted without allocating: 859.5 M, 123.1 M and 83.7 M parameters."""
    import torch

    monkeypatch.syspath_prepend(str(SCRIPTS))
    import training_speed

    with torch.device("meta"):
        parts = training_speed.sd15_parts()
    counts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    assert counts == {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}


def test_time_to_quality_is_the_first_time_that_reaches_the_peers_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import time_to_quality as bench

    def point(name: str, updates: int, *scores: float) -> "bench.Point":
        recipe = bench.Recipe(name, "none", {}, (), whole=name == bench.OURS)
        return bench.Point(recipe, updates, likeness=list(scores), obedience=list(scores))

    points = [
        *(point("peer", n, s, s) for n, s in ((10, 0.2), (20, 0.6), (40, 0.5))),
        *(point(bench.OURS, n, s, s + 0.1) for n, s in ((5, 0.3), (8, 0.57), (16, 0.7))),
    ]
    told = bench.summary(points, {"peer": 1.0, bench.OURS: 0.5})["peers"]["peer"]
    assert (told["best"], told["seconds to its best"]) == (0.6, 20.0)
    assert (told["our seconds to the same"], told["times as fast"]) == (4.0, 5.0)
    assert (told["ours at its best"], told["units in which our best is higher"]) == (0.75, 2)
    assert bench.harmonic(0.5, 1.0) == pytest.approx(2 / 3)
    assert bench.harmonic(-0.2, 1.0) == 0.0
    assert bench.harmonic(1.4, 1.0) == 1.0
