"""The decision on simulated studies, whose truth is known: false certainty, coverage, power, and whom it names.

    python benchmarks/decision.py [--studies N] [--only false,coverage,power,named,races]

Beside the product's rule stands its predecessor (`old_rule`): the mean over axes of shares and of the raw cosine,
percentile bootstrap of trials, p against the best seen, corrected after Holm. Both judge the same studies. A study has
the demo's suite (22 values on 4 axes); a picture is right with its checkpoint's obedience times what the base reaches
on that value, and has its checkpoint's likeness and noise as wide as 0.3 of the way. Of unequal difficulty, values are
right with chances drawn from a beta distribution, and a seed may make a trial easier or harder for all checkpoints,
also in likeness. Everything is drawn from seeds. Prints tables and writes `benchmarks/results/<date>-decision.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ti_pipeline.evaluation.comparison import OVERALL, SURE, compared
from ti_pipeline.evaluation.decision import overall, scaled
from ti_pipeline.evaluation.estimates import estimates
from ti_pipeline.evaluation.racing import raced
from ti_pipeline.evaluation.trials import Group, Trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
AXES = {"species": 5, "body_type": 5, "clothing": 6, "background": 6}
BASE, SPREAD, SHARED = 0.85, 0.3, 0.15
LOWER, UPPER = 0.2, 0.5  # raw likeness of no embedding, and of the concept's pictures among themselves
EXCHANGES = 199  # the level is exact at any number; more only make p finer
# Obedience and likeness of twelve checkpoints, spread as those of the demo's four variants after three times each.
DEMO = (
    (0.98, 0.08), (0.96, 0.16), (0.95, 0.22), (0.96, 0.20), (0.92, 0.28), (0.88, 0.34),
    (0.90, 0.27), (0.80, 0.37), (0.72, 0.40), (0.75, 0.33), (0.52, 0.41), (0.35, 0.46),
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """True obedience and likeness of checkpoints, on a suite that is drawn anew for every study."""

    obedience: Floats
    likeness: Floats
    unequal: bool
    base: float = BASE

    def study(self, rng: np.random.Generator, seeds: int) -> tuple[Trials, dict[str, Floats]]:
        """Return one study's trials, and the truth of every board [c]."""
        values, count = sum(AXES.values()), len(self.obedience)
        rate = rng.beta(8 * self.base, 8 * (1 - self.base), values) if self.unequal else np.full(values, self.base)
        effect = rng.normal(0, 0.5, (values, seeds)) if self.unequal else np.zeros((values, seeds))
        chance = _expit(_logit(rate)[:, None] + effect).ravel()
        shared = rng.normal(0, SHARED if self.unequal else 0.0, values * seeds)
        right = rng.random((count, values * seeds)) < self.obedience[:, None] * chance
        alike = self.likeness[:, None] + shared + SPREAD * rng.standard_normal(right.shape)
        bare = shared + SPREAD * rng.standard_normal(values * seeds)
        group = Group((rng.random(values * seeds) < chance).astype(float), LOWER + (UPPER - LOWER) * bare, UPPER, None)
        axis = np.repeat(np.arange(len(AXES)), list(AXES.values()))
        trials = Trials(
            checkpoints=tuple(f"v-{number}" for number in range(count)),
            axes=tuple(AXES),
            right=right.astype(float),
            near=LOWER + (UPPER - LOWER) * alike,
            axis=np.repeat(axis, seeds),
            value=np.repeat(np.arange(values), seeds),
            seed=np.tile(np.arange(seeds), values),
            turned=np.ones(values * seeds),
            of_group=np.zeros(count, dtype="int64"),
            groups=(group,),
            labels=("base",),
        )
        return trials, self._truth(rate, axis)

    def _truth(self, rate: Floats, axis: NDArray[np.int64]) -> dict[str, Floats]:
        points, weights = np.polynomial.hermite_e.hermegauss(15)
        spread = 0.5 if self.unequal else 0.0
        expected = _expit(_logit(rate)[:, None] + spread * points) @ weights / weights.sum()
        shares = {name: self.obedience * expected[axis == number].mean() for number, name in enumerate(AXES)}
        told = {"obedience": self.obedience, "likeness": self.likeness}
        return shares | told | {OVERALL: overall(self.obedience, self.likeness)}


def _logit(chance: Floats) -> Floats:
    held = np.clip(chance, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(held / (1 - held)))


def _expit(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-value)))


def alike(count: int, *, unequal: bool, obedience: float = 0.9, likeness: float = 0.4, base: float = BASE) -> World:
    """Return a world of identical checkpoints."""
    return World(np.full(count, obedience), np.full(count, likeness), unequal, base)


def old_rule(trials: Trials, rng: np.random.Generator, resamples: int = 2000) -> tuple[Floats, dict[str, Floats]]:
    """Return the predecessor's overall scores, and of every board p [c] against the best of that board."""
    boards = {}
    for name, values, mask in [
        *((name, trials.right, trials.axis == number) for number, name in enumerate(trials.axes)),
        ("concept", trials.near, np.ones(len(trials.axis), dtype=bool)),
    ]:
        own = values[:, mask]
        drawn = rng.multinomial(own.shape[1], np.full(own.shape[1], 1 / own.shape[1]), size=resamples)
        boards[name] = own.mean(axis=1), own @ drawn.T / own.shape[1]
    boards[OVERALL] = tuple(np.mean([one[part] for one in boards.values()], axis=0) for part in (0, 1))
    return boards[OVERALL][0], {name: _old_p(*one) for name, one in boards.items()}


def _old_p(scores: Floats, resampled: Floats) -> Floats:
    order = np.argsort(-scores, kind="stable")
    lead = resampled[order[0]] - resampled[order]
    p = np.minimum(1, 2 * (1 + (lead <= 0).sum(axis=1)) / (resampled.shape[1] + 1))[1:]
    by_p = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(np.minimum(1, p[by_p] * (len(p) - np.arange(len(p)))))
    found = np.ones(len(scores))
    found[order[1:][by_p]] = raised
    return found


def _studies(world: World, seeds: int, count: int, seed: int) -> Iterator[tuple[Trials, dict[str, Floats], Any]]:
    for number in range(count):
        rng = np.random.default_rng([seed, seeds, len(world.obedience), int(world.unequal), number])
        yield *world.study(rng, seeds), rng


def false_certainty(
    studies: int, counts: Sequence[int] = (2, 4, 12, 16), seed_counts: Sequence[int] = (2, 4)
) -> list[dict[str, Any]]:
    """Return how often identical checkpoints are told apart, by this rule and by its predecessor."""
    rows = []
    for count in counts:
        for unequal in (False, True):
            for seeds in seed_counts:
                found = [
                    _false(trials, rng) for trials, _, rng in _studies(alike(count, unequal=unequal), seeds, studies, 1)
                ]
                shares = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
                axes = [shares.pop(f"axis {name}") for name in AXES]
                rows.append(
                    {"checkpoints": count, "difficulty": "unequal" if unequal else "equal", "seeds": seeds}
                    | {"studies": studies, "worst axis": max(axes), "mean of axes": float(np.mean(axes))}
                    | shares
                )
                print(_line(rows[-1]), flush=True)
    return rows


def _false(trials: Trials, rng: np.random.Generator) -> dict[str, bool]:
    drawn = int(rng.integers(1 << 31))
    boards = compared(trials, scaled(trials), prefer="balanced", seed=drawn, exchanges=EXCHANGES)
    sure = {name: bool((one.p < SURE).any()) for name, one in boards.items()}
    _, old = old_rule(trials, rng)
    obeys, knows = boards["obedience"], boards["likeness"]
    overfit = (obeys.lead > 0) & (obeys.p < SURE) & (knows.lead < 0) & (knows.p < SURE)
    return (
        {f"axis {name}": sure[name] for name in AXES}
        | {name: sure[name] for name in ("obedience", "likeness", OVERALL)}
        | {"any axis": any(sure[name] for name in AXES), "overfit": bool(overfit.any())}
        | {
            "old overall": bool((old[OVERALL] < SURE).any()),
            "old any axis": any(bool((old[n] < SURE).any()) for n in AXES),
        }
    )


def coverage(studies: int) -> list[dict[str, Any]]:
    """Return how often the 95 % intervals hold the truth: of single scores, and of all differences at once."""
    rows = []
    cases = [
        (f"{kind}, {seeds} seeds", seeds, alike(4, unequal=kind == "unequal"))
        for kind in ("equal", "unequal")
        for seeds in (2, 4, 8)
    ]
    cases += [
        ("nearly all right, 2 seeds", 2, alike(4, unequal=False, obedience=1.0, base=0.97)),
        ("nearly nothing right, 2 seeds", 2, alike(4, unequal=False, obedience=0.1)),
    ]
    cases += [("as the demo, 2 seeds", 2, World(*np.array(DEMO).T, unequal=True))]
    for words, seeds, world in cases:
        held: dict[str, list[float]] = {}
        for trials, truth, rng in _studies(world, seeds, studies, 2):
            for name, one in estimates(trials, "balanced").items():
                inside = (one.low <= truth[name] + 1e-9) & (truth[name] <= one.high + 1e-9)
                held.setdefault("axes" if name in AXES else name, []).append(float(inside.mean()))
            drawn = int(rng.integers(1 << 31))
            board = compared(trials, scaled(trials), prefer="balanced", seed=drawn, exchanges=EXCHANGES)[OVERALL]
            off = np.abs(board.lead - (truth[OVERALL][:, None] - truth[OVERALL]))
            held.setdefault("all differences", []).append(float((off <= board.reach + 1e-9).all()))
        rows.append({"case": words, "studies": studies} | {name: float(np.mean(told)) for name, told in held.items()})
        print(_line(rows[-1]), flush=True)
    return rows


def power(studies: int) -> list[dict[str, Any]]:
    """Return how often two checkpoints that differ overall by so much are told apart, and what was promised."""
    rows = []
    for seeds in (2, 4, 8, 16):
        for apart in (0.1, 0.2):
            # Both lose alike in obedience and likeness, from 0.9 and 0.6.
            share = next(s for s in np.linspace(1, 0, 2001) if _of(0.9, 0.6) - _of(0.9 * s, 0.6 * s) >= apart)
            world = World(np.array([0.9, 0.9 * share]), np.array([0.6, 0.6 * share]), unequal=True)
            found, tells, old = [], [], []
            for trials, _, rng in _studies(world, seeds, studies, 3):
                drawn = int(rng.integers(1 << 31))
                board = compared(trials, scaled(trials), prefer="balanced", seed=drawn, exchanges=EXCHANGES)[OVERALL]
                found.append(bool(board.p[0, 1] < SURE and board.lead[0, 1] > 0))
                tells.append(board.tells)
                _, p = old_rule(trials, rng)
                old.append(bool((p[OVERALL] < SURE).any()))
            rows.append(
                {"seeds": seeds, "apart": apart, "studies": studies, "told": float(np.mean(found))}
                | {"said to tell at 80 %": float(np.median(tells)), "old told": float(np.mean(old))}
            )
            print(_line(rows[-1]), flush=True)
    return rows


def _of(obedience: float, likeness: float) -> float:
    return float(overall(np.array(obedience), np.array(likeness)))


def named(
    studies: int, fixed: Sequence[int] = (2, 4, 8, 16, 32), races: Sequence[tuple[int, int]] = ((4, 16), (4, 32))
) -> list[dict[str, Any]]:
    """Return whom a fixed suite and a race name among twelve, how good that is, and how many pictures it took."""
    obedience, likeness = np.array(DEMO).T
    world, truth = World(obedience, likeness, unequal=True), overall(obedience, likeness)
    rows = []
    for seeds in fixed:
        picked, old = [], []
        for trials, _, rng in _studies(world, seeds, studies, 4):
            picked.append(_first(trials))
            old.append(int(np.argmax(old_rule(trials, rng, resamples=10)[0])))
        rows.append({"suite": f"{seeds} seeds", "studies": studies, "pictures": 12 * 22 * seeds} | _good(truth, picked))
        rows[-1] |= {f"old {name}": value for name, value in _good(truth, old).items()}
        print(_line(rows[-1]), flush=True)
    for first, most in races:
        picked, pictures, wrong = [], [], []
        for trials, _, _ in _studies(world, most, studies, 4):
            race = raced(trials, range(most), first=first)
            own = trials.only(race.still).at(trials.seed < len(race.seeds))
            picked.append(trials.checkpoints.index(race.still[_first(own)]))
            drawn = len(race.still) * len(race.seeds) + sum(one.seeds for one in race.left.values())
            pictures.append(22 * drawn)
            place = trials.checkpoints.index
            wrong.append(any(truth[place(name)] >= truth[place(one.leader)] for name, one in race.left.items()))
        rows.append(
            {"suite": f"race of {first} to {most}", "studies": studies, "pictures": float(np.mean(pictures))}
            | _good(truth, picked)
            | {"sent off wrongly": float(np.mean(wrong))}
        )
        print(_line(rows[-1]), flush=True)
    return rows


def _first(trials: Trials) -> int:
    return int(np.argmax(estimates(trials, "balanced")[OVERALL].score))


def _good(truth: Floats, picked: list[int]) -> dict[str, float]:
    lost = truth.max() - truth[picked]
    return {"within 0.03": float((lost <= 0.03).mean()), "lost on average": float(lost.mean())}


def races_of_equals(studies: int, counts: Sequence[int] = (2, 4, 12, 16)) -> list[dict[str, Any]]:
    """Return how often a race of identical checkpoints sends any of them off."""
    rows = []
    for count in counts:
        found = [
            bool(raced(trials, range(16), first=4, margin=0.0).left)
            for trials, _, _ in _studies(alike(count, unequal=True), 16, studies, 5)
        ]
        rows.append({"checkpoints": count, "studies": studies, "any sent off": float(np.mean(found))})
        print(_line(rows[-1]), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
    )


PARTS = {
    "false": false_certainty,
    "coverage": coverage,
    "power": power,
    "named": named,
    "races": races_of_equals,
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies a setting (default %(default)s)")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas (default: all)")
    options = parser.parse_args()
    started = time.process_time()
    found = {name: PARTS[name](options.studies) for name in options.only.split(",")}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-decision.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | found, indent=1) + "\n", encoding="utf-8")
    print(f"{time.process_time() - started:.0f} s of one core; {path}")


if __name__ == "__main__":
    main()
