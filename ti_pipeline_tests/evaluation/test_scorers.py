from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ti_pipeline.demo.world import CHOICES, Attributes, bust
from ti_pipeline.evaluation.scorers import Scorer, ScorerError, load_scorer, score_images
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Axis, BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE

AXES = {"background": Axis(prompt="[name], city", values=["city", "sea", "forest", "bedroom"])}
PLAIN = {"colour": "grey", "eyes": "blue", "body": "slim", "clothing": "suit", "accessory": "none", "marked": False}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_scorer(BaseModelSource(folder="scorer"), folder=DEMO_BASE)


def drawn(folder: Path) -> pd.DataFrame:
    rows = []
    for index, background in enumerate(AXES["background"].values):
        path = folder / f"{index}.png"
        bust(Attributes(species="wolf", background=background, **PLAIN)).save(path)
        rows.append(
            {
                "cell": str(index),
                "variant": "v",
                "checkpoint": "v-1",
                "step": 1,
                "axis": "background",
                "value": background,
                "seed": 6,
                "path": path.name,
            }
        )
    return pd.DataFrame(rows)


def test_features_equal_transformers_own(scorer: Scorer, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(DEMO_BASE / "scorer", dtype="float32").eval()
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    picture = bust(Attributes(species="fox", background="sea", **PLAIN))
    picture.save(tmp_path / "fox.png")
    pixels = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    words = ["sea", "a very long line of many words, forest"]
    with torch.inference_mode():
        out = model(input_ids=tokenizer(words, padding=True, return_tensors="pt").input_ids, pixel_values=pixels)
    seen, said = scorer.image_features([tmp_path / "fox.png"]), scorer.text_features(words)
    torch.testing.assert_close(seen, out.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(said, out.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(scorer.scale * seen @ said.T, out.logits_per_image, atol=1e-3, rtol=0)


def test_drawings_of_backgrounds_are_recognised(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    table = score_images(images, AXES, scorer, root=tmp_path, references=[tmp_path / "0.png"])
    assert TABLES["evaluation_scores"].problems(table) == []
    match = table[table.metric == "match"].set_index("value")
    assert match.score.sum() >= 3
    assert all((row.read_as == value) is (row.score == 1.0) for value, row in match.iterrows())
    chances = table[table.metric == "probability"].score
    assert ((chances >= 0) & (chances <= 1)).all()
    concept = table[table.metric == "concept"].set_index("value").score
    assert concept["city"] == pytest.approx(1.0, abs=1e-5)
    assert concept.drop("city").max() < 1


def test_swapped_values_are_mismatches(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    right = score_images(images, AXES, scorer, root=tmp_path, references=[]).query("metric == 'match'")
    images["value"] = images.value.tolist()[1:] + images.value.tolist()[:1]
    wrong = score_images(images, AXES, scorer, root=tmp_path, references=[]).query("metric == 'match'")
    assert wrong.score.sum() < right.score.sum()
    assert "concept" not in set(wrong.metric)


def test_wrong_places_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"evaluation\.scorer: .*no config\.json"):
        load_scorer(BaseModelSource(folder="nowhere"), folder=tmp_path)
    with pytest.raises(ScorerError, match="wants a `folder`"):
        load_scorer(BaseModelSource(), folder=tmp_path)
    with pytest.raises(ScorerError, match="cannot be loaded as a CLIP model"):
        load_scorer(BaseModelSource(folder="text_encoder"), folder=DEMO_BASE)


def test_every_word_of_the_world_is_known() -> None:
    assert set(AXES["background"].values) < set(CHOICES["background"])


def test_a_picture_of_any_shape_is_cut_to_the_middle(scorer: Scorer, tmp_path: Path) -> None:
    square = Image.new("RGB", (64, 64), (200, 30, 30))
    wide = Image.new("RGB", (192, 64), (20, 20, 250))
    wide.paste(square, (64, 0))
    square.save(tmp_path / "square.png")
    wide.save(tmp_path / "wide.png")
    one, other = scorer.image_features([tmp_path / "square.png", tmp_path / "wide.png"])
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
