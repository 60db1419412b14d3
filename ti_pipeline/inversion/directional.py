"""Directional textual inversion: vectors keep the length of the vocabulary's words, and only turn.

After Kim et al. 2025, "Directional Textual Inversion for Personalized Text-to-Image Generation" (arXiv 2512.13672):
plain textual inversion lets vectors grow to several times a word's length, which text encoders that normalise first
hardly hear the rest of the prompt beside. Here: the update, and what a start must be like. Not here: where the start
comes from (`variant_state`), rates (`schedules`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["DirectionError", "Turning", "of_length", "require_near"]

# Pull to the direction of the start, beside a gradient of length 1: the concentration κ of the von Mises-Fisher prior.
# Weak on purpose, as in the paper: it decides where the pictures have nothing to say.
CONCENTRATION = 1e-4
FARTHEST = 1.5  # a start may be so many times longer or shorter than the vocabulary's words


class DirectionError(ValueError):
    """Vectors have no direction, or are far from a word's length; the message says what to do."""


def of_length(vectors: torch.Tensor, length: float) -> torch.Tensor:
    """Return vectors [n, width] in their directions, each of this length. Raises `DirectionError` for zero vectors."""
    import torch

    if not bool((vectors.detach().norm(dim=1) > 0).all()):
        raise DirectionError(
            "a vector of zeros has no direction to turn from: give an initializer, or train with optimizer adamw"
        )
    return torch.nn.functional.normalize(vectors, dim=1) * length


def require_near(vectors: torch.Tensor, length: float) -> None:
    """Raise `DirectionError` if a vector's length is far from `length`: shortened, it would be another embedding."""
    ratios = vectors.detach().norm(dim=1) / length
    farthest = float(max(ratios, key=lambda ratio: max(float(ratio), 1 / max(float(ratio), 1e-12))))
    if not 1 / FARTHEST <= farthest <= FARTHEST:
        raise DirectionError(
            f"a vector of it is {farthest:.3g} times as long as the vocabulary's words, and directional training keeps "
            "their length: go on with optimizer adamw, or start from text"
        )


class Turning:
    """Descent on the sphere, in the place of a torch optimizer: each update turns every vector by about its rate.

    The gradient is projected on the tangent of the sphere and normalised vector by vector, so that the learning rate is
    an angle in radians; then the vectors are brought back to their length. No state beside the vectors but where they
    started, so a resumed run needs nothing more.
    """

    def __init__(self, vectors: torch.Tensor, *, length: float) -> None:
        """Hold `vectors` [n, width], a leaf of this length; the prior's direction is where they are now."""
        import torch

        self.vectors, self.length = vectors, length
        self.start = torch.nn.functional.normalize(vectors.detach(), dim=1)
        self.param_groups: list[dict[str, Any]] = [{"lr": 0.0}]
        self.state: dict[torch.Tensor, dict[str, Any]] = {vectors: {}}  # as torch's optimizers have it; none here

    def step(self) -> None:
        """Turn the vectors against their gradients. One that has none keeps to the prior."""
        import torch

        with torch.no_grad():
            unit = torch.nn.functional.normalize(self.vectors, dim=1)
            gradient = torch.zeros_like(unit) if self.vectors.grad is None else self.vectors.grad
            # Normalised twice, since a gradient's own length may be near the smallest number.
            along = _tangent(torch.nn.functional.normalize(gradient, dim=1, eps=1e-30), unit)
            wanted = torch.nn.functional.normalize(along, dim=1) - CONCENTRATION * _tangent(self.start, unit)
            turned = unit - self.param_groups[0]["lr"] * wanted
            self.vectors.copy_(torch.nn.functional.normalize(turned, dim=1) * self.length)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient, as torch's optimizers do."""
        self.vectors.grad = None if set_to_none or self.vectors.grad is None else self.vectors.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the state to go on from: none, see above."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""


def _tangent(rows: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """Return what of each row is at a right angle to its unit vector."""
    return rows - (rows * unit).sum(dim=1, keepdim=True) * unit
