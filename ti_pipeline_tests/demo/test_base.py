"""The small base model in the repository: loads with the usual libraries, draws, and is trained as its card says."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ti_pipeline.demo import train_base
from ti_pipeline.demo.base_measures import ASKED, beside_vectors
from ti_pipeline.demo.world import CHOICES
from ti_pipeline.evaluation.scorers import load_scorer
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE


def test_the_tokenizer_is_clips() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_diffusers_loads_it_and_it_draws() -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(DEMO_BASE, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    wolf, bear = (
        pipeline(
            f"{species}, sea, shirt",
            num_inference_steps=20,
            height=64,
            width=64,
            generator=torch.Generator().manual_seed(1),
            output_type="np",
        ).images[0]
        for species in ("wolf", "bear")
    )
    assert np.isfinite(wolf).all()
    assert wolf.std() > 0.1, "not a flat picture"
    assert np.abs(wolf - bear).mean() > 0.01, "the prompt decides"


def test_the_scorers_text_tower_is_the_pipelines() -> None:
    from transformers import CLIPModel, CLIPTextModel

    pair = CLIPModel.from_pretrained(DEMO_BASE / "scorer", dtype="float32").state_dict()
    own = CLIPTextModel.from_pretrained(DEMO_BASE / "text_encoder", dtype="float32").state_dict()
    for name, weights in own.items():
        torch.testing.assert_close(pair[name if name in pair else f"text_model.{name}"], weights, atol=0, rtol=0)


def test_it_is_small_enough_and_its_card_repeats_what_was_measured() -> None:
    sizes = [path.stat().st_size for path in DEMO_BASE.rglob("*") if path.is_file()]
    assert sum(sizes) <= 30e6
    assert max(sizes) < 16e6
    measured = json.loads((DEMO_BASE / "measured.json").read_text())
    card = (DEMO_BASE / "README.md").read_text(encoding="utf-8")
    for name in ASKED:
        fresh, drawn = measured["fresh drawings"][name], measured["pictures drawn"][name]
        assert f"| {name} | {fresh:.1%} | {drawn:.1%} |" in card
    for name, area in measured["concept AUC"].items():
        assert f"| {name} | {area:.3f} |" in card
    for count, shares in measured["beside vectors"].items():
        assert f"| {count} | {shares['species']:.1%} | {shares['background']:.1%} |" in card
    for values in CHOICES.values():
        assert all(value.replace("_", " ") in card for value in values)


def test_the_prompt_is_read_behind_64_vectors_that_have_learned_nothing() -> None:
    scorer = load_scorer(BaseModelSource(folder="scorer"), folder=DEMO_BASE)
    shares = beside_vectors(DEMO_BASE, scorer, counts=(64,), repeats=1)["64"]
    assert shares["species"] >= 0.6, "an eighth by chance"
    assert shares["background"] >= 0.6, "a sixth by chance"


def test_a_finished_model_is_not_overwritten(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        train_base.main(["--out", str(DEMO_BASE)])
    assert "give --overwrite to replace it" in capsys.readouterr().err


def test_training_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Four updates at once equal two, a stop, and two more."""
    small = ["--drawings", "8", "--batch", "4", "2", "2", "2", "2", "2", "--stage", "autoencoder"]
    for folder, runs in (("calm", [4]), ("rough", [2, 4])):
        for steps in runs:
            arguments = [
                "--out",
                str(DEMO_BASE),
                "--work",
                str(tmp_path / folder),
                "--steps",
                "1",
                str(steps),
                *("1", "1", "1", "1"),
            ]
            state = tmp_path / folder / "autoencoder.pt"
            if folder == "rough" and steps == 2:
                arguments[arguments.index("--steps") + 2] = "4"
                stopped_after_two(arguments + small)
            else:
                train_base.main(arguments + small)
            assert state.exists()
    one, other = (torch.load(tmp_path / f / "autoencoder.pt", weights_only=True) for f in ("calm", "rough"))
    assert one["step"] == other["step"] == 4
    assert one["curve"] == [[4, pytest.approx(other["curve"][0][1], rel=1e-4)]]
    for name, weights in one["model"].items():
        torch.testing.assert_close(weights, other["model"][name], atol=1e-6, rtol=1e-5)


def stopped_after_two(arguments: list[str]) -> None:
    """Run until the third update begins, keeping a checkpoint after each."""
    calls = []

    def batch(self, size, step, seed):
        calls.append(step)
        if step == 2:
            raise KeyboardInterrupt
        return real(self, size, step, seed)

    real, patch = train_base.World.batch, pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(train_base.World, "batch", batch)
        patched.setattr(train_base, "SECONDS_BETWEEN_CHECKPOINTS", 0)
        with pytest.raises(KeyboardInterrupt):
            train_base.main(arguments)


def test_filler_pushes_words_along_and_loses_none() -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(DEMO_BASE / "tokenizer")
    plain = train_base.tokens(tokenizer, ["wolf, grey fur, city", "", "bear"] * 100, full=True)
    filled = train_base.with_filler(plain, random.Random(0))
    assert filled.shape == plain.shape
    pushed = [(a, b) for a, b in zip(plain.tolist(), filled.tolist(), strict=True) if a != b]
    assert 40 <= len(pushed) <= 110, "about a quarter of 300"
    for before, after in pushed:
        words = before[: before.index(49407) + 1]
        extra = after.index(49407) + 1 - len(words)
        starts = [
            i for i in range(len(words)) if words[:i] == after[:i] and words[i:] == after[i + extra :][: len(words) - i]
        ]
        assert any(before[i - 1] in {49406, 267} for i in starts), "put in at the start or behind a comma"
    assert max(after.index(49407) for _, after in pushed) > 60, "words stand at late places too"
