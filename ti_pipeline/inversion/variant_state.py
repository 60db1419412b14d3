"""A variant in training: its pictures, its vectors and optimizer, its log, and the state to go on from.

Here: how a run starts and what is kept of it. Not here: how it is trained (`trainer`), or where its state and
checkpoints are written (`training_runs`).
"""

from __future__ import annotations

import importlib
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.conditioning import prompt_tokens
from ti_pipeline.inversion.directional import DirectionError, Turning, of_length, require_near
from ti_pipeline.inversion.draws import generator, normal, steps_per_epoch
from ti_pipeline.inversion.schedules import LearningRate, parse_learning_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.latents import Latents
    from ti_pipeline.studies import Variant

__all__ = ["Pictures", "Run", "StartError", "initial_vectors", "initializer_path", "stages_of", "update_count"]


FP16_SCALE = 1024.0
_OPTIMIZERS = {"lion": ("lion_pytorch", "Lion"), "prodigy": ("prodigyopt", "Prodigy")}


class StartError(ValueError):
    """A variant cannot start as its study says; the message names the field and what to do."""


@dataclass(frozen=True)
class Pictures:
    """What is trained or measured on: post ids, captions, latents and, if there are several, stages, in one order."""

    post_ids: list[int]
    captions: list[str]
    latents: Latents
    stages: list[int] | None = None


@dataclass(frozen=True)
class Span:
    """The updates from `start` up to `stop` that a stage trains, on these of the run's pictures."""

    stage: int
    start: int
    stop: int
    pictures: list[int]
    shapes: tuple[int, ...]  # of these pictures, a number for each shape
    steps_per_epoch: int
    first_epoch: int


@dataclass
class Run:
    """One variant in training: its settings, its vectors [n, width] float32 (the only parameters), and its log."""

    key: str
    variant: Variant
    train: Pictures
    validation: Pictures
    vectors: torch.Tensor
    initial: torch.Tensor
    average: torch.Tensor | None  # moving average of the vectors, where the variant asks for one
    longest: float | None  # limit of a vector's norm
    length: float | None  # what every vector's norm is, where only directions are trained
    optimizer: torch.optim.Optimizer | Turning
    rate: LearningRate
    latents: list[torch.Tensor] | None  # scaled samples of `latents: once | deterministic`; None samples at each step
    spans: list[Span]
    steps: int
    scale: torch.Tensor  # of the loss, undone before the update: keeps fp16 gradients above the smallest number
    done: int = 0
    micro: int = 0
    micro_losses: list[torch.Tensor] = field(default_factory=list)
    micro_errors: list[torch.Tensor] = field(default_factory=list)
    # Per update [loss, gradient norm, vector norm, squared error of each sample], not yet read.
    waiting: list[torch.Tensor] = field(default_factory=list)
    log: list[list[float]] = field(default_factory=list)  # the same, read
    checkpoints: list[dict[str, Any]] = field(default_factory=list)  # those that are asked for
    others: list[dict[str, Any]] = field(default_factory=list)  # kept ones of the same way that nobody asks for now
    failure: str | None = None
    # When the numbers were last read and the state last kept, in seconds of a clock that is never set.
    read_at: float = field(default_factory=time.monotonic)
    kept_at: float = field(default_factory=time.monotonic)

    @classmethod
    def start(
        cls,
        key: str,
        variant: Variant,
        base: Base,
        train: Pictures,
        validation: Pictures,
        *,
        folder: Path | None = None,
    ) -> Run:
        """Return a run at step 0. `variant` has its open references filled in (`Study.variant`).

        `folder` is where a relative `initializer_file` starts. Raises `StartError`, `EmbeddingFileError`,
        `BaseModelError` for a start or an optimizer that cannot be had.
        """
        import torch

        length = _mean_norm(base) if variant.optimizer == "directional" else None
        initial = _initial(base, variant, folder, length)
        vectors = initial.clone().requires_grad_(True)
        spans = _spans(variant, train)
        return cls(
            key=key,
            variant=variant,
            train=train,
            validation=validation,
            vectors=vectors,
            initial=initial,
            average=initial.clone() if variant.ema_decay else None,
            longest=variant.max_norm and variant.max_norm * _mean_norm(base),
            length=length,
            optimizer=Turning(vectors, length=length) if length else _optimizer(key, variant, vectors),
            rate=_rate(variant, spans[-1].stop),
            latents=_fixed_latents(base, variant, train),
            spans=spans,
            steps=spans[-1].stop,
            scale=torch.tensor(FP16_SCALE if base.dtype == torch.float16 else 1.0, device=base.device),
        )

    @property
    def name(self) -> str:
        """The embedding's name in prompts."""
        return self.variant.token or self.key

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return self.variant.seed or 0

    def span(self, done: int) -> Span:
        """Return the span of the update after `done` updates."""
        return next(span for span in self.spans if done < span.stop)

    def epoch(self, done: int) -> tuple[int, int]:
        """Return the pass over its stage's pictures that the update after `done` belongs to, and its place in it."""
        span = self.span(done)
        epoch, inside = divmod(done - span.start, span.steps_per_epoch)
        return span.first_epoch + epoch, inside + 1

    @property
    def result(self) -> torch.Tensor:
        """What a checkpoint holds now: the vectors, or their moving average, [n, width] without gradient."""
        if self.average is None:
            return self.vectors.detach()
        return self.average if self.length is None else of_length(self.average, self.length)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train: all updates done, numbers broken, or patience at its end."""
        return self.done >= self.steps or self.failure is not None or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether so many checkpoints in a row have not lowered the validation loss."""
        losses = [c["validation_loss"] for c in self.checkpoints if c["validation_loss"] is not None]
        waited = len(losses) - 1 - losses.index(min(losses)) if losses else 0
        return self.variant.patience is not None and waited >= self.variant.patience

    def after_update(self) -> None:
        """Shorten vectors that grew too long, and let the moving average follow."""
        import torch

        with torch.no_grad():
            if self.longest is not None:
                norms = self.vectors.norm(dim=1, keepdim=True)
                self.vectors.mul_((self.longest / norms.clamp(min=1e-12)).clamp(max=1))
            if self.average is not None:
                # The decay grows with the updates, as in diffusers' EMAModel: an average of few values forgets fast.
                grown = self.done / (9 + self.done) if self.done > 1 else 0.0
                decay = min(self.variant.ema_decay or 0.0, grown)
                self.average.lerp_(self.vectors, 1 - decay)

    @property
    def host_steps(self) -> bool:
        """Whether the optimizer keeps numbers outside tensors, which `put_back` cannot put back."""
        return self.variant.optimizer == "prodigy"

    def snapshot(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each tensor that an update changes, with a copy of it."""
        state = self.optimizer.state[self.vectors]
        changed = [value for value in state.values() if _is_tensor(value)]
        return [
            (value, value.clone()) for value in (self.vectors.detach(), self.average, *changed) if value is not None
        ]

    def put_back(self, before: list[tuple[torch.Tensor, torch.Tensor]], *, unless: torch.Tensor) -> None:
        """Undo an update on the device, `unless` a tensor says that it was good: nobody waits to be told.

        What the optimizer's first update made is set to 0, as it begins. In fp16 the loss's scale is halved, too.
        """
        import torch

        known = {value.data_ptr() for value, _ in before}
        fresh = [value for value in self.optimizer.state[self.vectors].values() if _is_tensor(value)]
        before = before + [(value, torch.zeros_like(value)) for value in fresh if value.data_ptr() not in known]
        with torch.no_grad():
            for value, old in before:
                value.copy_(torch.where(unless.to(value.device), value, old))
            self.scale.copy_(torch.where(unless, self.scale, (self.scale / 2).clamp(min=1)))

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on exactly: draws need no state, they depend on `done` alone."""
        return {
            "vectors": self.vectors.detach(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "scale": self.scale,
            "log": self.log,
            "checkpoints": self.checkpoints,
            "others": self.others,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        import torch

        with torch.no_grad():
            self.vectors.copy_(state["vectors"])
            if self.average is not None:
                self.average.copy_(state["average"])
            self.scale.copy_(state["scale"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.log = state["done"], state["log"]
        self.checkpoints, self.others = state["checkpoints"], state["others"]


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def stages_of(variant: Variant) -> list[tuple[str, int | None]]:
    """Return each stage's crop set and updates; a variant without stages is one, its updates told by `update_count`."""
    return [(stage.crop, stage.steps) for stage in variant.stages] or [(str(variant.crop), None)]


def _spans(variant: Variant, train: Pictures) -> list[Span]:
    found: list[Span] = []
    stages = train.stages or [0] * len(train.post_ids)
    for index, (_, steps) in enumerate(stages_of(variant)):
        pictures = [place for place, of in enumerate(stages) if of == index]
        shapes = _shapes(train.latents, pictures)
        per_epoch = steps_per_epoch(shapes, variant.batch_size, variant.gradient_accumulation)
        start, epoch = (found[-1].stop, found[-1].first_epoch) if found else (0, 1)
        if found:
            epoch += -(-(found[-1].stop - found[-1].start) // found[-1].steps_per_epoch)
        count = steps or update_count(variant, shapes)
        found.append(Span(index, start, start + count, pictures, shapes, per_epoch, epoch))
    return found


def _shapes(latents: Latents, pictures: list[int]) -> tuple[int, ...]:
    numbers: dict[tuple[int, ...], int] = {}
    return tuple(numbers.setdefault(tuple(latents.mean[i].shape), len(numbers)) for i in pictures)


def update_count(variant: Variant, shapes: Sequence[int]) -> int:
    """Return how many updates a variant without stages trains: its steps or epochs, whichever ends first.

    `shapes` are numbers for the shapes of its pictures.
    """
    per_epoch = steps_per_epoch(shapes, variant.batch_size, variant.gradient_accumulation)
    limits = [variant.steps, variant.epochs and variant.epochs * per_epoch]
    return min(limit for limit in limits if limit)


def _rate(variant: Variant, steps: int) -> LearningRate:
    """Return the schedule of all stages: each one's own rates, its steps counted from its start."""
    pieces: list[tuple[float, float]] = []
    start = 0
    for stage in variant.stages:
        own = parse_learning_rate(stage.learning_rate or variant.learning_rate).pieces
        stop = start + stage.steps
        pieces += [(rate, min(start + end, stop)) for rate, end in (*own, (own[-1][0], math.inf))]
        start = stop
    pieces = pieces or list(parse_learning_rate(variant.learning_rate).pieces)
    ends = {f"{shape}_end": steps for shape in ("cosine", "linear") if variant.lr_scheduler == shape}
    return LearningRate(tuple(pieces), variant.warmup_steps, **ends)


def _optimizer(key: str, variant: Variant, vectors: torch.Tensor) -> torch.optim.Optimizer:
    """Return the optimizer of a variant's vectors without weight decay; its rate is set before each update."""
    import torch

    if variant.optimizer == "adamw":
        return torch.optim.AdamW([vectors], lr=1.0, weight_decay=0.0, fused=vectors.device.type == "cuda")
    package, name = _OPTIMIZERS[variant.optimizer]
    try:
        kind = getattr(importlib.import_module(package), name)
    except ImportError as error:
        raise StartError(
            f"{key}: optimizer {variant.optimizer} is in a package of its own: pip install 'ti_pipeline[optimizers]'"
        ) from error
    optimizer: torch.optim.Optimizer = kind([vectors], lr=1.0, weight_decay=0.0)
    return optimizer


def _initial(base: Base, variant: Variant, folder: Path | None, length: float | None) -> torch.Tensor:
    """Return the start, brought to `length` where there is one. Raises `StartError` if it cannot be."""
    initial = initial_vectors(base, variant, folder=folder)
    if length is None:
        return initial
    field = {"text": "initializer", "vocabulary": "start", "file": "initializer_file"}[variant.start]
    try:
        if variant.start == "file":
            require_near(initial, length)
        return of_length(initial, length)
    except DirectionError as error:
        raise StartError(f"{field}: {error}") from error


def initial_vectors(base: Base, variant: Variant, *, folder: Path | None = None) -> torch.Tensor:
    """Return vectors [variant.vectors, width], float32 at least, to start from: text, vocabulary, or another's file.

    Rows of the text's tokens or the file are spread over all vectors, `vec[i] = row[i * len(rows) // n]` as in A1111:
    a text longer than the embedding loses tokens evenly. Empty text gives zeros. Raises `StartError` for a file with
    more vectors than the variant has, `EmbeddingFileError` and `BaseModelError` for one that cannot be read or is of
    another width.
    """
    import torch

    exact, count = torch.promote_types(base.dtype, torch.float32), variant.vectors
    table = base.text_encoder.get_input_embeddings().weight.detach()
    if variant.start == "vocabulary":
        drawn = normal(generator(variant.seed or 0, "start"), count, base.width).to(base.device, exact)
        return torch.as_tensor(table.to(exact).mean(0) + table.to(exact).std(0) * drawn)
    if variant.start == "file":
        rows = _vectors_of_file(base, variant, folder).to(base.device, exact)
    else:
        ids = [token for token in prompt_tokens(base.tokenizer, variant.initializer, {}) if isinstance(token, int)]
        rows = table[torch.tensor(ids, dtype=torch.long, device=base.device)].to(exact)
    if not len(rows):
        return torch.zeros(count, base.width, device=base.device, dtype=exact)
    return torch.as_tensor(rows)[[i * len(rows) // count for i in range(count)]].clone()


def initializer_path(variant: Variant, folder: Path | None) -> Path:
    """Return where a variant's `initializer_file` lies; relative paths start at the study file's folder."""
    return (folder or Path()) / Path(os.path.expandvars(str(variant.initializer_file))).expanduser()


def _vectors_of_file(base: Base, variant: Variant, folder: Path | None) -> torch.Tensor:
    from ti_pipeline.inversion.embedding_files import load_embedding

    path = initializer_path(variant, folder)
    if not path.is_file():
        raise StartError(f"initializer_file: {path} is not there; relative paths start at the study file")
    rows = load_embedding(path).vectors
    base.require_width(rows.shape[1], f"initializer_file {path.name}")
    if len(rows) > variant.vectors:
        raise StartError(
            f"initializer_file: {path.name} has {len(rows)} vectors and the variant {variant.vectors}: set vectors to "
            f"{len(rows)} or more, since leaving some out would break what it has learned"
        )
    return rows


def _mean_norm(base: Base) -> float:
    """Return the mean length of the base's own token vectors."""
    return float(base.text_encoder.get_input_embeddings().weight.detach().float().norm(dim=1).mean())


def _fixed_latents(base: Base, variant: Variant, pictures: Pictures) -> list[torch.Tensor] | None:
    """Return each picture's one latent, scaled; `once` samples it by the picture's id, whatever else is trained on."""
    found, scale = list(pictures.latents.mean), float(base.vae.config.scaling_factor)
    if variant.latents == "random":
        return None
    if variant.latents == "once":
        spreads = zip(pictures.post_ids, found, pictures.latents.deviation, strict=True)
        found = [
            mean + deviation * normal(generator(variant.seed or 0, "latent", post_id), *mean.shape)
            for post_id, mean, deviation in spreads
        ]
    return [latent * scale for latent in found]
