"""How the base model learns to read prompts of 75 tokens with runs of vectors in them: the stages `long` and `polish`.

Nothing is drawn for the first. What a UNet sees of a prompt is what its cross-attention brings out of the text tower's
states; the tower, and the attention's keys and values, are trained until a prompt with a run of vectors in it
(`long_prompts`) brings out what the same words brought out before without one. An update takes a tenth of the UNet's on
drawings. Then the UNet is trained on drawings once more, with such prompts.
Not here: the other stages and their loop (`train_base`).
"""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo import base_parts
from ti_pipeline.demo.long_prompts import cut_short, long_prompt, vectors_of
from ti_pipeline.demo.train_base import (
    MIN_SNR,
    World,
    device,
    encode_world,
    fast,
    optimise,
    read_checkpoint,
    tokens,
    trained_text_tower,
    zero_shot_words,
)
from ti_pipeline.demo.world import caption, random_attributes
from ti_pipeline.files import write_atomically
from ti_pipeline.inversion.conditioning import CONTEXT_TOKENS, encode_tokens

if TYPE_CHECKING:
    from pathlib import Path

    import torch

__all__ = ["Prompts", "long_text_tower", "long_unet", "refit_projection", "train_long", "train_polish"]

KEEP_POOLED = 2.0  # weight of the text tower's old features of short captions, which the scorer lives by
EMPTY = 0.1  # this share of the captions is left empty, for guidance
FLATTER = 0.3  # added to the SNR in the weights of `polish`: what stands where is decided where noise is strong
POOL = 512  # drawings in noise from which the attention's queries are taken


class Prompts:
    """Encodes captions with runs of vectors in them by a text tower in training."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        """What stands in the prompts is drawn by `seed`."""
        self._tokenizer = tokenizer
        self._seed = seed

    def _base(self, text: Any) -> Any:
        """Return a base whose text encoder is `text`, for `conditioning`."""
        import torch

        from ti_pipeline.inversion.base_models import Base

        width = base_parts.TEXT_WIDTH
        return Base("demo", "", None, None, text, self._tokenizer, {}, "v_prediction", width, device(), torch.float32)

    def pair(self, text: Any, teacher: Any, captions: list[str], step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states [n, 77, width] of prompts by `text`, and of the same words without runs by `teacher`."""
        import torch

        rows, plain, embeddings = self._rows(teacher, captions, step)
        with torch.no_grad():
            wanted = encode_tokens(self._base(teacher), plain, {}).states
        return encode_tokens(self._base(text), rows, embeddings).states, wanted

    def states(self, text: Any, captions: list[str], step: int) -> torch.Tensor:
        """Return states [n, 77, width] of prompts by `text`, without gradient; one caption in ten is left empty."""
        import torch

        rows, _, embeddings = self._rows(text, captions, step)
        rng = random.Random(f"{self._seed}/empty/{step}")  # noqa: S311 - drawings, not secrets
        rows = [[[]] if rng.random() < EMPTY else row for row in rows]
        with torch.no_grad():
            return encode_tokens(self._base(text), rows, embeddings).states

    def _rows(self, text: Any, captions: list[str], step: int) -> tuple[list[Any], list[Any], dict[str, torch.Tensor]]:
        """Return prompts with runs and without, both for `conditioning.encode_tokens`, and the runs' vectors."""
        rng = random.Random(f"{self._seed}/long/{step}")  # noqa: S311 - drawings, not secrets
        table = text.embeddings.token_embedding.weight.detach().cpu()
        rows, plain, embeddings = [], [], {}
        for index, words in enumerate(captions):
            name = str(index)
            row, kept, run = long_prompt(cut_short(words, rng), self._ids, rng, name)
            rows.append([row])
            plain.append([self._ids(", ".join(kept))[:CONTEXT_TOKENS]])
            if run is not None:
                embeddings[name] = vectors_of(run, sum(isinstance(token, tuple) for token in row), table)
        return rows, plain, embeddings

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)


def cross_attentions(unet: Any) -> dict[str, Any]:
    """Return a UNet's cross-attention layers by name."""
    return {name.replace(".", "/"): module for name, module in unet.named_modules() if name.endswith("attn2")}


def queries_of(unet: Any, latents: torch.Tensor, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what each cross-attention asks for, [n, positions, channels], while `latents` in noise are denoised."""
    import torch
    from diffusers import DDIMScheduler

    from ti_pipeline.demo.base_export import SCHEDULER

    found: dict[str, torch.Tensor] = {}
    layers = cross_attentions(unet)
    hooks = [
        layer.to_q.register_forward_hook(lambda _module, _inputs, out, name=name: found.update({name: out.detach()}))
        for name, layer in layers.items()
    ]
    generator = torch.Generator().manual_seed(0)
    times = torch.randint(100, 1000, (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    noisy = DDIMScheduler(**SCHEDULER).add_noise(latents, noise, times)
    with torch.no_grad():
        unet(noisy.to(device()), times.to(device()), encoder_hidden_states=states)
    for hook in hooks:
        hook.remove()
    return found


def attended(layer: Any, parts: Any, queries: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Return what a cross-attention brings out of `states`, [n, positions, channels], before its output projection.

    `parts` are its projections to keys and to values, or others in their place.
    """
    count, positions, channels = queries.shape

    def by_head(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(count, -1, layer.heads, channels // layer.heads).transpose(1, 2)

    to_keys, to_values = parts
    q, k, v = by_head(queries), by_head(to_keys(states)), by_head(to_values(states))
    shares = (q @ k.transpose(2, 3) * layer.scale).softmax(dim=-1)
    out: torch.Tensor = (shares @ v).transpose(1, 2).reshape(count, positions, channels)
    return out


def train_long(world: World, tokenizer: Any, folder: Path, *, steps: int, batch: int, seed: int) -> None:
    """Train text tower and cross-attention on prompts of 1 to 75 tokens with runs of vectors in them.

    The error of each layer's output is weighed by how much the output varies among prompts. The vocabulary stays, and
    pooled features of short captions are held to what they were, so that the scorer's other half stays valid.
    """
    import torch

    torch.manual_seed(seed + 4)
    teacher = trained_text_tower(folder).to(device())
    unet = base_parts.new_unet()
    unet.load_state_dict(read_checkpoint(folder / "unet.pt")["average"])
    unet.to(device()).eval().requires_grad_(requires_grad=False)
    prompts = Prompts(tokenizer, seed)
    _, captions, _ = world.batch(POOL, 0, seed + 5)
    shown = teacher(input_ids=tokens(tokenizer, captions, full=True).to(device())).last_hidden_state
    indices, _, _ = world.batch(POOL, 0, seed + 5)
    latents, _ = encode_world(world, folder)
    queries = queries_of(unet, latents[indices], shown)
    text = copy.deepcopy(teacher).requires_grad_(requires_grad=True)
    text.embeddings.token_embedding.requires_grad_(requires_grad=False)
    old = cross_attentions(unet)
    new = torch.nn.ModuleDict(
        {
            name: torch.nn.ModuleList([copy.deepcopy(layer.to_k), copy.deepcopy(layer.to_v)])
            for name, layer in old.items()
        }
    ).requires_grad_(requires_grad=True)
    model = torch.nn.ModuleDict({"text": text, "attention": new}).to(device())
    average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    words = tokens(tokenizer, [word for words in zero_shot_words().values() for word in words], full=False)
    with torch.no_grad():
        among_words = teacher(input_ids=words.to(device())).pooler_output.var(dim=0).mean()

    def pooled_error(captions: list[str]) -> torch.Tensor:
        total = torch.zeros((), device=device())
        for ids in (words, tokens(tokenizer, captions, full=False)):
            with torch.no_grad():
                wanted = teacher(input_ids=ids.to(device())).pooler_output
            given = text(input_ids=ids.to(device())).pooler_output
            total = total + (given - wanted).square().mean() / among_words
        return total

    def loss_of(step: int) -> torch.Tensor:
        _, captions, _ = world.batch(batch, step, seed + 4)
        given, wanted = prompts.pair(text, teacher, captions, step)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(0, POOL, (batch,), generator=generator)
        total = KEEP_POOLED * pooled_error(captions[: math.ceil(batch / 4)])
        for name, layer in old.items():
            asked, own = queries[name][rows], (layer.to_k, layer.to_v)
            with torch.no_grad():
                target = attended(layer, own, asked, wanted)
                elsewhere = attended(layer, own, asked, wanted.roll(1, dims=0))
                spread = (target - elsewhere).square().mean() / 2
            error = (attended(layer, new[name], asked, given) - target).square().mean()
            total = total + error / spread / len(old)
        return total

    optimise("long", model, loss_of, folder=folder, steps=steps, peak=1e-3, average=average)


def long_text_tower(folder: Path) -> Any:
    """Return the frozen text tower that the stage `long` has trained."""
    text = trained_text_tower(folder)
    trained = read_checkpoint(folder / "long.pt")["average"]
    text.load_state_dict({k.removeprefix("text."): v for k, v in trained.items() if k.startswith("text.")})
    return text


def refit_projection(tokenizer: Any, folder: Path, *, seed: int) -> None:
    """Fit an adopted `vision.pt` to the text tower of the stage `long`, which it was not trained with.

    Only the text's projection changes: least squares between the features that each text had and has, where a word
    that pictures are classified by weighs as much as a hundred thousand captions. Done twice, it changes nothing.
    """
    import torch

    path = folder / "vision.pt"
    state = read_checkpoint(path)
    clip = base_parts.new_clip()
    clip.load_state_dict(state["model"])
    new = long_text_tower(folder)
    rng = random.Random(f"{seed}/projection")  # noqa: S311 - drawings, not secrets
    captions = [caption(random_attributes(rng), rng) for _ in range(1000)]
    said = {1e3: [word for words in zero_shot_words().values() for word in words]}
    said |= {1e-2: [", ".join(cut_short(text, rng)) for text in captions]}

    def pooled(tower: Any) -> torch.Tensor:
        ids = {weight: tokens(tokenizer, texts, full=False) for weight, texts in said.items()}
        rows = [tower(input_ids=each).pooler_output * math.sqrt(weight) for weight, each in ids.items()]
        return torch.cat(rows).double()

    with torch.no_grad():
        given, projection = pooled(new), clip.text_projection.weight.double()
        missing = (pooled(clip.text_model) - given) @ projection.T
        little = 1e-4 * torch.eye(given.shape[1], dtype=torch.float64)
        change = torch.linalg.solve(given.T @ given + little, given.T @ missing)
        clip.text_projection.weight.copy_(projection + change.T)
    clip.text_model.load_state_dict(new.state_dict())
    with write_atomically(path) as aside:
        torch.save(state | {"model": clip.state_dict()}, aside)


def long_unet(folder: Path) -> Any:
    """Return the UNet of the stage `unet` with the keys and values of its cross-attention from the stage `long`."""
    unet = base_parts.new_unet()
    unet.load_state_dict(read_checkpoint(folder / "unet.pt")["average"])
    trained = read_checkpoint(folder / "long.pt")["average"]
    for name, layer in cross_attentions(unet).items():
        layer.to_k.weight.data.copy_(trained[f"attention.{name}.0.weight"])
        layer.to_v.weight.data.copy_(trained[f"attention.{name}.1.weight"])
    return unet


def train_polish(world: World, tokenizer: Any, folder: Path, *, steps: int, batch: int, seed: int) -> None:
    """Train the UNet on drawings once more, with the prompts and the frozen text tower of the stage `long`.

    The loss is that of the stage `unet`, but for more weight where the noise is strong:
    (min(SNR, 5) + 0.3) / (SNR + 1).
    """
    import torch
    from diffusers import DDIMScheduler
    from diffusers.models.attention_processor import AttnProcessor

    from ti_pipeline.demo.base_export import SCHEDULER

    torch.manual_seed(seed + 6)
    latents, _ = encode_world(world, folder)
    text = long_text_tower(folder).to(device())
    model = long_unet(folder).to(device())
    if device().type == "cpu":
        # PyTorch's fused attention takes as long backwards as all the rest, for so few positions on a processor.
        model.set_attn_processor(AttnProcessor())
        model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    prompts = Prompts(tokenizer, seed + 1)
    scheduler = DDIMScheduler(**SCHEDULER)
    ratio = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = (ratio.clamp(max=MIN_SNR) + FLATTER) / (ratio + 1)

    def loss_of(step: int) -> torch.Tensor:
        indices, captions, _ = world.batch(batch, step, seed + 6)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        states = prompts.states(text, captions, step)
        clean = latents[indices]
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, 1000, (batch,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, times).to(device())
        target = scheduler.get_velocity(clean, noise, times).to(device())
        with fast():
            predicted = model(noisy, times.to(device()), encoder_hidden_states=states).sample
        error = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        loss: torch.Tensor = (weights[times].to(device()) * error).mean()
        return loss

    optimise("polish", model, loss_of, folder=folder, steps=steps, peak=4e-4, average=average)
