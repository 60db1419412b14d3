"""References over a whole study: drawn once a base model, scored once a group of variants.

Here: what connects tables with `references`, the sampler and the scorer. Not here: which cells they are
(`references`), or what variants need (`runs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.evaluation import runs
from ti_pipeline.evaluation.references import Group, groups_of, reference_cells

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.evaluation.runs import Progress
    from ti_pipeline.study_files import LoadedStudy

__all__ = ["folder_of", "render_references", "score_references"]


def folder_of(study: str) -> str:
    """Return the folder of a study's references, relative to the data folder."""
    return f"evaluation/{study}/references"


def render_references(
    loaded: LoadedStudy,
    *,
    policy: ContentPolicy,
    ranking: pd.DataFrame,
    implications: pd.DataFrame | None,
    root: Path,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Draw what is not there yet and return the `reference_images` table of all base models that variants use.

    `ranking` is the study's `tag_frequencies`, `implications` the catalog's. Raises what `runs.render_variants` raises.
    """
    import pandas as pd

    from ti_pipeline.evaluation.suites import axes_of

    study = loaded.study
    axes = axes_of(study, ranking, implications)
    planned = {}
    for name in dict.fromkeys(group.base for group in groups_of(study)):
        base = runs.base_of(loaded, name)
        others = {other: sha256 for other, (_, sha256) in base.others.items()}
        cells = reference_cells(study, name, base.identity, axes=axes, others=others, precision=base.precision)
        runs.require_clean_prompts(cells, loaded, policy)
        planned[name] = runs.planned_cells(loaded, base, cells, f"{folder_of(study.name)}/{name}", {})
    return pd.concat(runs.render_planned(planned, root=root, progress=progress).values(), ignore_index=True)


def score_references(
    loaded: LoadedStudy,
    images: pd.DataFrame,
    crops: Mapping[str, pd.DataFrame],
    *,
    root: Path,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the `reference_scores` table: of each group its references and the concept's own pictures.

    `crops` are the study's tables by crop set. Raises `ScorerError` when a scorer cannot be loaded.
    """
    import pandas as pd

    groups = [group for group in groups_of(loaded.study) if all(name in crops for name in group.crops)]
    tables = [_scored(loaded, group, images, crops, root, progress) for group in groups]
    return pd.concat(tables, ignore_index=True)


def _scored(
    loaded: LoadedStudy,
    group: Group,
    images: pd.DataFrame,
    crops: Mapping[str, pd.DataFrame],
    root: Path,
    progress: Progress | None,
) -> pd.DataFrame:
    import pandas as pd

    from ti_pipeline.evaluation.scorers import held_out_rows, score_images
    from ti_pipeline.evaluation.suites import axes_shown
    from ti_pipeline.files import fingerprint

    shown = images[(images.base == group.base) & images.clip_skip.isin(group.clip_skips)].reset_index(drop=True)
    own, what = runs.concept_pictures(pd.concat([crops[name] for name in group.crops], ignore_index=True))
    axes = axes_shown(loaded.study, shown)

    def score() -> pd.DataFrame:
        by = runs.judges(loaded)
        paths = [root / str(path) for path in own.path]
        rows = score_images(
            shown,
            axes,
            by.scorer,
            root=root,
            references=paths,
            embeddings=list(loaded.study.evaluation.embeddings),
            likeness=by.likeness,
            tagger=by.tagger,
            progress=progress,
        )
        among = held_out_rows(paths, own.sha256.tolist(), by.likeness, what=what)
        return pd.concat([rows, among], ignore_index=True).assign(base=group.label)

    rules = {name: axis.model_dump() for name, axis in axes.items()}
    judged = [group.label, shown.cell.tolist(), shown.sha256.tolist(), own.sha256.tolist(), what, rules]
    name = f"scores-{fingerprint(group.label)[:8]}.parquet"
    path = root / folder_of(loaded.study.name) / name
    return runs.kept_scores("reference_scores", path, loaded, judged, score)
