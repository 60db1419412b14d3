"""The decision's rule: obedience and likeness on their scales, and the overall score made of the two.

Likeness [c]: the share of the way from the same trials without the embedding (0) to what the concept's own pictures
reach among themselves (1). Obedience [c]: the share right, each axis one voice, over the same of the base without the
embedding. It is a ratio of means, not a mean of ratios: on an axis where the base gets one picture of twelve right by
itself, one more would count as much as a whole axis. Overall: their weighted harmonic mean, both held within 0 and 1
(van Rijsbergen 1979), so that neither can be bought with the other: an embedding that has learned nothing obeys as the
base does and scores 0, and so does one that draws its concept whatever is asked.
Here: formulas without chance. Not here: chance (`comparison`, `intervals`), or tables (`statistics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

from ti_pipeline.study_evaluation import NAME_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.trials import Trials
    from ti_pipeline.studies import Study

__all__ = ["LIKENESS_WEIGHT", "Prefer", "Rule", "Scaled", "in_words", "overall", "rule_of", "scaled", "slopes"]

Prefer = Literal["balanced", "likeness", "obedience"]
# Of the harmonic mean; obedience has the rest. As F with beta 1, 2 and 1/2: beta squared to one.
LIKENESS_WEIGHT: dict[Prefer, float] = {"balanced": 0.5, "likeness": 0.8, "obedience": 0.2}
_LEAST = 1e-12


class Rule(TypedDict):
    """What a study says of its decision: the references of each variant, its preference, the seed of all draws.

    `negative` are the axes on which the embedding stands in the negative prompt only.
    """

    bases: Mapping[str, str]
    prefer: Prefer
    seed: int
    negative: frozenset[str]


def rule_of(study: Study) -> Rule:
    """Return a study's rule."""
    from ti_pipeline.evaluation.references import groups_of

    axes = study.evaluation.all_axes()
    return {
        "bases": {name: group.label for group in groups_of(study) for name in group.variants},
        "prefer": study.evaluation.prefer,
        "seed": study.seed,
        "negative": frozenset(name for name, axis in axes.items() if NAME_MARK not in axis.prompt),
    }


@dataclass(frozen=True)
class Scaled:
    """Trials on the scales of the rule: a checkpoint's obedience is `obeyed @ voice`, its likeness `alike @ even`.

    `obeyed` and `alike` are [c, t]; `voice` [t] gives each axis one voice and is 0 on axes `left_out`, on which a base
    gets nothing right without the embedding; `even` [t] is 1 over the number of trials. `reached` [group] is the base's
    own share right, `way` [group] the length of its way from no embedding to the concept's pictures, 0 where there is
    none because these are no nearer to each other. Where no axis is left, every checkpoint obeys fully.
    """

    obeyed: NDArray[np.float64]
    alike: NDArray[np.float64]
    voice: NDArray[np.float64]
    even: NDArray[np.float64]
    reached: NDArray[np.float64]
    way: NDArray[np.float64]
    left_out: tuple[str, ...]


def in_words(prefer: Prefer = "balanced") -> str:
    """Return the rule as a sentence for people, with its weights."""
    weight = LIKENESS_WEIGHT[prefer]
    return (
        f"overall = 1 / ({weight:g} / likeness + {1 - weight:g} / obedience), both held within 0 and 1; likeness is the"
        " share of the way from no embedding (0) to the concept's own pictures (1), obedience the share right, each"
        " axis one voice, over that of the base without the embedding"
    )


def scaled(trials: Trials) -> Scaled:
    """Return the trials on the scales of the rule, each checkpoint by its own base's references."""
    import numpy as np

    bare = np.array([group.right for group in trials.groups])
    by_axis = np.array([bare[:, trials.axis == axis].mean(axis=1) for axis in range(len(trials.axes))])
    used: NDArray[np.bool_] = np.all(by_axis > 0, axis=1)
    counts = np.bincount(trials.axis, minlength=len(trials.axes))
    even = np.full(len(trials.axis), 1 / len(trials.axis))
    voice = np.where(used, 1 / (max(1, used.sum()) * np.maximum(counts, 1)), 0.0)[trials.axis]
    reached = bare @ voice if used.any() else np.ones(len(bare))
    near = np.array([group.near for group in trials.groups])
    # Where the embedding stands in the negative prompt, it should lead as far away as the concept's pictures are near.
    way = np.maximum([group.held_out for group in trials.groups] - near.mean(axis=1), 0.0)
    own = trials.of_group
    gone = trials.turned * (trials.near - near[own])
    # A base that gets nothing right by itself has nothing that an embedding could take from it.
    obeyed = trials.right / reached[own, None] if used.any() else np.ones_like(trials.right)
    return Scaled(
        obeyed=obeyed,
        alike=np.divide(gone, way[own, None], out=np.zeros_like(gone), where=way[own, None] > 0),
        voice=voice if used.any() else even,
        even=even,
        reached=reached,
        way=way,
        left_out=tuple(name for name, kept in zip(trials.axes, used, strict=True) if not kept),
    )


def overall(
    obedience: NDArray[np.float64], likeness: NDArray[np.float64], prefer: Prefer = "balanced"
) -> NDArray[np.float64]:
    """Return the weighted harmonic mean of both, each held within 0 and 1; 0 where one of them is 0."""
    import numpy as np

    weight = LIKENESS_WEIGHT[prefer]
    obeyed, alike = np.clip(obedience, 0, 1), np.clip(likeness, 0, 1)
    return np.asarray(obeyed * alike / np.maximum(weight * obeyed + (1 - weight) * alike, _LEAST))


def slopes(
    obedience: NDArray[np.float64], likeness: NDArray[np.float64], prefer: Prefer = "balanced"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how fast `overall` grows with obedience and with likeness.

    Beyond 0 and 1 those of the nearer end, from within: a checkpoint that seems to stand beyond may well stand before.
    """
    import numpy as np

    weight = LIKENESS_WEIGHT[prefer]
    obeyed, alike = np.clip(obedience, _LEAST, 1), np.clip(likeness, _LEAST, 1)
    below = (weight * obeyed + (1 - weight) * alike) ** 2
    return (1 - weight) * alike**2 / below, weight * obeyed**2 / below
