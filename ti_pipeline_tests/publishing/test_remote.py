"""Publishing to other places: a folder, and a store in memory that behaves like an object store."""

import hashlib
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile
from upath import UPath

from ti_pipeline.publishing import remote
from ti_pipeline.publishing.remote import PublishError, publish_files, publish_release


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "ember-300"
    (folder / "a1111").mkdir(parents=True)
    (folder / "a1111" / "ember.pt").write_bytes(bytes(range(256)) * 9000)
    (folder / "README.md").write_text("# ember\n", encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path: Path):
    if request.param == "folder":
        yield (tmp_path / "drive" / "mine").as_uri()
        return
    yield "memory://shelf/mine"
    fsspec.filesystem("memory").rm("/shelf", recursive=True)


def contents(url: str) -> dict[str, bytes]:
    place = UPath(url)
    return {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_a_release_arrives_whole_and_is_not_sent_twice(release: Path, url: str) -> None:
    first = publish_release(release, url)
    expected = {p.relative_to(release).as_posix(): p.read_bytes() for p in release.rglob("*") if p.is_file()}
    assert contents(f"{url}/ember-300") == expected
    assert sorted(first.sent) == sorted(expected)
    again = publish_release(release, url)
    assert (again.sent, sorted(again.there)) == ([], sorted(expected))


def test_a_stop_halfway_leaves_no_checksums_and_the_next_run_goes_on(release: Path, url: str, monkeypatch) -> None:
    plain, sent = remote._send, []

    def failing(source, target):
        if len(sent) == 1:
            raise ConnectionResetError("gone")
        sent.append(source.name)
        return plain(source, target)

    monkeypatch.setattr(remote, "_send", failing)
    with pytest.raises(PublishError, match="gone; 1 files were sent, run again to go on"):
        publish_release(release, url)
    assert "SHA256SUMS" not in contents(f"{url}/ember-300")
    monkeypatch.undo()
    assert len(publish_release(release, url).there) == 1
    assert "SHA256SUMS" in contents(f"{url}/ember-300")


def test_another_file_of_the_same_name_is_never_overwritten(release: Path, url: str) -> None:
    publish_release(release, url)
    (release / "README.md").write_text("# changed\n", encoding="utf-8")
    with pytest.raises(PublishError, match=r"README\.md is another file .* never overwritten"):
        publish_release(release, url)
    assert contents(f"{url}/ember-300")["README.md"] == b"# ember\n"


def test_what_does_not_read_back_is_removed_and_told(release: Path, monkeypatch) -> None:
    plain = MemoryFile.write
    monkeypatch.setattr(MemoryFile, "write", lambda file, data: plain(file, data[:-5]))
    with pytest.raises(PublishError, match="did not arrive whole"):
        publish_files(release, ["README.md"], "memory://lossy")
    assert contents("memory://lossy") == {}


def test_addresses_that_cannot_be_used_say_so(release: Path, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"publish\.url nonsense://x: .*nonsense"):
        publish_files(release, ["README.md"], "nonsense://x")
    with pytest.raises(PublishError, match=r"\$TI_NOWHERE/x names an environment variable that is not set"):
        publish_release(release, "$TI_NOWHERE/x")
    (tmp_path / "file").write_text("a file where a folder should be")
    with pytest.raises(PublishError, match="run again to go on"):
        publish_files(release, ["README.md"], (tmp_path / "file" / "x").as_uri())
