"""Examples: pictures of the released checkpoint that link to its files, and the code that draws one of them anew.

Infotexts of evaluation pictures name the file that was measured; that of a release has another name inside and so other
bytes. Here: choosing pictures, naming the released file in their texts, the card's code for diffusers. Not here: the
card's words (`card`), or which files a release has (`release`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.infotext import infotext, parse_infotext, write_png

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ti_pipeline.publishing.card import Released
    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.studies import BaseModelSource

__all__ = ["PICTURES", "diffusers_code", "drawn_again", "examples_of", "write_linked"]

PICTURES = "pictures"
_HASH_DIGITS = 12  # of a file's sha256, as A1111 writes them
_SIDES = ("Script", "X Type", "X Values", "Y Type", "Y Values", "Embedding hashes")


def examples_of(results: StudyResults, variant: str, checkpoint: str) -> dict[str, Any]:
    """Return one row of `evaluation_images` per axis: the first of the checkpoint whose picture is there.

    Pictures whose prompts name further embeddings are passed over: they are not of the released one alone.
    """
    images = results.evaluation_images.get(variant)
    found: dict[str, Any] = {}
    for row in () if images is None else images[images.checkpoint == checkpoint].itertuples():
        others = any(name.casefold() in _words(row) for name in results.study.evaluation.embeddings)
        if row.axis not in found and not others and (results.root / str(row.path)).is_file():
            found[str(row.axis)] = row
    return found


def _words(row: Any) -> str:
    return f"{row.prompt} {row.negative}".casefold()


def write_linked(source: Path, target: Path, row: Any, released_sha256: str) -> None:
    """Write a copy of a picture, or of a grid with it, whose text says what `row` does and names the released file."""
    from PIL import Image

    with Image.open(source) as picture:
        texts = {key: str(value) for key, value in picture.info.items() if key in ("parameters", "Title")}
        pixels = picture.convert("RGB")
    told = parse_infotext(texts.get("parameters", ""))
    sides = {key: told[key] for key in _SIDES if key in told}
    own = {key: value for key, value in told.items() if key not in ("Prompt", "Negative prompt", *_SIDES)}
    own |= {"Seed": row.seed, "Checkpoint": row.checkpoint}
    own["TI hashes"] = f"{row.token}: {released_sha256[:_HASH_DIGITS]}"
    if "Embedding hashes" in sides:
        measured = f"{row.checkpoint}: {row.embedding_sha256[:_HASH_DIGITS]}"
        linked = f"{row.checkpoint}: {released_sha256[:_HASH_DIGITS]}"
        sides["Embedding hashes"] = sides["Embedding hashes"].replace(measured, linked)
    texts["parameters"] = infotext(row.prompt, row.negative, own | sides)
    write_png(pixels, target, texts)


def drawn_again(examples: dict[str, Any], vectors: int) -> Any | None:
    """Return the first example that diffusers draws as well: its prompts fit into one chunk of CLIP's context."""
    from ti_pipeline.inversion.clip_vocabulary import clip_tokenizer
    from ti_pipeline.inversion.conditioning import CONTEXT_TOKENS, prompt_length

    tokenizer = clip_tokenizer()
    for row in examples.values():
        lengths = [prompt_length(tokenizer, text, {row.token: vectors}) for text in (row.prompt, row.negative)]
        if max(lengths) <= CONTEXT_TOKENS:
            return row
    return None


def diffusers_code(source: BaseModelSource, released: Released, row: Any | None) -> str:
    """Return Python code that loads the embedding in diffusers, from the release's folder, and draws `row`'s picture.

    Its prompts have the token in lower case: of one with a capital letter diffusers takes a single vector.
    """
    from ti_pipeline.evaluation.sampler import scheduler_settings

    kind, settings = scheduler_settings("DDIM" if row is None else str(row.sampler), {})
    lines = [
        *(["import torch"] if row is not None else []),
        f"from diffusers import {kind}, StableDiffusionPipeline",
        "",
        f"pipe = StableDiffusionPipeline.{_loading(source)}",
        "config = pipe.scheduler.config",
        f"pipe.scheduler = {kind}.from_config(config, {', '.join(_arguments(settings))})",
        f'pipe.load_textual_inversion("{released.safetensors_path}", token="{released.token.lower()}")',
        *_without_last_layers(released.variant.clip_skip if row is None else int(row.clip_skip)),
    ]
    drawing = [repr(f"{released.token.lower()}, simple background")]
    if row is not None:
        lines.append(f"# {row.sampler} from seed {row.seed} on the processor, as in {PICTURES}/{row.axis}.png")
        drawing = [
            f"{_lowered(row.prompt, released.token)!r}",
            f"negative_prompt={_lowered(row.negative, released.token)!r}",
            f"num_inference_steps={row.steps}",
            f"guidance_scale={row.cfg}",
            f"width={row.size}",
            f"height={row.size}",
            f"generator=torch.Generator().manual_seed({row.seed})",
        ]
    return "\n".join([*lines, "image = pipe(", *(f"    {argument}," for argument in drawing), ").images[0]"])


def _loading(source: BaseModelSource) -> str:
    """Return the call that loads the base; where others find it is known of models of the hub alone."""
    hub = source.published_as or source.hub
    if hub is not None:
        revision = f', revision="{source.revision}"' if source.revision and hub == source.hub else ""
        return f'from_pretrained("{hub}"{revision})'
    how = "from_single_file" if source.file is not None else "from_pretrained"
    return f'{how}("path of the base model")'


def _arguments(settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        # What a base says of its own last step is kept.
        yield f"{name}=config.get({name!r}, {value!r})" if name == "set_alpha_to_one" else f"{name}={value!r}"


def _without_last_layers(clip_skip: int) -> list[str]:
    """Return lines for a CLIP skip: diffusers' own `clip_skip` leaves negative prompts as they are, and can fail."""
    if clip_skip == 1:
        return []
    return [
        'text = getattr(pipe.text_encoder, "text_model", pipe.text_encoder)  # in transformers before 5, or after',
        f"text.encoder.layers = text.encoder.layers[:-{clip_skip - 1}]  # CLIP skip {clip_skip} of web UIs",
    ]


def _lowered(text: str, token: str) -> str:
    return re.sub(re.escape(token), token.lower(), text, flags=re.IGNORECASE)
