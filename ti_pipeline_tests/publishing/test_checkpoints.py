"""Checkpoints on their way: as they appear, again after a lost connection, and never in the way of the training."""

import csv
import threading
from pathlib import Path

import pytest
import torch

from ti_pipeline.inversion.embedding_files import Embedding, save_pt, save_safetensors
from ti_pipeline.publishing.checkpoints import CheckpointSender, Outbox, publish_checkpoints
from ti_pipeline.publishing.remote import PublishError, publish_files, publish_release
from ti_pipeline_tests.publishing.s3 import Bucket, local_bucket

FINGERPRINT = "ab" * 32
PLACE = f"checkpoints/tiny/v2/{FINGERPRINT[:16]}"
ATTRIBUTION = "post_id,artists\n1,somebody\n"


class Shelf:
    """A folder that a mounted drive would be, with the same three questions as `Bucket`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.as_uri()

    def contents(self) -> dict[str, bytes]:
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)


@pytest.fixture
def bucket(monkeypatch):
    with local_bucket(monkeypatch) as bucket:
        yield bucket


@pytest.fixture(params=["s3", "file"])
def shelf(request, tmp_path) -> Bucket | Shelf:
    return request.getfixturevalue("bucket") if request.param == "s3" else Shelf(tmp_path / "drive")


def write(folder: Path, step: int, fingerprint: str = FINGERPRINT) -> None:
    """Leave a checkpoint as the trainer does: the `.pt` first, each file whole."""
    vectors = torch.randn(2, 8, generator=torch.Generator().manual_seed(step))
    embedding = Embedding(f"v2-{step}", vectors, step, "base", "0" * 64)
    save_pt(folder / f"v2-{step}.pt", embedding)
    save_safetensors(folder / f"v2-{step}.safetensors", embedding, {"fingerprint": fingerprint})


def outbox(folder: Path, url: str) -> Outbox:
    folder.mkdir(parents=True, exist_ok=True)
    return Outbox("tiny", "v2", folder, url, ATTRIBUTION)


def expected(folder: Path, *steps: int) -> dict[str, bytes]:
    names = [f"v2-{step}.{kind}" for step in steps for kind in ("pt", "safetensors")]
    return {f"{PLACE}/{name}": (folder / name).read_bytes() for name in [*names, "attribution.csv"]}


def test_each_checkpoint_is_sent_as_it_appears(shelf, tmp_path):
    box = outbox(tmp_path / "v2", shelf.url)
    write(box.folder, 5)  # left by an earlier training
    told = []
    sender = CheckpointSender([box], told.append)
    write(box.folder, 10)
    assert sender.send_new()
    assert shelf.contents() == expected(box.folder, 10)
    write(box.folder, 20)
    assert sender.send_new()
    assert shelf.contents() == expected(box.folder, 10, 20)
    assert told == ["checkpoint v2-10 is published", "checkpoint v2-20 is published"]
    assert list(csv.DictReader(shelf.contents()[f"{PLACE}/attribution.csv"].decode().splitlines()))


def test_only_missing_and_different_files_are_sent_again(shelf, tmp_path):
    box = outbox(tmp_path / "v2", shelf.url)
    write(box.folder, 10)
    assert publish_checkpoints(box, ["v2-10"]) == 3
    write(box.folder, 20)
    assert publish_checkpoints(box, ["v2-10", "v2-20"]) == 2
    shelf.put(f"{PLACE}/v2-10.pt", b"damaged there")
    assert publish_checkpoints(box, ["v2-10", "v2-20"]) == 1
    same_size = (box.folder / "v2-20.pt").stat().st_size
    shelf.put(f"{PLACE}/v2-20.pt", bytes(same_size))
    assert publish_checkpoints(box, ["v2-10", "v2-20"]) == 1
    assert shelf.contents() == expected(box.folder, 10, 20)


def test_a_training_with_other_settings_has_a_place_of_its_own(shelf, tmp_path):
    box = outbox(tmp_path / "v2", shelf.url)
    write(box.folder, 10)
    publish_checkpoints(box, ["v2-10"])
    before = expected(box.folder, 10)
    write(box.folder, 10, fingerprint="cd" * 32)
    publish_checkpoints(box, ["v2-10"])
    there = shelf.contents()
    assert {name: there[name] for name in before} == before
    assert f"checkpoints/tiny/v2/{'cd' * 8}/v2-10.pt" in there


def test_all_forms_of_a_checkpoint_are_sent_and_no_others(tmp_path):
    shelf = Shelf(tmp_path / "drive")
    box = outbox(tmp_path / "v2", shelf.url)
    for step in (1, 10):  # v2-1 begins as v2-10 does
        write(box.folder, step)
    for folder, what in (("diffusers", b"for another program"), ("earlier", b"of another training")):
        (box.folder / folder).mkdir()
        (box.folder / folder / "v2-1.safetensors").write_bytes(what)
    (box.folder / "state.pt").write_bytes(b"to go on from")
    assert publish_checkpoints(box, ["v2-1"]) == 4
    names = {name.removeprefix(f"{PLACE}/") for name in shelf.contents()}
    assert names == {"attribution.csv", "v2-1.pt", "v2-1.safetensors", "diffusers/v2-1.safetensors"}


def test_a_lost_connection_is_told_and_made_good_later(bucket, tmp_path):
    box = outbox(tmp_path / "v2", bucket.url)
    told = []
    sender = CheckpointSender([box], told.append)
    write(box.folder, 10)
    bucket.stop()
    assert not sender.send_new()
    assert not sender.send_new()
    assert len(told) == 2
    assert told[0].startswith("checkpoint v2-10 is not published yet, training goes on and it is tried again: publish")
    with pytest.raises(PublishError, match=r"publish\.url s3://.*run again to go on"):
        publish_checkpoints(box, ["v2-10"])
    bucket.start()
    bucket.files().makedirs(bucket.name, exist_ok=True)
    write(box.folder, 20)
    assert sender.send_new()
    assert bucket.contents() == expected(box.folder, 10, 20)


def test_training_beside_it_is_neither_stopped_nor_raised_into(tmp_path):
    """The thread works while the body does, and the body ends with its own outcome, whatever became of the sending."""
    box = outbox(tmp_path / "v2", "nonsense://nowhere")
    seen = threading.Event()
    told = []

    def tell(words: str) -> None:
        told.append(words)
        seen.set()

    with CheckpointSender([box], tell):
        write(box.folder, 10)
        assert seen.wait(30)
    assert "nonsense" in told[0]
    assert "checkpoint sender" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError, match="the training's own"), CheckpointSender([box], tell):
        raise RuntimeError("the training's own")


def test_a_checkpoint_of_unknown_origin_is_refused(tmp_path):
    box = outbox(tmp_path / "v2", (tmp_path / "drive").as_uri())
    with pytest.raises(PublishError, match=r"v2-10\.safetensors is gone or was not written by a training"):
        publish_checkpoints(box, ["v2-10"])
    save_safetensors(box.folder / "v2-10.safetensors", Embedding("v2-10", torch.ones(1, 8)))
    with pytest.raises(PublishError, match=r"v2-10\.safetensors is gone or was not written by a training"):
        publish_checkpoints(box, ["v2-10"])
    assert not (tmp_path / "drive").exists()


def test_a_release_goes_to_s3_whole_once_and_is_never_overwritten(bucket, tmp_path):
    folder = tmp_path / "ember-300"
    (folder / "a1111").mkdir(parents=True)
    (folder / "a1111" / "ember.pt").write_bytes(bytes(range(256)) * 9000)
    (folder / "SHA256SUMS").write_text("")
    assert publish_release(folder, bucket.url).sent == ["a1111/ember.pt", "SHA256SUMS"]
    assert publish_release(folder, bucket.url).sent == []
    bucket.put("ember-300/a1111/ember.pt", b"somebody else's")
    with pytest.raises(PublishError, match="never overwritten"):
        publish_release(folder, bucket.url)
    assert bucket.contents()["ember-300/a1111/ember.pt"] == b"somebody else's"


def test_s3_that_forgets_is_told(bucket, tmp_path):
    (tmp_path / "x").write_bytes(b"1234")
    with pytest.raises(PublishError, match=r"no-such-bucket.*run again to go on"):
        publish_files(tmp_path, ["x"], "s3://no-such-bucket/y")
