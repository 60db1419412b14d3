"""What the tests of this folder share: tiny random bases, crops, captions and jobs."""

import hashlib
from pathlib import Path
from types import MappingProxyType

import pytest

from ti_pipeline.inversion import base_models
from ti_pipeline.inversion.base_models import Base, load_base
from ti_pipeline.inversion.training_runs import VariantJob
from ti_pipeline.studies import BaseModelSource, Variant
from ti_pipeline_tests.tiny_models import build_tiny_base

POSTS = (11, 12, 15, 20, 31)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tiny tensors: threads would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    build_tiny_base(folder / "tiny")
    build_tiny_base(folder / "v", prediction_type="v_prediction", seed=1)
    return folder


@pytest.fixture(scope="session")
def base(bases_folder: Path) -> Base:
    return load_base("tiny", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu")


@pytest.fixture(scope="session")
def base64(bases_folder: Path) -> Base:
    return load_base("tiny", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu", precision="fp64")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data folder with five crops of 64 px: 11, 12, 15 and 20 to train on, 31 held out."""
    import numpy as np
    from PIL import Image

    (tmp_path / "crops").mkdir()
    for post in POSTS:
        pixels = np.random.default_rng(post).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{post}.png")
    return tmp_path


@pytest.fixture
def make_job(root: Path, bases_folder: Path):
    """Return a function that makes a job of the study `s`; keywords are the variant's values, `more` crop sets."""
    import pandas as pd

    paths = [f"crops/{post}.png" for post in POSTS]
    crops = pd.DataFrame(
        {
            "post_id": POSTS,
            "status": "ok",
            "split": ["train"] * 4 + ["validation"],
            "path": paths,
            "sha256": [hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths],
            "alpha_sha256": pd.array([None] * len(POSTS), dtype="str"),
        }
    )
    words = ["wolf, snow", "wolf, red fur", "", "fox, city, night", "wolf"]
    captions = pd.DataFrame({"post_id": POSTS, "caption": words})

    def make(name: str, *, source: str = "tiny", more=MappingProxyType({}), **values) -> VariantJob:
        defaults = {"vectors": 2, "base": "tiny", "captions": "none", "crop": "64", "resolution": 64, "steps": 6}
        variant = Variant(**(defaults | {"seed": 5, "token": name, "checkpoint_every": 3} | values))
        place = BaseModelSource(folder=source)
        folder = root / "embeddings" / "s" / name
        return VariantJob("s", name, variant, place, bases_folder, {"64": crops, **more}, captions, folder)

    return make


@pytest.fixture
def bases_are_read_once(monkeypatch, loaded):
    """Let trainings share loaded bases: frozen ones do not change."""

    def load(name, source, *, folder, precision):
        key = (str(source.folder), precision)
        if key not in loaded:
            loaded[key] = load_base(name, source, folder=folder, device="cpu", precision=precision)
        return loaded[key]

    monkeypatch.setattr(base_models, "load_base", load)


@pytest.fixture(scope="module")
def loaded() -> dict:
    return {}
