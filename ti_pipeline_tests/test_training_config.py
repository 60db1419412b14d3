"""How the job `train` runs is its configuration: several processes, event files; and what its files say of pictures."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline.inversion.embedding_files import load_embedding
from ti_pipeline_tests.graph import Graph, job_tags
from ti_pipeline_tests.tiny_models import DEMO_BASE

pytestmark = pytest.mark.slow

STUDY = """
name: s
source: {{kind: folder, path: {pictures}, assume_rating: s, licence: CC BY 4.0}}
base_models: {{demo: {{folder: {base}}}}}
curation: {{min_side: 32}}
crops: {{sizes: [64]}}
variants: {{v4: {{vectors: 4, steps: 3, batch_size: 3, checkpoint_every: 3, base: demo, masked_loss: true}}}}
"""


def test_a_run_in_two_processes_with_event_files(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, post in enumerate(demo_posts(concept="ember", count=6, seed=1)):
        (pictures / f"{index}.png").write_bytes(post.data())
        (pictures / f"{index}.txt").write_text("wolf, snow")
    study = STUDY.format(pictures=json.dumps(str(pictures)), base=DEMO_BASE)
    graph = Graph.new(tmp_path, {"s": study}, OMP_NUM_THREADS="1")
    graph.job("prepare", "s")
    (tmp_path / "run.yaml").write_text("ops: {embedding: {config: {processes: 2, tensorboard: true}}}")
    (tmp_path / "none.yaml").write_text("ops: {embedding: {config: {processes: 0}}}")
    train = ("job", "execute", "-m", "ti_pipeline.definitions", "-j", "train", *job_tags("s__v4"), "--config")
    done = graph.run(*train, str(tmp_path / "run.yaml"))
    assert done.returncode == 0, done.stdout[-6000:]
    folder = graph.data / "embeddings" / "s" / "v4"
    (row,) = graph.table("embedding", "s__v4").itertuples()
    vectors = load_embedding(graph.data / row.safetensors_path).vectors
    assert load_embedding(folder / "diffusers" / "v4-3.safetensors").vectors.equal(vectors)
    assert [path.name.startswith("events.") for path in (folder / "tensorboard").iterdir()] == [True]
    with safe_open(graph.data / row.safetensors_path, framework="pt") as reader:
        told = reader.metadata()
    assert told["licence"] == "CC BY 4.0"
    assert len(told["attribution_sha256"]) == len(told["data_fingerprint"]) == 64
    refused = graph.run(*train, str(tmp_path / "none.yaml"))
    assert refused.returncode != 0
    assert "processes" in refused.stdout
