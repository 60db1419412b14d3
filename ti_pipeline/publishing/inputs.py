"""What the report and the release are made from: a study's tables, gathered once.

Here: the gathered inputs. Not here: reading tables from a store (the asset does), or any conclusion (`verdict`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = ["StudyResults"]


@dataclass(frozen=True)
class StudyResults:
    """A study with its tables, each under the contract of its name in `schemas`.

    `root` is the data folder that all paths in tables are relative to. The dictionaries hold one frame per caption
    plan (`vocabularies`, `captions`), crop set (`crops`) or variant (the others); what was never made is absent and
    named in `warnings`. `study_text` is the study's YAML file, `versions` maps package to version.
    """

    study: Study
    root: Path
    posts: pd.DataFrame
    post_tags: pd.DataFrame
    tag_frequencies: pd.DataFrame
    tag_pairs: pd.DataFrame
    images: pd.DataFrame
    provenance: pd.DataFrame
    image_audit: pd.DataFrame
    training_set: pd.DataFrame
    evaluation_grids: pd.DataFrame
    votes: pd.DataFrame
    reference_images: pd.DataFrame
    reference_scores: pd.DataFrame
    leaderboard: pd.DataFrame
    vocabularies: dict[str, pd.DataFrame]
    captions: dict[str, pd.DataFrame]
    crops: dict[str, pd.DataFrame]
    embeddings: dict[str, pd.DataFrame]
    losses: dict[str, pd.DataFrame]
    evaluation_images: dict[str, pd.DataFrame]
    evaluation_scores: dict[str, pd.DataFrame]
    warnings: list[str]
    study_text: str
    versions: dict[str, str]
