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

__all__ = ["GRID", "ShareTarget", "binding", "chosen", "nearest_shares"]

# Shares and tolerances count in steps of this, the nearest to what is written: with whole numbers no larger than that,
# no rounding inside the solver decides.
GRID = Fraction(1, 1000)
_FIRST_TANGENTS = 9


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
    coefficients of the constraints are integers, so no rounding decides. Shares and `tolerance` count to `GRID`.
    """
    if not targets:
        return sorted(_best_first(scores)[:at_most])
    problem = _Problem.of(targets, len(scores), tolerance)
    size = problem.largest(at_most)
    if size == 0:
        return []
    order, known = np.asarray(_best_first(scores)), np.asarray(scores, dtype=np.float64)
    members = [order[problem.group_of[order] == group] for group in range(len(problem.available))]
    counts = problem.best_scored(size, problem.closest(size), [known[own] for own in members])
    return sorted(int(i) for own, count in zip(members, counts, strict=True) for i in own[:count])


def binding(targets: Sequence[ShareTarget], *, at_most: int, tolerance: float) -> tuple[str, int]:
    """Return the target that costs the most pictures, and how many there would be without it (≤ `at_most`).

    Each target in turn is left out; of equal ones the first is named.
    """
    sizes = {}
    for left_out in targets:
        others = [target for target in targets if target is not left_out]
        sizes[left_out.name] = at_most
        if others:
            sizes[left_out.name] = _Problem.of(others, len(left_out.has), tolerance).largest(at_most)
    name = max(sizes, key=lambda name: sizes[name])
    return name, sizes[name]


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
        exact = [_on_grid(t.share) for t in targets]
        slack = _on_grid(tolerance)
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

    def best_scored(self, size: int, distance: int, scores: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
        """Return the counts of the set of `size` and total `distance` whose members' scores sum highest.

        `scores` are each group's, highest first, so a group's best sum is a concave function of its count. It is
        bounded by tangents: those at the counts that come out are added until the bound is what is reached.
        """
        groups, distances = len(self.available), len(self.off)
        sums = [np.concatenate([[0.0], np.cumsum(own)]) for own in scores]
        goal = np.concatenate([np.zeros(groups + distances), -np.ones(groups)])
        lower = np.concatenate([np.zeros(groups + distances), [own.min() for own in sums]])
        upper = np.concatenate([self.available, np.full(distances, self.slack * size), [own.max() for own in sums]])
        rows: list[_Row] = [
            (np.concatenate([row, np.zeros(groups)]), low, high)
            for row, low, high in _distance_rows(self.off, np.ones_like(self.available), size)
        ]
        rows.append((np.concatenate([np.zeros(groups), np.ones(distances), np.zeros(groups)]), 0, distance))
        new = {
            (group, int(count))
            for group, available in enumerate(self.available)
            for count in np.linspace(0, available, _FIRST_TANGENTS)
        }
        known: set[tuple[int, int]] = set()
        while new:
            known |= new
            rows += [_tangent(group, count, sums, scores, distances) for group, count in sorted(new)]
            counts = _solve(goal, upper, rows, whole=groups + distances, lower=lower)[:groups]
            new = {(group, int(count)) for group, count in enumerate(counts)} - known
        return counts

    def least_wrong(self, size: int) -> NDArray[np.int64]:
        """Return the counts of the set of `size` whose largest |off| is the smallest."""
        goal = np.append(np.zeros_like(self.available), 1)
        upper = np.append(self.available, np.abs(self.off).max() * size)
        rows = [(np.append(sign * row, -1), -np.inf, 0) for row in self.off for sign in (1, -1)]
        rows.append((np.append(np.ones_like(self.available), 0), size, size))
        return _solve(goal, upper, rows)[:-1]


_Row = tuple["NDArray[np.int64] | NDArray[np.float64]", float, float]


def _tangent(
    group: int, count: int, sums: Sequence[NDArray[np.float64]], scores: Sequence[NDArray[np.float64]], distances: int
) -> _Row:
    """Return the row that holds a group's sum of scores below its tangent at a count, which touches there."""
    groups, own = len(scores), scores[group]
    slope = float(own[min(count, len(own) - 1)])
    row = np.zeros(2 * groups + distances)
    row[group], row[groups + distances + group] = -slope, 1.0
    return row, -np.inf, float(sums[group][count]) - slope * count


def _on_grid(share: float) -> Fraction:
    """Return the nearest whole number of steps of the grid."""
    return round(Fraction(str(share)) / GRID) * GRID


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
    lower: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """Return values lower (0)..upper that minimise goal · x with every row's low ≤ row · x ≤ high: the first `whole`.

    Those (all, if None) are integers.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    matrix = np.array([row for row, _, _ in rows], dtype=np.float64)
    low, high = (np.array([row[i] for row in rows], dtype=np.float64) for i in (1, 2))
    whole = len(goal) if whole is None else whole
    answer = milp(
        goal,
        integrality=(np.arange(len(goal)) < whole).astype(int),
        bounds=Bounds(0 if lower is None else lower, upper),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0},
    )
    if answer.x is None:
        raise RuntimeError(f"the integer programme for the target shares ended without an answer: {answer.message}")
    return np.asarray(np.rint(answer.x[:whole]), dtype=np.int64)
