"""Pictures of a release, and its card's code, which is run: it draws the product's own picture."""

import dataclasses
import hashlib
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ti_pipeline.evaluation.infotext import parse_infotext
from ti_pipeline.evaluation.sampler import Suite, render_suites
from ti_pipeline.inversion.base_models import load_base
from ti_pipeline.inversion.embedding_files import Embedding, save_safetensors
from ti_pipeline.publishing.release import write_release
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.evaluation.conftest import cell
from ti_pipeline_tests.inversion.ldm_layout import checkpoint_of
from ti_pipeline_tests.tiny_models import build_tiny_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base saved with another scheduler than any sampler's own, as people's folders are."""
    from diffusers import EulerDiscreteScheduler

    made = build_tiny_base(tmp_path_factory.mktemp("card") / "base")
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler.save_config(made / "scheduler")
    index = json.loads((made / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    (made / "model_index.json").write_text(json.dumps(index))
    return made


def drawn(results, folder, token, **settings):
    """The results with a best checkpoint of three vectors of the tiny base's width, and the product's picture of it."""
    path = results.root / "embeddings/tiny/a/a-20.safetensors"
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(20))
    save_safetensors(path, Embedding("a-20", vectors, 20, "base", "0" * 64))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    base = load_base("base", BaseModelSource(folder=str(folder)), folder=folder.parent, device="cpu")
    told = {"checkpoint": "a-20", "step": 20, "axis": "species", "token": token, "embedding_sha256": sha256}
    asked = cell(**told, prompt=f'{token}, wolf, "{token}"', negative="it's blurry", **settings)
    suite = Suite([asked], "evaluation/tiny/a", base="base", study="tiny")
    (images,) = render_suites([suite], load=lambda: (base, {sha256: vectors}), root=results.root, batch_size=1)
    others = results.evaluation_images["a"].query("axis != 'species'")
    table = results.embeddings["a"].copy()
    table.loc[table.checkpoint == "a-20", ["sha256", "vectors", "width"]] = [sha256, 3, 32]
    study = results.study
    variant = study.variants["a"].model_copy(update={"token": token, "clip_skip": settings.get("clip_skip", 1)})
    changed = study.model_copy(
        update={
            "variants": study.variants | {"a": variant},
            "base_models": {"base": BaseModelSource(folder=str(folder))},
        }
    )
    return dataclasses.replace(
        results,
        study=changed,
        embeddings=results.embeddings | {"a": table},
        evaluation_images=results.evaluation_images | {"a": pd.concat([images, others], ignore_index=True)},
    )


def run_code(release, monkeypatch, place, **more):
    """Run every block of code of a card in its folder, with the base's path filled in; return the picture."""
    monkeypatch.chdir(release)
    blocks = re.findall(r"^```(.*?)\n(.*?)^```$", (release / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["python"]
    filled = ", ".join([repr(str(place)), *(f"{key}={value!r}" for key, value in more.items())])
    code = blocks[0][1].replace('"path of the base model"', filled)
    assert filled in code
    known = {}
    exec(compile(code, "card", "exec"), known)
    return np.asarray(known["image"]).astype(int)


@pytest.mark.filterwarnings("ignore:.*configuration file of this scheduler:FutureWarning")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers, under NumPy 2
@pytest.mark.parametrize(
    ("token", "settings"),
    [
        ("wideV1", {"sampler": "DDIM", "clip_skip": 2}),
        ("wide-v1", {"sampler": "DDIM"}),
        ("wideV1", {"sampler": "Euler a", "cfg": 9.0}),
        ("wideV1", {"sampler": "DPM++ 2M Karras", "steps": 5, "clip_skip": 2}),
    ],
)
def test_the_cards_code_draws_the_products_own_picture(results, folder, tmp_path, monkeypatch, token, settings):
    changed = drawn(results, folder, token, **settings)
    release = write_release(changed, tmp_path / "releases").folder
    ours = np.asarray(Image.open(release / "pictures" / "species.png")).astype(int)
    assert np.abs(run_code(release, monkeypatch, folder) - ours).max() <= 2
    assert ("lower case" in (release / "README.md").read_text()) is (token == "wideV1")


@pytest.mark.filterwarnings("ignore:.*configuration file of this scheduler:FutureWarning")
def test_code_for_a_base_in_a_single_file_runs_as_well(results, folder, tmp_path, monkeypatch):
    from diffusers import StableDiffusionPipeline

    file = tmp_path / "base.safetensors"
    tensors = checkpoint_of(StableDiffusionPipeline.from_pretrained(folder))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    changed = drawn(results, folder, "wideV1")
    source = {"base": BaseModelSource(file=str(file))}
    changed = dataclasses.replace(changed, study=changed.study.model_copy(update={"base_models": source}))
    release = write_release(changed, tmp_path / "releases").folder
    ours = np.asarray(Image.open(release / "pictures" / "species.png")).astype(int)
    assert np.abs(run_code(release, monkeypatch, file, config=str(folder)) - ours).max() <= 2


@pytest.mark.filterwarnings("ignore:.*configuration file of this scheduler:FutureWarning")
def test_pictures_of_a_release_name_its_own_file(results, folder, tmp_path):
    changed = drawn(results, folder, "wideV1")
    grid = results.root / results.evaluation_grids.path.iloc[0]
    told = {"X Type": "Prompt S/R", "Embedding hashes": "a-10: 111111111111, a-20: 222222222222"}
    row = changed.evaluation_images["a"].iloc[0]
    shutil.copyfile(results.root / row.path, grid)
    with Image.open(grid) as picture:
        from ti_pipeline.evaluation.infotext import infotext_with, write_png

        measured = row.embedding_sha256[:12]
        told["Embedding hashes"] = f"a-10: 111111111111, a-20: {measured}"
        write_png(picture.copy(), grid, {"parameters": infotext_with(picture.info["parameters"], told), "Title": "T"})
    release = write_release(changed, tmp_path / "releases").folder
    released = hashlib.sha256((release / "safetensors" / "wideV1.safetensors").read_bytes()).hexdigest()[:12]
    assert released != measured
    with Image.open(release / "pictures" / "species.png") as picture:
        said = parse_infotext(picture.info["parameters"])
        assert set(picture.info) == {"parameters"}
    assert said["TI hashes"] == f"wideV1: {released}"
    assert (said["Prompt"], said["Negative prompt"], said["RNG"]) == ('wideV1, wolf, "wideV1"', "it's blurry", "CPU")
    with Image.open(release / "preview.png") as picture:
        said = parse_infotext(picture.info["parameters"])
        assert picture.info["Title"] == "T"
    assert said["TI hashes"] == f"wideV1: {released}"
    assert said["Embedding hashes"] == f"a-10: 111111111111, a-20: {released}"
    assert said["X Type"] == "Prompt S/R"
