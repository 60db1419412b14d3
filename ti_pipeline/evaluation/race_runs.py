"""Races over whole studies: pictures of all variants, seed by seed, for the checkpoints that may still be best.

Here: what connects drawing, scoring and the race, round by round. What is on disk is not drawn again, so a race that
was stopped goes on where it was. Not here: who leaves (`racing`), or what one round draws (`runs`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation import runs
from ti_pipeline.evaluation.decision import rule_of
from ti_pipeline.evaluation.likeness import likeness_of_study
from ti_pipeline.evaluation.reference_runs import render_references, score_group
from ti_pipeline.evaluation.references import groups_of
from ti_pipeline.evaluation.statistics import race_of
from ti_pipeline.evaluation.suites import axes_of, chosen_checkpoints, first_seeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.evaluation.racing import Race
    from ti_pipeline.evaluation.runs import Judges, Progress
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.studies import Axis
    from ti_pipeline.study_files import LoadedStudy

__all__ = ["race_variants"]


def race_variants(
    loaded: LoadedStudy,
    checkpoints: Mapping[str, pd.DataFrame],
    crops: Mapping[str, pd.DataFrame],
    *,
    policy: ContentPolicy,
    ranking: pd.DataFrame,
    implications: pd.DataFrame | None,
    root: Path,
    progress: Progress | None = None,
) -> dict[str, pd.DataFrame]:
    """Race all variants of a study and return their `evaluation_images` tables, by name.

    `checkpoints` are the `embedding` tables of all its variants, `crops` the tables of its crop sets. Raises what
    `runs.render_variants` and `runs.score_variant` raise.
    """
    race = _Rounds(loaded, axes_of(loaded.study, ranking, implications), crops, root, progress)
    chosen = {
        name: chosen_checkpoints(table, loaded.study.evaluation.checkpoints) for name, table in checkpoints.items()
    }
    seeds = {str(name): first_seeds(loaded.study) for table in chosen.values() for name in table.checkpoint}
    while True:
        planned = {
            name: runs.plan_variant(loaded, name, table, race.axes, root, seeds=seeds)
            for name, table in checkpoints.items()
        }
        for one in planned.values():
            runs.require_clean_prompts(one.suite.cells, loaded, policy)
        tables = runs.render_planned(planned, root=root, progress=progress, bases=race.bases)
        drawn = sorted({seed for of_checkpoint in seeds.values() for seed in of_checkpoint})
        options: dict[str, Any] = {"policy": policy, "ranking": ranking, "implications": implications, "root": root}
        bare = render_references(loaded, seeds=drawn, bases=race.bases, progress=progress, **options)
        stands = race.after(tables, bare)
        if progress is not None:
            progress(len(stands.left), len(seeds), "checkpoints out of the race")
        if not stands.draw:
            return tables
        seeds |= {name: [*seeds[name], *stands.draw] for name in stands.still}


@dataclass
class _Rounds:
    """What a race has seen so far: only new pictures are looked at."""

    loaded: LoadedStudy
    axes: Mapping[str, Axis]
    crops: Mapping[str, pd.DataFrame]
    root: Path
    progress: Progress | None
    bases: dict[str, Base] = field(default_factory=dict)
    judges: Judges | None = None
    seen: set[str] = field(default_factory=set)
    scores: list[pd.DataFrame] = field(default_factory=list)
    references: list[pd.DataFrame] = field(default_factory=list)

    def after(self, tables: Mapping[str, pd.DataFrame], bare: pd.DataFrame) -> Race:
        """Score what is new and return how the race stands."""
        import pandas as pd

        for group in groups_of(self.loaded.study):
            of_group = [tables[name] for name in group.variants]
            own, what = runs.concept_pictures(pd.concat([self.crops[name] for name in group.crops], ignore_index=True))
            self._score_variants(of_group, own)
            shown = bare[(bare.base == group.base) & bare.clip_skip.isin(group.clip_skips)]
            fresh = shown[~(group.label + " " + shown.cell).isin(self.seen)].reset_index(drop=True)
            self.seen |= set(group.label + " " + fresh.cell)
            if len(fresh):
                rows = score_group(self.loaded, group, fresh, own, what, self.axes, self._by, root=self.root)
                known = any((table.base == group.label).any() for table in self.references)
                self.references.append(rows[rows.variant.ne("") | rows.checkpoint.ne("held-out") | (not known)])
        study, rule = self.loaded.study, rule_of(self.loaded.study)
        scores, references = (pd.concat(part, ignore_index=True) for part in (self.scores, self.references))
        race = rule["race"]
        if race is None:
            raise ValueError(f"{study.name}: its seeds are a list, which is no race")
        options: dict[str, Any] = {name: rule[name] for name in ("bases", "prefer", "negative")}
        return race_of(*likeness_of_study(study, scores, references), race=race, **options)

    @property
    def _by(self) -> Judges:
        if self.judges is None:
            self.judges = runs.judges(self.loaded)
        return self.judges

    def _score_variants(self, tables: Sequence[pd.DataFrame], own: pd.DataFrame) -> None:
        from ti_pipeline.evaluation.scorers import score_images

        for table in tables:
            fresh = table[~table.cell.isin(self.seen)].reset_index(drop=True)
            self.seen |= set(fresh.cell)
            if fresh.empty:
                continue
            self.scores.append(
                score_images(
                    fresh,
                    self.axes,
                    self._by.scorer,
                    root=self.root,
                    references=[self.root / str(path) for path in own.path],
                    embeddings=list(self.loaded.study.evaluation.embeddings),
                    likeness=self._by.likeness,
                    tagger=self._by.tagger,
                    progress=self.progress,
                )
            )
