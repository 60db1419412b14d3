"""The trainer: textual inversion of one or several variants against one frozen base, top to bottom.

Per micro-step every variant draws its own pictures, prompts, noise and timesteps; all samples of one shape go through
the frozen text encoder and UNet in one call (in one per process where several share the work); each variant's loss is
the mean over its own samples, and its own vectors are the only thing its optimizer holds. Since no term of one
variant's loss depends on another's vectors, a variant trained among others equals the same variant trained alone (up to
rounding by batch shape).
Here: the loop and what is measured in it. Not here: how a run starts (`variant_state`), what is random (`draws`),
files, resuming and reuse (`training_runs`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.conditioning import chunks_of, encode_tokens, prompt_tokens
from ti_pipeline.inversion.draws import generator, normal, pictures_of, prompt_of, spread_timesteps
from ti_pipeline.inversion.processes import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.processes import Processes
    from ti_pipeline.inversion.variant_state import Run

__all__ = [
    "QUARTERS",
    "TrainingError",
    "finite",
    "loss_weights",
    "mean_loss",
    "quarter_errors",
    "signal_levels",
    "train",
    "validation_loss",
]

QUARTERS = 4  # parts of the timesteps whose errors are told apart
GATHER_EVERY = 25  # updates between readings of the losses: each reading makes a GPU wait
SAVE_EVERY = 100  # updates between saved states, beside those at checkpoints
# Where updates take long, losses are read and states saved after so many seconds: people wait, and machines fail.
GATHER_AFTER = 5.0
SAVE_AFTER = 300.0
PERSISTS = 10  # updates in a row whose numbers are not finite: fewer are skipped, so many end the variant
VALIDATION_PICTURES, VALIDATION_TIMESTEPS, VALIDATION_BATCH = 64, 4, 8


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the variant, and for bad numbers step, pictures, timesteps."""


@dataclass(frozen=True)
class Batch:
    """One micro-step's samples of one run, all of one shape, on the CPU."""

    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    weights: torch.Tensor
    prompts: list[str]
    mask: torch.Tensor | None = None  # what counts of each position, [samples, 1, height, width]; None: all of it

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.noisy.shape[1:])

    def part(self, share: slice) -> Batch:
        """Return some of the samples."""
        return Batch(
            self.noisy[share],
            self.target[share],
            self.timesteps[share],
            self.weights[share],
            self.prompts[share],
            None if self.mask is None else self.mask[share],
        )


def train(
    base: Base,
    runs: Sequence[Run],
    *,
    save: Callable[[Run, bool], None],
    progress: Callable[[int, int, str], None] | None = None,
    processes: Processes = ALONE,
    gathered: Callable[[Run], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> None:
    """Train runs of one clip skip together until each has ended; `processes` share the samples of each batch.

    `save(run, checkpoint)` is called when a run's state should be kept, with true at checkpoints (each
    `checkpoint_every` updates and the last; after N updates the vectors have moved N times), and `gathered(run)` when
    its losses have been read. An update whose numbers are not finite is skipped; a run where that persists leaves with
    its `failure` set, and the others go on. When `stop` tells to, in any of the processes, the states of that very
    update are saved, and this returns.
    """
    levels = signal_levels(base)
    _tell(runs, [], progress)
    while active := [run for run in runs if not run.ended]:
        batches = [_draw(run, base, levels) for run in active]
        losses, errors = _losses_and_gradients(base, active, batches, processes)
        stopping = processes.add_up([*losses, *errors], flag=stop is not None and stop())
        now, read = time.monotonic(), False
        for run, loss, own in zip(active, losses, errors, strict=True):
            run.micro_losses.append(loss.detach())
            run.micro_errors.append(own.detach())
            run.micro += 1
            if run.micro == run.variant.gradient_accumulation:
                _update(run, processes)
                if _keep(run, base, save, processes, now):
                    read = True
                    if gathered is not None:
                        gathered(run)
        if read:
            _tell(runs, active, progress)
        if stopping:
            for run in active:
                _save_now(run, base, save)
            return


def _losses_and_gradients(
    base: Base, runs: Sequence[Run], batches: Sequence[Batch], processes: Processes
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return runs' losses and samples' errors of a micro-step, the gradients added to those of the vectors.

    Where the memory runs out, it is done again with gradient checkpointing (Chen et al. 2016), which computes the
    UNet's activations twice instead of keeping them: the same numbers to the bit, for less memory and more time.
    """
    import torch

    before = [None if run.vectors.grad is None else run.vectors.grad.clone() for run in runs]
    try:
        return _once(base, runs, batches, processes)
    except torch.OutOfMemoryError:
        if base.keeps_no_activations or any(run.variant.gradient_checkpointing == "off" for run in runs):
            raise
    # Only here: while the error is handled, its frames hold the memory.
    base.keep_no_activations()
    for run, gradient in zip(runs, before, strict=True):
        run.vectors.grad = gradient
    return _once(base, runs, batches, processes)


def _once(
    base: Base, runs: Sequence[Run], batches: Sequence[Batch], processes: Processes
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    import torch

    errors = _errors(base, runs, batches, processes=processes)
    losses = [(base.put(batch.weights) * own).mean() for batch, own in zip(batches, errors, strict=True)]
    shares = [loss / run.variant.gradient_accumulation for run, loss in zip(runs, losses, strict=True)]
    torch.autograd.backward([share * run.scale for run, share in zip(runs, shares, strict=True) if share.requires_grad])
    return losses, errors


def _save_now(run: Run, base: Base, save: Callable[[Run, bool], None]) -> None:
    """Have the state saved as it is; what a part of an update added to the gradient is computed again."""
    if run.waiting:
        _gather(run, base)
    if run.failure is None:
        save(run, False)


def signal_levels(base: Base) -> torch.Tensor:
    """Return the share of the signal's power left at each training timestep (alphas cumprod), float64 on the CPU."""
    import inspect

    import torch
    from diffusers import DDIMScheduler

    known = inspect.signature(DDIMScheduler.__init__).parameters
    scheduler = DDIMScheduler(**{key: value for key, value in base.scheduler_config.items() if key in known})
    return torch.as_tensor(scheduler.alphas_cumprod).double()


def _draw(run: Run, base: Base, levels: torch.Tensor) -> Batch:
    """Draw a run's pictures, prompts, noise and timesteps for its next micro-step."""
    import torch

    variant, at = run.variant, (run.done, run.micro)
    chosen = _chosen(run, *at)
    if run.latents is None:
        latents = run.train.latents.at(chosen)
        mean, deviation = torch.stack(list(latents.mean)), torch.stack(list(latents.deviation))
        spread = normal(generator(run.seed, "latent", *at), *mean.shape)
        clean = (mean + deviation * spread) * float(base.vae.config.scaling_factor)
    else:
        clean = torch.stack([run.latents[i] for i in chosen])
    timesteps = torch.from_numpy(_timesteps(run, *at, len(levels)))
    words = generator(run.seed, "prompt", *at)
    prompts = [
        prompt_of(
            variant.templates,
            run.name,
            run.train.captions[i],
            words,
            shuffle=variant.shuffle_tags,
            drop=variant.drop_tags,
            keep=variant.keep_tags,
            dropout=variant.caption_dropout,
        )
        for i in chosen
    ]
    noise = normal(generator(run.seed, "noise", *at), *clean.shape)
    if variant.noise_offset:  # Guttenberg 2023, "Diffusion with offset noise"
        noise = noise + variant.noise_offset * normal(generator(run.seed, "offset", *at), *clean.shape[:2], 1, 1)
    batch = _noised(clean, noise, timesteps, prompts, base, levels, gamma=variant.min_snr_gamma)
    return replace(batch, mask=_mask(run, chosen, batch))


def _mask(run: Run, chosen: list[int], batch: Batch) -> torch.Tensor | None:
    """Return the masks of pictures, or None when none of them has any."""
    import torch

    masks = run.train.latents.at(chosen).masks
    if all(mask is None for mask in masks):
        return None
    whole = torch.ones(1, *batch.shape[1:])
    return torch.stack([whole if mask is None else mask for mask in masks]).to(batch.weights.dtype)


def _chosen(run: Run, done: int, micro: int) -> list[int]:
    variant, span = run.variant, run.span(done)
    places = pictures_of(
        run.seed,
        done - span.start,
        micro,
        shapes=span.shapes,
        batch_size=variant.batch_size,
        accumulation=variant.gradient_accumulation,
        stage=span.stage,
    )
    return [span.pictures[place] for place in places]


def _timesteps(run: Run, done: int, micro: int, levels: int) -> Any:
    size = run.variant.batch_size
    if run.variant.timesteps == "spread":
        return spread_timesteps(run.seed, (done * run.variant.gradient_accumulation + micro) * size, size, levels)
    return generator(run.seed, "timestep", done, micro).integers(levels, size=size)


def _noised(
    clean: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    prompts: list[str],
    base: Base,
    levels: torch.Tensor,
    *,
    gamma: float | None = None,
) -> Batch:
    """Mix latents with noise, and say what the UNet should predict (epsilon: Ho et al. 2020; v: Salimans & Ho 2022)."""
    import torch

    exact = torch.promote_types(base.dtype, torch.float32)
    clean, noise = clean.to(exact), noise.to(exact)
    signal = levels[timesteps].sqrt().to(exact)[:, None, None, None]
    spread = (1 - levels[timesteps]).sqrt().to(exact)[:, None, None, None]
    target = noise if base.prediction_type == "epsilon" else signal * noise - spread * clean
    weights = loss_weights(levels[timesteps], base.prediction_type, gamma)
    return Batch(signal * clean + spread * noise, target, timesteps, weights.to(exact), prompts)


def loss_weights(levels: torch.Tensor, prediction_type: str, gamma: float | None) -> torch.Tensor:
    """Return what samples' squared errors weigh, [n] as `levels`: 1, or min-SNR-γ (Hang et al. 2023, section 3.4).

    `levels` are the samples' shares of signal power (alphas cumprod) and levels / (1 - levels) their SNR. A target of
    noise weighs min(SNR, γ) / SNR, one of velocity min(SNR, γ) / (SNR + 1): the same on the clean picture.
    """
    import torch

    if gamma is None:
        return torch.ones_like(levels)
    ratio = levels / (1 - levels)
    return ratio.clamp(max=gamma) / (ratio if prediction_type == "epsilon" else ratio + 1)


def _errors(
    base: Base,
    runs: Sequence[Run],
    batches: Sequence[Batch],
    vectors: dict[str, torch.Tensor] | None = None,
    processes: Processes = ALONE,
) -> list[torch.Tensor]:
    """Return each run's samples' mean squared errors, [its batch] each; 0 for those that other processes compute.

    All samples of one shape go through the networks in one call. `vectors` by the runs' keys are used instead of those
    in training.
    """
    import torch

    vectors = vectors or {run.key: run.vectors for run in runs}
    shares = processes.shares([len(batch.prompts) for batch in batches])
    own = [batch.part(share) for batch, share in zip(batches, shares, strict=True)]
    errors = [torch.zeros_like(batch.weights, device=base.device) for batch in batches]
    for shape in dict.fromkeys(batch.shape for batch in own if batch.prompts):
        at = [place for place, batch in enumerate(own) if batch.prompts and batch.shape == shape]
        found = _errors_of_one_shape(base, [runs[i] for i in at], [own[i] for i in at], vectors)
        for place, part in zip(at, found, strict=True):
            errors[place][shares[place]] = part
    return errors


def _errors_of_one_shape(
    base: Base, runs: Sequence[Run], batches: Sequence[Batch], vectors: dict[str, torch.Tensor]
) -> list[torch.Tensor]:
    import torch

    # Names are found per run: one run's prompt may not show another's vectors, though both may have the same name.
    rows = []
    for run, batch in zip(runs, batches, strict=True):
        own = [prompt_tokens(base.tokenizer, prompt, {run.name: len(run.vectors)}) for prompt in batch.prompts]
        keyed = [[t if isinstance(t, int) else (run.key, t[1]) for t in row] for row in own]
        rows += [chunks_of(row, long_prompts=run.variant.long_prompts) for row in keyed]
    shown = {run.key: vectors[run.key] for run in runs}
    states = encode_tokens(base, rows, shown, clip_skip=runs[0].variant.clip_skip)
    noisy = base.put(torch.cat([batch.noisy for batch in batches]).to(base.dtype))
    timesteps = base.put(torch.cat([batch.timesteps for batch in batches]))
    target = base.put(torch.cat([batch.target for batch in batches]))
    predicted = base.unet(noisy, timesteps, **states.options()).sample
    squares = (predicted.to(target.dtype) - target).square()
    parts = torch.split(squares, [len(batch.prompts) for batch in batches])
    return [_mean(base, part, batch.mask) for part, batch in zip(parts, batches, strict=True)]


def _mean(base: Base, squares: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return each sample's mean over channels and positions, the latter as far as the mask lets them count."""
    if mask is None:
        return squares.mean(dim=(1, 2, 3))
    share = base.put(mask)
    # A wholly transparent picture has nothing to teach: 0, not 0 / 0.
    return (share * squares).mean(dim=(1, 2, 3)) / share.mean(dim=(1, 2, 3)).clamp(min=1e-12)


def _update(run: Run, processes: Processes) -> None:
    """Do one optimizer update: true gradients of all processes, clipped, with the schedule's rate.

    Where its numbers are not finite, everything is put back as it was, and the update counts as done.
    """
    import torch

    if run.vectors.grad is None:  # every sample was another process's
        run.vectors.grad = torch.zeros_like(run.vectors)
    processes.add_up([run.vectors.grad])
    run.vectors.grad /= run.scale
    norm = torch.nn.utils.clip_grad_norm_([run.vectors], run.variant.gradient_clip or float("inf"))
    for group in run.optimizer.param_groups:
        group["lr"] = run.rate.at(run.done)
    loss, before = torch.stack(run.micro_losses).mean(), run.snapshot()
    if run.host_steps and not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        run.done += 1
    else:
        run.optimizer.step()
        run.done += 1
        run.after_update()
    run.optimizer.zero_grad(set_to_none=True)
    length = run.vectors.detach().norm(dim=1).mean()
    numbers = torch.stack([loss, norm.detach().to(loss), length.to(loss)])
    run.put_back(before, unless=torch.isfinite(numbers).all())
    run.waiting.append(torch.cat([numbers, *run.micro_errors]))
    run.micro, run.micro_losses, run.micro_errors = 0, [], []


def _keep(run: Run, base: Base, save: Callable[[Run, bool], None], processes: Processes, now: float) -> bool:
    """Read the losses now and then, and tell whether that was now.

    At checkpoints measure, and have the state saved, unless the run has failed. `now` is the same for all runs, so
    that they are read together. Only updates count where processes train together: their clocks differ.
    """
    alone = processes.count == 1
    checkpoint = run.done % run.variant.checkpoint_every == 0 or run.done == run.steps
    due = checkpoint or run.done % SAVE_EVERY == 0 or (alone and now - run.kept_at >= SAVE_AFTER)
    if not due and run.done % GATHER_EVERY and not (alone and now - run.read_at >= GATHER_AFTER):
        return False
    _gather(run, base)
    run.read_at = now
    if run.failure is None and due:
        if checkpoint:
            run.checkpoints.append(_measured(run, base, processes))
        save(run, checkpoint)
        run.kept_at = now
    return True


def _gather(run: Run, base: Base) -> None:
    """Read the waiting numbers in one transfer; where they have long not been finite, that is the run's failure."""
    import torch

    run.log += torch.stack(run.waiting).cpu().tolist()
    run.waiting = []
    in_a_row = next((n for n, row in enumerate(reversed(run.log)) if finite(row)), len(run.log))
    if in_a_row < min(PERSISTS, run.steps):
        return
    bad = run.done - in_a_row
    levels = len(signal_levels(base))
    micros = range(run.variant.gradient_accumulation)
    posts = [run.train.post_ids[i] for m in micros for i in _chosen(run, bad, m)]
    times = [int(t) for m in micros for t in _timesteps(run, bad, m, levels)]
    good = [row["step"] for row in run.checkpoints if row["step"] <= bad]
    kept = f"the last good checkpoint is {good[-1]}" if good else "no checkpoint was kept"
    loss, gradient, length = run.log[bad][:3]
    run.failure = (
        f"{run.key}: at update {bad + 1} the loss is {loss:.4g}, the gradient's norm {gradient:.4g} and the vectors' "
        f"norm {length:.4g} (posts {posts}, timesteps {times}); so it is in {in_a_row} updates in a row, which were "
        f"skipped; {kept}. Try a lower learning_rate, gradient_clip, or precision fp32"
    )


def finite(row: Sequence[float]) -> bool:
    """Tell whether all numbers of a row of a run's log are finite: the update was not skipped."""
    return all(map(math.isfinite, row))


def _measured(run: Run, base: Base, processes: Processes) -> dict[str, Any]:
    """Return a checkpoint's numbers; see the table `embedding`."""
    since = run.checkpoints[-1]["step"] if run.checkpoints else 0
    vectors = run.result
    return {
        "step": run.done,
        "epoch": run.epoch(run.done - 1)[0],
        "mean_loss": mean_loss(run, since, run.done),
        "validation_loss": validation_loss(base, run, processes),
        "moved": float((vectors - run.initial).norm(dim=1).mean()),
        "mean_norm": float(vectors.norm(dim=1).mean()),
        **_nearest(base, vectors),
    }


def mean_loss(run: Run, since: int, until: int) -> float | None:
    """Return the mean loss of the updates between two numbers of updates, without those that were skipped."""
    losses = [row[0] for row in run.log[since:until] if finite(row)]
    return sum(losses) / len(losses) if losses else None


def _nearest(base: Base, vectors: torch.Tensor) -> dict[str, Any]:
    """Return the vocabulary's tokens that vectors point to most nearly, and the mean cosine of the two."""
    import torch

    table = base.text_encoder.get_input_embeddings().weight.detach().to(vectors.dtype)
    cosines = torch.nn.functional.normalize(vectors, dim=1) @ torch.nn.functional.normalize(table, dim=1).T
    best, ids = cosines.max(dim=1)
    words = [base.tokenizer.decode([token]).strip() for token in ids.tolist()]
    return {"nearest_tokens": " ".join(words), "nearest_cosine": float(best.mean())}


def quarter_errors(run: Run, levels: int) -> list[list[float | None]]:
    """Return each update's mean squared error in each quarter of the timesteps, None where it drew none there.

    `levels` is the number of training timesteps. Unlike the loss, these are not weighted.
    """
    rows: list[list[float | None]] = []
    for done, logged in enumerate(run.log):
        micros = range(run.variant.gradient_accumulation)
        times = [int(t) for m in micros for t in _timesteps(run, done, m, levels)]
        found: list[list[float]] = [[] for _ in range(QUARTERS)]
        for timestep, error in zip(times, logged[3:], strict=True):
            found[timestep * QUARTERS // levels].append(error)
        rows.append([sum(part) / len(part) if part else None for part in found])
    return rows


def validation_loss(base: Base, run: Run, processes: Processes = ALONE) -> float | None:
    """Return the mean loss on held-out pictures, or None when there are none.

    Timesteps are the middles of four equal parts, noise is seeded by the picture's id, latents are means and the
    prompt is the first template with the whole caption, nothing is masked: the same for every variant, so that values
    compare.
    """
    import torch

    count = min(len(run.validation.post_ids), VALIDATION_PICTURES)
    levels = signal_levels(base)
    middles = [len(levels) * (2 * part + 1) // (2 * VALIDATION_TIMESTEPS) for part in range(VALIDATION_TIMESTEPS)]
    samples = [(picture, part) for picture in range(count) for part in range(VALIDATION_TIMESTEPS)]
    exact = torch.float32 if base.device.type == "mps" else torch.float64  # Macs' GPUs have no float64
    sums = torch.zeros((), dtype=exact, device=base.device)
    for chosen in _calls(run, samples):
        latents = torch.stack([run.validation.latents.mean[picture] for picture, _ in chosen])
        clean = latents * float(base.vae.config.scaling_factor)
        ids = [run.validation.post_ids[picture] for picture, _ in chosen]
        noise = torch.stack(
            [
                normal(generator(0, "validation", post_id, part), *clean.shape[1:])
                for post_id, (_, part) in zip(ids, chosen, strict=True)
            ]
        )
        prompts = [_plain_prompt(run, run.validation.captions[picture]) for picture, _ in chosen]
        timesteps = torch.tensor([middles[part] for _, part in chosen])
        with torch.no_grad():
            batch = _noised(clean, noise, timesteps, prompts, base, levels)
            (errors,) = _errors(base, [run], [batch], {run.key: run.result}, processes)
        sums += errors.sum()
    processes.add_up([sums])
    return float(sums) / len(samples) if samples else None


def _calls(run: Run, samples: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield the samples of a validation in batches of one shape."""
    shapes = [tuple(mean.shape) for mean in run.validation.latents.mean]
    for shape in dict.fromkeys(shapes):
        own = [sample for sample in samples if shapes[sample[0]] == shape]
        yield from (own[start : start + VALIDATION_BATCH] for start in range(0, len(own), VALIDATION_BATCH))


def _plain_prompt(run: Run, caption: str) -> str:
    first = run.variant.templates[:1]
    return prompt_of(first, run.name, caption, generator(0, "prompt"), shuffle=False, drop=0.0)


def _tell(runs: Sequence[Run], active: Sequence[Run], progress: Callable[[int, int, str], None] | None) -> None:
    """Tell how many updates are done, of how many, and active runs' mean losses over their latest ones."""
    if progress is None:
        return
    told = []
    for run in active:
        latest = [row[0] for row in run.log[-GATHER_EVERY:] if finite(row)]
        skipped = sum(not finite(row) for row in run.log)
        if latest:
            told.append(f"{run.key} {sum(latest) / len(latest):.4f}" + f" ({skipped} updates skipped)" * bool(skipped))
    planned = sum(run.done if run.ended else run.steps for run in runs)
    progress(sum(run.done for run in runs), planned, "training" + (", loss " if told else "") + ", ".join(told))
