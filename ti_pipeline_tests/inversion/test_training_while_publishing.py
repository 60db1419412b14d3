"""A real training with checkpoints being published beside it: they leave before its end, and it does not notice."""

import shutil
import threading
from pathlib import Path

import pytest

from ti_pipeline.inversion.training_runs import train_variants
from ti_pipeline.publishing.checkpoints import CheckpointSender, Outbox

NAMES = ["v2-3.pt", "v2-3.safetensors", "v2-6.pt", "v2-6.safetensors"]


@pytest.fixture
def alone(root, make_job) -> dict[str, bytes]:
    """The checkpoints of the same training with nothing beside it."""
    job = make_job("v2")
    train_variants([job], root=root)
    found = {name: (job.folder / name).read_bytes() for name in NAMES}
    shutil.rmtree(job.folder)
    return found


def train_beside(root, job, url: str) -> list[str]:
    """Train while a sender runs; after the first checkpoint, go on only when the log has a line of it."""
    told: list[str] = []
    heard = threading.Event()

    def tell(words: str) -> None:
        told.append(words)
        heard.set()

    def progress(_done: int, _total: int, _what: str) -> None:
        if (job.folder / "v2-3.safetensors").exists() and not (job.folder / "v2-6.safetensors").exists():
            assert heard.wait(60)

    with CheckpointSender([Outbox("s", "v2", job.folder, url, "post_id\n11\n")], tell):
        train_variants([job], root=root, progress=progress)
    return told


def test_a_checkpoint_leaves_before_the_training_ends(root, make_job, alone, tmp_path):
    drive = tmp_path / "drive"
    job = make_job("v2")
    assert train_beside(root, job, drive.as_uri())[0] == "checkpoint v2-3 is published"
    assert {name: (job.folder / name).read_bytes() for name in NAMES} == alone
    sent = {path.name: path.read_bytes() for path in drive.rglob("v2/*/*.*")}
    assert {name: sent[name] for name in NAMES[:2]} == {name: alone[name] for name in NAMES[:2]}


def test_a_place_that_is_not_there_changes_nothing(root, make_job, alone, tmp_path):
    (tmp_path / "file").write_text("a file where a drive should be")
    job = make_job("v2")
    (first, *_) = train_beside(root, job, Path(tmp_path / "file" / "x").as_uri())
    assert first.startswith("checkpoint v2-3 is not published yet, training goes on and it is tried again: publish.url")
    assert {name: (job.folder / name).read_bytes() for name in NAMES} == alone
