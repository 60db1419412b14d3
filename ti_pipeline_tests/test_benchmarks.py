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
