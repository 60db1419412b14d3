"""A diffusers pipeline's weights under the names that CompVis' latent-diffusion gave them: what single files hold.

Written from the modules of https://github.com/CompVis/latent-diffusion (`ldm/modules/diffusionmodules`), for any number
of blocks; an independent truth for reading such files.
"""

import re
from typing import Any

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def checkpoint_of(pipeline: Any) -> dict[str, Any]:
    """Return the tensors of a single file."""
    unet, vae, text = (part.state_dict() for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))
    layers, last = pipeline.unet.config.layers_per_block + 1, len(pipeline.vae.config.block_out_channels) - 1
    width = "" if any(key.startswith("text_model.") for key in text) else "text_model."
    return (
        {f"model.diffusion_model.{_unet_name(key, layers)}": value for key, value in unet.items()}
        | {f"first_stage_model.{_vae_name(key, last)}": _as_convolution(key, value) for key, value in vae.items()}
        | {f"cond_stage_model.transformer.{width}{key}": value for key, value in text.items()}
    )


def _unet_name(key: str, layers: int) -> str:
    for theirs, ours in _ENDS.items():
        if key.startswith(f"{theirs}."):
            return key.replace(theirs, ours, 1)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", key):
        kind, number, rest = found.groups()
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(number)}.{_inside(rest)}"
    side, block, kind, number, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key).groups()
    block, number = int(block), int(number)
    if side == "down":
        at = layers * (block + 1) if kind == "downsamplers" else layers * block + number + 1
        place = f"input_blocks.{at}"
    else:
        at = layers * (block + 1) - 1 if kind == "upsamplers" else layers * block + number
        place = f"output_blocks.{at}"
    if kind == "resnets":
        return f"{place}.0.{_inside(rest)}"
    if kind == "downsamplers":
        return f"{place}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":  # behind the attention, where the block has one; the lowest block has none
        return f"{place}.{1 if block == 0 else 2}.{rest}"
    return f"{place}.1.{rest}"


def _inside(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{_RESNET[part]}.{rest}"


def _vae_name(key: str, last: int) -> str:
    key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = key.replace("mid_block.attentions.0", "mid.attn_1")
    for theirs, ours in {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}.items():
        key = key.replace(f"attn_1.{theirs}.", f"attn_1.{ours}.")
    return key


def _as_convolution(key: str, value: Any) -> Any:
    """Attention in the autoencoder is linear in diffusers and a convolution of one pixel in single files."""
    return value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value
