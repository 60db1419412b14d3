"""What publishing reads: a study's tables, gathered by the asset and handed over whole."""

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
    """All tables of a study under their contracts; dicts are by caption plan, crop set or variant."""

    study: Study
    root: Path
    posts: pd.DataFrame
    post_tags: pd.DataFrame
    tag_frequencies: pd.DataFrame
    images: pd.DataFrame
    image_audit: pd.DataFrame
    training_set: pd.DataFrame
    evaluation_grids: pd.DataFrame
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
