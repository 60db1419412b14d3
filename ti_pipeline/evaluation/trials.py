"""Trials: what every checkpoint got on the same questions, as arrays, and who is left out before anything is ranked.

A trial is one value of one axis with one seed: the same prompt and the same noise for every checkpoint, several
samplers or sizes averaged.
Here: from tables of scores to arrays, and the filters with their reasons. Not here: the scale and the rule
(`decision`), chance (`comparison`, `intervals`), or the table that comes of it (`statistics`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.references import HELD_OUT, NO_EMBEDDING, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["Group", "Trials", "excluded", "gathered"]

LIKENESS, JUDGED = "likeness", ("match", "tags")
_TRIAL = ["axis", "value", "seed"]
_FALSE_ALARMS = 0.05  # honest pictures that look like a copy all the same
_SURE_OF_COPIES = 0.01
_BROKEN = 0.05


@dataclass(frozen=True)
class Group:
    """What checkpoints of one base are held against: values [t] without the embedding, and the concept's own pictures.

    `words` are values [t] with the concept in words: judged and likeness, where all of them were drawn.
    """

    right: NDArray[np.float64]
    near: NDArray[np.float64]
    held_out: float
    words: tuple[NDArray[np.float64], NDArray[np.float64]] | None


@dataclass(frozen=True)
class Trials:
    """Checkpoints in rows, trials in columns, sorted by axis, value and seed.

    `right` [c, t] is what the axis judges (1 or 0, or a share), `near` [c, t] raw likeness; NaN where there is none.
    `axis` [t] and `value` [t] number the trial's axis and its value (over all axes), `seed` [t] is the noise's.
    `turned` [t] is -1 where the embedding stands in the negative prompt only, so that nearer is worse, else 1.
    """

    checkpoints: tuple[str, ...]
    axes: tuple[str, ...]
    right: NDArray[np.float64]
    near: NDArray[np.float64]
    axis: NDArray[np.int64]
    value: NDArray[np.int64]
    seed: NDArray[np.int64]
    turned: NDArray[np.float64]
    of_group: NDArray[np.int64]
    groups: tuple[Group, ...]
    labels: tuple[str, ...]

    def only(self, checkpoints: Iterable[str]) -> Trials:
        """Return the same trials of some checkpoints, in their order here."""
        import numpy as np

        wanted = set(checkpoints)
        rows = np.flatnonzero([name in wanted for name in self.checkpoints])
        names = tuple(self.checkpoints[row] for row in rows)
        return replace(
            self, checkpoints=names, right=self.right[rows], near=self.near[rows], of_group=self.of_group[rows]
        )

    def at(self, columns: NDArray[np.bool_]) -> Trials:
        """Return some of the trials, `columns` [t], of all checkpoints and references; axes without any are gone."""
        import numpy as np

        left, axis = np.unique(self.axis[columns], return_inverse=True)
        groups = [
            replace(
                group,
                right=group.right[columns],
                near=group.near[columns],
                words=group.words and (group.words[0][columns], group.words[1][columns]),
            )
            for group in self.groups
        ]
        return replace(
            self,
            axes=tuple(self.axes[one] for one in left),
            right=self.right[:, columns],
            near=self.near[:, columns],
            axis=axis,
            value=self.value[columns],
            seed=self.seed[columns],
            turned=self.turned[columns],
            groups=tuple(groups),
        )

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Return which trials [c, t] were drawn and judged."""
        import numpy as np

        return np.asarray(~(np.isnan(self.right) | np.isnan(self.near)))

    def with_references(self) -> Trials:
        """Return the same with the references in further rows: `no embedding`, and `words` where there are some.

        Of several bases each has its own, with the base's name behind it.
        """
        import numpy as np

        names, right, near, of_group = list(self.checkpoints), [self.right], [self.near], self.of_group.tolist()
        for number, (group, label) in enumerate(zip(self.groups, self.labels, strict=True)):
            rows = {NO_EMBEDDING: (group.right, group.near)} | ({WORDS: group.words} if group.words else {})
            for name, (judged, alike) in rows.items():
                names.append(name if len(self.groups) == 1 else f"{name}, {label}")
                right.append(judged[None])
                near.append(alike[None])
                of_group.append(number)
        return replace(
            self,
            checkpoints=tuple(names),
            right=np.concatenate(right),
            near=np.concatenate(near),
            of_group=np.array(of_group, dtype="int64"),
        )


def gathered(
    scores: pd.DataFrame, references: pd.DataFrame, *, bases: Mapping[str, str], negative: frozenset[str] = frozenset()
) -> Trials:
    """Return the trials of `evaluation_scores` and `reference_scores`; `bases` names each variant's references.

    A trial counts when any checkpoint has it. Raises `ValueError` without any judged picture, without likeness, and
    when the references of a base lack a trial.
    """
    import numpy as np
    import pandas as pd

    right, near = _wide(scores, JUDGED), _wide(scores, (LIKENESS,))
    if right.empty:
        raise ValueError("there are no scores to rank: run the job evaluate")
    trials = right.index.union(near.index).sort_values()
    variants = scores.drop_duplicates("checkpoint").set_index("checkpoint").variant
    names = sorted(set(right) | set(near))
    labels = sorted({bases[variant] for variant in variants})
    groups = [_group(references[references.base == label], trials, label) for label in labels]
    axis, axes = pd.factorize(trials.get_level_values("axis"), sort=True)
    value, _ = pd.factorize(pd.MultiIndex.from_arrays([trials.get_level_values(n) for n in ("axis", "value")]))
    return Trials(
        checkpoints=tuple(map(str, names)),
        axes=tuple(map(str, axes)),
        right=_rows(right, names, trials),
        near=_rows(near, names, trials),
        axis=axis.astype("int64"),
        value=value.astype("int64"),
        seed=trials.get_level_values("seed").to_numpy(dtype="int64"),
        turned=np.where([axes[one] in negative for one in axis], -1.0, 1.0),
        of_group=np.array([labels.index(bases[variants[name]]) for name in names], dtype="int64"),
        groups=tuple(groups),
        labels=tuple(labels),
    )


def _wide(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return means by trial (rows) and checkpoint (columns)."""
    used = scores[scores.metric.isin(metrics)]
    return used.pivot_table(index=_TRIAL, columns="checkpoint", values="score", aggfunc="mean")


def _rows(wide: pd.DataFrame, names: Sequence[str], trials: pd.MultiIndex) -> NDArray[np.float64]:
    import numpy as np

    return np.ascontiguousarray(wide.reindex(index=trials, columns=names).to_numpy(dtype="float64").T)


def _group(references: pd.DataFrame, trials: pd.MultiIndex, label: str) -> Group:
    """Return what one base's checkpoints are held against, on these trials."""
    import numpy as np

    right, near = _wide(references, JUDGED), _wide(references, (LIKENESS,))
    bare = [_rows(wide, [NO_EMBEDDING], trials)[0] for wide in (right, near)]
    own = references[(references.checkpoint == HELD_OUT) & (references.metric == LIKENESS)].score
    if own.empty:
        raise ValueError(
            f"{label}: there is no likeness of the concept's own pictures, which is the upper end of the scale: check"
            " that the study has crops, and run the job compare"
        )
    lacking = int(np.isnan(bare).any(axis=0).sum())
    if lacking:
        raise ValueError(
            f"{label}: {lacking} of {len(trials)} trials have no picture without the embedding, so that nothing says"
            " what the base does by itself: run the job compare"
        )
    told = [_rows(wide, [WORDS], trials)[0] for wide in (right, near)]
    words = None if np.isnan(told).any() else (told[0], told[1])
    return Group(bare[0], bare[1], float(own.mean()), words)


def excluded(scores: pd.DataFrame, trials: Trials) -> dict[str, str]:
    """Return the checkpoints that must not be ranked, each with the reason: missing trials, broken pictures, copies."""
    missing = (~trials.whole).sum(axis=1)
    total, found = len(trials.seed), dict[str, str]()
    for name, count in zip(trials.checkpoints, missing.tolist(), strict=True):
        if count:
            found[name] = f"{count} of {total} trials are missing: run the job evaluate again"
    return _copied(scores) | _broken(scores) | found


def _broken(scores: pd.DataFrame) -> dict[str, str]:
    rows = scores[scores.metric == "broken"].drop_duplicates(["checkpoint", "cell"])
    counted = (rows.score > 0).groupby(rows.checkpoint).agg(["sum", "size"])
    return {
        str(row.Index): f"{row.sum} of {row.size} pictures are broken (of one colour, or no numbers)"
        for row in counted.itertuples()
        if row.sum > _BROKEN * row.size
    }


def _copied(scores: pd.DataFrame) -> dict[str, str]:
    """Return who draws more copies of training pictures than false alarms explain (binomial, at 1 %)."""
    from scipy.stats import binom

    rows = scores[scores.metric == "copy"].drop_duplicates(["checkpoint", "cell"])
    counted = rows.read_as.notna().groupby(rows.checkpoint).agg(["sum", "size"])
    return {
        str(row.Index): f"{row.sum} of {row.size} pictures look like copies of training pictures"
        for row in counted.itertuples()
        if binom.sf(row.sum - 1, row.size, _FALSE_ALARMS) < _SURE_OF_COPIES
    }
