"""The whole graph on real pictures, as its users run it: variants as one range, and once more each alone."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ti_pipeline.evaluation.infotext import parse_infotext
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.shared_data import PICTURES, needs_shared
from ti_pipeline_tests.tiny_models import DEMO_BASE

VARIANTS = {"v8": 8, "v16": 16, "v32": 32, "v64": 64}
STUDY = """
name: emoji
seed: 3
source: {{kind: folder, path: {pictures}}}
base_models: {{demo: {{folder: {base}}}}}
curation: {{require_tags: [twemoji], images: 24, min_images: 20}}
crops: {{sizes: [128]}}
captions: {{species: {{categories: [species], budgets: {{species: 30}}}}}}
common: {{base: demo, resolution: 64, steps: 6, batch_size: 2, checkpoint_every: 3, token: "emoji-{{variant}}"}}
variants:
  v8: {{vectors: 8}}
  v16: {{vectors: 16}}
  v32: {{vectors: 32}}
  v64: {{vectors: 64}}
evaluation:
  seeds: [6]
  samplers: [{{name: DDIM, steps: 3}}, {{name: Euler a, steps: 3}}]
  sizes: [64]
  checkpoints: 2
  scorer: {{folder: {base}/scorer}}
  axes:
    species: {{prompt: "[name], wolf", values: "wolf, tiger, bear"}}
publish: {{url: "$TI_SHELF/embeddings"}}
"""

pytestmark = [needs_shared, pytest.mark.slow]


def study_text() -> str:
    return STUDY.format(pictures=json.dumps(str(PICTURES)), base=DEMO_BASE)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """All jobs, the variants as a range in one process."""
    folder = tmp_path_factory.mktemp("emoji")
    graph = Graph.new(folder, {"emoji": study_text()}, TI_SHELF=str(folder / "shelf"))
    graph.job("prepare", "emoji")
    said = graph.job("train", "emoji__v8", "emoji__v64")
    assert said.count("Materialized value embedding") == len(VARIANTS)
    graph.job("evaluate", "emoji__v8", "emoji__v64")
    graph.job("compare", "emoji")
    return graph


def test_all_pictures_are_read_and_one_artist_is_the_concept(graph: Graph) -> None:
    sidecars = [json.loads(path.read_text()) for path in PICTURES.rglob("*.json")]
    posts = graph.table("posts", "emoji")
    assert set(posts.post_id) == {sidecar["id"] for sidecar in sidecars}
    by_artist = {s["id"] for s in sidecars if "twemoji" in s["tags"]["artist"]}
    kept = graph.table("training_set", "emoji").query("kept")
    assert len(kept) == 24
    assert set(kept.post_id) <= by_artist
    left_out = graph.table("training_set", "emoji").query("not kept")
    assert (left_out.reason != "").all()


def test_pictures_are_stored_by_their_content(graph: Graph) -> None:
    images = graph.table("images", "emoji")
    for row in images.sample(20, random_state=0).itertuples():
        assert hashlib.md5((graph.data / row.path).read_bytes()).hexdigest() == row.md5


@pytest.mark.parametrize(("variant", "vectors"), VARIANTS.items())
def test_each_variant_has_its_checkpoints(graph: Graph, variant: str, vectors: int) -> None:
    table = graph.table("embedding", f"emoji__{variant}")
    assert table.step.tolist() == [3, 6]
    first, last = (load_file(graph.data / path)["emb_params"] for path in table.safetensors_path)
    assert first.shape == last.shape == (vectors, 64)
    assert np.abs(first - last).max() > 0
    assert np.isfinite(last).all()


def test_every_cell_is_a_picture_with_its_infotext(graph: Graph) -> None:
    images = graph.table("evaluation_images", "emoji__v16")
    assert len(images) == 2 * 3 * 2  # checkpoints, values, samplers
    for row in images.itertuples():
        with Image.open(graph.data / row.path) as picture:
            assert picture.size == (64, 64)
            said = parse_infotext(picture.info["parameters"])
        assert said["Prompt"] == f"emoji-v16, {row.value}"
        assert said["Sampler"] == row.sampler
        assert int(said["Seed"]) == row.seed


def test_the_best_checkpoint_is_named_shown_and_released(graph: Graph) -> None:
    board = graph.table("leaderboard", "emoji")
    best = board[(board.axis == "overall") & (board["rank"] == 1)].iloc[0]
    assert set(board.checkpoint[board.candidate]) == {f"{v}-{step}" for v in VARIANTS for step in (3, 6)}
    assert best.checkpoint in (graph.data / "reports" / "emoji.html").read_text(encoding="utf-8")
    release = next((graph.data / "releases" / "emoji").glob("*/"))
    vectors = load_file(release / "safetensors" / f"emoji-{best.variant}.safetensors")["emb_params"]
    trained = load_file(graph.data / "embeddings" / "emoji" / best.variant / f"{best.checkpoint}.safetensors")
    np.testing.assert_array_equal(vectors, trained["emb_params"])
    for line in (release / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest


def test_the_release_is_published_where_the_study_says(graph: Graph) -> None:
    release = next((graph.data / "releases" / "emoji").glob("*/"))
    there = graph.data.parent / "shelf" / "embeddings" / release.name
    contents = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (release, there)]
    assert contents[0] == contents[1]


def test_checkpoints_are_published_with_their_attribution(graph: Graph) -> None:
    shelf = graph.data.parent / "shelf" / "embeddings" / "checkpoints" / "emoji"
    for variant in VARIANTS:
        (place,) = (shelf / variant).iterdir()  # one training, one fingerprint
        folder = graph.data / "embeddings" / "emoji" / variant
        forms = ("{}.pt", "{}.safetensors", "diffusers/{}.safetensors")
        names = {form.format(f"{variant}-{step}") for step in (3, 6) for form in forms} | {"attribution.csv"}
        assert {path.relative_to(place).as_posix() for path in place.rglob("*.*")} == names
        assert all((place / name).read_bytes() == (folder / name).read_bytes() for name in names)
        used = set(pd.read_csv(place / "attribution.csv").post_id)
        assert used == set(graph.table("training_set", "emoji").query("kept").post_id)


def test_the_release_is_in_the_index_with_its_scores(graph: Graph) -> None:
    (line,) = (graph.data / "releases" / "emoji" / "index.jsonl").read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    board = graph.table("leaderboard", "emoji")
    best = board[(board.axis == "overall") & (board["rank"] == 1)].iloc[0]
    assert entry["scores"]["overall"]["score"] == pytest.approx(best.score)
    assert entry["data"]["pictures trained on"] + entry["data"]["pictures held out"] == 24


def test_grids_are_complete(graph: Graph) -> None:
    grids = graph.table("evaluation_grids", "emoji")
    assert len(grids) == (len(VARIANTS) + 1) * 2
    assert (grids.missing == 0).all()
    assert all((graph.data / path).exists() for path in grids.path)


def test_nothing_is_done_twice(graph: Graph) -> None:
    folder = graph.data / "embeddings" / "emoji" / "v8"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    cells = {p.name: p.stat().st_mtime_ns for p in (graph.data / "evaluation" / "emoji" / "v8").glob("*.png")}
    graph.job("train", "emoji__v8")
    graph.job("evaluate", "emoji__v8")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    after = {p.name: p.stat().st_mtime_ns for p in (graph.data / "evaluation" / "emoji" / "v8").glob("*.png")}
    assert after == cells


def test_a_range_in_one_process_trains_the_same(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Co-trained variants equal those trained alone, up to the rounding of another batch shape."""
    folder = tmp_path_factory.mktemp("alone")
    alone = Graph.new(folder, {"emoji": study_text()}, TI_SHELF=str(folder / "shelf"))
    shutil.copytree(graph.data, alone.data, ignore=shutil.ignore_patterns("embeddings", "embedding", "losses"))
    for variant in ("v8", "v64"):
        alone.job("train", f"emoji__{variant}")
        last = graph.table("embedding", f"emoji__{variant}").safetensors_path.iloc[-1]
        one, other = (load_file(g.data / last)["emb_params"] for g in (graph, alone))
        np.testing.assert_allclose(one, other, atol=2e-4)
        assert np.abs(one).max() > 0
