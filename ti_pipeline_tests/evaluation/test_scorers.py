import dataclasses
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ti_pipeline.demo.world import CHOICES, Attributes, bust, random_attributes, word_of
from ti_pipeline.evaluation.scorers import Scorer, ScorerError, load_scorer, score_images
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Axis, BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE

AXES = {"background": Axis(prompt="[name], city", values=["city", "sea", "onsen", "bedroom"])}
PLAIN = {"colour": "grey", "eyes": "blue", "body": "slim", "clothing": "shirt"}


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
    model = CLIPModel.from_pretrained(DEMO_BASE / "scorer", dtype="float32").eval()
    tokenizer = CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    picture = bust(Attributes(species="fox", background="sea", **PLAIN))
    picture.save(tmp_path / "fox.png")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    words = ["sea", "a very long line of many words, onsen"]
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
    near = table[table.metric == "near"].set_index("value").score
    assert near["city"] == pytest.approx(1.0, abs=1e-5)
    assert near.drop("city").max() < 1
    assert (table[table.metric == "broken"].score == 0).all()


def test_swapped_values_are_mismatches(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    right = score_images(images, AXES, scorer, root=tmp_path, references=[]).query("metric == 'match'")
    images["value"] = images.value.tolist()[1:] + images.value.tolist()[:1]
    wrong = score_images(images, AXES, scorer, root=tmp_path, references=[]).query("metric == 'match'")
    assert wrong.score.sum() < right.score.sum()
    assert not {"near", "sameness"} & set(wrong.metric)


def test_wrong_places_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ScorerError, match=r"evaluation\.scorer: .*no config\.json"):
        load_scorer(BaseModelSource(folder="nowhere"), folder=tmp_path)
    with pytest.raises(ScorerError, match="wants a `folder`"):
        load_scorer(BaseModelSource(), folder=tmp_path)
    with pytest.raises(
        ScorerError, match="cannot be loaded as a CLIP or SigLIP model: it is a model of type clip_text_model"
    ):
        load_scorer(BaseModelSource(folder="text_encoder"), folder=DEMO_BASE)


def test_a_model_that_lacks_weights_is_refused_not_filled_with_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    shutil.copytree(DEMO_BASE / "tokenizer", tmp_path / "tokenizer")
    CLIPModel(
        CLIPConfig(text_config=small, vision_config={**small, "image_size": 16, "patch_size": 8}, projection_dim=4)
    ).save_pretrained(tmp_path / "scorer")
    source = BaseModelSource(folder="scorer")
    assert load_scorer(source, folder=tmp_path).size == 16
    weights = load_file(tmp_path / "scorer" / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "scorer" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ScorerError, match=r"it lacks 1 weights, e\.g\. visual_projection"):
        load_scorer(source, folder=tmp_path)


def test_a_hub_model_without_network_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ScorerError, match=r"evaluation\.scorer: nobody/nothing .*hub models need the network once"):
        load_scorer(BaseModelSource(hub="nobody/nothing"), folder=tmp_path)


def test_pictures_that_cannot_be_judged_are_errors_not_zeros(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    with pytest.raises(ScorerError, match="pictures of 'moon' on the axis 'background'"):
        score_images(images.assign(value="moon"), AXES, scorer, root=tmp_path, references=[])
    (tmp_path / images.path[1]).write_bytes(b"\x89PNG half")
    with pytest.raises(ScorerError, match=r"1\.png is gone or damaged"):
        score_images(images, AXES, scorer, root=tmp_path, references=[])
    (tmp_path / images.path[1]).unlink()
    with pytest.raises(ScorerError, match=r"1\.png is gone or damaged"):
        score_images(images, AXES, scorer, root=tmp_path, references=[])


def test_an_axis_of_one_value_has_no_match(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path).iloc[:1]
    one = {"background": Axis(prompt="[name], city", values=["city"])}
    table = score_images(images, one, scorer, root=tmp_path, references=[tmp_path / "0.png"])
    assert table.metric.tolist() == ["broken", "near", "prompt"]
    assert TABLES["evaluation_scores"].problems(table) == []


def test_a_value_called_none_is_a_value(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path).assign(value="None")
    axes = {"background": Axis(prompt="[name], None", values=["None", "sea"])}
    table = score_images(images, axes, scorer, root=tmp_path, references=[tmp_path / "0.png"])
    assert table.read_as[table.metric == "near"].isna().all()
    assert set(table.read_as[table.metric == "match"]) <= {"None", "sea"}


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


def test_pictures_are_compared_with_prompts_with_each_other_and_with_what_was_trained_on(
    scorer: Scorer, tmp_path: Path
) -> None:
    images = pd.concat([drawn(tmp_path), drawn(tmp_path).assign(cell=[*"4567"], seed=7)], ignore_index=True)
    for name, eyes in (("41", "blue"), ("42", "green")):  # as near to each other as pictures of one character are
        bust(Attributes(species="bear", background="sky", **PLAIN | {"eyes": eyes})).save(tmp_path / f"{name}.png")
    (tmp_path / "77.png").write_bytes((tmp_path / "1.png").read_bytes())
    trained = [tmp_path / name for name in ("41.png", "42.png", "77.png")]
    table = score_images(images, AXES, scorer, root=tmp_path, references=[], trained=trained)
    assert TABLES["evaluation_scores"].problems(table) == []
    by_metric = {name: rows.set_index("cell") for name, rows in table.groupby("metric")}
    assert set(by_metric) == {"match", "probability", "prompt", "diversity", "training", "copy", "broken"}
    assert by_metric["diversity"].score.to_numpy() == pytest.approx(0, abs=1e-5), "both seeds show the same picture"
    assert by_metric["copy"].read_as.dropna().to_dict() == {"1": "77", "5": "77"}
    assert by_metric["copy"].score["1"] == pytest.approx(1, abs=1e-5)
    seen, said = scorer.image_features([tmp_path / "2.png"]), scorer.text_features(["onsen"])
    assert by_metric["prompt"].score["2"] == pytest.approx(float(seen @ said.T), abs=1e-5)


def test_kid_is_there_once_both_sides_have_enough_pictures(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    many = pd.concat([images.assign(cell=images.cell + f"/{n}", seed=n) for n in range(3)], ignore_index=True)
    trained = [tmp_path / f"{n % 4}.png" for n in range(12)]
    assert "kid" not in set(score_images(images, AXES, scorer, root=tmp_path, references=[], trained=trained).metric)
    table = score_images(many, AXES, scorer, root=tmp_path, references=[], trained=trained)
    kid = table[table.metric == "kid"].score
    assert len(kid) == 12
    others = []
    for n in range(12):
        path = tmp_path / f"other{n}.png"
        bust(Attributes(species="bear", background="sky", **PLAIN | {"colour": "red"})).save(path)
        others.append(path)
    far = score_images(many, AXES, scorer, root=tmp_path, references=[], trained=others)
    assert far[far.metric == "kid"].score.mean() > kid.mean() + 0.1


def test_the_tags_of_a_prompt_are_found_where_they_show(scorer: Scorer, tmp_path: Path) -> None:
    """Truth: the world's drawings, half of what is asked is on them. On 400 others 89 % of tags were read right."""
    rng, names = random.Random(11), ("species", "body", "clothing", "background")
    axes, rows, wanted = {}, [], {}
    for number in range(120):
        shown = dataclasses.replace(random_attributes(rng), clothing=rng.choice(CHOICES["clothing"][1:]))
        asked = {name: getattr(shown, name) for name in names}
        for name in names:
            if rng.random() < 0.5:
                asked[name] = rng.choice([v for v in CHOICES[name] if v not in (asked[name], "none")])
        bust(shown, 64, rng).save(tmp_path / f"{number}.png")
        words = [word_of(name, value) for name, value in asked.items()]
        axes[f"a{number}"] = Axis(prompt=f"[name], {', '.join(words)}", values=[words[0]], judge="tags")
        where = {"cell": str(number), "axis": f"a{number}", "value": words[0], "path": f"{number}.png"}
        rows.append(where | {"variant": "v", "checkpoint": "v-1", "step": 1, "seed": 6})
        wanted[str(number)] = {word_of(n, v) for n, v in asked.items() if getattr(shown, n) != v}
    table = score_images(pd.DataFrame(rows), axes, scorer, root=tmp_path, references=[])
    assert TABLES["evaluation_scores"].problems(table) == []
    found = table[table.metric == "tags"].set_index("cell")
    assert "match" not in set(table.metric)
    missed = {cell: set(text.split(", ")) if isinstance(text, str) else set() for cell, text in found.read_as.items()}
    wrong = sum(len(wanted[cell] ^ missed[cell]) for cell in wanted)
    assert 1 - wrong / (4 * len(wanted)) >= 0.85
    truth = pd.Series({cell: 1 - len(absent) / 4 for cell, absent in wanted.items()})
    assert found.score.corr(truth) >= 0.7
    assert all(found.score[cell] == 1 - len(absent) / 4 for cell, absent in missed.items())


def test_names_of_further_embeddings_are_no_tags(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path).iloc[:1]
    axes = {"background": Axis(prompt="[name], style-of, city", values=["city"], judge="tags")}
    table = score_images(images, axes, scorer, root=tmp_path, references=[], embeddings=["style-of"])
    assert table[table.metric == "tags"].score.tolist() == [1.0]
    nothing = {"background": Axis(prompt="[name]", search="[name]", values=["city"], judge="tags")}
    with pytest.raises(ScorerError, match=r"evaluation\.axes\.background: its prompts say nothing but embeddings"):
        score_images(images, nothing, scorer, root=tmp_path, references=[], embeddings=["city"])


def test_when_memory_runs_out_the_batch_is_halved(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / path for path in drawn(tmp_path).path]
    whole, sizes = scorer.image_features(paths), []
    real = Scorer._features_of

    def small(self, pictures):
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError
        return real(self, pictures)

    monkeypatch.setattr(Scorer, "_features_of", small)
    told = []
    again = scorer.image_features(paths, lambda done, of, what: told.append((done, of)))
    assert sizes == [4, 2, 2]
    assert told == [(2, 4), (4, 4)]
    torch.testing.assert_close(again, whole, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP of a few numbers, drawn at random, with its own kind of tokenizer trained on a few words."""
    from transformers import SiglipConfig, SiglipModel, SiglipTokenizer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    sentencepiece = pytest.importorskip("sentencepiece", reason="needs the extra `siglip`")
    folder = tmp_path_factory.mktemp("siglip")
    words = [word_of(name, value) for name in ("species", "background", "clothing") for value in CHOICES[name]]
    with (folder / "spiece.model").open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words * 20), model_writer=stream, vocab_size=44, minloglevel=2
        )
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**small, "vocab_size": 80, "max_position_embeddings": 16, "pad_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 8},
    )
    torch.manual_seed(4)
    SiglipModel(config).save_pretrained(folder)
    SiglipTokenizer(str(folder / "spiece.model"), model_max_length=16).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_siglip_sees_and_reads_as_in_transformers(siglip_folder: Path, tmp_path: Path) -> None:
    """The truth: transformers' own processor and model; pictures that are not square show how they are cut."""
    from transformers import SiglipModel, SiglipTokenizer
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    model = SiglipModel.from_pretrained(siglip_folder).eval()
    pictures = [bust(Attributes(species=one, background="sea", **PLAIN)).resize((90, 60)) for one in ("fox", "bear")]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    texts = ["Fox!", "domestic dog, " * 9, "sea, coat"]
    reader = SiglipTokenizer.from_pretrained(siglip_folder)
    said = reader(texts, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    seen = SiglipImageProcessorPil.from_pretrained(siglip_folder)(pictures, return_tensors="pt").pixel_values
    with torch.inference_mode():
        theirs = model(input_ids=said, pixel_values=seen)
    ours = load_scorer(BaseModelSource(folder=str(siglip_folder)), folder=tmp_path)
    looked = ours.image_features([tmp_path / "0.png", tmp_path / "1.png"])
    read = ours.text_features(texts)
    torch.testing.assert_close(looked, theirs.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(read, theirs.text_embeds, atol=1e-5, rtol=0)
    logits = ours.scale * looked @ read.T + model.logit_bias.detach()
    torch.testing.assert_close(logits, theirs.logits_per_image, atol=1e-4, rtol=0)


def test_a_siglip_scores_a_suite(siglip_folder: Path, tmp_path: Path) -> None:
    siglip = load_scorer(BaseModelSource(folder=str(siglip_folder)), folder=tmp_path)
    table = score_images(drawn(tmp_path), AXES, siglip, root=tmp_path, references=[tmp_path / "0.png"])
    assert TABLES["evaluation_scores"].problems(table) == []
    assert set(table.metric) == {"match", "probability", "near", "sameness", "prompt", "broken"}


def test_a_model_of_another_kind_is_refused_and_named(tmp_path: Path) -> None:
    from transformers import BertConfig, CLIPTextConfig, CLIPTextModel

    BertConfig().save_pretrained(tmp_path / "bert")
    text_only = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    CLIPTextModel(text_only).save_pretrained(tmp_path / "text")
    for name, kind in (("bert", "bert"), ("text", "clip_text_model")):
        with pytest.raises(ScorerError, match=f"it is a model of type {kind}"):
            load_scorer(BaseModelSource(folder=name), folder=tmp_path)


def test_a_siglip_without_its_tokenizers_package_says_what_to_install(
    siglip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    def absent(*_: object, **__: object) -> None:
        raise ImportError("SiglipTokenizer requires the SentencePiece library but it was not found")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", absent)
    with pytest.raises(ScorerError, match=r"pip install 'ti_pipeline\[siglip\]'"):
        load_scorer(BaseModelSource(folder=str(siglip_folder)), folder=tmp_path)


def test_pictures_of_one_colour_are_broken(scorer: Scorer, tmp_path: Path) -> None:
    images = drawn(tmp_path)
    Image.new("RGB", (64, 64), (3, 3, 3)).save(tmp_path / images.path[0])
    Image.effect_noise((64, 64), 1.0).convert("RGB").save(tmp_path / images.path[1])
    table = score_images(images, AXES, scorer, root=tmp_path, references=[])
    assert table[table.metric == "broken"].score.tolist() == [1, 1, 0, 0]
