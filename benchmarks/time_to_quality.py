"""How long until an embedding is good? Our fast recipe beside those of diffusers' example and A1111, on known truth.

    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py            # 3 concepts x 2 seeds, 8 vectors
    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --smoke    # does it run? Writes nothing

All recipes are trained by the product's own trainer, so that recipes are compared and not programs (diffusers' own
script takes 2.4 times as long for a sample at batch 1: docs/training-speed.md). Quality: all units' embeddings are
trained together, which changes none of them, and judged by the demo's scorer on pictures whose truth is known. Time: a
recipe's update is timed alone, in rounds that take turns within the same run; a point's time is its updates times the
median. Score: the harmonic mean of obedience (share of pictures with the asked species, over what the base reaches
without an embedding) and likeness (share of the way from no embedding to fresh drawings of the concept). Ours starts
from the words of the concept's own tags, which it finds in the study's tags, the others from `anthro`, a word of
people's choice, as their tools do; one row shows ours from there, too. Captions leave out the concept's tags for ours
and for A1111; the example knows no captions.
Prints the curves; writes `benchmarks/results/<date>-time_to_quality.json`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from inversion_quality import TOKEN, Arm, Bench, Judge, Settings, Unit, captions_of, words_for

from ti_pipeline.demo.world import CONCEPTS
from ti_pipeline.files import write_json
from ti_pipeline.studies import Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from ti_pipeline.inversion.variant_state import Run

HERE = Path(__file__).resolve().parent
LINE = (
    "{recipe:>20} {updates:>4} updates {seconds:>7} s {score:.3f} (likeness {likeness:.3f}, obedience {obedience:.3f})"
)
OURS, OURS_FROM_A_WORD = "ours", "ours, from `anthro`"
# Of the imagenet templates in diffusers' example; it knows no captions, and starts every vector as one word.
_TEMPLATES = ["a photo of a [name]", "a rendering of a [name]", "the photo of a [name]", "a close-up photo of a [name]"]


@dataclass(frozen=True)
class Recipe:
    """How it is trained: fields of a variant, its captions, and the updates after which its embedding is judged.

    `whole` recipes have schedules that end with their training: each length is a training of its own.
    """

    name: str
    plan: str
    fields: dict[str, Any]
    points: tuple[int, ...]
    whole: bool = False

    def trainings(self) -> list[tuple[int, ...]]:
        """Return the points of each training."""
        return [(point,) for point in self.points] if self.whole else [self.points]


# diffusers' documented command: 5e-4 with --scale_lr, batch 1, accumulation 4: 2e-3. A1111: the Train tab's defaults.
RECIPES = (
    Recipe(
        "diffusers' example",
        "none",
        {"learning_rate": 2e-3, "gradient_accumulation": 4, "templates": _TEMPLATES},
        (25, 50, 100, 200),
    ),
    Recipe("A1111", "reduced", {"learning_rate": 0.005}, (100, 200, 400, 800)),
    Recipe(OURS, "reduced", {"recipe": "fast"}, (12, 25, 50, 100), whole=True),
    Recipe(OURS_FROM_A_WORD, "reduced", {"recipe": "fast"}, (100,), whole=True),
)


@dataclass
class Point:
    """A recipe's embeddings after so many updates, over all units."""

    recipe: Recipe
    updates: int
    likeness: list[float] = field(default_factory=list)
    obedience: list[float] = field(default_factory=list)

    @property
    def scores(self) -> list[float]:
        """The units' scores."""
        return [harmonic(a, b) for a, b in zip(self.likeness, self.obedience, strict=True)]


def harmonic(likeness: float, obedience: float) -> float:
    """Return the harmonic mean of the two, each between 0 and 1."""
    a, b = (min(1.0, max(0.0, value)) for value in (likeness, obedience))
    return 2 * a * b / (a + b) if a + b else 0.0


def words_of(unit: Unit, vectors: int) -> str:
    """Return the text that `start: concept` takes: the tags of the concept's looks, which `concept: auto` finds.

    That it finds just these is a test of `tagging.concept`, on drawings of the three characters.
    """
    import pandas as pd

    from ti_pipeline.tagging.concept import concept_words
    from ti_pipeline.tagging.tokens import clip_tokenizer

    tags = words_for(unit, "wolf").replace(" ", "_").split(",_")
    table = pd.DataFrame({"tag": tags, "count": range(len(tags)), "kept": False, "rule": "concept"})
    return concept_words(table, clip_tokenizer(), vectors)


class Laboratory:
    """The base model, the units' pictures, and what no embedding and the concept itself reach."""

    def __init__(self, units: Sequence[Unit], vectors: int, settings: Settings, work: Path) -> None:
        self.bench, self.vectors = Bench(settings, work), vectors
        self.units = list(units)
        self.sets = {unit: self.bench._training_set(unit, random=False) for unit in units}
        self.judges = {unit: Judge(unit, settings, self.bench.scorer) for unit in units}
        none = self.bench.initial(1)
        self.nothing = {unit: self._seen(unit, self.bench.draw(unit, none, "")) for unit in units}
        self.concept = {unit: self._seen(unit, self.judges[unit].fresh) for unit in units}

    def _seen(self, unit: Unit, pictures: Any) -> tuple[float, float]:
        """Return the pictures' mean similarity to the concept, and the share that shows the asked species."""
        found = self.judges[unit].measured(pictures)
        return statistics.fmean(found["concept"]), statistics.fmean(found["species"])

    def run(self, unit: Unit, recipe: Recipe, points: tuple[int, ...]) -> Run:
        """Return a training of a recipe that has not begun; checkpoints are kept at every point."""
        import math

        from ti_pipeline.inversion.variant_state import Pictures, Run

        shown, latents = self.sets[unit]
        start = words_of(unit, self.vectors) if recipe.name == OURS else "anthro"
        fields: dict[str, Any] = {"base": "demo", "vectors": self.vectors, "initializer": start, "token": TOKEN}
        every = math.gcd(*points)
        fields |= {"seed": unit.seed, "steps": points[-1], "checkpoint_every": every}
        variant = Variant(**fields, **recipe.fields)
        pictures = Pictures(list(range(len(shown))), captions_of(Arm(1, recipe.plan), shown, unit), latents)
        nothing = Pictures([], [], type(latents)(latents.mean[:0], latents.deviation[:0]))
        return Run.start(f"{unit.name} {recipe.name} {points}", variant, self.bench.base, pictures, nothing)

    def train(self, runs: Sequence[Run]) -> dict[tuple[str, int], torch.Tensor]:
        """Train runs together; return vectors by the run's key and its updates."""
        from ti_pipeline.inversion.trainer import train

        kept: dict[tuple[str, int], torch.Tensor] = {}

        def save(run: Run, checkpoint: bool) -> None:
            if checkpoint:
                kept[run.key, run.done] = run.vectors.detach().clone()

        train(self.bench.base, runs, save=save)
        return kept

    def judged(self, unit: Unit, vectors: torch.Tensor) -> tuple[float, float]:
        """Return likeness and obedience of an embedding."""
        similar, right = self._seen(unit, self.bench.draw(unit, vectors))
        (start, reached), (end, _) = self.nothing[unit], self.concept[unit]
        return (similar - start) / (end - start), right / reached


def measure(lab: Laboratory, recipes: Sequence[Recipe]) -> list[Point]:
    """Train all recipes on all units and judge them at their points."""
    points = []
    for recipe in recipes:
        began = time.monotonic()
        runs = {(unit, own): lab.run(unit, recipe, own) for unit in lab.units for own in recipe.trainings()}
        kept = lab.train(list(runs.values()))
        for updates in recipe.points:
            point = Point(recipe, updates)
            for unit in lab.units:
                own = next(own for own in recipe.trainings() if updates in own)
                likeness, obedience = lab.judged(unit, kept[runs[unit, own].key, updates])
                point.likeness.append(likeness)
                point.obedience.append(obedience)
            points.append(point)
        print(f"{recipe.name}: measured in {time.monotonic() - began:.0f} s", flush=True)
    return points


def seconds_per_update(lab: Laboratory, recipes: Iterable[Recipe], rounds: int) -> dict[str, float]:
    """Return each recipe's median seconds an update, trained alone; recipes take turns so that all are disturbed."""
    took: dict[str, list[float]] = {recipe.name: [] for recipe in recipes}
    for _ in range(rounds):
        for recipe in recipes:
            updates = 4 if recipe.fields.get("gradient_accumulation") else 12
            run = lab.run(lab.units[0], recipe, (updates,))
            began = time.perf_counter()
            lab.train([run])
            took[recipe.name].append((time.perf_counter() - began) / updates)
    return {name: statistics.median(values[1:] or values) for name, values in took.items()}  # the first warms up


def until(points: Sequence[Point], seconds: float, goal: float) -> float | None:
    """Return the seconds of the first point whose mean score reaches the goal, or None."""
    reached = [p.updates * seconds for p in points if statistics.fmean(p.scores) >= goal]
    return min(reached, default=None)


def summary(points: Sequence[Point], seconds: dict[str, float]) -> dict[str, Any]:
    """Return curves, each recipe's best, and in what part of a peer's time we reach the peer's best."""
    curves = [
        {
            "recipe": p.recipe.name,
            "updates": p.updates,
            "seconds": round(p.updates * seconds[p.recipe.name], 2),
            **{
                name: round(statistics.fmean(values), 4)
                for name, values in (("score", p.scores), ("likeness", p.likeness), ("obedience", p.obedience))
            },
            "scores": [round(score, 4) for score in p.scores],
        }
        for p in points
    ]
    ours = [p for p in points if p.recipe.name == OURS]
    peers = {}
    for name in dict.fromkeys(p.recipe.name for p in points if not p.recipe.whole):
        own = [p for p in points if p.recipe.name == name]
        best = max(statistics.fmean(p.scores) for p in own)
        theirs, we = until(own, seconds[name], best), until(ours, seconds[OURS], best)
        ratio = None if we is None or theirs is None else round(theirs / we, 2)
        best_of_ours = max(statistics.fmean(p.scores) for p in ours)
        peers[name] = {
            "best": round(best, 4),
            "seconds to its best": theirs and round(theirs, 2),
            "our seconds to the same": we and round(we, 2),
            "times as fast": ratio,
            "ours at its best": round(best_of_ours, 4),
            "units in which our best is higher": sum(
                max(p.scores[i] for p in ours) > max(p.scores[i] for p in own) for i in range(len(own[0].scores))
            ),
        }
    return {"curves": curves, "peers": peers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noises", type=int, default=1, help="pictures a species and embedding")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--base", default=Settings.base)
    parser.add_argument("--smoke", action="store_true", help="one unit, few updates: to see that it runs")
    parser.add_argument("--work", type=Path, default=HERE.parent / "data/store/benchmarks/time_to_quality")
    given = parser.parse_args()
    units = [Unit(concept, seed) for concept in CONCEPTS for seed in range(given.seeds)]
    recipes = RECIPES
    settings = Settings(noises=given.noises, base=given.base)
    if given.smoke:
        units, settings = units[:1], Settings(noises=1, draw_steps=2, training_pictures=4, base=given.base)
        recipes = tuple(Recipe(r.name, r.plan, r.fields, (1, 2), r.whole) for r in recipes)
    lab = Laboratory(units, given.vectors, settings, given.work)
    seconds = seconds_per_update(lab, recipes, 1 if given.smoke else given.rounds)
    points = measure(lab, recipes)
    again = seconds_per_update(lab, recipes, 1 if given.smoke else given.rounds)
    seconds = {name: min(value, again[name]) for name, value in seconds.items()}
    found = summary(points, seconds)
    for row in found["curves"]:
        print(
            "{recipe:>20} {updates:>4} updates {seconds:>7} s: {score:.3f} ({likeness:.3f}, {obedience:.3f})".format(
                **row
            )
        )
    for name, peer in found["peers"].items():
        print(name, peer)
    if not given.smoke:
        today = datetime.now(UTC).date().isoformat()
        about = {
            "date": today,
            "vectors": given.vectors,
            "units": [unit.name for unit in units],
            "noises": given.noises,
            "base": lab.bench.base.identity,
            "milliseconds an update": {name: round(value * 1000, 1) for name, value in seconds.items()},
        }
        write_json(HERE / "results" / f"{today}-time_to_quality.json", about | found)


if __name__ == "__main__":
    main()
