"""Prompts with what stands in an embedding's place, for the stage that teaches the base model to read them.

An embedding of 64 vectors pushes the words behind it to places where captions alone never have them, and is longer
than any word of the vocabulary. So some captions get a run of 1 to 64 vectors: either one that says nothing (what an
untrained embedding holds: a text's tokens spread over it, or random vectors), or one that says some of the caption's
words in their place, so that runs are read and not merely overlooked.
Not here: the training itself (`train_base`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.demo import base_parts
from ti_pipeline.inversion.conditioning import CONTEXT_TOKENS, PromptToken

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    import torch

__all__ = ["RunOfVectors", "cut_short", "long_prompt", "vectors_of"]

MOST_VECTORS = 64
ROUND_NUMBERS = (4, 8, 16, 32, 64)  # of vectors, as people choose them
WITH_RUN, SAYING = 0.6, 0.55  # shares: captions that get a run, and runs that say some of the caption's words
SHORT, FEW = 0.35, 4  # this share of the captions is cut to so many words, as prompts are
NOISE, LONGEST = 1.5, 6.0  # of a run's vectors, in lengths of the vocabulary's


@dataclass(frozen=True)
class RunOfVectors:
    """What an embedding holds: the `tokens` of each vector, noise of deviation `noise`, and their length.

    `noise` and `length` are in mean lengths of the vocabulary's vectors; without a `length` they stay as they are, and
    without tokens the vectors are noise alone. `seed` is that of the noise.
    """

    tokens: list[int]
    noise: float
    length: float | None
    seed: int


def cut_short(caption: str, rng: random.Random) -> list[str]:
    """Return the words of a caption, in some of the cases only the first few of them."""
    words = caption.split(", ") if caption else []
    return words[: rng.randint(1, FEW)] if rng.random() < SHORT else words


def long_prompt(
    words: Sequence[str], ids: Callable[[str], list[int]], rng: random.Random, name: str
) -> tuple[list[PromptToken], list[str], RunOfVectors | None]:
    """Return a caption's tokens, at most 75, in most cases with an embedding `name` in it; what it says; and the run.

    `ids` tokenizes a text. The run stands at the start, or behind a word; words that have no room are left out.
    """
    if rng.random() >= WITH_RUN:
        alone: list[PromptToken] = [*_joined(words, ids)]
        return alone[:CONTEXT_TOKENS], list(words), None
    count = rng.choice(ROUND_NUMBERS) if rng.random() < 0.5 else rng.randint(1, MOST_VECTORS)
    said: list[str] = []
    rest = list(words)
    if words and rng.random() < SAYING:
        said = rng.sample(rest, rng.randint(1, min(5, len(rest))))
        rest = [word for word in rest if word not in said]
    while rest and count + 2 + len(_joined(rest, ids)) > CONTEXT_TOKENS:  # two commas around the run
        rest.pop(rng.randrange(len(rest)))
    place = 0 if rng.random() < 0.6 else rng.randint(0, len(rest))
    before, after = _joined(rest[:place], ids), _joined(rest[place:], ids)
    tokens: list[PromptToken] = [*before, *([base_parts.COMMA] if before else [])]
    tokens += [(name, index) for index in range(count)]
    tokens += [*([base_parts.COMMA] if after else []), *after]
    told = [word for word in words if word in said or word in rest]
    return tokens[:CONTEXT_TOKENS], told, _run(count, [token for word in said for token in ids(word)], rng)


def _joined(words: Sequence[str], ids: Callable[[str], list[int]]) -> list[int]:
    return ids(", ".join(words)) if words else []


def _run(count: int, says: list[int], rng: random.Random) -> RunOfVectors:
    """Return a run of `count` vectors that `says` these tokens; without any, one that says nothing."""
    noise = 0.0 if rng.random() < 0.3 else rng.uniform(0, NOISE)
    length = None if rng.random() < 0.4 else rng.uniform(0.7, LONGEST) if rng.random() < 0.7 else 1.0
    seed = rng.randrange(1 << 62)
    if says:
        # In order and spread evenly, as a text that embeddings start from; or in any order, with others between them.
        spread = [says[index * len(says) // count] for index in range(count)]
        if rng.random() < 0.5:
            spread = [token if rng.random() < 0.6 else rng.choice(says) for token in spread]
        return RunOfVectors(spread, noise * 0.6, length, seed)
    kind = rng.random()
    if kind < 0.15:
        return RunOfVectors([], max(noise, 0.3), length, seed)
    few = [rng.randrange(base_parts.START) for _ in range(rng.randint(1, 4) if kind < 0.6 else count)]
    few = list(base_parts.ANTHRO) if kind < 0.3 else few
    return RunOfVectors([few[index * len(few) // count] for index in range(count)], noise, length, seed)


def vectors_of(run: RunOfVectors, count: int, table: torch.Tensor) -> torch.Tensor:
    """Return a run's vectors [count, width] in the vocabulary `table` [tokens, width]."""
    import torch

    width = table.shape[1]
    mean = float(table.norm(dim=1).mean())
    generator = torch.Generator().manual_seed(run.seed)
    vectors = table[torch.tensor(run.tokens)] if run.tokens else torch.zeros(count, width)
    # Noise of one length: a vector of n numbers of deviation 1 is sqrt(n) long.
    vectors = vectors + torch.randn(count, width, generator=generator) * (run.noise * mean / width**0.5)
    if run.length is not None:
        vectors = vectors * (run.length * mean / vectors.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return torch.as_tensor(vectors)
