"""What applies: the settings that a training really uses, from the study to the optimizer, said once and in words.

For the run's log and its metadata. Not here: what a setting means (`study_training`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.inversion.conditioning import CONTEXT_TOKENS, prompt_length
from ti_pipeline.inversion.draws import generator, prompt_of
from ti_pipeline.inversion.processes import ALONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.processes import Processes
    from ti_pipeline.inversion.variant_state import Run

__all__ = ["applied_settings", "as_table"]


def applied_settings(run: Run, base: Base, processes: Processes = ALONE) -> dict[str, str]:
    """Return what applies by name, both in words; the same for the same run, base and number of processes."""
    variant = run.variant
    pictures, held_out = len(set(run.train.post_ids)), len(run.validation.post_ids)
    samples = variant.batch_size * variant.gradient_accumulation
    accumulated = f" × {variant.gradient_accumulation} accumulated" if samples > variant.batch_size else ""
    return {
        "base": f"{base.name} {base.identity[:10]}, predicts {base.prediction_type}, clip skip {variant.clip_skip}",
        "precision": _precision(base, variant.gradient_checkpointing),
        "device": base.device.type + (f", {processes.count} processes" if processes.count > 1 else ""),
        "vectors": f"{variant.vectors} of width {base.width}, from {variant.start}",
        "learning rate": _rate(run),
        "optimizer": _optimizer(run),
        "batch": f"{variant.batch_size}{accumulated}",
        "pictures": f"{pictures} to train on, {held_out} held out, {_shapes(run)}",
        "updates": f"{run.steps}, {run.epoch(run.steps - 1)[0]} passes begun, {run.steps * samples} pictures shown",
        "captions": _captions(run, base),
        "not used": _unused(run) or "nothing",
    }


def as_table(settings: Mapping[str, str]) -> str:
    """Return what applies as a Markdown table."""
    rows = [f"| {name} | {value} |" for name, value in settings.items()]
    return "\n".join(["| setting | as used |", "|---|---|", *rows])


def _precision(base: Base, checkpointing: str) -> str:
    kept = {"on": "gradient checkpointing", "off": "activations kept"}
    name = str(base.dtype).removeprefix("torch.")
    return f"{name}, {kept.get(checkpointing, 'gradient checkpointing where the memory runs out')}"


def _rate(run: Run) -> str:
    first, last = run.rate.at(0), run.rate.at(run.steps - 1)
    highest = max(run.rate.at(done) for done in range(run.steps))
    return f"{first:.3g} at the first update, {last:.3g} at the last, {highest:.3g} at most"


def _optimizer(run: Run) -> str:
    group = run.optimizer.param_groups[0]
    shown = {name: group[name] for name in ("betas", "eps", "weight_decay") if name in group}
    return type(run.optimizer).__name__ + "".join(f", {name} {value}" for name, value in shown.items())


def _shapes(run: Run) -> str:
    shapes = {tuple(mean.shape[1:]) for mean in run.train.latents.mean}
    return "latents of " + ", ".join(f"{width} × {height}" for height, width in sorted(shapes))


def _captions(run: Run, base: Base) -> str:
    """Return how long the prompts are; chance leaves nothing out."""
    own = {run.name: len(run.vectors)}
    first = run.variant.templates[:1]
    prompts = {
        prompt_of(first, run.name, caption, generator(0, "prompt"), shuffle=False, drop=0.0)
        for caption in run.train.captions
    }
    lengths = sorted(prompt_length(base.tokenizer, prompt, own) for prompt in prompts)
    longer = sum(length > CONTEXT_TOKENS for length in lengths)
    words = f"prompts of {lengths[0]} to {lengths[-1]} tokens with the vectors"
    handled = {"chunks": "encoded in chunks"}.get(run.variant.long_prompts, "cut")
    return words + (f", {longer} of {len(lengths)} longer than {CONTEXT_TOKENS}: {handled}" if longer else "")


def _unused(run: Run) -> str:
    """Return which settings of the study change nothing in this training."""
    variant = run.variant
    uses_captions = any("[filewords]" in template for template in variant.templates)
    found = [
        "captions (no template has [filewords])" * (not uses_captions and any(run.train.captions)),
        "keep_tags (tags are neither shuffled nor dropped)"
        * (variant.keep_tags > 0 and not variant.shuffle_tags and not variant.drop_tags),
        "masked_loss (no picture is transparent)"
        * (variant.masked_loss and all(mask is None for mask in run.train.latents.masks)),
        "held-out pictures (there are none)" * (not run.validation.post_ids),
    ]
    return ", ".join(words for words in found if words)
