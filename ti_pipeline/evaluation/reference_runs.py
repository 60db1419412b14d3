"""References over a whole study: drawn once a base model, scored once a group of variants.

Here: what connects tables with `references`, the sampler and the scorer. Not here: which cells they are
(`references`), or what variants need (`runs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation import runs
from ti_pipeline.evaluation.references import Group, groups_of, reference_cells

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.evaluation.runs import Judges, Progress
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.studies import Axis
    from ti_pipeline.study_files import LoadedStudy

__all__ = ["folder_of", "render_references", "score_group", "score_references"]


def folder_of(study: str) -> str:
    """Return the folder of a study's references, relative to the data folder."""
    return f"evaluation/{study}/references"


def render_references(
    loaded: LoadedStudy,
    *,
    policy: ContentPolicy,
    ranking: pd.DataFrame,
    implications: pd.DataFrame | None,
    seeds: Sequence[int] = (),
    variants: Collection[str] = (),
    root: Path,
    progress: Progress | None = None,
    bases: dict[str, Base] | None = None,
) -> pd.DataFrame:
    """Draw what is not there yet and return the `reference_images` table of all base models that variants use.

    `ranking` is the study's `tag_frequencies`, `implications` the catalog's; `seeds` are those that any variant was
    drawn with (if none is named, those that all are drawn with); `variants` those that were evaluated (else all): the
    base of another may not even be there yet. Raises what `runs.render_variants` raises.
    """
    import pandas as pd

    from ti_pipeline.evaluation.suites import axes_of, first_seeds, race_seeds

    study = loaded.study
    axes = axes_of(study, ranking, implications)
    drawn = list(seeds) or first_seeds(study)
    planned = {}
    evaluated = set(variants) or set(study.variants)
    for name in dict.fromkeys(group.base for group in groups_of(study) if evaluated & set(group.variants)):
        base = runs.base_of(loaded, name)
        others = {other: sha256 for other, (_, sha256) in base.others.items()}
        options: dict[str, Any] = {"axes": axes, "others": others, "precision": base.precision}
        cells = reference_cells(study, name, base.identity, seeds=drawn, **options)
        more = [seed for seed in race_seeds(study) if seed not in drawn]
        later = reference_cells(study, name, base.identity, seeds=more, **options)
        runs.require_clean_prompts(cells, loaded, policy)
        planned[name] = runs.planned_cells(loaded, base, cells, f"{folder_of(study.name)}/{name}", {}, later)
    return pd.concat(
        runs.render_planned(planned, root=root, progress=progress, bases=bases).values(), ignore_index=True
    )


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

    there = {(base, skip) for base, skip in zip(images.base, images.clip_skip, strict=True)}
    groups = [
        group
        for group in groups_of(loaded.study)
        if all(name in crops for name in group.crops) and any((group.base, skip) in there for skip in group.clip_skips)
    ]
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

    from ti_pipeline.evaluation.suites import axes_shown
    from ti_pipeline.files import fingerprint

    shown = images[(images.base == group.base) & images.clip_skip.isin(group.clip_skips)].reset_index(drop=True)
    own, what = runs.concept_pictures(pd.concat([crops[name] for name in group.crops], ignore_index=True))
    axes = axes_shown(loaded.study, shown)

    def score() -> pd.DataFrame:
        return score_group(loaded, group, shown, own, what, axes, runs.judges(loaded), root=root, progress=progress)

    rules = {name: axis.model_dump() for name, axis in axes.items()}
    judged = [group.label, shown.cell.tolist(), shown.sha256.tolist(), own.sha256.tolist(), what, rules]
    name = f"scores-{fingerprint(group.label)[:8]}.parquet"
    path = root / folder_of(loaded.study.name) / name
    return runs.kept_scores("reference_scores", path, loaded, judged, score)


def score_group(
    loaded: LoadedStudy,
    group: Group,
    images: pd.DataFrame,
    own: pd.DataFrame,
    what: str,
    axes: Mapping[str, Axis],
    by: Judges,
    *,
    root: Path,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the rows of a group's reference pictures, and of the concept's `own` pictures (`what` says which)."""
    import pandas as pd

    from ti_pipeline.evaluation.scorers import held_out_rows, score_images

    paths = [root / str(path) for path in own.path]
    rows = score_images(
        images,
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
