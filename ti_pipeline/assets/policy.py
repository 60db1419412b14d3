"""The content policy of a study, and its last gate before anything is trained or rendered.

Not here: the policy itself (`e621.policy`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.study_files import LoadedStudy

__all__ = ["policy_of", "require_clean_texts"]


def policy_of(loaded: LoadedStudy, aliases: pd.DataFrame, implications: pd.DataFrame) -> ContentPolicy:
    """Return the study's policy, its exclusions closed over the catalog's aliases and implications."""
    from ti_pipeline.e621.policy import load_policy

    source = loaded.study.source
    return load_policy(
        ratings=tuple(source.ratings),
        exclude_tags=tuple(source.exclude_tags),
        do_not_post=source.do_not_post,
        opt_out_file=loaded.path.parent / source.opt_out_file if source.opt_out_file else None,
        aliases=aliases,
        implications=implications,
    )


def require_clean_texts(loaded: LoadedStudy, variant: str, captions: pd.DataFrame, policy: ContentPolicy) -> None:
    """Raise `PolicyError` if the variant's name, initialiser, templates or any caption names an excluded tag."""
    resolved = loaded.study.variant(variant)
    where = f"{Path(loaded.path).name}: variants.{variant}"
    for field, text in (("token", resolved.token or ""), ("initializer", resolved.initializer)):
        policy.require_clean_text(text, f"{where}.{field}")
    for line in resolved.templates:
        policy.require_clean_text(line, f"{where}.templates")
    for post_id, caption in zip(captions.post_id, captions.caption, strict=True):
        policy.require_clean_text(caption, f"caption of post {post_id} for {where}")
