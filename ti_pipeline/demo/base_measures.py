"""Measures the demo's base model against the world's truth: what its scorer sees, and whether it draws what was asked.

Here: numbers, confusion tables and the sample sheet. Not here: the card that shows them (`base_export`).
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo import base_parts
from ti_pipeline.demo.world import (
    CHOICES,
    CONCEPTS,
    HELD_OUT_STYLES,
    WORDED,
    Attributes,
    bust,
    prompt,
    random_attributes,
    word_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from PIL import Image

    from ti_pipeline.evaluation.scorers import Scorer

__all__ = [
    "ASKED",
    "CFG",
    "STEPS",
    "STYLE",
    "accuracies",
    "beside_vectors",
    "confusion",
    "fresh_drawings",
    "measure",
    "read_as",
]

# What the sample prompts ask for; the first four have targets.
ASKED = ("species", "background", "body", "clothing", "colour")
STYLE, STEPS, CFG = "flat", 20, 6.0
VECTORS = (0, 8, 16, 32, 64)
_NAME = "nothing-learned"
_BATCH = 126
_REFERENCES, _POSITIVES, _NEGATIVES = 40, 200, 800


def measure(
    folder: Path,
    *,
    sheet: Path | None = None,
    fresh: int = 1000,
    drawn: int = 504,
    repeats: int = 6,
    concepts: bool = True,
) -> dict[str, Any]:
    """Return what the model in `folder` can do, as numbers with the counts behind them.

    `fresh` drawings and `drawn` pictures (20 DDIM steps, CFG 6) come from seeds that training never used. The pictures
    are drawn once in float32 and once, faster, under bfloat16 autocast. Writes a contact sheet of 64 pictures to
    `sheet`. `repeats` is that of `beside_vectors`.
    """
    from ti_pipeline.evaluation.scorers import load_scorer
    from ti_pipeline.studies import BaseModelSource

    scorer = load_scorer(BaseModelSource(folder=str(folder.resolve() / "scorer")), folder=folder)
    shown, pictures = fresh_drawings(fresh)
    seen = scorer.image_features(pictures)
    of_drawings = {name: read_as(scorer, seen, name) for name in WORDED}
    asked = [replace(attributes, style=STYLE) for attributes in shown[:drawn]]
    prompts = [f"{prompt(a, ASKED)}, {STYLE} (artist)" for a in asked]
    made, per_second = _draw(folder, prompts)
    quickly, quick_per_second = _draw(folder, prompts, bfloat16=True)
    if sheet is not None:
        _write_sheet(made[:64], sheet)
    of_made, of_quickly = (
        {name: read_as(scorer, scorer.image_features(pictures), name) for name in ASKED} for pictures in (made, quickly)
    )
    found = {
        "fresh drawings": {"count": fresh, **accuracies(of_drawings, shown)},
        "pictures drawn": {"count": drawn, **accuracies(of_made, asked)},
        "pictures drawn in bfloat16": {"count": drawn, **accuracies(of_quickly, asked)},
        "beside vectors": beside_vectors(folder, scorer, repeats=repeats),
        "pictures a second of one core": {"float32": round(per_second, 1), "bfloat16": round(quick_per_second, 1)},
        "confusion": {
            "fresh drawings": {name: confusion(of_drawings[name], shown, name) for name in ASKED[:4]},
            "pictures drawn": {name: confusion(of_made[name], asked, name) for name in ASKED[:4]},
        },
    }
    return found | ({"concept AUC": concept_auc(scorer)} if concepts else {})


def beside_vectors(
    folder: Path, scorer: Scorer, *, counts: Sequence[int] = VECTORS, repeats: int
) -> dict[str, dict[str, float]]:
    """Return, by number of vectors, the share of pictures drawn as asked behind an embedding that learned nothing.

    The embedding holds what the demo's start from, the tokens of `anthro`; 0 is the same prompts without one. Prompts
    are those of the demo's evaluation: `[name], <species>, simple background` for every species, and
    `[name], <background>, bear` for every background, each drawn `repeats` times.
    """
    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.conditioning import encode_prompts
    from ti_pipeline.inversion.variant_state import initial_vectors
    from ti_pipeline.studies import BaseModelSource, Variant

    base = load_base("demo", BaseModelSource(folder=str(folder.resolve())), folder=folder, device="cpu")
    asked = {"species": "{}, simple background", "background": "{}, bear"}
    found: dict[str, dict[str, float]] = {}
    for count in counts:
        start = Variant(base="demo", vectors=max(count, 1), steps=1, initializer="anthro")
        embeddings = {_NAME: initial_vectors(base, start)} if count else {}
        found[str(count)] = {}
        for name, form in asked.items():
            values = list(CHOICES[name]) * repeats
            texts = [f"{_NAME}, " * bool(count) + form.format(word_of(name, value)) for value in values]
            states = encode_prompts(base, [*texts, ""], embeddings).states.detach()
            made = _draw(folder, states)[0]
            seen = read_as(scorer, scorer.image_features(made), name)
            right = sum(value == wanted for value, wanted in zip(seen, values, strict=True))
            found[str(count)][name] = round(right / len(values), 4)
    return found


def fresh_drawings(count: int, purpose: str = "fresh") -> tuple[list[Attributes], list[Image.Image]]:
    """Return attributes and busts of the native size that training never used."""
    shown = [random_attributes(random.Random(f"{purpose}/{index}")) for index in range(count)]  # noqa: S311
    rngs = [random.Random(f"{purpose} picture/{index}") for index in range(count)]  # noqa: S311
    return shown, [bust(a, base_parts.PICTURE_SIZE, rng) for a, rng in zip(shown, rngs, strict=True)]


def read_as(scorer: Scorer, seen: torch.Tensor, name: str) -> list[str]:
    """Return the value of attribute `name` that the scorer sees in each picture, given its features."""
    words = scorer.text_features([word_of(name, value) for value in CHOICES[name]])
    return [CHOICES[name][index] for index in (seen @ words.T).argmax(dim=1).tolist()]


def accuracies(found: dict[str, list[str]], shown: Sequence[Attributes]) -> dict[str, float]:
    """Return the share of pictures read as what they show, by attribute."""
    right = {n: sum(v == getattr(a, n) for v, a in zip(values, shown, strict=True)) for n, values in found.items()}
    return {name: round(count / len(shown), 4) for name, count in right.items()}


def confusion(found: Sequence[str], shown: Sequence[Attributes], name: str) -> dict[str, dict[str, int]]:
    """Return counts of what was read, by what is shown."""
    table = {value: dict.fromkeys(CHOICES[name], 0) for value in CHOICES[name]}
    for value, attributes in zip(found, shown, strict=True):
        table[getattr(attributes, name)][value] += 1
    return table


def concept_auc(scorer: Scorer) -> dict[str, float]:
    """Return, by concept, how well similarity tells its pictures from others: the area under the ROC curve.

    40 reference pictures, 200 others of the concept, 800 of anything else, all fresh.
    """
    from scipy.stats import mannwhitneyu

    from ti_pipeline.evaluation.similarity import similarity_to

    others = scorer.image_features(fresh_drawings(_NEGATIVES, "others")[1])
    found = {}
    for name in (*CONCEPTS, *HELD_OUT_STYLES):
        own = scorer.image_features(_of_concept(name, _REFERENCES + _POSITIVES))
        references, positives = own[:_REFERENCES], own[_REFERENCES:]
        inside, outside = (similarity_to(part, references).numpy() for part in (positives, others))
        # Mann-Whitney's U counts the pairs in which the positive is the more similar: that is the area.
        found[name] = round(float(mannwhitneyu(inside, outside).statistic) / (len(inside) * len(outside)), 4)
    return found


def _of_concept(name: str, count: int) -> list[Image.Image]:
    pictures = []
    for index in range(count):
        rng = random.Random(f"concept {name}/{index}")  # noqa: S311 - drawings, not secrets
        pictures.append(bust(random_attributes(rng, name), base_parts.PICTURE_SIZE, rng))
    return pictures


def _draw(
    folder: Path, prompts: list[str] | torch.Tensor, *, bfloat16: bool = False
) -> tuple[list[Image.Image], float]:
    """Return one picture a prompt, and how many were drawn in a second of one core, whatever else the machine does.

    Prompts may be given as states [n + 1, 77, width], the last of them that of the empty prompt.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    size, made, begun = base_parts.PICTURE_SIZE, [], time.process_time()
    count = len(prompts) if isinstance(prompts, list) else len(prompts) - 1
    for start in range(0, count, _BATCH):
        end = min(start + _BATCH, count)
        noise = [torch.Generator().manual_seed(index) for index in range(start, end)]
        asked: dict[str, Any] = {"prompt": prompts[start:end]}
        if not isinstance(prompts, list):
            asked = {"prompt_embeds": asked["prompt"]}
            asked |= {"negative_prompt_embeds": prompts[-1:].expand(end - start, -1, -1)}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            made += pipeline(
                **asked,
                num_inference_steps=STEPS,
                guidance_scale=CFG,
                generator=noise,
                height=size,
                width=size,
            ).images
    return made, len(made) / (time.process_time() - begun)


def _write_sheet(pictures: list[Image.Image], path: Path) -> None:
    from PIL import Image

    from ti_pipeline.files import write_atomically

    side = base_parts.PICTURE_SIZE
    sheet = Image.new("RGB", (8 * side, -(-len(pictures) // 8) * side))
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % 8 * side, index // 8 * side))
    with write_atomically(path) as aside:
        sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.LANCZOS).save(aside, quality=85)
