"""Single files load without a network, into the weights that were written, with the right configuration."""

import json
from importlib import resources
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ti_pipeline.inversion.base_models import BaseModelError, base_identity, load_base
from ti_pipeline.inversion.clip_vocabulary import clip_tokenizer
from ti_pipeline.inversion.single_files import load_single_file
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.inversion.ldm_layout import checkpoint_of
from ti_pipeline_tests.tiny_models import DEMO_BASE

V_PREDICTION = "model: {target: ldm.models.diffusion.ddpm.LatentDiffusion, params: {parameterization: v}}"


@pytest.fixture
def tiny(bases_folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(bases_folder / "tiny", safety_checker=None)


def state(parts):
    return {f"{number}.{key}": value for number, part in enumerate(parts) for key, value in part.state_dict().items()}


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.ckpt"])
def test_the_weights_are_those_that_were_written(tiny, bases_folder, tmp_path, name):
    tensors = {key: value.contiguous() for key, value in checkpoint_of(tiny).items()}
    if name.endswith(".ckpt"):
        torch.save({"state_dict": tensors, "global_step": 7}, tmp_path / name)
    else:
        save_file(tensors, tmp_path / name)
    source = BaseModelSource(file=name, config=str(bases_folder / "tiny"))
    loaded = load_base("mine", source, folder=tmp_path, device="cpu")
    expected = state((tiny.unet, tiny.vae, tiny.text_encoder))
    found = state((loaded.unet, loaded.vae, loaded.text_encoder))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert loaded.prediction_type == "epsilon"


def test_a_yaml_beside_the_file_says_that_it_predicts_v(tiny, bases_folder, tmp_path):
    save_file({key: value.contiguous() for key, value in checkpoint_of(tiny).items()}, tmp_path / "mine.safetensors")
    source = BaseModelSource(file="mine.safetensors", config=str(bases_folder / "tiny"))
    before = base_identity("mine", source, folder=tmp_path)
    (tmp_path / "mine.yaml").write_text("model: {params: {linear_start: 0.00085}}")
    assert base_identity("mine", source, folder=tmp_path) == before
    (tmp_path / "mine.yaml").write_text(V_PREDICTION)
    assert base_identity("mine", source, folder=tmp_path) != before
    assert load_base("mine", source, folder=tmp_path, device="cpu").prediction_type == "v_prediction"
    (tmp_path / "mine.yaml").write_text("- no configuration")
    for use in (load_base, base_identity):
        with pytest.raises(BaseModelError, match=r"base_models\.mine.*mine\.yaml is no configuration"):
            use("mine", source, folder=tmp_path)


def test_a_configuration_that_is_not_there_is_named(tmp_path):
    (tmp_path / "mine.ckpt").write_bytes(b"")
    with pytest.raises(BaseModelError, match=r"base_models\.mine\.config: .*nowhere is not there"):
        load_base("mine", BaseModelSource(file="mine.ckpt", config="nowhere"), folder=tmp_path)


def test_the_packages_configuration_is_that_of_stable_diffusion_1():
    """Parameter counts as published for Stable Diffusion 1.5's parts."""
    folder = Path(str(resources.files("ti_pipeline.inversion") / "sd1"))
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(json.loads((folder / "unet" / "config.json").read_text()))
        vae = AutoencoderKL.from_config(json.loads((folder / "vae" / "config.json").read_text()))
        text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in (unet, vae, text)]
    assert counts == [859_520_964, 83_653_863, 123_060_480]


def test_files_of_stable_diffusion_1_need_no_configuration_and_others_do(tmp_path, monkeypatch):
    """Only two tensors are looked at; the loader itself is asked for what it would load."""
    asked = {}
    monkeypatch.setattr(StableDiffusionPipeline, "from_single_file", lambda _, **options: asked.update(options))
    keys = ("input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    for channels, width, known in ((4, 768, True), (9, 768, False), (4, 1024, False)):
        shapes = (320, channels, 3, 3), (320, width)
        tensors = {f"model.diffusion_model.{key}": torch.zeros(*shape) for key, shape in zip(keys, shapes, strict=True)}
        save_file(tensors, tmp_path / "x.safetensors")
        torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
        for name in ("x.safetensors", "x.ckpt"):
            asked.clear()
            load_single_file(tmp_path / name)
            assert ("config" in asked) is ("tokenizer" in asked) is asked["local_files_only"] is known


def test_the_tokenizer_is_clips():
    ours, stored = clip_tokenizer(), CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    assert ours("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ours.get_vocab() == stored.get_vocab()
    texts = ["Ünïcödé — “quotes”, it's", "🐺 wolf (anthro:1.2), red_fur", "", "x" * 500]
    options = {"padding": "max_length", "truncation": True}
    assert ours(texts, **options).input_ids == stored(texts, **options).input_ids
