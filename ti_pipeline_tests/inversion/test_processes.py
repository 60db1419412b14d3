"""Processes: several of them train what one alone would."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ti_pipeline.inversion.embedding_files import load_embedding
from ti_pipeline.inversion.on_several_gpus import train_on_several
from ti_pipeline.inversion.processes import Processes
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.training_runs import train_variants

pytestmark = pytest.mark.slow

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
OPTIONS = ["--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
SCRIPT = """
import sys
from pathlib import Path

import torch

from ti_pipeline.inversion.processes import launched
from ti_pipeline_tests.inversion.test_processes import trained

processes = launched()
torch.set_num_threads(1)
torch.save(trained(Path(sys.argv[1]), processes), f"{sys.argv[2]}/{processes.index}-of-{processes.count}.pt")
processes.wait()
"""


def trained(bases_folder: Path, processes: Processes) -> dict:
    """Train two variants in float64, with batches that two processes cannot halve, and a validation."""
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.trainer import train
    from ti_pipeline.inversion.variant_state import Run
    from ti_pipeline.studies import BaseModelSource
    from ti_pipeline_tests.inversion.test_trainer import mixture, pictures, variant

    base = load_base("t", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu", precision="fp64")
    settings = {
        "a": variant(vectors=2, steps=30, batch_size=3, checkpoint_every=10, ema_decay=0.9),
        "b": variant(vectors=5, steps=20, seed=8, gradient_accumulation=2, gradient_clip=0.001),
    }
    runs = [Run.start(key, own, base, mixture(), pictures(3, 900)) for key, own in settings.items()]
    saved = []
    train(base, runs, save=lambda run, checkpoint: saved.append((run.key, run.done)), processes=processes)
    return {
        "vectors": [run.result for run in runs],
        "logs": [run.log for run in runs],
        "validation": [[row["validation_loss"] for row in run.checkpoints] for run in runs],
        "saved": saved,
    }


def test_two_processes_equal_one(bases_folder, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [*LAUNCH, *OPTIONS, str(script), str(bases_folder), str(tmp_path)], check=True, cwd=root, env=_path(root)
    )
    alone = trained(bases_folder, Processes())
    found = [torch.load(tmp_path / f"{index}-of-2.pt") for index in range(2)]
    for other in found:
        for mine, theirs in zip(alone["vectors"], other["vectors"], strict=True):
            assert float((mine - theirs).abs().max()) <= 1e-9
        for mine, theirs in zip(alone["logs"], other["logs"], strict=True):
            assert torch.allclose(torch.tensor(mine), torch.tensor(theirs), rtol=1e-9)
        for mine, theirs in zip(alone["validation"], other["validation"], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-9)
        assert other["saved"] == alone["saved"]
    assert all(torch.equal(a, b) for a, b in zip(found[0]["vectors"], found[1]["vectors"], strict=True))


def _path(root: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def test_samples_are_dealt_out_evenly_and_each_once():
    for count in (1, 2, 3, 4):
        shares = [Processes(index, count).shares([3, 1, 1, 4, 2]) for index in range(count)]
        for at, size in enumerate([3, 1, 1, 4, 2]):
            dealt = sorted(place for own in shares for place in range(size)[own[at]])
            assert dealt == list(range(size))
        counts = [
            sum(len(range(size)[part]) for size, part in zip([3, 1, 1, 4, 2], own, strict=True)) for own in shares
        ]
        assert max(counts) - min(counts) <= 1


def test_the_files_of_several_processes_are_those_of_one(root, make_job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = make_job("a", batch_size=3)
    expected = train_variants([job], root=root)["s__a"].checkpoints
    vectors = load_embedding(job.folder / "a-6.pt").vectors
    for path in job.folder.rglob("*.*"):
        path.unlink()
    result = train_variants([job], root=root, processes=2)["s__a"]
    assert not result.reused
    assert result.checkpoints.checkpoint.tolist() == expected.checkpoint.tolist()
    assert torch.allclose(load_embedding(job.folder / "a-6.pt").vectors, vectors, atol=1e-4)
    assert train_variants([job], root=root)["s__a"].reused


def test_what_went_wrong_in_a_process_is_told(root, make_job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(TrainingError, match=r"2 processes failed: .*clip_skip 5 is deeper than the text encoder"):
        train_on_several([make_job("a", clip_skip=5)], root=root, processes=2)
