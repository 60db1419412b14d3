"""Trains the demo's small base model from nothing but the drawn world: `python -m ti_pipeline.demo.train_base`.

Six stages, each a loop that reads top to bottom and goes on from its last checkpoint: a CLIP pair (contrastive, for
its text tower), an autoencoder, a UNet conditioned on the frozen text tower (v-prediction, caption dropout, averaged
weights), both of them taught to read long prompts (`train_long`), the UNet once more with such prompts, and the
scorer's vision tower, fitted to the text tower as it then is.
Not here: long prompts (`train_long`), architectures (`base_parts`) and the folder that comes out (`base_export`).
"""

from __future__ import annotations

import argparse
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo import base_parts
from ti_pipeline.demo.world import CHOICES, WORDED, Attributes, bust, caption, random_attributes, word_of
from ti_pipeline.files import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

__all__ = ["main"]

STAGES = ("clip", "autoencoder", "unet", "long", "polish", "vision")
STEPS, BATCHES = (500, 1600, 6000, 2000, 1000, 2400), (128, 32, 64, 64, 32, 96)
SECONDS_BETWEEN_CHECKPOINTS = 60
PAIRS = 0.04  # of the drawings show two characters
MIN_SNR = 5.0
FILLED, MOST_FILLER = 0.25, 64  # this share of the UNet's captions has up to so many words in it that say nothing
COARSE = 16  # patches of the vision tower that only teaches the text tower: four times as fast


@dataclass(frozen=True)
class World:
    """Drawings in memory: `pictures` uint8 [n, 3, 64, 64], what each shows, and who stands beside it, if anyone."""

    pictures: torch.Tensor
    attributes: list[Attributes]
    beside: list[Attributes | None]

    @classmethod
    def draw(cls, count: int, seed: int) -> World:
        """Draw `count` busts, each from its own seed."""
        import numpy as np
        import torch

        pictures = torch.empty((count, 3, base_parts.PICTURE_SIZE, base_parts.PICTURE_SIZE), dtype=torch.uint8)
        attributes: list[Attributes] = []
        beside: list[Attributes | None] = []
        for index in range(count):
            rng = random.Random(f"{seed}/{index}")  # noqa: S311 - drawings, not secrets
            attributes.append(random_attributes(rng))
            second = rng.random() < PAIRS
            beside.append(random_attributes(rng, style=attributes[-1].style) if second else None)
            pixels = np.asarray(bust(attributes[-1], base_parts.PICTURE_SIZE, rng, beside[-1]))
            pictures[index] = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        return cls(pictures, attributes, beside)

    def batch(self, size: int, step: int, seed: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """Return the indices [size] of a step's drawings, their captions, and pictures in -1..1 [size, 3, 64, 64]."""
        import torch

        rng = random.Random(f"{seed}/batch/{step}")  # noqa: S311 - drawings, not secrets
        indices = [rng.randrange(len(self.attributes)) for _ in range(size)]
        captions = [caption(self.attributes[index], rng, self.beside[index]) for index in indices]
        return torch.tensor(indices), captions, self.pictures[indices].float() / 127.5 - 1


def rate(step: int, steps: int, peak: float, warm_up: int = 50) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def optimise(
    name: str,
    model: Any,
    loss_of: Callable[[int], torch.Tensor],
    *,
    folder: Path,
    steps: int,
    peak: float,
    average: Any = None,
) -> None:
    """Run AdamW until `steps`, printing the loss and keeping `<name>.pt` with everything needed to go on."""
    import torch

    path = folder / f"{name}.pt"
    model.to(device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0, betas=(0.9, 0.99))
    state: dict[str, Any] = read_checkpoint(path) if path.exists() else {"step": 0, "curve": []}
    if path.exists() and state["step"] < steps:
        if "optimizer" not in state:
            raise ValueError(f"{path} was adopted and cannot be trained further: delete it to train that stage anew")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
    curve, running, seconds = state["curve"], state.get("running", 0.0), state.get("seconds", 0.0)
    begun = saved = time.monotonic()
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if average is not None:
            decay = min(0.999, (step + 1) / (step + 10))
            with torch.no_grad():
                for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            curve.append([step + 1, running])
            print(f"{name} {step + 1}/{steps} loss {running:.4f} at {time.strftime('%H:%M:%S')}", flush=True)
        if step + 1 == steps or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            saved = time.monotonic()
            kept = {"step": step + 1, "curve": curve, "running": running, "seconds": seconds + saved - begun}
            kept |= {"model": model.state_dict()}
            kept |= {"optimizer": optimizer.state_dict()}
            kept |= {} if average is None else {"average": average.state_dict()}
            with write_atomically(path) as aside:
                torch.save(kept, aside)


def device() -> torch.device:
    """Return where to train: the GPU, if there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a stage's checkpoint on the CPU, wherever it was written."""
    import torch

    found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return found


def fast() -> Any:
    """Return bf16 autocast, which on the processors that have it saves up to three quarters of a wide convolution."""
    import torch

    return torch.autocast(device().type, dtype=torch.bfloat16)


def tokens(tokenizer: Any, captions: list[str], *, full: bool) -> torch.Tensor:
    """Return token ids [len(captions), 77] on the CPU, or as wide as the longest caption unless `full`."""
    padding = "max_length" if full else "longest"
    return tokenizer(captions, padding=padding, max_length=77, truncation=True, return_tensors="pt").input_ids  # type: ignore[no-any-return]


def with_filler(ids: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Return token ids [n, 77] of which some rows have random tokens put in, at the start or behind a comma.

    Embeddings of many vectors push the words behind them to places where captions alone would never have them.
    """
    import torch

    rows = ids.tolist()
    for row in rows:
        if rng.random() >= FILLED:
            continue
        room = len(row) - row.index(base_parts.END) - 1
        filler = [rng.randrange(base_parts.START) for _ in range(rng.randint(0, min(MOST_FILLER, room)))]
        places = [1, *(index + 1 for index, token in enumerate(row) if token == base_parts.COMMA)]
        place = rng.choice(places)
        row[:] = (row[:place] + filler + row[place:])[: len(row)]
    return torch.tensor(rows)


def zero_shot_words() -> dict[str, list[str]]:
    """Return the words among which a picture is to be classified, by attribute, in the order of its choices."""
    return {name: [word_of(name, value) for value in CHOICES[name]] for name in WORDED}


def pair_loss(seen: torch.Tensor, whole: torch.Tensor, words: torch.Tensor, shown: list[Attributes]) -> torch.Tensor:
    """Return how badly pictures and texts match.

    Symmetric cross-entropy of pictures and their captions over the batch (Radford et al. 2021), and for each attribute
    the cross-entropy of a classification among its words. `seen` and `whole` are unit features [batch, width] of
    pictures and captions, `words` those of all zero-shot words [words, width]; the first two are already scaled.
    """
    import torch
    from torch.nn import functional

    logits, target = seen @ whole.T, torch.arange(len(seen), device=seen.device)
    loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 8
    start = 0
    for name in WORDED:
        end = start + len(CHOICES[name])
        right = torch.tensor([CHOICES[name].index(getattr(attributes, name)) for attributes in shown]).to(seen.device)
        loss = loss + functional.cross_entropy(seen @ words[start:end].T, right)
        start = end
    return loss


def train_pair(world: World, tokenizer: Any, folder: Path, *, text: Any, steps: int, batch: int, seed: int) -> None:
    """Train a CLIP pair: first with coarse patches for the sake of its text tower, then a fine one to that tower.

    With a frozen `text` tower given, only the vision tower and both projections learn (Zhai et al. 2022, the towers
    swapped).
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(seed + (3 if text else 0))
    model = base_parts.new_clip() if text else base_parts.new_clip(COARSE)
    if text:
        model.text_model.load_state_dict(text.state_dict())
        model.text_model.requires_grad_(requires_grad=False)
    ids_of_words = tokens(tokenizer, [word for words in zero_shot_words().values() for word in words], full=False)

    def written(ids: torch.Tensor) -> torch.Tensor:
        state = model.text_model(input_ids=ids.to(device())).pooler_output
        return functional.normalize(model.text_projection(state), dim=-1)

    def loss_of(step: int) -> torch.Tensor:
        indices, captions, pictures = world.batch(batch, step, seed + (3 if text else 0))
        shown = [world.attributes[index] for index in indices.tolist()]
        shown_to = model.vision_model(pictures.to(device())).pooler_output
        seen = functional.normalize(model.visual_projection(shown_to), dim=-1)
        whole = written(tokens(tokenizer, captions, full=False))
        return pair_loss(seen * model.logit_scale.exp().clamp(max=100), whole, written(ids_of_words), shown)

    optimise("vision" if text else "clip", model, loss_of, folder=folder, steps=steps, peak=1e-3)


def train_autoencoder(world: World, folder: Path, *, steps: int, batch: int, seed: int) -> None:
    """Train the autoencoder on absolute and squared error, with a light pull to the normal distribution."""
    import torch

    torch.manual_seed(seed + 1)
    trained = folder / "autoencoder.pt"
    if not trained.exists() or read_checkpoint(trained)["step"] < steps:
        (folder / "latents.pt").unlink(missing_ok=True)
    model = base_parts.new_autoencoder().to(memory_format=torch.channels_last)

    def loss_of(step: int) -> torch.Tensor:
        pictures = world.batch(batch, step, seed + 1)[2].to(device(), memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        with fast():
            posterior = model.encode(pictures).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device())
            latents = posterior.mean + posterior.std * noise
            drawn = model.decode(latents).sample.float()
        error = drawn - pictures
        loss: torch.Tensor = error.abs().mean() + 2 * error.square().mean() + 1e-6 * posterior.kl().float().mean()
        return loss

    optimise("autoencoder", model, loss_of, folder=folder, steps=steps, peak=2e-3)


def encode_world(world: World, folder: Path) -> tuple[torch.Tensor, float]:
    """Return the latents' means [n, 8, 8, 8], scaled to unit deviation, and the factor that does so.

    They are kept in `latents.pt`, which belongs to `autoencoder.pt`: training the autoencoder anew deletes it.
    """
    import torch

    kept = folder / "latents.pt"
    if kept.exists():
        found = read_checkpoint(kept)
        if len(found["latents"]) == len(world.attributes):
            return found["latents"].float(), found["factor"]
    model = base_parts.new_autoencoder()
    model.load_state_dict(read_checkpoint(folder / "autoencoder.pt")["model"])
    model.to(device()).eval().requires_grad_(requires_grad=False)
    parts = (part.to(device()).float() / 127.5 - 1 for part in torch.split(world.pictures, 256))
    with torch.inference_mode(), fast():
        latents = torch.cat([model.encode(part).latent_dist.mean.float().cpu() for part in parts])
    factor = 1 / latents.std().item()
    with write_atomically(kept) as aside:
        torch.save({"latents": (latents * factor).half(), "factor": factor}, aside)
    return latents * factor, factor


def trained_text_tower(folder: Path) -> Any:
    """Return the frozen text tower of the trained pair."""
    state = read_checkpoint(folder / "clip.pt")["model"]
    pair = base_parts.new_clip(state["vision_model.embeddings.patch_embedding.weight"].shape[-1])
    pair.load_state_dict(state)
    return pair.text_model.eval().requires_grad_(requires_grad=False)


def train_unet(world: World, tokenizer: Any, folder: Path, *, steps: int, batch: int, seed: int) -> None:
    """Train the UNet on v-prediction (Salimans & Ho 2022), one caption in ten left empty for guidance.

    One in four, empty ones too, has words put in that say nothing. Each step of noise weighs min(SNR, 5) / (SNR + 1)
    (Hang et al. 2023, for v-prediction).
    """
    import copy

    import torch
    from diffusers import DDIMScheduler

    from ti_pipeline.demo.base_export import SCHEDULER

    torch.manual_seed(seed + 2)
    latents, factor = encode_world(world, folder)
    write_json(folder / "latents.json", {"scaling_factor": factor, "drawings": len(world.attributes)})
    text = trained_text_tower(folder).to(device())
    model = base_parts.new_unet().to(device())
    average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    scheduler = DDIMScheduler(**SCHEDULER)
    ratio = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = ratio.clamp(max=MIN_SNR) / (ratio + 1)

    def loss_of(step: int) -> torch.Tensor:
        indices, captions, _ = world.batch(batch, step, seed + 2)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        kept = torch.rand(batch, generator=generator) >= 0.1
        captions = [words if keep else "" for words, keep in zip(captions, kept.tolist(), strict=True)]
        filling = random.Random(f"{seed}/filler/{step}")  # noqa: S311 - drawings, not secrets
        ids = with_filler(tokens(tokenizer, captions, full=True), filling)
        clean = latents[indices]
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(0, 1000, (batch,), generator=generator)
        noisy = scheduler.add_noise(clean, noise, times).to(device())
        target = scheduler.get_velocity(clean, noise, times).to(device())
        with fast():
            with torch.no_grad():
                states = text(input_ids=ids.to(device())).last_hidden_state
            predicted = model(noisy, times.to(device()), encoder_hidden_states=states).sample
        error = (predicted.float() - target).square().mean(dim=(1, 2, 3))
        loss: torch.Tensor = (weights[times].to(device()) * error).mean()
        return loss

    optimise("unet", model, loss_of, folder=folder, steps=steps, peak=1.5e-3, average=average)


def was_adopted(path: Path) -> bool:
    """Return whether a checkpoint holds weights of a finished model, and nothing to go on from."""
    return path.exists() and "optimizer" not in read_checkpoint(path)


def main(arguments: list[str] | None = None) -> int:
    """Train what is not yet trained and write the model folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.demo.train_base", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("data/base_models/demo"), help="the model folder to write")
    parser.add_argument("--work", type=Path, default=Path("data/store/demo_base"), help="checkpoints, to go on from")
    parser.add_argument("--bpe", type=Path, help="CLIP's bpe_simple_vocab_16e6.txt.gz; else the tokenizer in --out")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these stages, without the export")
    parser.add_argument("--drawings", type=int, default=40_000)
    parser.add_argument("--steps", type=int, nargs=6, default=STEPS, metavar=STAGES, help="updates a stage")
    parser.add_argument("--batch", type=int, nargs=6, default=BATCHES, metavar=STAGES, help="drawings an update")
    parser.add_argument("--adopt", type=Path, help="a finished model whose parts stand for stages not trained here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 = all")
    parser.add_argument("--note", default="", help="a sentence for the card: how this training differed")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished model")
    options = parser.parse_args(arguments)
    if (options.out / "model_index.json").exists() and not options.overwrite and not options.stage:
        parser.error(f"{options.out} holds a finished model; give --overwrite to replace it")
    return _train(options)


def _train_stage(stage: str, world: World, tokenizer: Any, work: Path, *, steps: int, batch: int, seed: int) -> None:
    from ti_pipeline.demo.train_long import long_text_tower, refit_projection, train_long, train_polish

    if stage == "vision" and was_adopted(work / "vision.pt"):
        refit_projection(tokenizer, work, seed=seed)
        return
    if stage == "autoencoder":
        train_autoencoder(world, work, steps=steps, batch=batch, seed=seed)
    elif stage in {"clip", "vision"}:
        text = long_text_tower(work) if stage == "vision" else None
        train_pair(world, tokenizer, work, text=text, steps=steps, batch=batch, seed=seed)
    else:
        train = {"unet": train_unet, "long": train_long, "polish": train_polish}[stage]
        train(world, tokenizer, work, steps=steps, batch=batch, seed=seed)


def _train(options: argparse.Namespace) -> int:
    import torch
    from transformers import CLIPTokenizer

    from ti_pipeline.demo.base_export import adopt, export

    if options.threads:
        torch.set_num_threads(options.threads)
    shipped = options.out / "tokenizer"
    tokenizer = base_parts.tokenizer_from_bpe(options.bpe) if options.bpe else CLIPTokenizer.from_pretrained(shipped)
    world = World.draw(options.drawings, options.seed)
    steps, batch = dict(zip(STAGES, options.steps, strict=True)), dict(zip(STAGES, options.batch, strict=True))
    if options.adopt:
        adopt(options.adopt, options.work)
    for stage in options.stage or STAGES:
        _train_stage(stage, world, tokenizer, options.work, steps=steps[stage], batch=batch[stage], seed=options.seed)
    if not options.stage:
        export(options.work, options.out, tokenizer, note=options.note)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
