"""The job `study`, everything from posts to the release in one command, and the checks of what it stored."""

import shutil
from pathlib import Path

import pytest

from ti_pipeline.study_files import load_study
from ti_pipeline_tests.damage import DAMAGE, Data, problems_of
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.tiny_models import DEMO_BASE

STUDY = """
name: drawn
seed: 5
source: {{kind: demo, concept: ember, pictures: 16}}
base_models: {{demo: {{folder: {base}}}}}
crops: {{sizes: [64]}}
captions: {{species: {{categories: [species]}}}}
common: {{base: demo, resolution: 64, steps: 2, batch_size: 2, token: "drawn-{{variant}}"}}
variants: {{x1: {{vectors: 1}}, x2: {{vectors: 2}}}}
evaluation:
  seeds: [6]
  sizes: [64]
  samplers: [{{steps: 2}}]
  scorer: {{folder: {base}/scorer}}
  axes: {{species: {{prompt: "[name], wolf", values: [wolf, bear]}}}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    graph = Graph.new(tmp_path_factory.mktemp("study"), {"drawn": STUDY.format(base=DEMO_BASE)})
    said = graph.job("study", "drawn")
    steps = [said.index(f"{step} - STEP_SUCCESS") for step in ("prepared", "trained", "evaluated", "compared")]
    assert steps == sorted(steps)
    return graph


def data_of(root: Path) -> Data:
    return Data(root, "drawn", "drawn__species", "drawn__64", "drawn__x1")


def test_what_is_stored_is_whole_and_so_says_verify(graph: Graph) -> None:
    assert (graph.data / "reports" / "drawn.html").exists()
    assert list((graph.data / "releases" / "drawn").glob("*/SHA256SUMS"))
    graph.job("verify", "drawn")
    cell = data_of(graph.data).file("evaluation_images")
    whole = cell.read_bytes()
    cell.write_bytes(whole[:-1])
    said = graph.job("verify", "drawn", succeeds=False)
    cell.write_bytes(whole)
    assert "is not the file that the table names" in said.splitlines()[-1]


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_seen(name: str, graph: Graph, tmp_path: Path) -> None:
    study = load_study(graph.studies / "drawn.yaml").study
    asset, damage = DAMAGE[name]
    shutil.copytree(graph.data, tmp_path / "data", ignore=shutil.ignore_patterns("latents", ".locks"))
    data = data_of(tmp_path / "data")
    assert problems_of(asset, data, study) == []
    damage(data)
    assert problems_of(asset, data, study) != []
