"""CLIP's vocabulary, which every Stable Diffusion 1.x model shares: its merges are part of the package.

The first 48,894 merges of OpenAI's `bpe_simple_vocab_16e6.txt.gz` (MIT, https://github.com/openai/CLIP).
Not here: what is done with tokens (`conditioning`, `tagging.tokens`).
"""

from __future__ import annotations

import functools
import gzip
import importlib.resources
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

__all__ = ["clip_tokenizer", "clip_words"]

_END = "</w>"  # of a word


@functools.lru_cache(maxsize=1)
def _merges() -> list[str]:
    """Return the merges, the first to be made first, each as two parts with a space between them."""
    packed = importlib.resources.files(__package__).joinpath("clip_merges.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().splitlines()


@functools.lru_cache(maxsize=1)
def clip_words() -> frozenset[str]:
    """Return every word of plain letters and digits that is one token."""
    merged = (merge.replace(" ", "") for merge in _merges() if merge.endswith(_END))
    plain = re.compile("[a-z0-9]+")
    words = {word for token in merged if plain.fullmatch(word := token.removesuffix(_END))}
    return frozenset(words | set("abcdefghijklmnopqrstuvwxyz0123456789"))


def clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of Stable Diffusion 1.x: 49,408 tokens, 77 to a prompt, padded with the end token."""
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    symbols = _byte_symbols()
    merges = [tuple(merge.split(" ")) for merge in _merges()]
    tokens = [*symbols, *(symbol + _END for symbol in symbols), *map("".join, merges), start, end]
    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, merges=merges, model_max_length=77
    )


def _byte_symbols() -> list[str]:
    """Return the 256 characters that stand for bytes: readable ones for themselves, the others moved behind them."""
    readable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [*map(chr, readable), *map(chr, range(256, 512 - len(readable)))]
