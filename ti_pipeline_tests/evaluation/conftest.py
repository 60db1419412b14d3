"""A tiny random base, embeddings for it, and cells to render."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from ti_pipeline.evaluation.suites import Cell
from ti_pipeline.inversion.base_models import Base, load_base
from ti_pipeline.inversion.embedding_files import Embedding
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.tiny_models import build_tiny_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def base(base_folder: Path) -> Base:
    return load_base("tiny", BaseModelSource(folder=str(base_folder)), folder=base_folder.parent, device="cpu")


@pytest.fixture
def embeddings() -> dict[str, Embedding]:
    generator = torch.Generator().manual_seed(1)
    return {f"v-{step}": Embedding("ember", torch.randn((3, 32), generator=generator), step=step) for step in (1, 2)}


@pytest.fixture
def vectors(embeddings: dict[str, Embedding]) -> dict[str, torch.Tensor]:
    """Vectors by the hash that `cell` gives to a checkpoint's file."""
    return {sha256_for(checkpoint): embedding.vectors for checkpoint, embedding in embeddings.items()}


def sha256_for(checkpoint: str) -> str:
    return hashlib.sha256(checkpoint.encode()).hexdigest()


def cell(**changes: Any) -> Cell:
    return Cell(
        **{
            "variant": "v",
            "checkpoint": "v-1",
            "step": 1,
            "axis": "species",
            "value": "wolf",
            "seed": 6,
            "sampler": "DDIM",
            "steps": 4,
            "cfg": 7.0,
            "size": 64,
            "prompt": "ember, wolf",
            "negative": "",
            "token": "ember",
            "embedding_sha256": sha256_for(changes.get("checkpoint", "v-1")),
            "clip_skip": 1,
            "long_prompts": "cut",
            "base_identity": "1" * 64,
            **changes,
        }
    )


@pytest.fixture
def simulations(monkeypatch: pytest.MonkeyPatch):
    """The benchmark of the decision, whose simulated studies have known truth."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    import decision

    return decision
