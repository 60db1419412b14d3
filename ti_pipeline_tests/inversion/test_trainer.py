"""The trainer: against a plain reference, alone against together, and when numbers break."""

import copy
import dataclasses
import hashlib
import math

import pytest
import torch

from ti_pipeline.inversion import trainer
from ti_pipeline.inversion.base_models import BaseModelError, load_base
from ti_pipeline.inversion.draws import generator, normal, pictures_of
from ti_pipeline.inversion.latents import Latents
from ti_pipeline.inversion.processes import ALONE, Processes
from ti_pipeline.inversion.trainer import loss_weights, quarter_errors, signal_levels, train, validation_loss
from ti_pipeline.inversion.variant_state import Pictures, Run, StartError, initial_vectors, update_count
from ti_pipeline.studies import BaseModelSource, Variant

pytestmark = pytest.mark.slow

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
        chosen = pictures_of(v.seed, done, 0, shapes=(0,) * 4, batch_size=v.batch_size, accumulation=1)
        clean = torch.stack([run.latents[i] for i in chosen])
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
        "e": {"vectors": 70, "steps": 20, "templates": ["photo of [name], [filewords]"], "long_prompts": "chunks"},
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


SHAPES = [(4, 8, 8), (4, 8, 16), (4, 8, 8), (4, 16, 8), (4, 8, 8), (4, 8, 16), (4, 8, 8)]


def mixture(seed: int = 0) -> Pictures:
    """Pictures of aspect buckets, some of them partly transparent."""
    means = [noise(*shape, seed=seed + i) for i, shape in enumerate(SHAPES)]
    deviations = [noise(*shape, seed=seed + 50 + i).abs() / 10 for i, shape in enumerate(SHAPES)]
    masks = [noise(1, *s[1:], seed=i).abs().clamp(max=1) if i % 2 else None for i, s in enumerate(SHAPES)]
    ids = list(range(300, 300 + len(SHAPES)))
    return Pictures(ids, [CAPTIONS[i % 4] for i in range(len(SHAPES))], Latents(means, deviations, masks))


def test_together_equals_alone_after_200_steps_with_other_sizes_masks_and_draws(base64):
    settings = {
        "a": {"vectors": 1},
        "b": {"vectors": 8, "seed": 9, "learning_rate": "0.01:70, 0.001", "batch_size": 2},
        "c": {"vectors": 4, "seed": 2, "latents": "random", "shuffle_tags": True, "drop_tags": 0.3},
    }

    def start(key: str) -> Run:
        return Run.start(key, variant(steps=200, **settings[key]), base64, mixture(), pictures(0))

    together = {key: start(key) for key in settings}
    shapes, plain = set(), base64.unet.forward

    def seen(noisy, *rest, **options):
        shapes.add((len(noisy), tuple(noisy.shape[1:])))
        return plain(noisy, *rest, **options)

    base64.unet.forward = seen
    try:
        train_all(base64, *together.values())
    finally:
        base64.unet.forward = plain
    assert {shape for _, shape in shapes} == set(SHAPES)
    assert max(count for count, _ in shapes) == 4, "variants that draw one shape share a call"
    for key in settings:
        alone = start(key)
        train_all(base64, alone)
        assert float((alone.vectors - together[key].vectors).detach().abs().max()) <= 1e-9
        assert float((alone.vectors - alone.initial).detach().norm()) > 1e-3


def test_a_masked_loss_is_the_weighted_mean_of_a_plain_formula(base):
    run = Run.start("a", variant(batch_size=3, steps=8), base, mixture(), pictures(0))
    levels, masked = signal_levels(base), 0
    for done in range(8):
        run.done = done
        batch = trainer._draw(run, base, levels)
        (errors,) = trainer._errors(base, [run], [batch])
        chosen = trainer._chosen(run, done, 0)
        predicted = base.unet(batch.noisy, batch.timesteps, prompts_states(base, batch.prompts, run.vectors)).sample
        squares = (predicted.detach() - batch.target).double().square().numpy()
        for error, square, picture in zip(errors.tolist(), squares, chosen, strict=True):
            mask = run.train.latents.masks[picture]
            weights = 1.0 if mask is None else mask.double().numpy()
            masked += mask is not None
            total = sum(float((channel * weights).sum()) for channel in square)
            counted = square.size if mask is None else len(square) * float(weights.sum())
            assert error == pytest.approx(total / counted, rel=1e-5)
    assert 4 < masked < 24


def test_what_is_wholly_transparent_teaches_nothing_and_what_is_opaque_is_as_without_a_mask(base):
    def trained(mask: torch.Tensor | None) -> Run:
        own = pictures(4)
        masks = () if mask is None else [mask] * 4
        own = dataclasses.replace(own, latents=dataclasses.replace(own.latents, masks=masks))
        run = Run.start("a", variant(masked_loss=mask is not None), base, own, pictures(0))
        train_all(base, run)
        return run

    plain = trained(None)
    assert torch.equal(trained(torch.ones(1, 8, 8)).vectors, plain.vectors)
    nothing = trained(torch.zeros(1, 8, 8))
    assert torch.equal(nothing.vectors, nothing.initial)
    assert [row[0] for row in nothing.log] == [0] * 5
    assert nothing.failure is None


def prompts_states(base, prompts: list[str], vectors: torch.Tensor) -> torch.Tensor:
    from ti_pipeline.inversion.conditioning import encode_prompts

    with torch.no_grad():
        return encode_prompts(base, prompts, {"zzember": vectors}).states


def test_accumulation_is_the_mean_gradient_of_its_micro_steps(base64, monkeypatch):
    run = run_of(base64, gradient_accumulation=2, steps=1)
    gradients = []
    plain = trainer._update

    def spy(at: Run, *rest) -> None:
        gradients.append(at.vectors.grad.clone())
        plain(at, *rest)

    monkeypatch.setattr(trainer, "_update", spy)
    train_all(base64, run)
    levels, expected = signal_levels(base64), torch.zeros_like(run.initial)
    for micro in range(2):
        fresh = run_of(base64, gradient_accumulation=2)
        fresh.micro = micro
        (errors,) = trainer._errors(base64, [fresh], [trainer._draw(fresh, base64, levels)])
        expected += torch.autograd.grad(errors.mean(), fresh.vectors)[0] / 2
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
    plain = trainer._errors

    def distilled(b, runs, batches, **_):
        with torch.no_grad():
            row = [("t", i) for i in range(3)]
            states = trainer.encode_tokens(b, [[row]] * len(batches[0].prompts), {"t": aim}).states
            target = b.unet(batches[0].noisy, batches[0].timesteps, encoder_hidden_states=states).sample
        batch = dataclasses.replace(batches[0], target=target, prompts=[runs[0].name] * len(batches[0].prompts))
        return plain(b, runs, [batch])

    monkeypatch.setattr(trainer, "_errors", distilled)
    train_all(base, run)
    losses = [row[0] for row in run.log]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_steps_or_epochs_whichever_ends_first(base):
    assert update_count(variant(steps=10, epochs=2), (0,) * 4) == 8
    assert update_count(variant(steps=10, epochs=9), (0,) * 4) == 10
    assert update_count(variant(steps=None, epochs=3), (0,) * 5) == 15
    assert update_count(variant(steps=None, epochs=3, batch_size=2, gradient_accumulation=2), (0,) * 5) == 3
    assert update_count(variant(steps=None, epochs=3, batch_size=16), (0,) * 5) == 3


def test_initial_vectors_are_spread_over_the_text(base):
    table = base.text_encoder.get_input_embeddings().weight
    cat, dog = base.tokenizer("cat dog", add_special_tokens=False).input_ids

    def start(text: str, vectors: int) -> torch.Tensor:
        return initial_vectors(base, variant(initializer=text, vectors=vectors))

    assert torch.equal(start("cat dog", 5), table[[cat, cat, cat, dog, dog]])
    assert torch.equal(start("cat dog", 1), table[[cat]])
    assert torch.equal(start("", 2), torch.zeros(2, 32))


def test_initial_vectors_of_the_vocabulary_have_its_mean_and_deviation(base):
    table = base.text_encoder.get_input_embeddings().weight.detach()
    drawn = torch.cat([initial_vectors(base, variant(start="vocabulary", vectors=75, seed=s)) for s in range(60)])
    assert torch.allclose(drawn.mean(0), table.mean(0), atol=5 * float(table.std(0).max()) / 4500**0.5)
    assert torch.allclose(drawn.std(0), table.std(0), rtol=0.1)
    assert len({tuple(row.tolist()) for row in drawn}) == len(drawn)
    one = variant(start="vocabulary", vectors=4, seed=3)
    assert torch.equal(initial_vectors(base, one), initial_vectors(base, one))


def test_initial_vectors_of_somebody_elses_file(base, tmp_path):
    from safetensors.torch import save_file

    theirs = noise(2, 32)
    save_file({"emb_params": theirs}, tmp_path / "theirs.safetensors")
    torch.save({"*": theirs[0]}, tmp_path / "one.bin")
    save_file({"emb_params": noise(2, 16)}, tmp_path / "wide.safetensors")

    def start(file: str, vectors: int) -> torch.Tensor:
        settings = variant(start="file", initializer_file=file, vectors=vectors)
        return initial_vectors(base, settings, folder=tmp_path)

    assert torch.equal(start("theirs.safetensors", 2), theirs)
    assert torch.equal(start(str(tmp_path / "theirs.safetensors"), 5), theirs[[0, 0, 0, 1, 1]])
    assert torch.equal(start("one.bin", 1), theirs[:1])
    with pytest.raises(StartError, match="has 2 vectors and the variant 1: set vectors to 2 or more"):
        start("theirs.safetensors", 1)
    with pytest.raises(BaseModelError, match="width 16"):
        start("wide.safetensors", 2)
    with pytest.raises(StartError, match=r"none\.pt is not there"):
        start("none.pt", 2)


@pytest.mark.parametrize("optimizer", ["lion", "prodigy"])
def test_other_optimizers_are_their_libraries_own(base, optimizer):
    import lion_pytorch
    import prodigyopt

    kinds = {"lion": lion_pytorch.Lion, "prodigy": prodigyopt.Prodigy}
    run = run_of(base, optimizer=optimizer, learning_rate=1.0 if optimizer == "prodigy" else 0.001, steps=6)
    halves = [run_of(base, optimizer=optimizer, learning_rate=run.variant.learning_rate, steps=n) for n in (3, 6)]
    assert type(run.optimizer) is kinds[optimizer]
    train_all(base, run)
    assert float((run.vectors - run.initial).detach().norm()) > 0
    train_all(base, halves[0])
    halves[1].restore(copy.deepcopy(halves[0].state()))
    train_all(base, halves[1])
    assert torch.equal(halves[1].vectors, run.vectors), "going on from a state changed the result"


def test_offset_noise_shifts_whole_channels_by_its_deviation(base):
    plain, offset = (run_of(base, batch_size=4, steps=200, noise_offset=share) for share in (0.0, 0.5))
    levels = signal_levels(base)
    shifts = []
    for done in range(200):
        plain.done = offset.done = done
        shift = trainer._draw(offset, base, levels).target - trainer._draw(plain, base, levels).target
        assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-5)
        shifts.append(shift[:, :, 0, 0])
    assert float(torch.cat(shifts).std()) == pytest.approx(0.5, rel=0.05)


def test_checkpoints_hold_the_moving_average_of_diffusers(base):
    from diffusers.training_utils import EMAModel

    run = run_of(base, ema_decay=0.7, steps=12, checkpoint_every=4, held_out=1)
    follower = EMAModel([run.initial.clone()], decay=0.7)
    for stop in range(1, 13):
        run.steps = stop
        train(base, [run], save=lambda *_: None)
        follower.step([run.vectors])
        assert torch.allclose(run.result, follower.shadow_params[0], atol=1e-6)
    assert not torch.allclose(run.result, run.vectors, atol=1e-4)
    averaged = run_of(base, held_out=1)
    averaged.vectors = run.result
    assert run.checkpoints[-1]["validation_loss"] == pytest.approx(validation_loss(base, averaged), rel=1e-6)
    assert run.checkpoints[-1]["mean_norm"] == pytest.approx(float(run.result.norm(dim=1).mean()), rel=1e-6)


def test_vectors_grow_no_longer_than_their_limit(base):
    typical = float(base.text_encoder.get_input_embeddings().weight.norm(dim=1).mean())
    free, held = (run_of(base, str(limit), learning_rate=0.5, steps=8, max_norm=limit) for limit in (None, 1.5))
    train_all(base, free, held)
    assert float(free.vectors.detach().norm(dim=1).max()) > 2 * typical
    assert float(held.vectors.detach().norm(dim=1).max()) <= 1.5 * typical * (1 + 1e-6)
    shorter = run_of(base, learning_rate=1e-6, steps=1, max_norm=1e3)
    before = shorter.vectors.detach().clone()
    train_all(base, shorter)
    assert torch.allclose(shorter.vectors, before, atol=1e-5), "short vectors are left alone"


def test_patience_ends_training_and_the_others_go_on(base, monkeypatch):
    told = iter([3.0, 2.0, 2.5, 2.0, 1.0, 1.0])
    monkeypatch.setattr(trainer, "validation_loss", lambda _, run, *__: next(told) if run.key == "a" else None)
    stopped, other = run_of(base, "a", steps=9, checkpoint_every=1, patience=2), run_of(base, "b", steps=9)
    train_all(base, stopped, other)
    assert [c["validation_loss"] for c in stopped.checkpoints] == [3.0, 2.0, 2.5, 2.0]
    assert (stopped.done, other.done) == (4, 9)
    again = run_of(base, "a", steps=9, checkpoint_every=1, patience=2)
    again.restore(copy.deepcopy(stopped.state()))
    assert again.ended


@pytest.mark.parametrize("optimizer", ["adamw", "lion", "prodigy"])
def test_an_update_whose_numbers_are_not_finite_is_as_if_it_had_not_been(base, monkeypatch, optimizer):
    settings = {"steps": 12, "checkpoint_every": 12, "ema_decay": 0.9, "optimizer": optimizer, "learning_rate": 1.0}
    bad, skipping = run_of(base, "a", **settings), run_of(base, "a", **settings)
    order = [pictures_of(4, done, 0, shapes=(0,) * 4, batch_size=1, accumulation=1)[0] for done in range(12)]
    bad.latents[order[0]][:] = torch.nan  # in the very first update, and in each later pass
    train_all(base, bad)
    assert bad.failure is None
    skipped = [done for done, row in enumerate(bad.log) if not all(map(math.isfinite, row))]
    assert skipped == [done for done in range(12) if order[done] == order[0]]
    assert bad.checkpoints[0]["mean_loss"] == pytest.approx(
        sum(row[0] for done, row in enumerate(bad.log) if done not in skipped) / (12 - len(skipped))
    )
    plain = trainer._update

    def skip(run, processes):
        if run.done not in skipped:
            plain(run, processes)
            return
        run.vectors.grad, run.micro_losses, run.micro_errors = None, [], []
        run.waiting.append(torch.zeros(4))
        run.micro, run.done = 0, run.done + 1

    monkeypatch.setattr(trainer, "_update", skip)
    train_all(base, skipping)
    assert torch.equal(bad.vectors, skipping.vectors)
    assert torch.equal(bad.average, skipping.average)


def test_the_scale_of_fp16_is_halved_by_a_bad_update_and_never_below_one(bases_folder):
    half = load_base("b", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu", precision="fp16")
    run = run_of(half, "a", steps=6)
    assert float(run.scale) == 1024
    order = [pictures_of(4, done, 0, shapes=(0,) * 4, batch_size=1, accumulation=1)[0] for done in range(6)]
    run.latents[order[2]][:] = torch.inf
    train_all(half, run)
    assert float(run.scale) == 1024 / 2 ** order.count(order[2])
    run.put_back([], unless=torch.tensor(False))
    run.scale.fill_(1.0)
    run.put_back([], unless=torch.tensor(False))
    assert float(run.scale) == 1


def test_running_out_of_memory_once_changes_no_bit(base, bases_folder, monkeypatch):
    """The allocator's refusal is thrown where it happens: inside the UNet, in the middle of a batch."""
    from torch.nn import Conv2d

    settings = {"steps": 4, "gradient_accumulation": 2, "batch_size": 2}
    calm = run_of(base, **settings)
    train_all(base, calm)
    own = load_base("t", BaseModelSource(folder="tiny"), folder=bases_folder, device="cpu")
    calls, plain = [], Conv2d.forward

    def refusing(self, *args):
        calls.append(1)
        if len(calls) == 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, *args)

    monkeypatch.setattr(Conv2d, "forward", refusing)
    tight = run_of(own, **settings)
    train_all(own, tight)
    assert len(calls) > 100
    assert own.keeps_no_activations
    assert torch.equal(tight.vectors, calm.vectors)
    assert tight.log == calm.log
    calls.clear()
    with pytest.raises(torch.OutOfMemoryError):
        train_all(own, run_of(own, **settings))


def test_numbers_that_break_name_step_pictures_and_timesteps_and_others_go_on(base, monkeypatch):
    bad, good = run_of(base, "bad", steps=9, checkpoint_every=3), run_of(base, "good", steps=9, seed=8)
    alone = run_of(base, "good", steps=9, seed=8)
    order = [pictures_of(4, done, 0, shapes=(0,) * 4, batch_size=1, accumulation=1)[0] for done in range(9)]
    bad.latents[order[3]][:] = torch.nan  # the last picture of the first pass
    first = 3
    monkeypatch.setattr(trainer, "PERSISTS", 1)
    monkeypatch.setattr(trainer, "GATHER_EVERY", 1)
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
            states = prompts_states(base, [prompt], run.initial)
            with torch.no_grad():
                predicted = base.unet(noisy, torch.tensor([time]), states).sample
            sums.append(float(torch.nn.functional.mse_loss(predicted, drawn)))
    assert found == pytest.approx(sum(sums) / 12, rel=1e-4)


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
    assert torch.equal(torch.stack(other.latents), torch.stack(all_four.latents[2:]))
    mean = run_of(base, latents="deterministic").latents
    assert torch.allclose(torch.stack(mean), two.latents.mean * base.vae.config.scaling_factor)
    assert run_of(base, latents="random").latents is None


def test_errors_are_told_apart_by_quarters_of_the_timesteps(base):
    settings = {"steps": 12, "batch_size": 3, "gradient_accumulation": 2, "min_snr_gamma": 1.0}
    run = run_of(base, **settings)
    train_all(base, run)
    quarters = quarter_errors(run, 1000)
    assert len(quarters) == 12
    seen = 0
    for done, row in enumerate(quarters):
        drawn = [generator(4, "timestep", done, micro).integers(1000, size=3) for micro in range(2)]
        times = [int(t) for part in drawn for t in part]
        errors = run.log[done][3:]
        for part in range(4):
            own = [e for e, t in zip(errors, times, strict=True) if 250 * part <= t < 250 * (part + 1)]
            assert row[part] == (pytest.approx(sum(own) / len(own)) if own else None)
            seen += bool(own)
        weights = loss_weights(signal_levels(base)[times], "epsilon", 1.0)
        weighted = sum(float(w) * e for w, e in zip(weights, errors, strict=True)) / len(errors)
        assert run.log[done][0] == pytest.approx(weighted, rel=1e-5)
    assert 24 < seen < 48


def test_nearest_tokens_are_those_of_the_largest_cosine(base):
    run = run_of(base, initializer="wolf cat", vectors=2, steps=1, learning_rate=1e-6)
    train_all(base, run)
    (row,) = run.checkpoints
    assert row["nearest_tokens"] == "wolf cat"
    assert row["nearest_cosine"] == pytest.approx(1, abs=1e-5)
    table = base.text_encoder.get_input_embeddings().weight.detach().double()
    other = run_of(base, start="vocabulary", vectors=2)
    train_all(base, other)
    cosines = [[float(torch.cosine_similarity(v.double(), w, dim=0)) for w in table] for v in other.vectors.detach()]
    assert other.checkpoints[-1]["nearest_cosine"] == pytest.approx(sum(map(max, cosines)) / 2, rel=1e-5)


def staged(base, **values) -> Run:
    both = pictures(6)
    shown = Pictures(both.post_ids, both.captions, both.latents, stages=[0, 0, 0, 0, 1, 1])
    parts = [{"crop": "plain", "steps": 6, "learning_rate": "0.01:2, 0.004"}, {"crop": "busy", "steps": 5}]
    settings = variant(steps=None, stages=parts, learning_rate=0.001, **values)
    return Run.start("a", settings, base, shown, pictures(0))


def test_stages_follow_one_another_with_their_own_pictures_and_rates(base):
    run = staged(base)
    assert run.steps == 11
    shown = [trainer._chosen(run, done, 0)[0] for done in range(11)]
    assert sorted(shown[:4]) == [0, 1, 2, 3]
    assert set(shown[:6]) <= {0, 1, 2, 3}
    assert sorted(shown[6:8]) == sorted(shown[8:10]) == [4, 5]
    assert [run.rate.at(done) for done in range(11)] == [0.01] * 2 + [0.004] * 4 + [0.001] * 5
    assert [run.epoch(done) for done in (0, 3, 4, 5, 6, 7, 8, 10)] == [
        (1, 1), (1, 4), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (5, 1)
    ]  # fmt: skip
    train_all(base, run)
    first = Run.start("a", variant(steps=6, learning_rate="0.01:2, 0.004"), base, pictures(4), pictures(0))
    first.latents = run.latents[:4]
    train_all(base, first)
    assert [row[0] for row in first.log] == pytest.approx([row[0] for row in run.log[:6]], rel=1e-6)


def test_progress_tells_of_accumulated_updates(base):
    seen = []
    run = run_of(base, gradient_accumulation=3, steps=4)
    train(base, [run], save=lambda *_: None, progress=lambda *step: seen.append(step))
    assert seen == [(0, 4, "training"), (4, 4, f"training, loss a {sum(row[0] for row in run.log) / 4:.4f}")]


class Two(Processes):
    """Half of two processes, whose other half never adds anything."""

    def add_up(self, tensors, *, flag=False) -> bool:
        """Do not wait for anyone."""
        return flag


@pytest.mark.parametrize(
    ("after", "processes", "told", "saved"),
    [
        (float("inf"), ALONE, [0, 5], [(5, True)]),
        (0.0, ALONE, [0, 1, 2, 3, 4, 5], [(1, False), (2, False), (3, False), (4, False), (5, True)]),
        (0.0, Two(index=0, count=2), [0, 5], [(5, True)]),  # clocks differ: only updates may decide
    ],
    ids=["fast", "slow", "together"],
)
def test_slow_updates_are_told_and_saved_one_by_one(base, monkeypatch, after, processes, told, saved):
    monkeypatch.setattr(trainer, "GATHER_AFTER", after)
    monkeypatch.setattr(trainer, "SAVE_AFTER", after)
    run, seen, kept = run_of(base, steps=5), [], []
    train(
        base,
        [run],
        save=lambda run, checkpoint: kept.append((run.done, checkpoint)),
        progress=lambda done, *_: seen.append(done),
        processes=processes,
    )
    assert seen == told
    assert kept == saved
    if processes is ALONE:
        alone = run_of(base, steps=5)
        train_all(base, alone)
        assert torch.equal(run.vectors, alone.vectors)
