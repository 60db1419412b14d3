"""The card: a README.md in the form of the Hugging Face hub, with measured numbers only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["release_card"]


def release_card(results: StudyResults, best: pd.Series, attribution: pd.DataFrame, file_hash: str) -> str:
    """Return the card of the checkpoint `best` (a row of the leaderboard's `overall`)."""
    study, variant = results.study, results.study.variant(str(best.variant))
    token = str(variant.token)
    axes = results.leaderboard[results.leaderboard.checkpoint == best.checkpoint].sort_values("axis")
    rows = "\n".join(
        f"| {row.axis} | {row.score:.3f} | {row.low:.3f}–{row.high:.3f} | {row.pictures} | {row.rank} |"
        for row in axes.itertuples()
    )
    others = results.leaderboard[results.leaderboard.axis == "overall"]
    tied = [str(row.checkpoint) for row in others.itertuples() if row.tied and row.checkpoint != best.checkpoint]
    unsure = f"Not clearly better than: {', '.join(tied[:8])}." if tied else "No other checkpoint reaches its score."
    split = attribution.split.value_counts()
    artists = sorted({name for names in attribution.artists for name in names.split()})
    held_out = int(split.get("validation", 0))
    return f"""---
tags: [stable-diffusion, textual-inversion]
base_model: {json.dumps(variant.base)}
instance_prompt: {json.dumps(token)}
---

# {token}

{study.title or study.name}: a textual-inversion embedding of {variant.vectors} vectors for Stable Diffusion, trained on
base model `{variant.base}` (clip skip {variant.clip_skip}) by ti_pipeline; checkpoint `{best.checkpoint}` of study
`{study.name}`. sha256 of the safetensors file: `{file_hash}`.

## Use

Write `{token}` in a prompt. It takes {variant.vectors} of CLIP's 75 tokens.

| program | file | where |
|---|---|---|
| A1111 web UI | `a1111/{token}.pt` | `embeddings/` |
| ComfyUI | `safetensors/{token}.safetensors` | `models/embeddings/`, prompt `embedding:{token}` |
| InvokeAI | `safetensors/{token}.safetensors` | add it in the model manager |
| diffusers | either | `pipe.load_textual_inversion("{token}.safetensors", token="{token}")` |

Take one of the two files: side by side in one folder they collide.

## Measured

By the study's scorer, on pictures with fixed seeds; mean score with its 95 % bootstrap interval. `concept` is a
cosine similarity, the other axes are shares of pictures in which the asked value was seen.

| axis | score | interval | pictures | rank among {len(others)} checkpoints |
|---|---|---|---|---|
{rows}

{unsure}

## Trained on

{int(split.get("train", 0))} pictures, {held_out} more held out for measuring, cropped to
{study.crops.named()[str(variant.crop)].size} px and trained at {variant.resolution} px; caption plan
`{variant.captions}`; learning rate `{variant.learning_rate}`, batch {variant.batch_size}, seed {variant.seed}.

Artists: {", ".join(artists)}. The pictures remain their artists'; `attribution.csv` lists every one.
"""
