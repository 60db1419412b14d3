"""A variant in training: its pictures, its vectors and optimizer, its log, and the state to go on from.

Here: how a run starts and what is kept of it. Not here: how it is trained (`trainer`), or where its state and
checkpoints are written (`training_runs`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.conditioning import prompt_tokens
from ti_pipeline.inversion.draws import generator, normal, steps_per_epoch
from ti_pipeline.inversion.schedules import LearningRate, parse_learning_rate

if TYPE_CHECKING:
    import torch

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.latents import Latents
    from ti_pipeline.studies import Variant

__all__ = ["Pictures", "Run", "initial_vectors", "update_count"]


@dataclass(frozen=True)
class Pictures:
    """What is trained or measured on: post ids, captions, and the pictures' latents in the same order."""

    post_ids: list[int]
    captions: list[str]
    latents: Latents


@dataclass
class Run:
    """One variant in training: its settings, its vectors [n, width] float32 (the only parameters), and its log."""

    key: str
    variant: Variant
    train: Pictures
    validation: Pictures
    vectors: torch.Tensor
    initial: torch.Tensor
    optimizer: torch.optim.Optimizer
    rate: LearningRate
    latents: torch.Tensor | None  # scaled samples of `latents: once | deterministic`; None samples at each step
    steps: int
    steps_per_epoch: int
    done: int = 0
    micro: int = 0
    micro_losses: list[torch.Tensor] = field(default_factory=list)
    waiting: list[torch.Tensor] = field(default_factory=list)  # [loss, gradient norm, vector norm], not yet read
    log: list[list[float]] = field(default_factory=list)  # the same, read
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    failure: str | None = None

    @classmethod
    def start(cls, key: str, variant: Variant, base: Base, train: Pictures, validation: Pictures) -> Run:
        """Return a run at step 0. `variant` has its open references filled in (`Study.variant`)."""
        import torch

        initial = initial_vectors(base, variant.initializer, variant.vectors)
        vectors = initial.clone().requires_grad_(True)
        per_epoch = steps_per_epoch(len(train.post_ids), variant.batch_size, variant.gradient_accumulation)
        on_gpu = base.device.type == "cuda"
        return cls(
            key=key,
            variant=variant,
            train=train,
            validation=validation,
            vectors=vectors,
            initial=initial,
            optimizer=torch.optim.AdamW([vectors], lr=1.0, weight_decay=0.0, fused=on_gpu),
            rate=parse_learning_rate(variant.learning_rate),
            latents=_fixed_latents(base, variant, train),
            steps=update_count(variant, len(train.post_ids)),
            steps_per_epoch=per_epoch,
        )

    @property
    def name(self) -> str:
        """The embedding's name in prompts."""
        return self.variant.token or self.key

    @property
    def seed(self) -> int:
        """The seed of every draw."""
        return self.variant.seed or 0

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on exactly: draws need no state, they depend on `done` alone."""
        return {
            "vectors": self.vectors.detach(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "log": self.log,
            "checkpoints": self.checkpoints,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        import torch

        with torch.no_grad():
            self.vectors.copy_(state["vectors"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done, self.log, self.checkpoints = state["done"], state["log"], state["checkpoints"]


def update_count(variant: Variant, pictures: int) -> int:
    """Return how many updates a variant trains: its steps or its epochs, whichever ends first."""
    per_epoch = steps_per_epoch(pictures, variant.batch_size, variant.gradient_accumulation)
    limits = [variant.steps, variant.epochs and variant.epochs * per_epoch]
    return min(limit for limit in limits if limit)


def initial_vectors(base: Base, text: str, vectors: int) -> torch.Tensor:
    """Return vectors [vectors, width], float32 at least, to start from: the token vectors of `text`, spread over all.

    `vec[i] = tok[i * len(tok) // n]` as in A1111, so a text longer than the embedding loses tokens evenly; empty text
    gives zeros.
    """
    import torch

    exact = torch.promote_types(base.dtype, torch.float32)
    ids = [token for token in prompt_tokens(base.tokenizer, text, {}) if isinstance(token, int)]
    if not ids:
        return torch.zeros(vectors, base.width, device=base.device, dtype=exact)
    chosen = torch.tensor([ids[i * len(ids) // vectors] for i in range(vectors)], device=base.device)
    return torch.as_tensor(base.text_encoder.get_input_embeddings()(chosen)).detach().to(exact, copy=True)


def _fixed_latents(base: Base, variant: Variant, pictures: Pictures) -> torch.Tensor | None:
    """Return each picture's one latent, scaled; `once` samples it by the picture's id, whatever else is trained on."""
    import torch

    mean, deviation = pictures.latents.mean, pictures.latents.deviation
    if variant.latents == "random":
        return None
    if variant.latents == "once":
        shape = mean.shape[1:]
        noise = [normal(generator(variant.seed or 0, "latent", post_id), *shape) for post_id in pictures.post_ids]
        mean = mean + deviation * torch.stack(noise)
    return mean * float(base.vae.config.scaling_factor)
