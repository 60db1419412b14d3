"""Tables, files and the data folder: atomic, local or remote, and found again."""

import hashlib
import json
import os
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from ti_pipeline.contracts import TableError
from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.io_managers import ParquetTables, Tables
from ti_pipeline.resources import DataStore

TAGS = pd.DataFrame({"post_id": [1, 2], "tag": ["wolf", "狐\n'\""], "category": ["species", "general"]})


@pytest.fixture(params=["folder", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"folder": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path.name}"}[request.param]


def test_tables_are_found_where_the_interface_says(url: str) -> None:
    tables = Tables(UPath(url))
    path = tables.write("post_tags", "demo", TAGS)
    assert path.as_posix().endswith("tables/post_tags/demo.parquet")
    read = tables.read("post_tags", "demo")
    pd.testing.assert_frame_equal(read.astype(TAGS.dtypes), TAGS)
    assert read.tag.dtype == "category", "words that repeat stay numbered"
    assert tables.read("post_tags", "other") is None
    with pytest.raises(TableError):
        tables.write("post_tags", "demo", TAGS.drop(columns="tag"))
    assert len(tables.read("post_tags", "demo")) == 2, "a refused table must not replace a good one"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), write_atomically(target) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert list((tmp_path / "deep").iterdir()) == []
    write_json(target, {"b": 1, "a": "ö"})
    assert json.loads(target.read_text(encoding="utf-8")) == {"a": "ö", "b": 1}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["file.txt"]


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(os.urandom(3_000_000))
    assert sha256_of(tmp_path / "x") == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})


def test_a_local_store_works_in_place(tmp_path: Path) -> None:
    with DataStore(url=str(tmp_path)).work(writes=["images"]) as root:
        assert root == tmp_path.resolve()


def test_a_remote_store_is_mirrored_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = UPath(f"memory://{tmp_path.name}")
    (remote / "images").mkdir(parents=True)
    (remote / "images" / "old.png").write_bytes(b"old")
    (remote / "images" / "stale.png").write_bytes(b"stale")
    monkeypatch.setenv("TI_MIRROR", str(tmp_path / "one"))
    store = DataStore(url=str(remote))
    with pytest.raises(RuntimeError), store.work(reads=["images"], writes=["images"]) as root:
        assert (root / "images" / "old.png").read_bytes() == b"old"
        (root / "images" / "new.png").write_bytes(b"new")
        (root / "images" / "stale.png").unlink()
        raise RuntimeError("killed after the first picture")
    assert {p.name: p.read_bytes() for p in (remote / "images").iterdir()} == {"old.png": b"old", "new.png": b"new"}
    monkeypatch.setenv("TI_MIRROR", str(tmp_path / "another machine"))
    with store.work(reads=["images"]) as root:
        assert sorted(p.name for p in (root / "images").iterdir()) == ["new.png", "old.png"]


def test_an_absent_input_says_which_job_makes_it(tmp_path: Path) -> None:
    @dg.asset
    def post_tags() -> None: ...

    @dg.asset
    def reader(post_tags: pd.DataFrame) -> None: ...

    manager = ParquetTables(url=str(tmp_path))
    result = dg.materialize(
        [reader, post_tags], selection=[reader], resources={"io_manager": manager}, raise_on_error=False
    )
    error = next(e for e in result.all_events if e.is_step_failure).event_specific_data.error
    while error.cause is not None:
        error = error.cause
    assert "materialize post_tags first" in error.message
