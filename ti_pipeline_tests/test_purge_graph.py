"""The job `purge` on what the jobs themselves have stored: the same as if the artist had never been used."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.tiny_models import DEMO_BASE

STUDY = """
name: drawn
seed: 5
source: {{kind: demo, concept: ember, pictures: 16{more}}}
base_models: {{demo: {{folder: {base}}}}}
crops: {{sizes: [64]}}
captions: {{species: {{categories: [species]}}}}
common: {{base: demo, resolution: 64, steps: 2, batch_size: 2, token: "drawn-{{variant}}"}}
variants: {{x1: {{vectors: 1}}}}
"""

pytestmark = pytest.mark.slow


def study(more: str = "") -> dict[str, str]:
    return {"drawn": STUDY.format(base=json.dumps(str(DEMO_BASE)).strip('"'), more=more)}


def stored(graph: Graph) -> dict[str, bytes]:
    return {
        path.relative_to(graph.data).as_posix(): path.read_bytes()
        for folder in ("images", "crops")
        for path in (graph.data / folder).rglob("*")
        if path.is_file() and path.suffix != ".json"
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    graph = Graph.new(tmp_path_factory.mktemp("trained"), study())
    graph.job("prepare", "drawn")
    graph.job("train", "drawn__x1")
    return graph


@pytest.fixture
def graph(trained: Graph, tmp_path: Path) -> Graph:
    """A copy, as tests may do with it what they like."""
    copy = Graph.new(tmp_path, study())
    shutil.copytree(trained.data, copy.data)
    return copy


def posts_of_one_artist() -> tuple[str, set[int]]:
    """Return the artist with the most posts, by name where several have as many, and the posts."""
    by_artist: dict[str, set[int]] = {}
    for drawn in demo_posts(concept="ember", count=16, seed=5):
        for artist in drawn.record["tags"]["artist"]:
            by_artist.setdefault(artist, set()).add(drawn.record["id"])
    assert len(by_artist) > 1
    return max(by_artist.items(), key=lambda entry: (len(entry[1]), entry[0]))


def test_an_artist_leaves_the_store_and_stays_out(graph: Graph, tmp_path: Path) -> None:
    artist, theirs = posts_of_one_artist()
    used = set(graph.table("crops", "drawn__64").query("status == 'ok'").post_id) & theirs
    assert used
    assert len(list((graph.data / "latents").iterdir())) == 1

    config = tmp_path / "purge.yaml"
    config.write_text(f"artist: {json.dumps(artist.upper())}\n")
    done = graph.run("job", "execute", "-m", "ti_pipeline.definitions", "-j", "purge", "-c", str(config))
    assert done.returncode == 0, done.stdout[-4000:]
    assert "listed: embedding embeddings/drawn/x1/x1-2.safetensors" in done.stdout
    purges = pq.read_table(graph.data / "tables" / "purges.parquet").to_pandas()
    assert set(purges[purges.kind == "crop"].post_id) == used
    assert list((graph.data / "latents").iterdir()) == []
    assert not set(graph.table("training_set", "drawn").post_id) & theirs

    names = tmp_path / "names.txt"
    names.write_text(f"{artist}\n")
    never = Graph.new(tmp_path / "never", study(f", opt_out_file: {json.dumps(str(names))}"))
    never.job("prepare", "drawn")
    assert set(stored(graph)) <= set(stored(never)), "what is left is what would have been used anyway"
    graph.job("prepare", "drawn")
    assert stored(graph) == stored(never)
    posts = graph.table("posts", "drawn").set_index("post_id")
    assert set(posts.index[posts.reason == "artist opted out"]) == theirs
    for table in ("posts", "post_tags", "images", "training_set"):
        assert graph.table(table, "drawn").equals(never.table(table, "drawn")), table
    graph.job("train", "drawn__x1")


def test_crops_of_an_artist_who_opted_out_are_not_trained_on(graph: Graph) -> None:
    """Even where nobody ran `purge` or `prepare` again."""
    shutil.rmtree(graph.data / "embeddings")
    (graph.data / "policy").mkdir()
    (graph.data / "policy" / "opt_out.txt").write_text(posts_of_one_artist()[0])
    said = graph.job("train", "drawn__x1", succeeds=False)
    assert "crops are of posts that must not be used" in said
    assert "artist opted out; run the job prepare again" in said
    assert not (graph.data / "embeddings").exists()
