"""Conditioning, against transformers' own forward and diffusers' own way with embeddings."""

import pytest
import torch

from ti_pipeline.inversion.base_models import BaseModelError
from ti_pipeline.inversion.conditioning import (
    chunks_of,
    encode_prompts,
    encode_tokens,
    joined,
    prompt_length,
    prompt_tokens,
)
from ti_pipeline.inversion.embedding_files import Embedding, save_pt, save_safetensors

PROMPTS = ["a photo of a cat", "wolf, red fur, " * 40, "", "Zwölf Boxkämpfer 狐 🦊"]
START, END = 49406, 49407


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_ordinary_prompts_equal_transformers_own_forward(base):
    ids = base.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    assert ids[0, :7].tolist() == [START, 320, 1125, 539, 320, 2368, END]
    with torch.no_grad():
        expected = base.text_encoder(ids, output_hidden_states=True)
    assert torch.allclose(encode_prompts(base, PROMPTS, {}).states, expected.last_hidden_state, atol=1e-5)
    skipped = base.text_encoder.final_layer_norm(expected.hidden_states[-2])
    assert torch.allclose(encode_prompts(base, PROMPTS, {}, clip_skip=2).states, skipped, atol=1e-5)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("vectors", [1, 3, 64])
def test_embeddings_equal_diffusers_own_loading(base, bases_folder, tmp_path, kind, vectors):
    from diffusers import StableDiffusionPipeline

    learned = noise(vectors, 32)
    path = tmp_path / f"zzember.{kind}"
    (save_pt if kind == "pt" else save_safetensors)(path, Embedding("zzember", learned))
    pipeline = StableDiffusionPipeline.from_pretrained(bases_folder / "tiny")
    pipeline.load_textual_inversion(str(path), token="zzember")
    prompts = ["a photo of zzember, wolf in the snow", "zzember", "zzember and zzember " + "long tail " * 40]
    with torch.no_grad():
        for prompt in prompts:
            expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
            assert torch.allclose(encode_prompts(base, [prompt], {"zzember": learned}).states, expected, atol=1e-5)


def test_names_are_found_as_a1111_does(base):
    tokenizer = base.tokenizer
    assert prompt_tokens(tokenizer, "EMBER", {"ember": 2}) == [("ember", 0), ("ember", 1)]
    both = {"v8": 1, "v8 long": 1}
    assert prompt_tokens(tokenizer, "v8 long v8", both) == [("v8 long", 0), ("v8", 0)]
    wolf = tokenizer("wolf", add_special_tokens=False).input_ids
    assert prompt_tokens(tokenizer, "wolf ember-500 wolf", {"ember-500": 1}) == [*wolf, ("ember-500", 0), *wolf]


def test_prompt_length_counts_vectors(base):
    assert prompt_length(base.tokenizer, "a photo of ember", {"ember": 64}) == 67
    assert prompt_length(base.tokenizer, "cat " * 100, {}) == 100


def test_gradients_reach_every_vector_shown_and_no_other(base):
    shown, unseen = (noise(4, 32).requires_grad_() for _ in range(2))
    encode_prompts(base, ["a photo of zzember"], {"zzember": shown, "qqother": unseen}).states.square().sum().backward()
    assert bool((shown.grad.norm(dim=1) > 0).all())
    assert float(unseen.grad.abs().max()) == 0
    cut = noise(75, 32).requires_grad_()
    encode_prompts(base, ["a photo of zzember"], {"zzember": cut}).states.square().sum().backward()
    assert (cut.grad.norm(dim=1) > 0).tolist() == [True] * 72 + [False] * 3


def test_a_prompt_that_does_not_show_the_embedding_still_has_a_gradient_of_zero(base):
    vectors = noise(2, 32).requires_grad_()
    encode_prompts(base, ["cat " * 80 + "zzember"], {"zzember": vectors}).states.sum().backward()
    assert float(vectors.grad.abs().max()) == 0


def test_gradients_equal_those_of_a_grown_vocabulary(base):
    """The plain way: a token table with extra rows, and autograd through transformers' own forward."""
    import copy

    learned = noise(3, 32)
    ours = learned.clone().requires_grad_()
    weights = noise(2, 77, 32)
    (
        encode_prompts(base, ["zzember wolf", "wolf zzember zzember"], {"zzember": ours}).states * weights
    ).sum().backward()

    encoder = copy.deepcopy(base.text_encoder)
    table = encoder.get_input_embeddings()
    size = len(table.weight)
    grown = torch.nn.Embedding(size + 3, 32)
    grown.weight = torch.nn.Parameter(torch.cat([table.weight, learned]))
    encoder.set_input_embeddings(grown)
    new, wolf = [size, size + 1, size + 2], base.tokenizer("wolf", add_special_tokens=False).input_ids
    rows = [[START, *new, *wolf, END], [START, *wolf, *new, *new, END]]
    ids = torch.tensor([row + [END] * (77 - len(row)) for row in rows])
    (encoder(ids).last_hidden_state * weights).sum().backward()
    assert torch.allclose(ours.grad, grown.weight.grad[size:], atol=1e-5, rtol=1e-4)


def test_rows_may_show_different_embeddings_of_one_name(base):
    first, second = noise(2, 32), -noise(2, 32)
    row = prompt_tokens(base.tokenizer, "zzember in the snow", {"zzember": 2})
    rows = [[t if isinstance(t, int) else (key, t[1]) for t in row] for key in ("a", "b")]
    together = encode_tokens(base, [[row] for row in rows], {"a": first, "b": second}).states
    for found, vectors in zip(together, (first, second), strict=True):
        alone = encode_prompts(base, ["zzember in the snow"], {"zzember": vectors}).states[0]
        assert torch.allclose(found, alone, atol=1e-5)


def test_wrong_widths_and_too_deep_clip_skips_are_refused(base):
    with pytest.raises(BaseModelError, match="width 768, but the text encoder of base model 'tiny' has width 32"):
        encode_prompts(base, ["zzember"], {"zzember": torch.zeros(1, 768)})
    with pytest.raises(
        BaseModelError, match="clip_skip 3 is deeper than the text encoder of 'tiny', which has 2 layers"
    ):
        encode_prompts(base, ["cat"], {}, clip_skip=3)


def test_long_prompts_are_cut_into_chunks_that_keep_embeddings_whole():
    embedding = [("e", i) for i in range(10)]
    tokens = [*range(70), *embedding, *range(100, 160), *embedding, 7]
    chunks = chunks_of(tokens, long_prompts="chunks")
    assert chunks == [list(range(70)), [*embedding, *range(100, 160)], [*embedding, 7]]
    assert chunks_of(tokens) == [tokens[:75]]
    assert chunks_of([], long_prompts="chunks") == [[]]
    assert [len(c) for c in chunks_of(list(range(150)), long_prompts="chunks")] == [75, 75]
    twice = [*embedding, *embedding]
    assert chunks_of([*range(60), *twice], long_prompts="chunks") == [[*range(60), *embedding], embedding]


def test_chunks_stand_one_after_another_and_padding_changes_nothing(base):
    words = "wolf red fur snow night city " * 20  # 120 tokens
    tokens = base.tokenizer(words, add_special_tokens=False).input_ids
    long = encode_prompts(base, [words], {}, long_prompts="chunks")
    assert long.mask is None
    rows = [[START, *part, END] + [END] * (75 - len(part)) for part in (tokens[:75], tokens[75:])]
    with torch.no_grad():
        expected = base.text_encoder(torch.tensor(rows)).last_hidden_state
    assert torch.allclose(long.states[0], expected.flatten(0, 1), atol=1e-5)

    short = encode_prompts(base, ["wolf"], {}, long_prompts="chunks")
    both = joined([short, long])
    assert both.states.shape == (2, 154, 32)
    assert both.mask.sum(dim=1).tolist() == [77, 154]
    assert torch.equal(encode_prompts(base, ["wolf", words], {}, long_prompts="chunks").mask, both.mask)
    noisy, times = noise(2, 4, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        together = base.unet(noisy, times, **both.options()).sample
        alone = [
            base.unet(noisy[i : i + 1], times[i : i + 1], encoder_hidden_states=part.states).sample
            for i, part in enumerate((short, long))
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def a1111_chunks(tokens: list, embeddings: dict[int, int]) -> list[list]:
    """Cut as `tokenize_line` of A1111's `sd_hijack_clip` does (v1.10, comma_padding_backtrack 20), written from it.

    Weights are left out. `embeddings` maps a token that stands for an embedding to its number of vectors.
    """
    chunks, chunk, last_comma = [], [], -1

    def next_chunk() -> None:
        nonlocal chunk, last_comma
        last_comma = -1
        chunks.append(chunk)
        chunk = []

    for token in tokens:
        if token == 267:
            last_comma = len(chunk)
        elif len(chunk) == 75 and last_comma != -1 and len(chunk) - last_comma <= 20:
            moved = chunk[last_comma + 1 :]
            chunk = chunk[: last_comma + 1]
            next_chunk()
            chunk = moved
        if len(chunk) == 75:
            next_chunk()
        if token in embeddings:
            if len(chunk) + embeddings[token] > 75:
                next_chunk()
            chunk += [(token, index) for index in range(embeddings[token])]
        else:
            chunk.append(token)
    return [*chunks, chunk]


def test_long_prompts_are_wrapped_at_commas_as_a1111_does():
    import random

    draw, different = random.Random(4), 0
    embeddings = {1: 8, 2: 64}
    for _ in range(300):
        tokens = draw.choices([267, 267, *range(1000, 1007), 1], k=draw.randint(60, 240))
        tokens = [2 if draw.random() < 0.005 else token for token in tokens]
        whole = [t for token in tokens for t in
                 ([(token, i) for i in range(embeddings[token])] if token in embeddings else [token])]  # fmt: skip
        found = chunks_of(whole, long_prompts="chunks")
        assert found == a1111_chunks(tokens, embeddings)
        assert [token for chunk in found for token in chunk] == whole
        different += any(len(chunk) < 75 for chunk in found[:-1])
    assert different > 200
