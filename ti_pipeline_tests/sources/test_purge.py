"""Purge: everything of the artist goes, nothing of others, in whatever state the data folder is when it begins."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter
from upath import UPath

from ti_pipeline.e621.answers import write_answers
from ti_pipeline.e621.policy import OPT_OUT_FILE, ContentPolicy, PolicyError, load_policy, read_names
from ti_pipeline.e621.records import posts_table
from ti_pipeline.io_managers import Tables
from ti_pipeline.jobs import PurgeConfig, purge_pictures
from ti_pipeline.resources import DataStore
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources import fetch_images
from ti_pipeline.sources.provenance import provenance_table
from ti_pipeline.sources.purge import purge_artist
from ti_pipeline.studies import Source
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.publishing.conftest import frame

pytestmark = pytest.mark.slow

SOURCE = TypeAdapter(Source).validate_python({"kind": "e621", "query": "wolf"})
CROPS_OF = {"one__v": ["one__64"], "one__w": ["one__128"], "two__v": ["two__64"]}
# Study, post, artists, file. Posts 4 and 5 show one file that two people are named for; 1 is in both studies, but the
# other one has lost its artist; 6 was deleted at the site after its picture was stored.
POSTS = [
    ("one", 1, ["ink"], b"first"),
    ("one", 2, ["other"], b"second"),
    ("one", 3, ["other", "ink_(artist)"], b"both of them"),
    ("one", 4, ["other"], b"shared"),
    ("one", 5, ["ink"], b"shared"),
    ("one", 6, ["ink"], b"deleted since"),
    ("two", 1, [], b"first"),
    ("two", 9, ["other"], b"ninth"),
    ("three", 7, ["inky"], b"seventh"),
]
THEIRS = {"one": {1, 3, 5, 6}, "two": {1}}


def records_of(study: str, root: Path) -> list[dict]:
    found = []
    for name, post_id, artists, data in POSTS:
        place = root.parent / "from" / f"{name}-{post_id}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        if name == study:
            found.append(post(post_id, tags={"artist": artists}) | {"file": {"ext": "png", "url": place.as_uri()}})
    return found


def crop(post_id: int, folder: str) -> dict:
    row = {"post_id": post_id, "status": "ok", "reason": "", "split": "train", "path": f"{folder}/{post_id}.png"}
    return row | {"part": 0, "flipped": False, "size": 64, "sha256": f"{post_id:064x}"}


def fill(root: Path) -> None:
    """Make a data folder as the jobs would."""
    tables = Tables(UPath(root))
    for study in ("one", "two", "three"):
        records = records_of(study, root)
        posts = posts_table(records, ContentPolicy())
        images = fetch_images(posts, root=root, client=pytest.fail)
        for record, md5 in zip(records, images.md5, strict=True):
            record["file"]["md5"] = md5
        if study == "one":  # the answers keep the tags of what the tables had to drop
            records[-1]["flags"] = {"deleted": True}
            write_answers(root / "raw/e621/one/posts.jsonl.gz", {"query": "wolf"}, records)
        posts = posts_table(records, ContentPolicy())
        images = fetch_images(posts, root=root, client=pytest.fail)
        tables.write("posts", study, posts)
        tables.write("images", study, images)
        tables.write("provenance", study, provenance_table(posts, images, root=root, source=SOURCE))
        kept = posts.post_id[posts.status == "kept"].tolist()
        tags = [{"post_id": post_id, "tag": "wolf", "category": "species"} for post_id in kept]
        tables.write("post_tags", study, frame("post_tags", tags))
        rows = [crop(post_id, f"crops/{study}/64") for post_id in kept]
        tables.write("crops", f"{study}__64", frame("crops", rows))
        for row in rows:
            (root / row["path"]).parent.mkdir(parents=True, exist_ok=True)
            (root / row["path"]).write_bytes(row["sha256"].encode())
            for suffix in (".png", ".txt"):
                exported = root / "exports" / study / "v" / f"{row['post_id']}{suffix}"
                exported.parent.mkdir(parents=True, exist_ok=True)
                exported.write_bytes(b"exported")
        (root / "reports").mkdir(exist_ok=True)
        (root / "reports" / f"{study}.html").write_text("pictures")
    tables.write("crops", "one__128", frame("crops", [crop(2, "crops/one/128")]))
    for variant in ("one__v", "one__w", "two__v", "three__v"):
        tables.write("embedding", variant, frame("embedding", [checkpoint(variant)]))
    for study, post_id in (("one", 3), ("three", 7)):
        folder = root / "releases" / study / "x-10"
        folder.mkdir(parents=True)
        (folder / "attribution.csv").write_text(f"post_id,artists\n{post_id},x\n")
    (root / "latents").mkdir()
    (root / "latents" / "0.safetensors").write_bytes(b"latents")
    (root / "images" / f".{images_by_post(root)['one', 1].stem}.partial").write_bytes(b"half")
    aliases = pd.DataFrame({"antecedent": ["old_ink"], "consequent": ["ink"]})
    tables.write("tag_aliases", None, aliases)


def checkpoint(key: str) -> dict:
    stem = f"embeddings/{key.replace('__', '/')}/x-10"
    row = {"checkpoint": "x-10", "step": 10, "epoch": 1, "vectors": 1, "width": 1, "moved": 1.0, "mean_norm": 1.0}
    row |= {"pt_path": f"{stem}.pt", "safetensors_path": f"{stem}.safetensors", "short_hash": "0"}
    row |= {"nearest_tokens": "wolf", "nearest_cosine": 0.5}
    return row | {"sha256": "0", "pt_sha256": "0"}


def images_by_post(root: Path) -> dict[tuple[str, int], Path]:
    tables = {path.stem: pq.read_table(path).to_pandas() for path in (root / "tables/provenance").glob("*.parquet")}
    return {(study, row.post_id): Path(row.path) for study, table in tables.items() for row in table.itertuples()}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("purge") / "data"
    root.mkdir()
    fill(root)
    return root


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "data"))


def purge(root: Path, artist: str = "Old Ink") -> pd.DataFrame:
    return purge_artist(artist, root=root, crops_of=CROPS_OF)


def contents(root: Path) -> dict[str, object]:
    """Return every file's bytes; of the table of purges everything but the time."""
    found: dict[str, object] = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    if "tables/purges.parquet" in found:
        rows = pq.read_table(root / "tables/purges.parquet").drop_columns(["at"]).to_pylist()
        found["tables/purges.parquet"] = sorted(map(repr, rows))
    return found


def bytes_below(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_all_of_the_artist_is_gone_and_nothing_else(root: Path) -> None:
    before = contents(root)
    table = purge(root)
    assert TABLES["purges"].problems(table) == []
    after = contents(root)
    assert bytes_below(root / "images") == sorted([b"second", b"shared", b"ninth", b"seventh"])
    crops = {(path.parts[-3], int(path.stem)) for path in (root / "crops").rglob("*.png")}
    assert crops == {("one", 2), ("one", 4), ("two", 9), ("three", 7)}
    assert {(path.parts[-3], int(path.stem)) for path in (root / "exports").rglob("*.*")} == crops
    assert sorted(path.stem for path in (root / "reports").iterdir()) == ["three"]
    assert list((root / "latents").iterdir()) == []
    for path in (root / "tables").glob("*/*.parquet"):
        rows = pq.read_table(path)
        if "post_id" in rows.column_names:
            assert not set(rows["post_id"].to_pylist()) & THEIRS.get(path.stem.split("__")[0], set()), path
            assert rows.schema.metadata == pq.read_schema(root / path).metadata
    of_others = {name for name in before if "three" in name or name.startswith(("raw/", "releases/"))}
    assert {name: after[name] for name in of_others} == {name: before[name] for name in of_others}


def test_what_their_pictures_left_transparent_is_removed_too(root: Path) -> None:
    alpha = {post_id: root / f"crops/one/64/alpha/{post_id}.png" for post_id in (1, 2)}
    alpha[1].parent.mkdir()
    for path in alpha.values():
        path.write_bytes(b"alpha")
    purge(root)
    assert not alpha[1].exists()
    assert alpha[2].exists()


def test_parts_and_mirror_images_of_their_pictures_are_removed_too(root: Path) -> None:
    folder = root / "crops/one/64"
    for name in ("1-1.png", "1-1-flipped.webp", "10-1.png", "2-flipped.png"):
        (folder / name).write_bytes(b"crop")
    purge(root)
    assert not {"1-1.png", "1-1-flipped.webp"} & {path.name for path in folder.iterdir()}
    assert {"10-1.png", "2-flipped.png"} <= {path.name for path in folder.iterdir()}


def test_what_was_made_with_the_pictures_is_listed(root: Path) -> None:
    first, shared = images_by_post(root)["one", 1], images_by_post(root)["one", 4]
    table = purge(root)
    told = {(row.done, row.kind, row.study, row.item) for row in table.itertuples()}
    assert {entry for entry in told if entry[0] != "removed"} == {
        ("listed", "embedding", "one", "embeddings/one/v/x-10.safetensors"),  # w used another crop set
        ("listed", "embedding", "two", "embeddings/two/v/x-10.safetensors"),
        ("listed", "release", "one", "releases/one/x-10"),
        ("kept", "picture", "one", shared.as_posix()),
    }
    removed = [row for row in table.itertuples() if row.done == "removed"]
    assert {row.item for row in removed if row.kind == "crop"} == {
        *(f"crops/one/64/{n}.png" for n in (1, 3, 5)),
        "crops/two/64/1.png",
    }
    assert first.as_posix() in {row.item for row in removed if row.kind == "picture"}
    assert set(table.artist) == {"old_ink"}


def test_every_earlier_training_of_their_studies_is_listed(root: Path) -> None:
    names = [f"embeddings/{study}/w/earlier/{'a' * 16}/w-6.safetensors" for study in ("one", "three")]
    for name in names:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"earlier")
    table = purge(root)
    assert names[0] in set(table[table.done == "listed"].item)
    assert names[1] not in set(table.item)
    assert (root / names[0]).exists()


def test_later_runs_leave_the_artist_out(root: Path) -> None:
    purge(root)
    aliases = Tables(UPath(root)).read("tag_aliases", None)
    policy = load_policy(opt_out_files=[root / OPT_OUT_FILE], aliases=aliases)
    for artist in ("ink", "old_ink", "Ink", "ink_(artist)"):
        assert policy.refuses(post(tags={"artist": [artist]})) == "artist opted out"
    assert policy.refuses(post(tags={"artist": ["inky"]})) is None


def test_a_second_purge_changes_nothing(root: Path) -> None:
    first = purge(root)
    before = contents(root)
    pd.testing.assert_frame_equal(purge(root, "old-ink"), first)
    assert contents(root) == before
    assert read_names(root / OPT_OUT_FILE) == ["Old Ink"]
    assert len(purge(root, "nobody")) == 0
    assert read_names(root / OPT_OUT_FILE) == ["Old Ink", "nobody"]


def test_a_killed_purge_is_finished_by_the_next(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before each of its writes and removals in turn."""
    whole = Path(shutil.copytree(filled, tmp_path / "whole"))
    purge(whole)
    expected = contents(whole)
    steps = 0
    for allowed in range(200):
        root = Path(shutil.copytree(filled, tmp_path / "killed"))
        left = [allowed]

        def before(call, left=left):
            def counted(*arguments, **options):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return call(*arguments, **options)

            return counted

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", before(os.replace))
            patched.setattr(os, "unlink", before(os.unlink))
            try:
                purge(root)
            except KeyboardInterrupt:
                steps += 1
        for aside in root.rglob(".*-partial*"):  # a killed process cannot clean up after itself
            aside.unlink()
        purge(root)
        assert contents(root) == expected, f"killed before step {allowed}"
        shutil.rmtree(root)
        if left[0] > 0:
            break
    assert steps > 20


def test_a_remote_store_is_purged_too_and_again(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an older mirror of the tables lies on this machine."""
    monkeypatch.setenv("TI_MIRROR", str(tmp_path / "mirror"))
    remote = UPath(f"memory://{tmp_path.name}")

    def restore() -> None:
        for path in (path for path in filled.rglob("*") if path.is_file() and not path.name.startswith(".")):
            target = remote / path.relative_to(filled).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    def pictures() -> list[bytes]:
        return sorted(path.read_bytes() for path in (remote / "images").rglob("*") if path.is_file())

    for _ in range(2):
        restore()
        assert b"first" in pictures()
        purge_pictures(dg.build_op_context(), config=PurgeConfig(artist="old_ink"), store=DataStore(url=str(remote)))
        assert pictures() == sorted([b"second", b"shared", b"ninth", b"seventh"])
        assert set(Tables(remote).read("posts", "one").post_id) == {2, 4}
        assert (remote / "policy/opt_out.txt").read_text() == "old_ink\n"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "# a", "a #b"])
def test_a_name_that_is_none_is_refused(root: Path, name: str) -> None:
    before = contents(root)
    with pytest.raises(PolicyError, match="is no name"):
        purge(root, name)
    assert contents(root) == before
