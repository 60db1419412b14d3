"""Chooses the largest set of pictures that has the wanted shares, exactly: a small integer programme.

Here: plain sequences in, indices out. Not here: what the attributes mean, or which pictures are candidates
(`curation`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ShareTarget", "chosen", "nearest_shares"]


@dataclass(frozen=True)
class ShareTarget:
    """A wanted share of one attribute: `has[i]` tells whether candidate i has it."""

    name: str
    share: float
    has: Sequence[bool]


def chosen(targets: Sequence[ShareTarget], scores: Sequence[float], *, at_most: int, tolerance: float) -> list[int]:
    """Return the candidates to take, as ascending indices; empty when no set at all has the shares.

    `scores` come in order of preference among equals and decide last: the set is the largest (≤ `at_most`) whose
    every share lies within `tolerance` of its target; of those, one whose shares lie closest to the targets (sum of
    distances); of those, one with the highest total score. Within a group of candidates of equal attributes the
    first ones with the highest score are taken. Solved by branch and bound (HiGHS) in counts per group; all
    coefficients of the constraints are integers, so no rounding decides.
    """
    candidates = len(scores)
    if not targets:
        return sorted(_best_first(scores)[:at_most])
    problem = _Problem.of(targets, candidates, tolerance)
    size = problem.largest(at_most)
    if size == 0:
        return []
    counts = problem.best_scored(size, problem.closest(size), np.asarray(scores, dtype=np.float64))
    taken: list[int] = []
    for group, count in enumerate(counts):
        members = [i for i in _best_first(scores) if problem.group_of[i] == group]
        taken += members[:count]
    return sorted(taken)


def nearest_shares(targets: Sequence[ShareTarget], size: int) -> dict[str, float]:
    """Return the shares of the set of `size` candidates whose worst distance to a target is the smallest."""
    problem = _Problem.of(targets, len(targets[0].has), tolerance=1.0)
    counts = problem.least_wrong(size)
    return {t.name: float(has @ counts) / size for t, has in zip(targets, problem.has, strict=True)}


def _best_first(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])  # stable: earlier ones first among equals


@dataclass(frozen=True)
class _Problem:
    """Counts n per group of candidates with equal attributes; `share` and `slack` are over `unit`, so integers.

    `off(n)` = unit · n_has − share · N is how far attribute a is off in a set of N, times `unit`.
    """

    group_of: NDArray[np.int64]
    available: NDArray[np.int64]
    has: NDArray[np.int64]  # [targets, groups], 0 or 1
    off: NDArray[np.int64]  # [targets, groups]
    slack: int

    @classmethod
    def of(cls, targets: Sequence[ShareTarget], candidates: int, tolerance: float) -> _Problem:
        attributes = np.array([t.has for t in targets], dtype=np.int64).reshape(len(targets), candidates)
        kinds, group_of = np.unique(attributes, axis=1, return_inverse=True)
        group_of = group_of.reshape(-1)
        exact = [Fraction(str(t.share)) for t in targets]  # 0.05 as written, not the binary number next to it
        slack = Fraction(str(tolerance))
        unit = lcm(slack.denominator, *(share.denominator for share in exact))
        off = unit * kinds - np.array([[int(share * unit)] for share in exact])
        available = np.bincount(group_of, minlength=kinds.shape[1])
        return cls(group_of, available, kinds, off, int(slack * unit))

    def largest(self, at_most: int) -> int:
        """Return the size of the largest set within the tolerance, 0 if there is none."""
        ones = np.ones_like(self.available)
        rows = [*(self.off - self.slack), *(-self.off - self.slack)]
        counts = _solve(-ones, self.available, [(row, -np.inf, 0) for row in rows] + [(ones, 0, at_most)])
        return int(counts.sum())

    def closest(self, size: int) -> int:
        """Return the smallest possible sum of |off| over the targets for a set of `size` within the tolerance."""
        distances = len(self.off)
        goal = np.concatenate([np.zeros_like(self.available), np.ones(distances, dtype=np.int64)])
        upper = np.concatenate([self.available, np.full(distances, self.slack * size)])
        rows = _distance_rows(self.off, np.ones_like(self.available), size)
        return int(_solve(goal, upper, rows)[-distances:].sum())

    def best_scored(self, size: int, distance: int, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the counts of the set of `size` and total `distance` whose members' scores sum highest.

        Candidates may be taken in part: with whole counts, a group's best sum is that of its best whole members.
        """
        groups, distances, candidates = len(self.available), len(self.off), len(scores)
        goal = np.concatenate([np.zeros(groups + distances), -scores])
        upper = np.concatenate([self.available, np.full(distances, self.slack * size), np.ones(candidates, np.int64)])
        members = (self.group_of == np.arange(groups)[:, None]).astype(np.int64)
        unused = np.zeros(candidates, dtype=np.int64)
        rows: list[_Row] = [
            (np.concatenate([row, unused]), low, high)
            for row, low, high in _distance_rows(self.off, np.ones_like(self.available), size)
        ]
        total = np.concatenate([np.zeros(groups), np.ones(distances), unused])
        rows.append((total, 0, distance))
        for group, count in enumerate(np.eye(groups + distances, dtype=np.int64)[:groups]):
            rows.append((np.concatenate([-count, members[group]]), 0, 0))
        return _solve(goal, upper, rows, whole=groups + distances)[:groups]

    def least_wrong(self, size: int) -> NDArray[np.int64]:
        """Return the counts of the set of `size` whose largest |off| is the smallest."""
        goal = np.append(np.zeros_like(self.available), 1)
        upper = np.append(self.available, np.abs(self.off).max() * size)
        rows = [(np.append(sign * row, -1), -np.inf, 0) for row in self.off for sign in (1, -1)]
        rows.append((np.append(np.ones_like(self.available), 0), size, size))
        return _solve(goal, upper, rows)[:-1]


_Row = tuple["NDArray[np.int64] | NDArray[np.float64]", float, float]


def _distance_rows(off: NDArray[np.int64], ones: NDArray[np.int64], size: int) -> list[_Row]:
    """Return the rows that make one more variable per target ≥ |off|, and the row that fixes the size."""
    distances = np.eye(len(off), dtype=np.int64)
    rows: list[_Row] = [
        (np.concatenate([sign * row, -distances[i]]), -np.inf, 0) for i, row in enumerate(off) for sign in (1, -1)
    ]
    rows.append((np.concatenate([ones, np.zeros(len(off), dtype=np.int64)]), size, size))
    return rows


def _solve(
    goal: NDArray[np.int64] | NDArray[np.float64],
    upper: NDArray[np.int64],
    rows: Sequence[_Row],
    *,
    whole: int | None = None,
) -> NDArray[np.int64]:
    """Return values 0..upper that minimise goal · x with every row's low ≤ row · x ≤ high, the first `whole` of them.

    Those (all, if None) are integers.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    matrix = np.array([row for row, _, _ in rows], dtype=np.float64)
    low, high = (np.array([row[i] for row in rows], dtype=np.float64) for i in (1, 2))
    whole = len(goal) if whole is None else whole
    answer = milp(
        goal,
        integrality=(np.arange(len(goal)) < whole).astype(int),
        bounds=Bounds(0, upper),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0},
    )
    if answer.x is None:
        raise RuntimeError(f"the integer programme for the target shares ended without an answer: {answer.message}")
    return np.asarray(np.rint(answer.x[:whole]), dtype=np.int64)
