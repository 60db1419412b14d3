"""Writes the demo's base model: a diffusers folder with its scorer, and a card that says what was measured.

Here: files, sample sheet and the numbers on the card; and checkpoints made of such a folder, to go on from. Not here:
training (`train_base`).
"""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo import base_parts
from ti_pipeline.demo.base_measures import ASKED, CFG, STEPS, STYLE, measure
from ti_pipeline.demo.world import CHOICES, CONCEPTS, HELD_OUT_STYLES
from ti_pipeline.files import write_atomically, write_json

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SCHEDULER", "adopt", "export"]

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
_MEAN, _DEVIATION = 0.5, 0.5


def export(work: Path, out: Path, tokenizer: Any, *, note: str = "", drawn: int = 504) -> None:
    """Write the model folder from the checkpoints in `work`, then measure it and write its card, with a `note` in it.

    `drawn` is how many pictures are drawn to measure it.

    Everything is built beside `out` and moved there at the end, so that a killed export leaves the old model whole.
    """
    aside = out.with_name(f".{out.name}-partial")
    shutil.rmtree(aside, ignore_errors=True)
    trained = _write_parts(work, aside, tokenizer)
    curves = trained.pop("curves")
    measured = measure(aside, sheet=aside / "samples.webp", drawn=drawn) | trained | {"note": note}
    write_json(aside / "measured.json", measured)
    _plot(curves, aside / "losses.webp")
    (aside / "README.md").write_text(_card(measured), encoding="utf-8")
    _replace(out, aside)


def adopt(finished: Path, work: Path) -> None:
    """Write checkpoints of the stages of a `finished` model folder, where `work` has none: what stands, stays.

    They hold weights, not what an optimizer needs to go on: only `long` and `polish` are then trained, and the scorer
    is fitted to them (`refit_projection`). Raises `ValueError` for a folder that holds no base model of this project.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel

    if not (finished / "measured.json").is_file():
        raise ValueError(f"--adopt: {finished} holds no base model of this project: measured.json is not there")
    measured = json.loads((finished / "measured.json").read_text(encoding="utf-8"))
    clip = CLIPModel.from_pretrained(finished / "scorer", dtype="float32").state_dict()
    unet = UNet2DConditionModel.from_pretrained(finished / "unet").state_dict()
    autoencoder = AutoencoderKL.from_pretrained(finished / "vae").state_dict()
    for name, state in {"clip": clip, "autoencoder": autoencoder, "unet": unet, "vision": clip}.items():
        path = work / f"{name}.pt"
        if path.exists():
            continue
        steps, loss = measured["steps"][name], measured["losses"][name]
        kept = {"step": steps, "curve": [[steps, loss]], "running": loss, "seconds": measured["minutes"][name] * 60}
        with write_atomically(path) as aside:
            torch.save(kept | {"model": state, "average": state}, aside)


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
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from ti_pipeline.demo.train_base import STAGES, read_checkpoint

    latents = json.loads((work / "latents.json").read_text(encoding="utf-8"))
    states = {name: read_checkpoint(work / f"{name}.pt") for name in STAGES}
    clip, autoencoder, unet = base_parts.new_clip(), base_parts.new_autoencoder(), base_parts.new_unet()
    clip.load_state_dict(states["vision"]["model"])
    autoencoder.load_state_dict(states["autoencoder"]["model"])
    unet.load_state_dict(states["polish"]["average"])
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
    entries |= {"truncation": None, "padding": None}  # what it was last asked for in training
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


def _plot(curves: dict[str, list[list[float]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}  # an adopted stage has its end alone
    for axes, (name, curve) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        axes.plot(*zip(*curve, strict=True))
        axes.set(title=name, xlabel="updates", ylabel="loss (running mean)", yscale="log")
    with write_atomically(path) as aside:
        figure.savefig(aside)


def _card(measured: dict[str, Any]) -> str:
    speed = measured["pictures a second of one core"]
    drawn, quickly = measured["pictures drawn"], measured["pictures drawn in bfloat16"]
    rows = "\n".join(
        f"| {name} | {share:.1%} | {_share(drawn, name)} | {_share(quickly, name)} | {1 / len(CHOICES[name]):.1%} |"
        for name, share in measured["fresh drawings"].items()
        if name != "count"
    )
    stages = "\n".join(
        f"| {name} | {count:,} | {measured['minutes'][name]} | {measured['losses'][name]} |"
        for name, count in measured["steps"].items()
    )
    areas = "\n".join(f"| {name} | {area:.3f} |" for name, area in measured["concept AUC"].items())
    tables = "\n\n".join(
        f"{name.capitalize()}, {of}:\n\n{_confusion_table(table)}"
        for of, by_name in measured["confusion"].items()
        for name, table in by_name.items()
    )
    beside = "\n".join(
        f"| {count} | {shares['species']:.1%} | {shares['background']:.1%} |"
        for count, shares in sorted(measured["beside vectors"].items(), key=lambda row: int(row[0]))
    )
    words = "\n".join(f"- {name}: {', '.join(v.replace('_', ' ') for v in CHOICES[name])}" for name in CHOICES)
    return f"""# The demo's base model

A Stable Diffusion folder of diffusers (`StableDiffusionPipeline.from_pretrained`), 64 × 64 px, v-prediction, with
the real CLIP vocabulary; `scorer/` is its CLIP pair (`CLIPModel.from_pretrained`). Trained from nothing but drawings
that this project makes itself.

Trained by `python -m ti_pipeline.demo.train_base` on {measured["drawings"]:,} drawings:

| part | updates | minutes (about) | loss at the end (running mean) |
|---|---|---|---|
{stages}

{textwrap.fill(measured["note"], 119)}

![64 pictures drawn by the model](samples.webp)
![training losses](losses.webp)

Measured by its own scorer, so by the same hands that made the world (`docs/scorer-crosscheck.md` asks somebody
else's features); see `measured.json`. {measured["fresh drawings"]["count"]:,} fresh drawings in all trained styles;
{drawn["count"]:,} pictures drawn in {STEPS} DDIM steps at CFG {CFG:g} with fixed seeds, prompts of {", ".join(ASKED)}
and the style `{STYLE} (artist)`; a core draws {speed["float32"]} pictures a second in float32, {speed["bfloat16"]}
under bfloat16 autocast.

| attribute | scorer on fresh drawings | pictures drawn as asked | the same in bfloat16 | by chance |
|---|---|---|---|---|
{rows}

Drawn as asked behind an embedding that has learned nothing (its vectors are the tokens of `anthro`, prompts are
`[name], <species>, simple background` and `[name], <background>, bear`):

| vectors | species | background |
|---|---|---|
{beside}

Is this the held-out concept? Area under the ROC curve of the similarity to 40 reference pictures, 200 fresh pictures
of the concept against 800 of anything else:

| concept | area |
|---|---|
{areas}

What it knows (words of prompts; the styles are artists, `flat (artist)`):

{words}

Held out from its training: the combinations of colour and eyes of the demo's characters
({", ".join(CONCEPTS)}: `ti_pipeline.demo.world.CONCEPTS`) and the styles {" and ".join(HELD_OUT_STYLES)}. Licence:
that of the project; the vocabulary is OpenAI CLIP's (MIT).

## Confusion

Rows: what is shown or asked for; columns: what the scorer reads.

{tables}
"""


def _share(drawn: dict[str, float], name: str) -> str:
    return f"{drawn[name]:.1%}" if name in drawn else "not asked"


def _confusion_table(table: dict[str, dict[str, int]]) -> str:
    lines = [f"| | {' | '.join(table)} |", "|---" * (len(table) + 1) + "|"]
    lines += [f"| {value} | {' | '.join(map(str, row.values()))} |" for value, row in table.items()]
    return "\n".join(lines).replace("_", " ")
