"""A race over the demo's base: the words of the concept as an embedding, its twin, and one that wipes prompts out."""

import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ti_pipeline.demo.world import bust, random_attributes
from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.evaluation.decision import rule_of
from ti_pipeline.evaluation.likeness import likeness_of_study
from ti_pipeline.evaluation.race_runs import race_variants
from ti_pipeline.evaluation.reference_runs import render_references, score_references
from ti_pipeline.evaluation.runs import score_variant
from ti_pipeline.evaluation.statistics import leaderboard
from ti_pipeline.files import sha256_of
from ti_pipeline.inversion.base_models import load_base
from ti_pipeline.inversion.embedding_files import Embedding, save_safetensors
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import BaseModelSource, Study
from ti_pipeline.study_files import LoadedStudy
from ti_pipeline_tests.tiny_models import DEMO_BASE

WORDS = "purple fur, red eyes"
pytestmark = pytest.mark.slow


def study(folder: Path) -> LoadedStudy:
    made = Study.model_validate(
        {
            "name": "s",
            "seed": 6,
            "source": {"kind": "demo", "concept": "ember"},
            "base_models": {"b": {"folder": str(DEMO_BASE)}},
            "captions": {"none": {"source": "none"}},
            "crops": {"sizes": [512]},
            "common": {"base": "b", "captions": "none", "crop": 512, "steps": 2, "token": "{study}-{variant}"},
            "variants": {"said": {"vectors": 4}, "twin": {"vectors": 4}, "wiped": {"vectors": 4}},
            "evaluation": {
                "axes": {
                    "species": {"prompt": "[name], wolf, simple background", "values": ["wolf", "fox", "tiger", "lion"]}
                },
                "seeds": {"first": 2, "most": 3},
                "samplers": [{"steps": 6, "cfg": 6}],
                "sizes": [64],
                "batch_size": 32,
                "scorer": {"folder": str(DEMO_BASE / "scorer")},
            },
        }
    )
    return LoadedStudy(made, folder / "s.yaml", "")


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A race from its start, what the product then says, and the same race once more over the same folder."""
    root = tmp_path_factory.mktemp("race")
    loaded = study(root)
    base = load_base("b", BaseModelSource(folder=str(DEMO_BASE)), folder=root)
    ids = base.tokenizer(WORDS, add_special_tokens=False).input_ids
    words = base.text_encoder.get_input_embeddings().weight[ids].detach().float()[[0, 1, 3, 4]]
    noise = torch.randn(4, words.shape[1], generator=torch.Generator().manual_seed(3)) * 30 * words.norm(dim=1).mean()
    tables = {}
    for name, vectors in (("said", words), ("twin", words), ("wiped", noise)):
        path = root / f"embeddings/s/{name}/{name}-2.safetensors"
        path.parent.mkdir(parents=True)
        save_safetensors(path, Embedding(f"{name}-2", vectors, step=2))
        row = {"checkpoint": f"{name}-2", "step": 2, "sha256": sha256_of(path)}
        tables[name] = pd.DataFrame([row | {"safetensors_path": path.relative_to(root).as_posix()}])
    rows = []
    for number in range(8):
        path, rng = root / f"crops/{number}.png", random.Random(number)
        path.parent.mkdir(exist_ok=True)
        bust(random_attributes(rng, concept="ember", style="flat"), 64, rng).save(path)
        row = {"status": "ok", "split": "validation", "path": path.relative_to(root).as_posix()}
        rows.append(row | {"sha256": sha256_of(path)})
    crops = {"512": pd.DataFrame(rows)}
    asked: dict[str, Any] = {"policy": ContentPolicy(), "ranking": pd.DataFrame(), "implications": None, "root": root}
    images = race_variants(loaded, tables, crops, **asked)
    made = {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*.png"))}
    again = race_variants(loaded, tables, crops, **asked)
    seeds = sorted({seed for table in images.values() for seed in table.seed})
    bare = render_references(loaded, seeds=seeds, **asked)
    references = score_references(loaded, bare, crops, root=root)
    scores = [
        score_variant(loaded, table, crops["512"], root=root, folder=f"evaluation/s/{name}")
        for name, table in images.items()
    ]
    judged = likeness_of_study(loaded.study, pd.concat(scores), references)
    board = leaderboard(*judged, **rule_of(loaded.study))
    untouched = {path: path.stat().st_mtime_ns for path in made}
    return {"images": images, "again": again, "made": made, "untouched": untouched, "board": board, "bare": bare}


def test_those_that_may_still_be_best_are_drawn_on(raced: dict[str, Any]) -> None:
    images = raced["images"]
    for table in images.values():
        assert TABLES["evaluation_images"].problems(table) == []
    assert len(images["wiped"]) <= len(images["said"]) == len(images["twin"])
    drawn = {seed for table in images.values() for seed in table.seed}
    assert set(raced["bare"].seed) == drawn, "references are drawn with every seed that any checkpoint has"
    assert drawn <= {6, 7, 8}


def test_a_race_that_is_run_again_draws_nothing(raced: dict[str, Any]) -> None:
    for name, table in raced["images"].items():
        pd.testing.assert_frame_equal(table, raced["again"][name])
    assert raced["untouched"] == raced["made"]


def test_twins_are_not_told_apart_and_what_wipes_the_prompt_out_is_not_best(raced: dict[str, Any]) -> None:
    overall = raced["board"][raced["board"].axis == "overall"].set_index("checkpoint")
    assert overall.score["said-2"] == overall.score["twin-2"]
    assert bool(overall.tied["twin-2"] or overall.tied["said-2"])
    assert not overall.best["wiped-2"]
    assert overall.score["wiped-2"] < overall.score["said-2"]
