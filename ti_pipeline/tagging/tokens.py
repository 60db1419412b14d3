"""CLIP's tokenizer, for counting how much of a caption a text encoder will see.

Not here: turning prompts into conditioning (`inversion.conditioning`).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

__all__ = ["CLIP_TOKENIZER", "clip_tokenizer"]

# Every Stable Diffusion 1.x and 2.x base shares CLIP's vocabulary, so the shipped tokenizer counts for all.
CLIP_TOKENIZER = Path(__file__).resolve().parents[2] / "data" / "base_models" / "demo" / "tokenizer"


@functools.lru_cache(maxsize=2)
def clip_tokenizer(folder: Path = CLIP_TOKENIZER) -> Any:
    """Return the tokenizer in a diffusers `tokenizer` folder, read once per process."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
