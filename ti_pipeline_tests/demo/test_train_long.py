"""Prompts with runs of vectors in them, and the two stages that teach the base model to read them."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from ti_pipeline.demo import base_export, base_parts, train_base, train_long
from ti_pipeline.demo.long_prompts import MOST_VECTORS, RunOfVectors, long_prompt, vectors_of
from ti_pipeline.demo.world import caption, random_attributes
from ti_pipeline_tests.tiny_models import DEMO_BASE


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")


def test_a_prompt_says_its_words_in_tokens_or_in_its_run(tokenizer) -> None:
    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    counts, behind = set(), 0
    for number in range(400):
        rng = random.Random(number)
        words = caption(random_attributes(rng), rng).split(", ")
        tokens, told, run = long_prompt(words, ids, rng, "name")
        assert 1 <= len(tokens) <= 75
        places = [place for place, token in enumerate(tokens) if isinstance(token, tuple)]
        plain = tokenizer.decode([token for token in tokens if isinstance(token, int)]).replace(" ", "")
        if run is None:
            assert not places
            assert tokens == ids(", ".join(words))[:75]
            continue
        assert [tokens[place] for place in places] == [("name", index) for index in range(len(places))]
        assert places == list(range(places[0], places[0] + len(places))), "the vectors stand together"
        assert run.tokens == [] or len(run.tokens) == len(places)
        counts.add(len(places))
        behind += places[0] < len(tokens) - len(places)
        # A word that the prompt is said to hold is in its text, or is what the run stands for.
        for word in told:
            assert word.replace(" ", "") in plain or set(ids(word)) & set(run.tokens) or len(places) < 20, (word, plain)
    assert max(counts) == MOST_VECTORS
    assert len(counts) > 30
    assert behind > 100


def test_a_run_holds_what_an_embedding_starts_from(tokenizer) -> None:
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.variant_state import initial_vectors
    from ti_pipeline.studies import BaseModelSource, Variant

    base = load_base("demo", BaseModelSource(folder=str(DEMO_BASE)), folder=DEMO_BASE, device="cpu")
    table = base.text_encoder.get_input_embeddings().weight.detach()
    few = base_parts.ANTHRO
    tokens = [few[index * 2 // 5] for index in range(5)]
    start = initial_vectors(base, Variant(base="demo", vectors=5, steps=1, initializer="anthro"))
    torch.testing.assert_close(vectors_of(RunOfVectors(tokens, 0.0, None, 1), 5, table), start)
    noisy = vectors_of(RunOfVectors(tokens, 1.0, 3.0, 1), 5, table)
    mean = float(table.norm(dim=1).mean())
    torch.testing.assert_close(noisy.norm(dim=1), torch.full((5,), 3 * mean))
    assert not torch.equal(noisy, vectors_of(RunOfVectors(tokens, 1.0, 3.0, 2), 5, table)), "noise is of the seed"


def test_attention_is_the_unets_own() -> None:
    from diffusers.models.attention_processor import AttnProcessor

    torch.manual_seed(0)
    unet = base_parts.new_unet().requires_grad_(requires_grad=False)
    states = torch.randn(2, 77, base_parts.TEXT_WIDTH)
    queries = train_long.queries_of(unet, torch.randn(2, 8, 8, 8), states)
    layers = train_long.cross_attentions(unet)
    assert set(queries) == set(layers)
    assert len(layers) == 7
    for name, layer in layers.items():
        hidden = torch.randn(2, queries[name].shape[1], layer.to_q.in_features)
        out = train_long.attended(layer, (layer.to_k, layer.to_v), layer.to_q(hidden), states)
        expected = AttnProcessor()(layer, hidden, encoder_hidden_states=states)
        torch.testing.assert_close(layer.to_out[0](out), expected, atol=1e-5, rtol=1e-4)


def test_a_finished_model_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer) -> None:
    """Both stages run from the shipped model; the vocabulary stays, and the scorer's words mean what they did."""
    monkeypatch.setattr(train_long, "POOL", 8)
    counts = ["--steps", "1", "1", "1", "2", "2", "1", "--batch", "1", "1", "1", "4", "2", "1", "--drawings", "8"]
    stages = ["--stage", "long", "--stage", "polish", "--stage", "vision"]
    where = ["--out", str(DEMO_BASE), "--work", str(tmp_path), "--adopt", str(DEMO_BASE)]
    assert train_base.main([*where, *counts, *stages]) == 0
    old, new = train_base.trained_text_tower(tmp_path), train_long.long_text_tower(tmp_path)
    changed = [name for name, weight in new.state_dict().items() if not torch.equal(weight, old.state_dict()[name])]
    assert changed
    assert "embeddings.token_embedding.weight" not in changed
    polished = train_base.read_checkpoint(tmp_path / "polish.pt")
    assert polished["step"] == 2
    assert all(torch.isfinite(weight).all() for weight in polished["average"].values())
    before = train_base.read_checkpoint(tmp_path / "clip.pt")["model"]["text_projection.weight"]
    clip = train_base.read_checkpoint(tmp_path / "vision.pt")["model"]
    words = [word for words in train_base.zero_shot_words().values() for word in words]
    ids = train_base.tokens(tokenizer, words, full=False)
    with torch.no_grad():
        wanted = old(input_ids=ids).pooler_output @ before.T
        given = new(input_ids=ids).pooler_output @ clip["text_projection.weight"].T
    assert torch.nn.functional.cosine_similarity(wanted, given).min() > 0.999
    train_long.refit_projection(tokenizer, tmp_path, seed=0)
    again = train_base.read_checkpoint(tmp_path / "vision.pt")["model"]["text_projection.weight"]
    torch.testing.assert_close(again, clip["text_projection.weight"], atol=1e-4, rtol=1e-4)


def test_what_was_adopted_is_not_trained_on_with_an_optimizer_it_lacks(tmp_path: Path) -> None:
    base_export.adopt(DEMO_BASE, tmp_path)
    steps = json.loads((DEMO_BASE / "measured.json").read_text())["steps"]["unet"]
    model = base_parts.new_unet()
    with pytest.raises(ValueError, match="delete it to train that stage anew"):
        train_base.optimise("unet", model, lambda _: torch.zeros(()), folder=tmp_path, steps=steps + 1, peak=1.0)


def test_a_folder_without_a_model_cannot_be_adopted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no base model of this project"):
        base_export.adopt(tmp_path, tmp_path / "work")
