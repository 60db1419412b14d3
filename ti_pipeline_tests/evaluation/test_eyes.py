"""Eyes: a DINOv2 model as judge of likeness, against transformers' own way of preparing pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model, ViTConfig, ViTImageProcessorPil, ViTModel

from ti_pipeline.evaluation.eyes import load_eyes
from ti_pipeline.evaluation.scorers import ScorerError
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "dino"
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    return folder


def test_features_are_the_class_tokens_of_transformers_own(dino: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC)
    pixels = BitImageProcessorPil.from_pretrained(dino)(picture, return_tensors="pt").pixel_values
    with torch.inference_mode():
        token = Dinov2Model.from_pretrained(dino).eval()(pixel_values=pixels).pooler_output
    seen = load_eyes(BaseModelSource(folder="dino"), folder=dino.parent).image_features([picture])
    torch.testing.assert_close(seen, torch.nn.functional.normalize(token, dim=-1), atol=2e-3, rtol=0)


def test_dino_itself_is_a_vit_that_sees_whole_pictures(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8)
    config.intermediate_size = 64
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    pixels = ViTImageProcessorPil.from_pretrained(tmp_path / "vit")(Image.fromarray(noise), return_tensors="pt")
    with torch.inference_mode():
        model = ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False).eval()
        token = model(pixel_values=pixels.pixel_values).last_hidden_state[:, 0]
    seen = load_eyes(BaseModelSource(folder="vit"), folder=tmp_path).image_features([Image.fromarray(noise)])
    torch.testing.assert_close(seen, torch.nn.functional.normalize(token, dim=-1), atol=1e-4, rtol=0)


def test_a_clip_model_serves_and_others_are_refused_by_kind(dino: Path) -> None:
    assert load_eyes(BaseModelSource(folder="scorer"), folder=DEMO_BASE).tokenizer is not None
    with pytest.raises(ScorerError, match=r"evaluation\.likeness: .* is a model of type clip_text_model"):
        load_eyes(BaseModelSource(folder="text_encoder"), folder=DEMO_BASE)
    with pytest.raises(ScorerError, match=r"evaluation\.likeness: .*no config\.json"):
        load_eyes(BaseModelSource(folder="nowhere"), folder=dino.parent)
