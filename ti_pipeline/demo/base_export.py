"""Writes the demo's base model: a diffusers folder with its scorer, and a card that says what was measured.

Here: files, sample sheet and the numbers on the card. Not here: training (`train_base`).
"""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo import base_parts
from ti_pipeline.demo.world import CHOICES, WORDED, bust, random_attributes, word_of
from ti_pipeline.files import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

__all__ = ["SCHEDULER", "export", "measure"]

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
MEASURED = ("species", "colour", "background", "clothing", "body")  # also what the sample prompts ask for
_MEAN, _DEVIATION = 0.5, 0.5


def export(work: Path, out: Path, tokenizer: Any) -> None:
    """Write the model folder from the checkpoints in `work`, then measure it and write its card.

    Everything is built beside `out` and moved there at the end, so that a killed export leaves the old model whole.
    """
    aside = out.with_name(f".{out.name}-partial")
    shutil.rmtree(aside, ignore_errors=True)
    trained = _write_parts(work, aside, tokenizer)
    curves = trained.pop("curves")
    measured = measure(aside, out_sheet=aside / "samples.webp") | trained
    write_json(aside / "measured.json", measured)
    _plot(curves, aside / "losses.webp")
    (aside / "README.md").write_text(_card(measured), encoding="utf-8")
    _replace(out, aside)


def _replace(out: Path, new: Path) -> None:
    """Put the folder `new` where `out` is; the old one goes only once the new one stands."""
    old = out.with_name(f".{out.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_parts(work: Path, out: Path, tokenizer: Any) -> dict[str, Any]:
    """Save the pipeline in fp16 and the scorer beside it; return how it was trained, by stage."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from ti_pipeline.demo.train_base import STAGES

    latents = json.loads((work / "latents.json").read_text(encoding="utf-8"))
    states = {name: torch.load(work / f"{name}.pt", weights_only=True) for name in STAGES}
    clip, autoencoder, unet = base_parts.new_clip(), base_parts.new_autoencoder(), base_parts.new_unet()
    clip.load_state_dict(states["vision"]["model"])
    autoencoder.load_state_dict(states["autoencoder"]["model"])
    unet.load_state_dict(states["unet"]["average"])
    autoencoder.register_to_config(scaling_factor=latents["scaling_factor"])
    text = CLIPTextModel(CLIPTextConfig(**clip.config.text_config.to_dict()))
    text.load_state_dict(clip.text_model.state_dict())
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.half(),
        text_encoder=text.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    _write_scorer(clip.half(), out / "scorer")
    _tidy_tokenizer(out / "tokenizer")
    for name in ("text_encoder", "scorer"):
        # Stored in half, computed in full: transformers would load what the weights are, diffusers' parts are float32.
        config = out / name / "config.json"
        write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"})
    return {
        "drawings": latents["drawings"],
        "steps": {name: state["step"] for name, state in states.items()},
        "minutes": {name: round(state["seconds"] / 60) for name, state in states.items()},
        "losses": {name: round(state["curve"][-1][1], 4) for name, state in states.items()},
        "curves": {name: state["curve"] for name, state in states.items()},
    }


def _tidy_tokenizer(folder: Path) -> None:
    """Write the vocabulary without its white space, half the size, and drop how this machine happened to load it."""
    vocabulary, config = folder / "tokenizer.json", folder / "tokenizer_config.json"
    entries = json.loads(vocabulary.read_text(encoding="utf-8"))
    compact = json.dumps(entries, ensure_ascii=False, separators=(",", ":"))
    vocabulary.write_text(compact, encoding="utf-8", newline="")
    settings = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {key: value for key, value in settings.items() if key not in {"is_local", "local_files_only"}})


def _write_scorer(clip: Any, folder: Path) -> None:
    """Save the CLIP pair; its text tower is read from the pipeline's own file, which holds the same weights."""
    from safetensors.torch import load_file, save_file

    clip.save_pretrained(folder, safe_serialization=True)
    weights = load_file(folder / "model.safetensors")
    of_text = {key: value for key, value in weights.items() if key.startswith("text_model.")}
    own = {key: value for key, value in weights.items() if key not in of_text}
    (folder / "model.safetensors").unlink()
    # Keys with the prefix are what every version of transformers reads, as a text encoder and as half of a pair.
    save_file(of_text, folder.parent / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    save_file(own, folder / "towers.safetensors", metadata={"format": "pt"})
    placed = dict.fromkeys(sorted(of_text), "../text_encoder/model.safetensors")
    placed |= dict.fromkeys(sorted(own), "towers.safetensors")
    size = sum(value.numel() * value.element_size() for value in weights.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": placed})
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": base_parts.PICTURE_SIZE, "width": base_parts.PICTURE_SIZE},
            "size": {"shortest_edge": base_parts.PICTURE_SIZE},
            "image_mean": [_MEAN] * 3,
            "image_std": [_DEVIATION] * 3,
            "image_processor_type": "CLIPImageProcessor",
        },
    )


def measure(folder: Path, *, out_sheet: Path | None = None, fresh: int = 1000, drawn: int = 240) -> dict[str, Any]:
    """Return how often the scorer names fresh drawings' attributes, and those of pictures the model draws.

    `fresh` drawings come from seeds that training never used; `drawn` pictures from 20 DDIM steps at CFG 6.
    """
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPModel, CLIPTokenizer

    clip = CLIPModel.from_pretrained(folder / "scorer", dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    shown = [random_attributes(random.Random(f"fresh/{index}")) for index in range(fresh)]  # noqa: S311
    pictures = [bust(a, rng=random.Random(f"fresh picture/{index}")) for index, a in enumerate(shown)]  # noqa: S311
    on_drawings = _accuracy(clip, tokenizer, _pixels(pictures), shown, WORDED)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    asked = shown[:drawn]
    made = []
    for start in range(0, drawn, 40):
        prompts = [_prompt(a) for a in asked[start : start + 40]]
        noise = [torch.Generator().manual_seed(start + index) for index in range(len(prompts))]
        size = base_parts.PICTURE_SIZE
        result = pipeline(prompts, num_inference_steps=20, guidance_scale=6.0, generator=noise, height=size, width=size)
        made += result.images
    if out_sheet is not None:
        _sheet(made[:64], out_sheet)
    return {"fresh drawings": on_drawings, "pictures drawn": _accuracy(clip, tokenizer, _pixels(made), asked, MEASURED)}


def _prompt(attributes: Any) -> str:
    words = ", ".join(word_of(name, getattr(attributes, name)) for name in MEASURED)
    return words.replace(" fur", " scales") if attributes.species == "dragon" else words


def _pixels(pictures: list[Any]) -> torch.Tensor:
    import numpy as np
    import torch

    stacked = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


def _accuracy(
    clip: Any, tokenizer: Any, pixels: torch.Tensor, shown: list[Any], names: Sequence[str]
) -> dict[str, float]:
    import torch

    found = {}
    with torch.inference_mode():
        for name in names:
            words = [word_of(name, value) for value in CHOICES[name]]
            ids = tokenizer(words, padding=True, return_tensors="pt").input_ids
            best = clip(input_ids=ids, pixel_values=pixels).logits_per_image.argmax(dim=1).tolist()
            right = [CHOICES[name][index] == getattr(a, name) for index, a in zip(best, shown, strict=True)]
            found[name] = round(sum(right) / len(right), 4)
    return found


def _sheet(pictures: list[Any], path: Path) -> None:
    from PIL import Image

    side = base_parts.PICTURE_SIZE
    sheet = Image.new("RGB", (8 * side, -(-len(pictures) // 8) * side))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % 8 * side, index // 8 * side))
    with write_atomically(path) as aside:
        sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(aside, quality=85)


def _plot(curves: dict[str, list[list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        axes.plot(*zip(*curve, strict=True))
        axes.set(title=name, xlabel="updates", ylabel="loss (running mean)", yscale="log")
    with write_atomically(path) as aside:
        figure.savefig(aside)


def _card(measured: dict[str, Any]) -> str:
    drawn = {name: f"{share:.1%}" for name, share in measured["pictures drawn"].items()}
    rows = "\n".join(
        f"| {name} | {share:.1%} | {drawn.get(name, 'not asked')} | {1 / len(CHOICES[name]):.1%} |"
        for name, share in measured["fresh drawings"].items()
    )
    stages = "\n".join(
        f"| {name} | {count} | {measured['minutes'][name]} | {measured['losses'][name]} |"
        for name, count in measured["steps"].items()
    )
    words = "\n".join(f"- {name}: {', '.join(v.replace('_', ' ') for v in CHOICES[name])}" for name in CHOICES)
    return f"""# The demo's base model

A Stable Diffusion folder of diffusers (`StableDiffusionPipeline.from_pretrained`), 64 × 64 px, v-prediction, with
the real CLIP vocabulary; `scorer/` is its CLIP pair (`CLIPModel.from_pretrained`). Trained from nothing but drawings
that this project makes itself, and only **briefly**, on a processor: it is there to show the pipeline at work, not to
draw well.

Trained by `python -m ti_pipeline.demo.train_base` on {measured["drawings"]:,} drawings:

| part | updates | minutes (about) | loss at the end (running mean) |
|---|---|---|---|
{stages}

![64 pictures drawn by the model](samples.webp)
![training losses](losses.webp)

Measured by its own scorer, so by the same hands that made the world; see `measured.json`. Pictures drawn: 20 DDIM
steps at CFG 6, fixed seeds, prompts of {", ".join(MEASURED)}.

| attribute | scorer on fresh drawings | pictures drawn as asked | by chance |
|---|---|---|---|
{rows}

What it knows (words of prompts):

{words}

Held out from its training: the combinations of colour and eyes of the demo's concepts
(`ti_pipeline.demo.world.CONCEPTS`). Licence: that of the project; the vocabulary is OpenAI CLIP's (MIT).
"""
