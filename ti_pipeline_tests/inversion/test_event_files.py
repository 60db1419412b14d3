"""Event files, as TensorBoard's own reader sees them."""

import sys
from pathlib import Path

import pytest

from ti_pipeline.inversion import training_runs
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.training_runs import train_variants


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_shows_the_table_also_after_an_interruption(root, make_job, monkeypatch):
    job = make_job("a", steps=8, learning_rate="0.01:4, 0.001")
    plain = training_runs._save

    def stopping(run, *args, **options):
        if run.done == 6:
            raise KeyboardInterrupt  # nothing gets to close the file
        plain(run, *args, **options)

    monkeypatch.setattr(training_runs, "_save", stopping)
    with pytest.raises(KeyboardInterrupt):
        train_variants([job], root=root, tensorboard=True)
    monkeypatch.setattr(training_runs, "_save", plain)
    result = train_variants([job], root=root, tensorboard=True)["s__a"]
    found = read(job.folder / "tensorboard")
    for name in ("loss", "gradient_norm", "vector_norm", "learning_rate"):
        assert found[name] == [
            (s, pytest.approx(v)) for s, v in zip(result.losses.step, result.losses[name], strict=True)
        ]
    for name in ("validation_loss", "moved", "nearest_cosine"):
        rows = zip(result.checkpoints.step, result.checkpoints[name], strict=True)
        assert found[name] == [(step, pytest.approx(value)) for step, value in rows]


def test_there_are_none_unless_asked_for(root, make_job):
    job = make_job("a")
    train_variants([job], root=root)
    assert not (job.folder / "tensorboard").exists()


def test_without_the_package_the_extra_is_named(root, make_job, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'ti_pipeline\[tensorboard\]'"):
        train_variants([make_job("a")], root=root, tensorboard=True)
