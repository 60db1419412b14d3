"""Nothing leaves that today's policy would not let in, whatever it was when the embedding was trained."""

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import torch
from upath import UPath

from ti_pipeline.assets.sending import (
    checkpoint_sender,
    finish_checkpoints,
    publish,
    require_publishable,
    send_checkpoints,
)
from ti_pipeline.e621.policy import OPT_OUT_FILE, ContentPolicy, PolicyError
from ti_pipeline.e621.records import posts_table
from ti_pipeline.inversion.embedding_files import Embedding, save_pt, save_safetensors
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import STUDIES, Key
from ti_pipeline.publishing.remote import PublishError
from ti_pipeline.resources import DataStore
from ti_pipeline.studies import Publish
from ti_pipeline.study_files import LoadedStudy
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.publishing.conftest import build_results, build_study, frame

KEY = Key("tiny", "a")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataStore:
    """The small study's tables in a data folder, publishing to a folder beside it."""
    results = build_results(tmp_path)
    study = build_study().model_copy(update={"publish": Publish(url=(tmp_path / "drive").as_uri())})
    monkeypatch.setitem(STUDIES, "tiny", LoadedStudy(study, tmp_path / "tiny.yaml", ""))
    tables = Tables(UPath(results.root))
    records = [post(n, tags={"artist": ["theirs" if n == 2 else "someone"]}) for n in range(1, 5)]
    tables.write("posts", "tiny", posts_table(records, ContentPolicy()))
    tables.write("crops", "tiny__64", results.crops["64"])
    tables.write("captions", "tiny__plan", results.captions["plan"])
    tables.write("provenance", "tiny", results.provenance)
    tables.write("training_set", "tiny", results.training_set)
    tables.write("embedding", "tiny__a", results.embeddings["a"])
    for step in (10, 20):
        embedding, stem = results.root / "embeddings/tiny/a", f"a-{step}"

        save_pt(embedding / f"{stem}.pt", Embedding(stem, torch.ones(2, 8)))
        save_safetensors(
            embedding / f"{stem}.safetensors", Embedding(stem, torch.ones(2, 8)), {"fingerprint": "ab" * 32}
        )
    return DataStore(url=str(results.root))


def trained(store: DataStore) -> pd.DataFrame:
    return Tables(UPath(store.url)).read("embedding", str(KEY))


def test_what_is_allowed_leaves(store: DataStore, tmp_path: Path) -> None:
    require_publishable(KEY, store)
    assert send_checkpoints(KEY, trained(store), store, store.root) == 5  # two checkpoints in two files, attribution
    assert len([path for path in (tmp_path / "drive").rglob("*") if path.is_file()]) == 5


def test_an_artist_who_opted_out_since_is_in_no_publication(store: DataStore) -> None:
    (store.root / OPT_OUT_FILE).parent.mkdir()
    (store.root / OPT_OUT_FILE).write_text("theirs\n")
    with pytest.raises(PolicyError, match=r"1 crops .* post 2: artist opted out; run the job prepare again"):
        require_publishable(KEY, store)


def test_a_caption_that_says_what_is_excluded_is_in_no_publication(store: DataStore) -> None:
    tables = Tables(UPath(store.url))
    captions = tables.read("captions", "tiny__plan")
    tables.write("captions", "tiny__plan", captions.assign(caption="wolf, young"))
    with pytest.raises(PolicyError, match="caption of post 1"):
        require_publishable(KEY, store)


def test_what_was_trained_on_purged_pictures_needs_another_training(store: DataStore) -> None:
    path = store.root / "tables/embedding/tiny__a.parquet"
    row = {"artist": "theirs", "study": "tiny", "kind": "embedding", "done": "listed", "at": datetime.now(UTC)}
    listed = frame("purges", [row | {"item": "embeddings/tiny/a/a-20.safetensors"}])
    Tables(UPath(store.url)).write("purges", None, listed)
    os.utime(path, (before := (datetime.now(UTC) - timedelta(hours=1)).timestamp(), before))
    with pytest.raises(PolicyError, match="a was trained on pictures of an artist who has been purged since"):
        require_publishable(KEY, store)
    os.utime(path, (after := (datetime.now(UTC) + timedelta(hours=1)).timestamp(), after))  # trained anew
    require_publishable(KEY, store)


@pytest.mark.parametrize("publish", [None, Publish(url="nonsense://nowhere", checkpoints=False)])
def test_nothing_leaves_unasked(store: DataStore, monkeypatch: pytest.MonkeyPatch, publish: Publish | None) -> None:
    loaded = STUDIES["tiny"]
    study = loaded.study.model_copy(update={"publish": publish})
    monkeypatch.setitem(STUDIES, "tiny", dataclasses.replace(loaded, study=study))
    told: list[str] = []
    with checkpoint_sender([KEY], store, store.root, told.append):
        pass
    assert send_checkpoints(KEY, trained(store), store, store.root) is None
    assert finish_checkpoints({KEY: trained(store)}, store, store.root, told.append) == {KEY: {}}
    assert told == []


def test_a_finished_training_does_not_fail_for_a_lost_connection(
    store: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = STUDIES["tiny"]
    study = loaded.study.model_copy(update={"publish": Publish(url="nonsense://nowhere")})
    monkeypatch.setitem(STUDIES, "tiny", dataclasses.replace(loaded, study=study))
    told: list[str] = []
    shown = finish_checkpoints({KEY: trained(store)}, store, store.root, told.append)
    assert "not whole" in shown[KEY]["published"]
    assert told[0].startswith("tiny__a: checkpoints are not published, the job compare will try again: publish.url")


def test_the_last_publication_fails_for_one(store: DataStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asset `release` is green only when everything arrived."""
    loaded = STUDIES["tiny"]
    study = loaded.study.model_copy(update={"publish": Publish(url="nonsense://nowhere")})
    monkeypatch.setitem(STUDIES, "tiny", dataclasses.replace(loaded, study=study))
    results = dataclasses.replace(build_results(tmp_path / "again"), study=study, root=store.root)
    results.embeddings.pop("b")
    with pytest.raises(PublishError, match=r"nonsense://nowhere.*run again to go on"):
        publish(results, tmp_path, store, lambda *_: None)


def test_without_attribution_nothing_leaves(store: DataStore) -> None:
    (store.root / "tables/provenance/tiny.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="no table provenance, and nothing is published without"):
        checkpoint_sender([KEY], store, store.root, print)
