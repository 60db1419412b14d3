"""CLIP's tokenizer, for counting how much of a caption a text encoder will see.

Not here: turning prompts into conditioning (`inversion.conditioning`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clip_tokenizer"]


@functools.lru_cache(maxsize=2)
def clip_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in a diffusers `tokenizer` folder, read once per process."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
