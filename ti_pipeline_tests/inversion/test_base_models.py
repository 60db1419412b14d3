"""Base models: what is loaded, what identifies it, and what is refused with which advice."""

import hashlib
import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from ti_pipeline.inversion.base_models import BaseModelError, base_identity, load_base
from ti_pipeline.inversion.conditioning import encode_prompts
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE


def test_a_folder_is_loaded_frozen(base, bases_folder):
    assert (base.width, base.prediction_type, base.latent_factor, base.dtype) == (32, "epsilon", 8, torch.float32)
    for part in (base.unet, base.vae, base.text_encoder):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
    source = BaseModelSource(folder=str(bases_folder / "v"))
    assert load_base("v", source, folder=bases_folder, device="cpu").prediction_type == "v_prediction"


def test_attention_is_torchs_own_fused_one(base):
    """Seen from what is called, not from a setting: the UNet's attention and the text encoder's."""
    from unittest import mock

    fused = torch.nn.functional.scaled_dot_product_attention
    with mock.patch("torch.nn.functional.scaled_dot_product_attention", side_effect=fused) as called, torch.no_grad():
        states = encode_prompts(base, ["wolf"], {}).states
        of_text = called.call_count
        base.unet(torch.zeros(1, 4, 8, 8), torch.tensor([1]), states)
    kinds = [type(module).__name__ for module in base.unet.modules()]
    assert of_text == base.text_encoder.config.num_hidden_layers
    assert called.call_count - of_text == kinds.count("Attention") > 0


def test_half_precision_keeps_the_autoencoder_exact(bases_folder):
    loaded = load_base("b", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu", precision="bf16")
    assert (loaded.unet.dtype, loaded.text_encoder.dtype, loaded.vae.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )


def test_identity_follows_content_and_not_place_or_name(bases_folder, tmp_path):
    first = base_identity("a", BaseModelSource(folder="tiny"), folder=bases_folder)
    copy = shutil.copytree(bases_folder / "tiny", tmp_path / "elsewhere")
    assert base_identity("b", BaseModelSource(folder="elsewhere"), folder=tmp_path) == first
    assert len(first) == 64
    (copy / "README.md").write_text("a card is no weight")
    assert base_identity("b", BaseModelSource(folder="elsewhere"), folder=tmp_path) == first
    config = json.loads((copy / "scheduler" / "scheduler_config.json").read_text())
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"beta_end": 0.013}))
    assert base_identity("b", BaseModelSource(folder="elsewhere"), folder=tmp_path) != first
    assert base_identity("v", BaseModelSource(folder="v"), folder=bases_folder) != first


def test_a_single_files_identity_is_its_sha256(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"weights")
    found = base_identity("m", BaseModelSource(file="m.safetensors"), folder=tmp_path)
    assert found == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "m.safetensors").write_bytes(b"other weights")
    found = base_identity("m", BaseModelSource(file="m.safetensors"), folder=tmp_path)
    assert found == hashlib.sha256(b"other weights").hexdigest()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (BaseModelSource(), r"base_models\.mine has no folder, file or hub: set one"),
        (BaseModelSource(folder="nowhere"), r"base_models\.mine: .*nowhere is not there"),
        (BaseModelSource(file="none.ckpt"), r"base_models\.mine: .*none\.ckpt is not there"),
        (BaseModelSource(folder="empty"), r"no diffusers folder"),
        (BaseModelSource(file="junk.safetensors"), r"junk\.safetensors cannot be loaded"),
        (BaseModelSource(file="junk.ckpt"), r"junk\.ckpt cannot be loaded"),
        (BaseModelSource(hub="not/a/hub"), r"is no hub id"),
    ],
)
def test_missing_models_say_what_to_set(tmp_path, source, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    with pytest.raises(BaseModelError, match=words):
        load_base("mine", source, folder=tmp_path)


def test_an_unsafe_checkpoint_is_not_executed(tmp_path):
    from ti_pipeline_tests.inversion.test_embedding_files import Exploit

    torch.save({"state_dict": Exploit(str(tmp_path / "executed"))}, tmp_path / "evil.ckpt")
    words = r"base_models\.evil: .*evil\.ckpt cannot be loaded: its pickle asks for code; nothing was executed"
    with pytest.raises(BaseModelError, match=words):
        load_base("evil", BaseModelSource(file="evil.ckpt"), folder=tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_damaged_weight_file_is_named(bases_folder, tmp_path):
    copy = shutil.copytree(bases_folder / "tiny", tmp_path / "copy")
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BaseModelError, match=r"base_models\.m: .*copy cannot be loaded"):
        load_base("m", BaseModelSource(folder="copy"), folder=tmp_path)


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "predicts 'sample'"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "copy is a StableDiffusionXLPipeline"),
    ],
)
def test_other_kinds_of_models_are_refused(bases_folder, tmp_path, config, change, words):
    copy = shutil.copytree(bases_folder / "tiny", tmp_path / "copy")
    found = json.loads((copy / config).read_text())
    (copy / config).write_text(json.dumps(found | change))
    with pytest.raises(BaseModelError, match=words):
        load_base("m", BaseModelSource(folder="copy"), folder=tmp_path)


def test_an_inpainting_unet_is_refused(bases_folder, tmp_path):
    from diffusers import UNet2DConditionModel

    copy = shutil.copytree(bases_folder / "tiny", tmp_path / "copy")
    config = UNet2DConditionModel.load_config(copy / "unet")
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(copy / "unet")
    with pytest.raises(BaseModelError, match="takes 9 channels, but the autoencoder makes 4"):
        load_base("m", BaseModelSource(folder="copy"), folder=tmp_path)


def test_a_hub_model_without_network_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_args, **_options):
        raise LocalEntryNotFoundError("no network and nothing in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(BaseModelError, match=r"CompVis/sd is not in the Hugging Face cache.*folder"):
        load_base("sd", BaseModelSource(hub="CompVis/sd"), folder=tmp_path)


def test_a_hub_model_is_its_commit(monkeypatch, bases_folder, tmp_path):
    import huggingface_hub

    commits = [shutil.copytree(bases_folder / "tiny", tmp_path / name) for name in ("abc", "def")]
    found = []
    for commit in commits:
        monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_a, at=commit, **_k: str(at))
        found.append(load_base("sd", BaseModelSource(hub="o/n"), folder=tmp_path, device="cpu").identity)
    assert found[0] != found[1]


class Noise(torch.nn.Module):
    """A UNet that predicts velocity, turned by the definition (Salimans & Ho 2022) into one that predicts noise."""

    def __init__(self, unet, levels):
        super().__init__()
        self.unet, self.levels, self.config = unet, levels, unet.config

    def forward(self, noisy, time, **states):
        signal, spread = self.levels[time].sqrt().float(), (1 - self.levels[time]).sqrt().float()
        return SimpleNamespace(sample=signal * self.unet(noisy, time, **states).sample + spread * noisy)


def test_a_file_that_predicts_velocity_without_saying_so_is_refused(tmp_path):
    """With the demo's base, which was trained to predict velocity: a random one predicts nothing."""
    from ti_pipeline.inversion import base_models
    from ti_pipeline.inversion.trainer import signal_levels

    told = BaseModelSource(folder=str(DEMO_BASE), prediction="epsilon")
    base = load_base("demo", told, folder=tmp_path, device="cpu")
    assert base_models.noise_predicted(base) < 0.3
    with pytest.raises(BaseModelError, match=r"base_models\.demo: nothing says .* set `prediction: v_prediction`"):
        base_models._require_noise(base)
    base.unet = Noise(base.unet, signal_levels(base))
    assert base_models.noise_predicted(base) > 0.9
    base_models._require_noise(base)


def test_what_the_study_says_of_the_prediction_counts_and_is_part_of_the_identity(bases_folder):
    told = BaseModelSource(folder="tiny", prediction="v_prediction")
    assert load_base("b", told, folder=bases_folder, device="cpu").prediction_type == "v_prediction"
    plain = BaseModelSource(folder="tiny")
    assert base_identity("b", told, folder=bases_folder) != base_identity("b", plain, folder=bases_folder)
