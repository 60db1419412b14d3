"""The trainer: against a plain reference, alone against together, and when numbers break."""

import copy
import dataclasses
import hashlib

import pytest
import torch

from ti_pipeline.inversion import trainer
from ti_pipeline.inversion.draws import generator, normal, pictures_of
from ti_pipeline.inversion.latents import Latents
from ti_pipeline.inversion.trainer import signal_levels, train, validation_loss
from ti_pipeline.inversion.variant_state import Pictures, Run, initial_vectors, update_count
from ti_pipeline.studies import BaseModelSource, Variant

CAPTIONS = ["wolf, snow", "red fur", "", "fox, city, night"]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, first_id: int = 100, seed: int = 0) -> Pictures:
    mean, deviation = noise(count, 4, 8, 8, seed=seed), noise(count, 4, 8, 8, seed=seed + 1).abs() / 10
    ids = list(range(first_id, first_id + count))
    return Pictures(ids, [CAPTIONS[i % 4] for i in range(count)], Latents(mean, deviation))


def variant(**values) -> Variant:
    defaults = {"vectors": 3, "base": "tiny", "token": "zzember", "seed": 4, "steps": 5, "checkpoint_every": 100}
    return Variant(**(defaults | values))


def run_of(base, key: str = "a", *, held_out: int = 0, **values) -> Run:
    return Run.start(key, variant(**values), base, pictures(4), pictures(held_out, 900, seed=50))


def train_all(base, *runs: Run) -> list[tuple[str, int, torch.Tensor]]:
    kept = []
    train(base, runs, save=lambda r, at: kept.append((r.key, r.done, r.vectors.detach().clone())) if at else None)
    return kept


def reference(base, run: Run, updates: int) -> tuple[torch.Tensor, list[float]]:
    """Textual inversion as diffusers' example does it: a grown table, its DDPM scheduler, AdamW over the new rows."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    encoder, v = copy.deepcopy(base.text_encoder), run.variant
    table = encoder.get_input_embeddings()
    size = len(table.weight)
    grown = torch.nn.Embedding(size + v.vectors, base.width, dtype=table.weight.dtype)
    grown.weight = torch.nn.Parameter(torch.cat([table.weight, run.initial.to(table.weight.dtype)]))
    encoder.set_input_embeddings(grown)
    options = {k: base.scheduler_config[k] for k in ("beta_start", "beta_end", "beta_schedule", "prediction_type")}
    scheduler = DDPMScheduler(**options)
    optimizer = torch.optim.AdamW([grown.weight], lr=v.learning_rate, weight_decay=0.0)
    losses, weighed = [], not v.min_snr_gamma
    for done in range(updates):
        chosen = pictures_of(v.seed, done, 0, pictures=4, batch_size=v.batch_size, accumulation=1)
        clean = run.latents[chosen]
        drawn = normal(generator(v.seed, "noise", done, 0), *clean.shape)
        times = torch.from_numpy(generator(v.seed, "timestep", done, 0).integers(1000, size=v.batch_size))
        rows = []
        for i in chosen:
            tail = base.tokenizer(f", {CAPTIONS[i]}" if CAPTIONS[i] else "", add_special_tokens=False).input_ids
            row = [49406, *range(size, size + v.vectors), *tail, 49407]
            rows.append(row + [49407] * (77 - len(row)))
        states = encoder(torch.tensor(rows)).last_hidden_state
        predicted = base.unet(scheduler.add_noise(clean, drawn, times), times, states).sample
        aim = drawn if base.prediction_type == "epsilon" else scheduler.get_velocity(clean, drawn, times)
        loss = (predicted - aim).square().mean(dim=(1, 2, 3))
        if v.min_snr_gamma:
            snr = compute_snr(scheduler, times)
            weights = snr.clamp(max=v.min_snr_gamma) / (snr if base.prediction_type == "epsilon" else snr + 1)
            weighed |= bool((weights != 1).any())
            loss = weights * loss
        loss = loss.mean()
        optimizer.zero_grad()
        loss.backward()
        grown.weight.grad[:size] = 0
        optimizer.step()
        losses.append(float(loss.detach()))
    assert weighed, "no draw that the weights concern"
    return grown.weight.detach()[size:], losses


@pytest.mark.parametrize("gamma", [None, 1.0])
@pytest.mark.parametrize("place", ["tiny", "v"])
def test_it_equals_a_plain_reference(bases_folder, place, gamma):
    from ti_pipeline.inversion.base_models import load_base

    base = load_base(place, BaseModelSource(folder=place), folder=bases_folder, device="cpu")
    run = run_of(base, batch_size=2, initializer="wolf", min_snr_gamma=gamma)
    expected, losses = reference(base, run, 5)
    train_all(base, run)
    assert [row[0] for row in run.log] == pytest.approx(losses, rel=1e-4)
    assert torch.allclose(run.vectors.detach(), expected, atol=1e-4)
    assert float((expected - run.initial).norm()) > 0.01


def test_together_equals_alone(base64):
    settings = {
        "a": {"vectors": 1},
        "b": {"vectors": 8, "seed": 9, "learning_rate": "0.01:7, 0.001", "batch_size": 2, "gradient_clip": 0.001},
        "c": {"vectors": 4, "steps": 9, "gradient_accumulation": 2, "shuffle_tags": True, "drop_tags": 0.3},
        "d": {"vectors": 4, "steps": 20, "latents": "random", "templates": ["[name] of [filewords]", "art by [name]"]},
    }
    together = {key: run_of(base64, key, **({"steps": 20} | values)) for key, values in settings.items()}
    train_all(base64, *together.values())
    for key, values in settings.items():
        alone = run_of(base64, key, **({"steps": 20} | values))
        train_all(base64, alone)
        assert alone.vectors.dtype == torch.float64
        assert float((alone.vectors - together[key].vectors).detach().abs().max()) <= 1e-9
        assert float((alone.vectors - alone.initial).detach().norm()) > 1e-3


def test_accumulation_is_the_mean_gradient_of_its_micro_steps(base64, monkeypatch):
    run = run_of(base64, gradient_accumulation=2, steps=1)
    gradients = []
    plain = trainer._update

    def spy(at: Run, scale: float) -> None:
        gradients.append(at.vectors.grad.clone())
        plain(at, scale)

    monkeypatch.setattr(trainer, "_update", spy)
    train_all(base64, run)
    levels, expected = signal_levels(base64), torch.zeros_like(run.initial)
    for micro in range(2):
        fresh = run_of(base64, gradient_accumulation=2)
        fresh.micro = micro
        (loss,) = trainer._losses(base64, [fresh], [trainer._draw(fresh, base64, levels)])
        expected += torch.autograd.grad(loss, fresh.vectors)[0] / 2
    assert torch.allclose(gradients[0], expected, atol=1e-15)


def test_checkpoints_hold_exactly_as_many_updates_as_they_say(base):
    run = run_of(base, steps=7, checkpoint_every=3)
    kept = train_all(base, run)
    assert [done for _, done, _ in kept] == [3, 6, 7]
    for _, done, vectors in kept:
        shorter = run_of(base, steps=done)
        train_all(base, shorter)
        assert torch.equal(shorter.vectors.detach(), vectors)
        assert len(shorter.log) == done
    assert [row["step"] for row in run.checkpoints] == [3, 6, 7]
    assert run.checkpoints[1]["mean_loss"] == pytest.approx(sum(r[0] for r in run.log[3:6]) / 3)


def test_the_base_stays_as_it_was_and_the_vectors_move(base):
    def digest() -> str:
        parts = [*base.unet.parameters(), *base.text_encoder.parameters(), *base.vae.parameters()]
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parts)).hexdigest()

    before, run = digest(), run_of(base)
    train_all(base, run)
    assert digest() == before
    assert all(p.grad is None for part in (base.unet, base.text_encoder) for p in part.parameters())
    assert [list(group["params"]) for group in run.optimizer.param_groups] == [[run.vectors]]
    assert bool(((run.vectors.detach() - run.initial).norm(dim=1) > 0).all())


def test_the_loss_falls_where_there_is_something_to_learn(base, monkeypatch):
    """A target that a few known vectors reach: the UNet's own prediction under another embedding."""
    run = run_of(base, steps=60, learning_rate=0.05, initializer="")
    aim = noise(3, 32, seed=3)
    plain = trainer._losses

    def distilled(b, runs, batches):
        with torch.no_grad():
            row = [("t", i) for i in range(3)]
            states = trainer.encode_tokens(b, [row] * len(batches[0].prompts), {"t": aim})
            target = b.unet(batches[0].noisy, batches[0].timesteps, encoder_hidden_states=states).sample
        batch = dataclasses.replace(batches[0], target=target, prompts=[runs[0].name] * len(batches[0].prompts))
        return plain(b, runs, [batch])

    monkeypatch.setattr(trainer, "_losses", distilled)
    train_all(base, run)
    losses = [row[0] for row in run.log]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_steps_or_epochs_whichever_ends_first(base):
    assert update_count(variant(steps=10, epochs=2), 4) == 8
    assert update_count(variant(steps=10, epochs=9), 4) == 10
    assert update_count(variant(steps=None, epochs=3), 5) == 15
    assert update_count(variant(steps=None, epochs=3, batch_size=2, gradient_accumulation=2), 5) == 3
    assert update_count(variant(steps=None, epochs=3, batch_size=16), 5) == 3


def test_initial_vectors_are_spread_over_the_text(base):
    table = base.text_encoder.get_input_embeddings().weight
    cat, dog = base.tokenizer("cat dog", add_special_tokens=False).input_ids
    assert torch.equal(initial_vectors(base, "cat dog", 5), table[[cat, cat, cat, dog, dog]])
    assert torch.equal(initial_vectors(base, "cat dog", 1), table[[cat]])
    assert torch.equal(initial_vectors(base, "", 2), torch.zeros(2, 32))


def test_numbers_that_break_name_step_pictures_and_timesteps_and_others_go_on(base):
    bad, good = run_of(base, "bad", steps=9, checkpoint_every=3), run_of(base, "good", steps=9, seed=8)
    alone = run_of(base, "good", steps=9, seed=8)
    order = [pictures_of(4, done, 0, pictures=4, batch_size=1, accumulation=1)[0] for done in range(9)]
    bad.latents[order[3]] = torch.nan  # the last picture of the first pass
    first = 3
    kept = train_all(base, bad, good)
    assert f"at update {first + 1} the loss is nan" in bad.failure
    assert f"posts [{100 + order[3]}]" in bad.failure
    time = int(generator(4, "timestep", first, 0).integers(1000, size=1)[0])
    assert f"timesteps [{time}]" in bad.failure
    assert all(bool(torch.isfinite(vectors).all()) for _, _, vectors in kept)
    assert good.failure is None
    train_all(base, alone)
    assert torch.allclose(good.vectors, alone.vectors, atol=1e-4)


def test_validation_loss_is_the_mean_over_fixed_draws(base):
    run, other = run_of(base, held_out=3), run_of(base, held_out=3, seed=99, vectors=3, latents="random")
    found = validation_loss(base, run)
    assert found == validation_loss(base, run)
    assert found == pytest.approx(validation_loss(base, other), rel=1e-6)
    assert validation_loss(base, run_of(base)) is None
    levels, sums = signal_levels(base), []
    for i in range(3):
        clean = run.validation.latents.mean[i : i + 1] * base.vae.config.scaling_factor
        for part, time in enumerate((125, 375, 625, 875)):
            drawn = normal(generator(0, "validation", 900 + i, part), 4, 8, 8)[None]
            noisy = levels[time].sqrt().float() * clean + (1 - levels[time]).sqrt().float() * drawn
            prompt = f"zzember, {CAPTIONS[i]}".strip(" ,")
            states = trainer_states(base, prompt, run.initial)
            with torch.no_grad():
                predicted = base.unet(noisy, torch.tensor([time]), states).sample
            sums.append(float(torch.nn.functional.mse_loss(predicted, drawn)))
    assert found == pytest.approx(sum(sums) / 12, rel=1e-4)


def trainer_states(base, prompt: str, vectors: torch.Tensor) -> torch.Tensor:
    from ti_pipeline.inversion.conditioning import encode_prompts

    with torch.no_grad():
        return encode_prompts(base, [prompt], {"zzember": vectors})


def test_half_precision_stays_near_and_keeps_float32_vectors(base, bases_folder):
    from ti_pipeline.inversion.base_models import load_base

    exact = run_of(base, steps=3)
    train_all(base, exact)
    for precision in ("bf16", "fp16"):
        half = load_base("b", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu", precision=precision)
        run = run_of(half, steps=3)
        train_all(half, run)
        assert run.failure is None
        assert run.vectors.dtype == torch.float32
        assert [row[0] for row in run.log] == pytest.approx([row[0] for row in exact.log], rel=0.05)
        assert [row[1] for row in run.log] == pytest.approx([row[1] for row in exact.log], rel=0.3)


def test_once_latents_depend_on_the_picture_and_not_on_its_neighbours(base):
    all_four = run_of(base)
    two = pictures(4)
    fewer = Pictures(two.post_ids[2:], two.captions[2:], Latents(two.latents.mean[2:], two.latents.deviation[2:]))
    other = Run.start("x", variant(), base, fewer, pictures(0))
    assert torch.equal(other.latents, all_four.latents[2:])
    mean = run_of(base, latents="deterministic").latents
    assert torch.allclose(mean, two.latents.mean * base.vae.config.scaling_factor)
    assert run_of(base, latents="random").latents is None
