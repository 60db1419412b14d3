"""The token budget: what a variant's vectors leave of CLIP's 75 tokens, and captions that keep to it.

A caption belongs to a plan, but how much of it a prompt has room for depends on the variant: its vectors and its
templates. Not here: writing captions (`captions`), or encoding longer prompts in chunks (`inversion.conditioning`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.tokens import clip_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import Variant

__all__ = [
    "CONTEXT_TOKENS",
    "captions_over_budget",
    "fit_captions",
    "longest_prompts",
    "token_budget",
    "trained_captions",
]

CONTEXT_TOKENS = 75  # CLIP's 77 less start and end


def token_budget(vectors: int) -> int:
    """Return how many of CLIP's 75 tokens an embedding of `vectors` leaves for the rest of the prompt."""
    return max(0, CONTEXT_TOKENS - vectors)


def captions_over_budget(captions: pd.DataFrame, *, vectors: int, tokenizer: Any, template: str) -> pd.DataFrame:
    """Return post_id, tokens and budget of the captions whose prompt is longer than the budget: its tail is cut.

    `template` is a prompt line with [name] and [filewords]; tokens are those beside the embedding's own, and each
    [name] takes its `vectors` from the budget. As in training, commas at the prompt's ends do not count.
    """
    import pandas as pd

    uses = template.count("[name]")
    tokens = pd.Series(_tokens(captions.caption.tolist(), tokenizer, template), index=captions.index)
    over = tokens + uses * vectors > CONTEXT_TOKENS
    table = pd.DataFrame({"post_id": captions.post_id, "tokens": tokens, "budget": token_budget(uses * vectors)})
    return table[over].reset_index(drop=True)


def fit_captions(captions: pd.DataFrame, *, vectors: int, tokenizer: Any, templates: Sequence[str]) -> pd.DataFrame:
    """Return the `captions` table with every caption so short that its prompts keep to 75 tokens.

    A caption loses the last tag of its `priority` until its prompt fits under the longest of the templates. Tags that
    no prompt has room for go first, or they would cost all others. Where the template itself leaves no room, captions
    come out empty. The order of the others stays.
    """
    pieces = [caption.split(", ") if caption else [] for caption in captions.caption]
    rank = [
        [-turn[tag] for tag in tags]
        for tags, turn in zip(captions.tags, map(_numbered, captions.priority), strict=True)
    ]
    left = [list(range(len(found))) for found in pieces]

    def over(texts: list[str]) -> list[bool]:
        return list(_lengths(texts, vectors, tokenizer, templates) > CONTEXT_TOKENS)

    words = sorted({piece for found in pieces for piece in found})
    hopeless = {word for word, too_long in zip(words, over(words), strict=True) if too_long}
    open_ = [i for i, too_long in enumerate(over(captions.caption.tolist())) if too_long]
    for i in open_:
        left[i] = [place for place in left[i] if pieces[i][place] not in hopeless]
    while open_:
        still = over([", ".join(pieces[i][place] for place in left[i]) for i in open_])
        open_ = [i for i, too_long in zip(open_, still, strict=True) if too_long and left[i]]
        for i in open_:
            left[i].remove(min(left[i], key=rank[i].__getitem__))
    return _with_only(captions, pieces, left)


def _numbered(tags: Sequence[str]) -> dict[str, int]:
    return {tag: number for number, tag in enumerate(tags)}


def _with_only(captions: pd.DataFrame, pieces: list[list[str]], left: list[list[int]]) -> pd.DataFrame:
    """Return captions that say only these of their pieces (0-based places)."""
    import pandas as pd

    def column(values: list[Any], kind: Any) -> pd.Series[Any]:
        return pd.Series(values, captions.index, dtype=kind)

    tags = [[every[i] for i in kept] for every, kept in zip(captions.tags, left, strict=True)]
    order = [[tag for tag in every if tag in set(said)] for every, said in zip(captions.priority, tags, strict=True)]
    count = column([len(kept) for kept in left], "int64")
    return captions.assign(
        caption=column([", ".join(words[i] for i in kept) for words, kept in zip(pieces, left, strict=True)], "str"),
        tags=column(tags, object),
        priority=column(order, object),
        tag_count=count,
        dropped_tags=captions.dropped_tags + captions.tag_count - count,
    )


def trained_captions(captions: pd.DataFrame, variant: Variant) -> pd.DataFrame:
    """Return the captions that a variant trains on: its plan's, made to fit where the variant asks for that.

    A tag that says the embedding's name is left out: the prompt would hold the vectors twice.
    """
    own = _without_name(captions, str(variant.token), clip_tokenizer())
    if variant.long_prompts != "fit":
        return own
    return fit_captions(own, vectors=variant.vectors, tokenizer=clip_tokenizer(), templates=variant.templates)


def _without_name(captions: pd.DataFrame, name: str, tokenizer: Any) -> pd.DataFrame:
    """Return captions without pieces in which the trainer would find the embedding's name: by its tokens, any case."""
    pieces = [caption.split(", ") if caption else [] for caption in captions.caption]
    words = sorted({piece for found in pieces for piece in found})
    known = tokenizer([name, *words], add_special_tokens=False, truncation=False, verbose=False).input_ids
    wanted = known[0]
    named = {
        word
        for word, ids in zip(words, known[1:], strict=True)
        if any(ids[at : at + len(wanted)] == wanted for at in range(len(ids) - len(wanted) + 1))
    }
    if not named:
        return captions
    return _with_only(captions, pieces, [[i for i, w in enumerate(found) if w not in named] for found in pieces])


def longest_prompts(
    captions: pd.DataFrame, *, vectors: int, tokenizer: Any, templates: Sequence[str]
) -> NDArray[np.int64]:
    """Return how many tokens each caption's longest prompt has, the embedding's vectors among them."""
    return _lengths(captions.caption.tolist(), vectors, tokenizer, templates)


def _lengths(texts: list[str], vectors: int, tokenizer: Any, templates: Sequence[str]) -> NDArray[np.int64]:
    import numpy as np

    lengths = [
        _tokens(texts, tokenizer, template) + template.count("[name]") * vectors
        for template in dict.fromkeys(templates)
    ]
    longest: NDArray[np.int64] = np.max(lengths, axis=0)
    return longest


def _tokens(captions: list[str], tokenizer: Any, template: str) -> NDArray[np.int64]:
    """Return how many tokens each caption's prompt has beside the embedding's own."""
    import numpy as np

    # A letter that stands for the embedding keeps the marks around it apart: it is one token, and not counted.
    uses = template.count("[name]")
    prompts = [template.replace("[filewords]", caption).replace("[name]", "x").strip(" ,") for caption in captions]
    ids = tokenizer(prompts, add_special_tokens=False, truncation=False, verbose=False).input_ids if prompts else []
    return np.array([len(found) - uses for found in ids], dtype=np.int64)
