"""A remote data folder that two machines work on: nobody deletes or brings back what another did."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from ti_pipeline.mirror import Mirror
from ti_pipeline.resources import DataStore
from ti_pipeline.sources.purge import READS, WRITES, purge_artist
from ti_pipeline_tests.publishing.s3 import Bucket, local_bucket
from ti_pipeline_tests.sources.test_purge import fill, images_by_post


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with local_bucket(monkeypatch) as found:
        yield found


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{tmp_path.name}"
    return f"{request.getfixturevalue('bucket').url}/{tmp_path.name}"


class Machine:
    """One of several machines that work on the same remote data folder."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.url, self.monkeypatch = folder, url, monkeypatch

    def work(self, **folders: Any) -> Any:
        self.monkeypatch.setenv("TI_MIRROR", str(self.folder))
        return DataStore(url=self.url).work(**folders)

    def write(self, **files: str) -> None:
        with self.work(reads=["images"], writes=["images"]) as root:
            (root / "images").mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (root / "images" / name).write_text(text)

    def folder_of_copy(self) -> Path:
        self.monkeypatch.setenv("TI_MIRROR", str(self.folder))
        return DataStore(url=self.url).root

    def reads(self, folder: str = "images") -> dict[str, str]:
        with self.work(reads=[folder]) as root:
            return {p.name: p.read_text() for p in (root / folder).rglob("*") if p.is_file()}


@pytest.fixture
def machines(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine]:
    return Machine(tmp_path / "a", url, monkeypatch), Machine(tmp_path / "b", url, monkeypatch)


def test_one_machine_does_not_delete_what_another_sent(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    a.write(one="1")
    with a.work(reads=["images"], writes=["images"]) as root:
        b.write(two="2")
        (root / "images" / "three").write_text("3")
    assert a.reads() == b.reads() == {"one": "1", "two": "2", "three": "3"}


def test_what_one_removes_is_gone_for_the_other_and_stays_gone(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    a.write(one="1", two="2")
    assert b.reads() == {"one": "1", "two": "2"}
    with a.work(reads=["images"], writes=["images"]) as root:
        (root / "images" / "one").unlink()
    b.write(three="3")
    assert a.reads() == b.reads() == {"two": "2", "three": "3"}


def test_a_change_of_the_same_size_is_seen(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    a.write(one="1")
    assert b.reads() == {"one": "1"}
    b.write(one="9")
    assert a.reads() == {"one": "9"}


def test_what_is_there_is_not_sent_again(machines: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = machines
    a.write(one="1", two="2")
    sent: list[str] = []
    send = Mirror._send
    monkeypatch.setattr(Mirror, "_send", lambda self, name: (sent.append(name), send(self, name)))
    a.write(three="3")
    b.write(four="4")
    with b.work(reads=["images"], writes=["images"]):
        pass
    assert sent == ["images/three", "images/four"]


def test_what_a_killed_run_did_not_send_goes_with_the_next(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    a.write(one="1")
    with a.work(reads=["images"]) as root:  # a run that writes, and never comes to the end of its work
        (root / "images" / "two").write_text("2")
    assert b.reads() == {"one": "1"}
    a.write(three="3")
    assert b.reads() == {"one": "1", "two": "2", "three": "3"}


def test_purged_pictures_do_not_come_back_from_another_machine(machines: tuple[Machine, Machine]) -> None:
    a, b = machines
    with a.work(writes=["images", "crops", "exports", "reports", "latents", "tables"]) as root:
        fill(root)
        ours = images_by_post(root)["one", 1].as_posix()
    written = ["images", "crops", "reports"]
    with b.work(reads=written, writes=written) as root:
        with a.work(reads=READS, writes=WRITES) as at_a:
            purge_artist("ink", root=at_a, crops_of={})
        # What B made meanwhile: the same picture fetched anew, another cut of it, a report that shows it.
        for name in (ours, "crops/one/128/1-2.png", "crops/one/64/2.png", "reports/one.html"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("made by B")
    with b.work(reads=["images"], writes=["images"]):
        pass
    remote = UPath(b.url)
    assert (remote / "crops/one/64/2.png").read_text() == "made by B", "what is of others is sent"
    for name in (ours, "crops/one/64/1.png", "crops/one/128/1-2.png", "reports/one.html"):
        assert not (remote / name).exists(), name
        assert not (b.folder_of_copy() / name).exists(), name
    b.write(picture="of somebody else")
    with b.work(writes=["reports"]) as root:  # made after the purge: the new one shows nothing of the artist
        (root / "reports" / "one.html").write_text("new")
    assert (remote / "reports/one.html").read_text() == "new"
