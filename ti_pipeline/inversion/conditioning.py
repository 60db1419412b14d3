"""Conditioning: prompts with embeddings in them, through the frozen text encoder.

The embedding's vectors take the place of its name as input embeddings; the vocabulary never grows. A name is found
by its token ids, so case makes no difference, and the longest name wins, as in A1111. A prompt longer than CLIP's
context is cut, or encoded in chunks whose states the UNet sees one after another.
Not here: which prompts (templates, captions, suites).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from ti_pipeline.inversion.base_models import Base

__all__ = [
    "CONTEXT_TOKENS",
    "States",
    "chunks_of",
    "encode_prompts",
    "encode_tokens",
    "joined",
    "prompt_length",
    "prompt_tokens",
]

CONTEXT_TOKENS = 75
_COMMA = 267  # of CLIP's vocabulary, which all versions of Stable Diffusion share
_BACKTRACK = 20

# A token of the vocabulary, or (name, i): the i-th vector of an embedding.
PromptToken = int | tuple[str, int]


@dataclass(frozen=True)
class States:
    """What a UNet is conditioned on: states [b, 77 · chunks, width], and which of them count, bool [b, 77 · chunks].

    `mask` is None where all count, so that prompts of one chunk take the same way as in every other program.
    """

    states: torch.Tensor
    mask: torch.Tensor | None = None

    def options(self) -> dict[str, torch.Tensor]:
        """Return the arguments of diffusers' UNet."""
        masked = {} if self.mask is None else {"encoder_attention_mask": self.mask}
        return {"encoder_hidden_states": self.states} | masked


def prompt_tokens(tokenizer: Any, prompt: str, embeddings: Mapping[str, int]) -> list[PromptToken]:
    """Return a prompt's tokens without start and end; `embeddings` maps names to their number of vectors."""
    ids = _ids(tokenizer, prompt)
    names = sorted(((_ids(tokenizer, name), name) for name in embeddings), key=lambda pair: -len(pair[0]))
    tokens: list[PromptToken] = []
    at = 0
    while at < len(ids):
        found = next(((i, name) for i, name in names if i and ids[at : at + len(i)] == i), None)
        if found is None:
            tokens.append(ids[at])
            at += 1
        else:
            tokens += [(found[1], index) for index in range(embeddings[found[1]])]
            at += len(found[0])
    return tokens


def chunks_of(tokens: Sequence[PromptToken], *, long_prompts: str = "cut") -> list[list[PromptToken]]:
    """Return a prompt's tokens in chunks of at most 75: all of them for `chunks`, else the first alone.

    As in A1111, an embedding that does not fit whole opens the next chunk; and where a chunk is full, what stands
    behind its last comma, if that is among its last 20 tokens (`comma_padding_backtrack`), opens the next one, too.
    """
    if long_prompts != "chunks":
        return [list(tokens[:CONTEXT_TOKENS])]
    pieces: list[list[PromptToken]] = []  # an embedding's vectors in a row, or one plain token
    for token in tokens:
        if isinstance(token, tuple) and token[1] > 0:
            pieces[-1].append(token)
        else:
            pieces.append([token])
    chunks: list[list[PromptToken]] = [[]]
    behind_comma = 0  # how many tokens of the chunk stand up to its last comma; 0: it has none
    for piece in pieces:
        whole, full = chunks[-1], len(chunks[-1]) == CONTEXT_TOKENS
        if full and piece != [_COMMA] and behind_comma and len(whole) - behind_comma < _BACKTRACK:
            chunks[-1:] = [whole[:behind_comma], whole[behind_comma:]]
            behind_comma = 0
        if len(chunks[-1]) + len(piece) > CONTEXT_TOKENS:
            chunks.append([])
            behind_comma = 0
        chunks[-1] += piece
        if piece == [_COMMA]:
            behind_comma = len(chunks[-1])
    return chunks


@functools.lru_cache(maxsize=8192)
def _ids(tokenizer: Any, text: str) -> list[int]:
    """Return a text's tokens, not to be changed: names and captions come again at every step."""
    return list(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)


def prompt_length(tokenizer: Any, prompt: str, embeddings: Mapping[str, int]) -> int:
    """Return how many of the 75 tokens a prompt takes, vectors included; what is beyond them is cut."""
    return len(prompt_tokens(tokenizer, prompt, embeddings))


def encode_prompts(
    base: Base,
    prompts: Sequence[str],
    embeddings: Mapping[str, torch.Tensor],
    *,
    clip_skip: int = 1,
    long_prompts: str = "cut",
) -> States:
    """Return the text encoder's states of prompts, differentiable with respect to the embeddings.

    `embeddings` maps names to vectors [n, width]. `clip_skip` n takes the n-th last hidden state, then the final layer
    norm. Raises `BaseModelError` for a wrong width or a skip deeper than the encoder.
    """
    counts = {name: len(vectors) for name, vectors in embeddings.items()}
    rows = [chunks_of(prompt_tokens(base.tokenizer, prompt, counts), long_prompts=long_prompts) for prompt in prompts]
    return encode_tokens(base, rows, embeddings, clip_skip=clip_skip)


def encode_tokens(
    base: Base,
    rows: Sequence[Sequence[Sequence[PromptToken]]],
    embeddings: Mapping[str, torch.Tensor],
    *,
    clip_skip: int = 1,
) -> States:
    """Encode rows of `chunks_of`; the names in them are the keys of `embeddings`. See `encode_prompts`."""
    import torch

    encoded = _encode_chunks(base, [chunk for row in rows for chunk in row], embeddings, clip_skip)
    if all(len(row) == 1 for row in rows):
        return States(encoded)
    whole = torch.split(encoded, [len(row) for row in rows])
    return joined([States(part.reshape(1, -1, part.shape[-1])) for part in whole])


def joined(parts: Sequence[States]) -> States:
    """Return the rows of all parts in one batch; where their lengths differ, what is added at the end is masked."""
    import torch

    longest = max(part.states.shape[1] for part in parts)
    if all(part.mask is None and part.states.shape[1] == longest for part in parts):
        return States(torch.cat([part.states for part in parts]))
    states, masks = [], []
    for part in parts:
        rows, length, _ = part.states.shape
        mask = torch.ones(rows, length, dtype=torch.bool, device=part.states.device) if part.mask is None else part.mask
        states.append(torch.nn.functional.pad(part.states, (0, 0, 0, longest - length)))
        masks.append(torch.nn.functional.pad(mask, (0, longest - length)))
    return States(torch.cat(states), torch.cat(masks))


def _encode_chunks(
    base: Base, rows: Sequence[Sequence[PromptToken]], embeddings: Mapping[str, torch.Tensor], clip_skip: int
) -> torch.Tensor:
    """Return states [len(rows), 77, width] of rows of at most 75 tokens."""
    import torch

    tokenizer = base.tokenizer
    ids = torch.full((len(rows), CONTEXT_TOKENS + 2), tokenizer.pad_token_id)
    starts, offset = {}, 0
    for name, vectors in embeddings.items():
        base.require_width(vectors.shape[-1], f"embedding {name!r}")
        starts[name] = offset
        offset += len(vectors)
    places, picked = [], []
    for index, row in enumerate(rows):
        for place, token in enumerate(row, start=1):
            if isinstance(token, tuple):
                places.append(index * ids.shape[1] + place)
                picked.append(starts[token[0]] + token[1])
        plain = [0 if isinstance(token, tuple) else token for token in row]
        ids[index, : len(plain) + 2] = torch.tensor([tokenizer.bos_token_id, *plain, tokenizer.eos_token_id])
    inputs = _parts(base).embeddings.token_embedding(base.put(ids))
    if embeddings:  # also when no name is left in the prompts: the gradient is then zero, not absent
        table = torch.cat([vectors.to(base.device, base.dtype) for vectors in embeddings.values()])
        flat = inputs.reshape(-1, base.width)
        where = base.put(torch.tensor(places, dtype=torch.long))
        vectors_at = table[base.put(torch.tensor(picked, dtype=torch.long))]
        inputs = flat.index_put((where,), vectors_at).reshape(inputs.shape)
    return _through_encoder(base, inputs, clip_skip)


def _parts(base: Base) -> Any:
    """Return the module with embeddings, encoder and final_layer_norm (older transformers nest it)."""
    return getattr(base.text_encoder, "text_model", base.text_encoder)


def _through_encoder(base: Base, inputs: torch.Tensor, clip_skip: int) -> torch.Tensor:
    """Run input embeddings [b, 77, width] through positions, layers with a causal mask, and the final norm."""
    import torch

    from ti_pipeline.inversion.base_models import BaseModelError

    parts = _parts(base)
    layers = parts.encoder.layers
    if clip_skip > len(layers):
        raise BaseModelError(
            f"clip_skip {clip_skip} is deeper than the text encoder of {base.name!r}, which has {len(layers)} layers"
        )
    length = inputs.shape[1]
    states = parts.embeddings(inputs_embeds=inputs)
    mask = torch.full((length, length), torch.finfo(states.dtype).min, dtype=states.dtype, device=states.device)
    mask = mask.triu(1)[None, None]
    for layer in layers[: len(layers) - (clip_skip - 1)]:
        out = layer(states, attention_mask=mask)
        states = out[0] if isinstance(out, tuple) else out
    return parts.final_layer_norm(states)  # type: ignore[no-any-return]
