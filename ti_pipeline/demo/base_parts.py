"""The parts of the demo's small base model: their shapes, and the real CLIP tokenizer.

Here: architectures only. Not here: how they are trained (`train_base`) or saved (`base_export`).
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["new_autoencoder", "new_clip", "new_unet", "tokenizer_from_bpe"]

PICTURE_SIZE = 64
LATENT_CHANNELS = 8
TEXT_WIDTH = 64
START, END, COMMA, ANTHRO = 49406, 49407, 267, (514, 28624)  # CLIP's tokens


def tokenizer_from_bpe(bpe_file: Path) -> Any:
    """Return CLIP's tokenizer from `bpe_simple_vocab_16e6.txt.gz` as OpenAI published it with CLIP (49,408 entries)."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    with gzip.open(bpe_file, "rt", encoding="utf-8") as stream:
        merges = [tuple(line.split()) for line in stream.read().split("\n")[1:48895]]
    alphabet = list(bytes_to_unicode().values())
    entries = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(pair) for pair in merges)]
    entries += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def new_autoencoder() -> Any:
    """Return an untrained AutoencoderKL: 64 px to 8 × 8 × 8 latents."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_SIZE,
        mid_block_add_attention=False,
    )


def new_clip(patch: int = 8) -> Any:
    """Return an untrained CLIP pair with the real vocabulary; its vision tower looks at patches of `patch` pixels."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": 49408,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": TEXT_WIDTH,
        "bos_token_id": START,
        "eos_token_id": END,
        "pad_token_id": END,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": PICTURE_SIZE,
        "patch_size": patch,
        "projection_dim": TEXT_WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH))


def new_unet() -> Any:
    """Return an untrained UNet2DConditionModel on 8 × 8 × 8 latents, conditioned on the CLIP text tower."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // 8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(96, 160),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
