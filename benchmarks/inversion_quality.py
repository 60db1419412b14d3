"""Does textual inversion learn? Measured on characters whose looks are known, with the demo's base model.

For each held-out concept of the drawn world and each seed (a unit), embeddings are trained by the product's own
trainer, all of a unit together: 1 to 64 vectors, four caption plans, a control on pictures of anything, and arms in
which a fixed tag stands in a part of the captions only. The demo's scorer judges pictures drawn with them.

    python benchmarks/inversion_quality.py --workers 2      # everything; finished units are kept and not made again
    python benchmarks/inversion_quality.py --only ember/0   # some units only, e.g. on another machine
    python benchmarks/inversion_quality.py --quick          # a few minutes: does it run? Writes to the work folder only

Prints an estimate, progress and the table; when all units are there, writes
`benchmarks/results/<date>-inversion_quality.json` and `docs/inversion-quality.md` with its pictures.
Here: what is trained, drawn and measured. What follows from the numbers is in `inversion_report`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.demo.world import CHOICES, CONCEPTS, SPECIES, Attributes, bust, prompt, random_attributes, word_of
from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.studies import BaseModelSource, Variant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from PIL import Image

    from ti_pipeline.evaluation.scorers import Scorer
    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.latents import Latents

HERE = Path(__file__).resolve().parent
METHOD = 1  # raise it when units made by older code must not be used
SIZE, TOKEN = 64, "benchmark-embedding"
FLAGS = ("steps", "checkpoint_every", "learning_rate", "min_snr_gamma", "initializer", "noises", "base")
CONTROLS = ("random pictures", "plain loss", "tags dropped")
VARIANT_FIELDS = ("checkpoint_every", "learning_rate", "min_snr_gamma", "batch_size")
REFERENCES, OTHERS = 40, 160  # fresh drawings: of the concept, and of anything


@dataclass(frozen=True)
class Settings:
    """What decides a unit's numbers, beside its concept and seed."""

    steps: int = 200
    checkpoint_every: int = 100
    learning_rate: str = "0.01:140, 0.002"
    min_snr_gamma: float = 5.0
    initializer: str = "anthro"
    batch_size: int = 4
    vectors: tuple[int, ...] = (1, 8, 16, 32, 64)
    plans: tuple[str, ...] = ("none", "species", "reduced", "all")
    middle: int = 16  # vectors of the controls and of the arms with a fixed tag
    said: tuple[int, ...] = (100,)  # per cent of captions that name the concept's colour
    training_pictures: int = 40
    noises: int = 2  # pictures a species and embedding
    draw_steps: int = 20
    cfg: float = 6.0
    base: str = "../data/base_models/demo"


QUICK = Settings(12, 6, vectors=(1, 16), plans=("none", "reduced"), said=(100,), noises=1, draw_steps=6)


@dataclass(frozen=True)
class Unit:
    """One concept with one seed: its own training pictures, training draws and noises."""

    concept: str
    seed: int

    @property
    def name(self) -> str:
        """What `--only` and files call it."""
        return f"{self.concept}/{self.seed}"

    def rng(self, what: str, index: int) -> random.Random:
        """Return the generator of one drawing or choice; it depends on nothing else."""
        return random.Random(f"inversion {what}/{self.name}/{index}")


@dataclass(frozen=True)
class Arm:
    """One embedding to train: `trained`, or a control: `random pictures`, `plain loss`, `tags dropped` at random.

    `said` is the share of captions, in per cent, to which the concept's colour is added.
    """

    vectors: int
    plan: str
    said: int = 0
    kind: str = "trained"

    @property
    def random(self) -> bool:
        """Whether it learns from pictures of anything."""
        return self.kind == "random pictures"

    @property
    def key(self) -> str:
        """A name of its own among the unit's."""
        return f"{self.kind.replace(' ', '-')}-{self.plan}-{self.vectors}-{self.said}"


def arms_of(settings: Settings) -> list[Arm]:
    """Return the grid of vectors and plans, the control on pictures of anything, and the arms with a fixed tag."""
    grid = [Arm(vectors, plan) for plan in settings.plans for vectors in settings.vectors]
    fixed = [
        Arm(settings.middle, p, said) for p in ("species", "reduced") if p in settings.plans for said in settings.said
    ]
    controls = [Arm(settings.middle, "reduced", kind=kind) for kind in CONTROLS]
    return [*grid, *controls, *fixed]


def caption_of(shown: Attributes, plan: str, concept: str, *, said: bool) -> str:
    """Return a training caption. `reduced` leaves out the tags of whatever attributes belong to the concept."""
    species = [word_of("species", shown.species)]
    belonging = {prompt(shown, (name,)) for name in CONCEPTS[concept].looks()}
    general = [tag.replace("_", " ") for tag in shown.tags()["general"]]
    words = {
        "none": [],
        "species": species,
        "reduced": species + [tag for tag in general if tag not in belonging],
        "all": species + general,
    }[plan]
    return ", ".join(words[:1] + [prompt(shown, ("colour",))] * said + words[1:])


def captions_of(arm: Arm, shown: Sequence[Attributes], unit: Unit) -> list[str]:
    """Return an arm's captions. Those that say the colour are the first of one order, so smaller shares are parts."""
    order = unit.rng("said", 0).sample(range(len(shown)), len(shown))
    telling = set(order[: round(len(shown) * arm.said / 100)])
    return [caption_of(a, arm.plan, unit.concept, said=i in telling) for i, a in enumerate(shown)]


def drawings(unit: Unit, what: str, count: int, concept: str | None) -> tuple[list[Attributes], list[Image.Image]]:
    """Return drawings of the concept, or of anything but held-out looks, in the plain style."""
    rngs = [unit.rng(what, index) for index in range(count)]
    shown = [random_attributes(rng, concept=concept, style="flat") for rng in rngs]
    return shown, [bust(a, SIZE, rng) for a, rng in zip(shown, rngs, strict=True)]


def questions(unit: Unit, settings: Settings) -> list[tuple[str, int]]:
    """Return the species asked for and the noise's seed of each picture of an embedding; one noise after another."""
    return [(species, unit.seed * 1000 + noise) for noise in range(settings.noises) for species in SPECIES]


class Bench:
    """The base model and scorer of a process, and what is done with them."""

    def __init__(self, settings: Settings, work: Path) -> None:
        import torch

        from ti_pipeline.evaluation.scorers import load_scorer
        from ti_pipeline.inversion.base_models import load_base

        torch.set_num_threads(1)
        self.settings, self.work = settings, work
        self.base: Base = load_base("demo", BaseModelSource(folder=settings.base), folder=HERE)
        self.scorer: Scorer = load_scorer(BaseModelSource(folder=f"{settings.base}/scorer"), folder=HERE)

    def train(
        self, unit: Unit, arms: Sequence[Arm], steps: int, told: Callable[[int], None]
    ) -> dict[tuple[Arm, int], torch.Tensor]:
        """Train arms together; return their vectors by step. `told` hears of the steps done now and then."""
        from ti_pipeline.inversion.trainer import TrainingError, train
        from ti_pipeline.inversion.variant_state import Pictures, Run

        ids = list(range(self.settings.training_pictures))
        of_kind = {kind: self._training_set(unit, random=kind) for kind in {arm.random for arm in arms}}
        runs = {}
        for arm in arms:
            shown, latents = of_kind[arm.random]
            pictures = Pictures(ids, captions_of(arm, shown, unit), latents)
            nothing = Pictures([], [], type(latents)(latents.mean[:0], latents.deviation[:0]))
            runs[arm] = Run.start(arm.key, self._variant(unit, arm, steps), self.base, pictures, nothing)
        arm_of = {run.key: arm for arm, run in runs.items()}
        kept: dict[tuple[Arm, int], torch.Tensor] = {}

        def save(run: Run, checkpoint: bool) -> None:
            if checkpoint:
                kept[arm_of[run.key], run.done] = run.vectors.detach().clone()

        train(self.base, list(runs.values()), save=save, progress=lambda done, _all, _words: told(done // len(runs)))
        if failures := [run.failure for run in runs.values() if run.failure]:
            raise TrainingError("; ".join(failures))
        return kept

    def _variant(self, unit: Unit, arm: Arm, steps: int) -> Variant:
        chosen = {name: getattr(self.settings, name) for name in VARIANT_FIELDS}
        if arm.kind == "plain loss":
            chosen["min_snr_gamma"] = None
        if arm.kind == "tags dropped":
            chosen["drop_tags"] = 0.5
        start = self.settings.initializer
        return Variant(
            base="demo", vectors=arm.vectors, steps=steps, initializer=start, token=TOKEN, seed=unit.seed, **chosen
        )

    def _training_set(self, unit: Unit, *, random: bool) -> tuple[list[Attributes], Latents]:
        import pandas as pd

        from ti_pipeline.inversion.latents import encode_crops

        what = "training of anything" if random else "training"
        shown, pictures = drawings(unit, what, self.settings.training_pictures, None if random else unit.concept)
        folder = self.work / "pictures" / unit.name / ("random" if random else "concept")
        paths = [folder / f"{index:02}.png" for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            with write_atomically(path) as aside:
                picture.save(aside)
        named = {"path": [p.relative_to(self.work).as_posix() for p in paths], "sha256": [sha256_of(p) for p in paths]}
        return shown, encode_crops(self.base, pd.DataFrame(named), root=self.work, resolution=SIZE)

    def initial(self, vectors: int) -> torch.Tensor:
        """Return the vectors that training starts from."""
        from ti_pipeline.inversion.variant_state import initial_vectors

        start = Variant(base="demo", vectors=vectors, steps=1, initializer=self.settings.initializer)
        return initial_vectors(self.base, start)

    def draw(self, unit: Unit, vectors: torch.Tensor, what: str = TOKEN, steps: int = 0) -> list[Image.Image]:
        """Draw a unit's questions with the embedding, or with `what` else stands in the place of its name."""
        from PIL import Image

        from ti_pipeline.evaluation.sampler import draw_pictures
        from ti_pipeline.evaluation.suites import Cell

        cells = []
        for species, seed in questions(unit, self.settings):
            inside = words_for(unit, species) if what == "words" else what
            text = ", ".join(filter(None, (inside, word_of("species", species), "simple background")))
            asked = {"sampler": "DDIM", "steps": steps or self.settings.draw_steps, "cfg": self.settings.cfg}
            fixed = {"negative": "", "token": TOKEN, "clip_skip": 1, "long_prompts": "cut"}
            cells.append(
                Cell(
                    "",
                    TOKEN,
                    0,
                    "",
                    species,
                    seed,
                    **asked,
                    **fixed,
                    size=SIZE,
                    prompt=text,
                    embedding_sha256=TOKEN,
                    base_identity=self.base.identity,
                )
            )
        pixels = draw_pictures(cells, base=self.base, vectors={TOKEN: vectors})
        return [Image.fromarray(picture) for picture in pixels]

    def cut(self, unit: Unit) -> dict[str, float]:
        """Return, by plan and vectors, the share of training captions of which an end is beyond the prompt's limit."""
        from ti_pipeline.inversion.conditioning import CONTEXT_TOKENS, prompt_length

        shown = self._training_set(unit, random=False)[0]
        found = {}
        for arm in (arm for arm in arms_of(self.settings) if arm.kind == "trained" and not arm.said):
            texts = [f"{TOKEN}, {caption}" for caption in captions_of(arm, shown, unit)]
            lengths = [prompt_length(self.base.tokenizer, text, {TOKEN: arm.vectors}) for text in texts]
            found[f"{arm.plan}-{arm.vectors}"] = sum(n > CONTEXT_TOKENS for n in lengths) / len(lengths)
        return found


def words_for(unit: Unit, species: str) -> str:
    """Return the concept's looks as words of a prompt."""
    shown = replace(random_attributes(unit.rng("words", 0), unit.concept), species=species)
    return prompt(shown, tuple(CONCEPTS[unit.concept].looks()))


class Judge:
    """What pictures of a unit are held against: fresh drawings that nothing was trained on."""

    def __init__(self, unit: Unit, settings: Settings, scorer: Scorer) -> None:
        import torch

        self.unit, self.scorer = unit, scorer
        self.asked = [species for species, _ in questions(unit, settings)]
        self.references = scorer.image_features(drawings(unit, "reference", REFERENCES, unit.concept)[1])
        self.bank = torch.cat([self.references, scorer.image_features(drawings(unit, "others", OTHERS, None)[1])])
        self.texts = {name: scorer.text_features([word_of(name, v) for v in CHOICES[name]]) for name in self._looks()}
        self.fresh, self.other = (self._as_asked(kind) for kind in (unit.concept, None))
        self.laplacian = sum(map(laplacian, self.fresh)) / len(self.fresh)

    def _looks(self) -> dict[str, str]:
        """Return what every picture of the concept shows and a word can name, and the species with it."""
        looks = CONCEPTS[self.unit.concept].looks()
        return {"species": ""} | {name: value for name, value in looks.items() if value != "none"}

    def _as_asked(self, concept: str | None) -> list[Image.Image]:
        """Return drawings of just what the prompts ask for."""
        pictures = []
        for index, species in enumerate(self.asked):
            rng = self.unit.rng(f"as asked {concept}", index)
            shown = random_attributes(rng, concept=concept, style="flat")
            pictures.append(bust(replace(shown, species=species, background="simple_background"), SIZE, rng))
        return pictures

    def measured(self, pictures: Sequence[Image.Image]) -> dict[str, list[float]]:
        """Return each picture's numbers, by metric; matches are 1 or 0."""
        seen = self.scorer.image_features(pictures)
        found: dict[str, list[float]] = {"concept": likeness(seen, self.references).tolist()}
        matches = []
        for name, value in self._looks().items():
            shares = (self.scorer.scale * seen @ self.texts[name].T).softmax(dim=1)
            wanted = [CHOICES[name].index(value or species) for species in self.asked]
            found[name] = [float(a == b) for a, b in zip(shares.argmax(dim=1).tolist(), wanted, strict=True)]
            if name == "species":
                found["confidence"] = shares[range(len(wanted)), wanted].tolist()
            else:
                matches.append(found[name])
        found["attributes"] = [sum(of_picture) / len(matches) for of_picture in zip(*matches, strict=True)]
        found["nearest"] = (seen @ self.bank.T).amax(dim=1).tolist()
        found["sharpness"] = [laplacian(picture) / self.laplacian for picture in pictures]
        return {name: [round(value, 5) for value in values] for name, values in found.items()}


def likeness(seen: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return each picture's concept similarity. The only place to change when the product measures it better."""
    from ti_pipeline.evaluation.similarity import similarity_to

    return similarity_to(seen, references)


def laplacian(picture: Image.Image) -> float:
    """Return the variance of the Laplacian of the grey picture: small where edges are soft."""
    import cv2
    import numpy as np

    return float(cv2.Laplacian(np.asarray(picture.convert("L"), dtype=np.float64), cv2.CV_64F).var())


def shuffled(vectors: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the same numbers in another order: what an embedding of this size does without what it learned."""
    import numpy as np
    import torch

    order = np.random.default_rng(seed).permutation(vectors.numel())
    return vectors.reshape(-1)[torch.from_numpy(order)].reshape(vectors.shape)


def embeddings_of(
    bench: Bench, unit: Unit, kept: dict[tuple[Arm, int], torch.Tensor]
) -> list[tuple[dict[str, Any], torch.Tensor, str]]:
    """Return what is drawn with: a row's names, vectors, and what stands in the embedding's place in prompts."""
    settings = bench.settings

    def row(kind: str, vectors: int, plan: str = "", said: int = 0, step: int = 0) -> dict[str, Any]:
        return {"kind": kind, "vectors": vectors, "plan": plan, "said": said, "step": step}

    nothing = bench.initial(1)
    rows = [(row("no embedding", 0), nothing, ""), (row("words", 0), nothing, "words")]
    rows += [(row("initialisation", n), bench.initial(n), TOKEN) for n in settings.vectors]
    for (arm, step), vectors in kept.items():
        last = step == settings.steps
        if last or (arm.plan == "reduced" and arm.kind == "trained" and not arm.said):
            rows.append((row(arm.kind, arm.vectors, arm.plan, arm.said, step), vectors, TOKEN))
        if last and arm == Arm(settings.middle, "reduced"):
            rows.append((row("shuffled", arm.vectors, arm.plan, 0, step), shuffled(vectors, unit.seed), TOKEN))
    return rows


def make_unit(unit: Unit, settings: Settings, work: Path, identity: str) -> None:
    """Train, draw and measure a unit; write `<work>/units/<concept>-<seed>.json` and a sheet of its pictures."""
    bench, clock = Bench(settings, work), Clock(unit.name)
    kept = bench.train(unit, arms_of(settings), settings.steps, lambda n: clock.tell("training", n, settings.steps))
    trained = clock.seconds()
    judge = Judge(unit, settings, bench.scorer)
    rows, sheet = [], {}
    todo = embeddings_of(bench, unit, kept)
    for number, (names, vectors, what) in enumerate(todo, start=1):
        pictures = bench.draw(unit, vectors, what)
        rows.append(names | {"metrics": judge.measured(pictures)})
        if (names["step"] in {0, settings.steps}) and not names["said"] and names["plan"] in {"", "reduced"}:
            sheet[f"{names['kind']} {names['vectors'] or ''}".strip()] = pictures[: len(SPECIES)]
        clock.tell("drawing", number, len(todo))
    for kind, pictures in (("drawings of the concept", judge.fresh), ("drawings of others", judge.other)):
        names = {"kind": kind, "vectors": 0, "plan": "", "said": 0, "step": 0}
        rows.append(names | {"metrics": judge.measured(pictures)})
        sheet[kind] = pictures[: len(SPECIES)]
    path = unit_path(work, unit)
    write_sheet(list(sheet.values()), path.with_suffix(".png"))
    seconds = {"training": round(trained), "drawing": round(clock.seconds() - trained)}
    about = {"unit": unit.name, "identity": identity, "base": bench.base.identity, "seconds": seconds}
    write_json(path, about | {"cut": bench.cut(unit), "sheet": list(sheet), "rows": rows})


class Clock:
    """Tells how far a unit is, at most every ten seconds."""

    def __init__(self, name: str) -> None:
        self.name, self.start, self.last = name, time.monotonic(), 0.0

    def seconds(self) -> float:
        """Return the seconds since the unit began."""
        return time.monotonic() - self.start

    def tell(self, what: str, done: int, whole: int) -> None:
        """Print a line, unless one was printed just now."""
        if self.seconds() - self.last > 10 or done == whole:
            self.last = self.seconds()
            print(f"{self.name}: {what} {done}/{whole}, {self.last:.0f} s", flush=True)


def unit_path(work: Path, unit: Unit) -> Path:
    return work / "units" / f"{unit.concept}-{unit.seed}.json"


def write_sheet(rows: Sequence[Sequence[Image.Image]], path: Path) -> None:
    from PIL import Image

    sheet = Image.new("RGB", (len(rows[0]) * SIZE, len(rows) * SIZE))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (x * SIZE, y * SIZE))
    with write_atomically(path) as aside:
        sheet.save(aside)


def identity_of(settings: Settings) -> str:
    """Return the fingerprint of everything that decides a unit's numbers but the code."""
    from ti_pipeline.evaluation.scorers import scorer_identity
    from ti_pipeline.inversion.base_models import base_identity

    source = {part: BaseModelSource(folder=f"{settings.base}{part}") for part in ("", "/scorer")}
    models = [base_identity("demo", source[""], folder=HERE), scorer_identity(source["/scorer"], folder=HERE)]
    return fingerprint([METHOD, asdict(settings), *models])


def finished(work: Path, unit: Unit, identity: str) -> dict[str, Any] | None:
    """Return a unit's numbers if they are there and of these settings and models."""
    try:
        found: dict[str, Any] = json.loads(unit_path(work, unit).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if found["identity"] == identity else None


def print_estimate(unit: Unit, settings: Settings, work: Path, units: int, workers: int) -> None:
    """Measure a few steps of training and drawing, and say how long the whole will take."""
    bench, arms = Bench(settings, work), arms_of(settings)
    training = [_seconds(lambda n=n: bench.train(unit, arms, n, lambda _done: None)) for n in (1, 1, 4)]
    step = (training[2] - training[1]) / 3  # the first warms up
    took = [_seconds(lambda n=n: bench.draw(unit, bench.initial(1), steps=n)) for n in (1, 1, 4)]  # the first warms up
    drawing = took[1] + (took[2] - took[1]) / 3 * (settings.draw_steps - 1)
    last_only = [(arm, settings.steps) for arm in arms]
    early = [(Arm(n, "reduced"), s) for n in settings.vectors for s in checkpoints(settings)[:-1]]
    drawn = len(embeddings_of(bench, unit, {key: bench.initial(key[0].vectors) for key in (*last_only, *early)}))
    a_unit = step * settings.steps + drawing * drawn
    sample = step / len(arms) / settings.batch_size * 1000
    print(
        f"{len(arms)} embeddings trained together: {step:.2f} s a step ({sample:.1f} ms a sample); {drawn} embeddings"
        f" drawn with: {drawing:.1f} s each\nabout {a_unit / 60:.1f} min a unit;"
        f" {units} units, {workers} at a time: about {a_unit * math.ceil(units / workers) / 60:.0f} min",
        flush=True,
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def checkpoints(settings: Settings) -> list[int]:
    return [*range(settings.checkpoint_every, settings.steps, settings.checkpoint_every), settings.steps]


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", type=int, default=1, help="units at a time, one thread each")
    parser.add_argument("--only", help="units to make, e.g. ember/0,frost/2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one unit, few steps: to see that it runs")
    parser.add_argument("--work", type=Path, default=HERE.parent / "data/store/benchmarks/inversion_quality")
    for name in FLAGS:
        value = getattr(Settings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), help=f"default: {value}")
    return parser.parse_args(arguments)


def main() -> None:
    given = parsed()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded here and in the workers
    settings = QUICK if given.quick else Settings()
    settings = replace(settings, **{n: getattr(given, n) for n in FLAGS if getattr(given, n) is not None})
    work = given.work / "quick" if given.quick else given.work
    seeds, concepts = (1, ["ember"]) if given.quick else (given.seeds, list(CONCEPTS))
    units = [Unit(concept, seed) for seed in range(seeds) for concept in concepts]
    wanted = set(given.only.split(",")) if given.only else {unit.name for unit in units}
    if unknown := wanted - {unit.name for unit in units}:
        raise SystemExit(f"no unit {sorted(unknown)[0]}; there are {', '.join(unit.name for unit in units)}")
    identity = identity_of(settings)
    todo = [unit for unit in units if unit.name in wanted and finished(work, unit, identity) is None]
    if todo:
        print_estimate(todo[0], settings, work, len(todo), given.workers)
        with ProcessPoolExecutor(given.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in [pool.submit(make_unit, unit, settings, work, identity) for unit in todo]:
                future.result()
    gather(units, settings, work, identity, quick=given.quick)


def gather(units: Sequence[Unit], settings: Settings, work: Path, identity: str, *, quick: bool) -> None:
    """Print the table of all units and publish it, if all are there."""
    from inversion_report import publish

    found = [finished(work, unit, identity) for unit in units]
    if missing := [unit.name for unit, numbers in zip(units, found, strict=True) if numbers is None]:
        print(f"not made yet: {', '.join(missing)}; the report waits for them")
        return
    sheet = unit_path(work, units[0]).with_suffix(".png")
    docs, results = (work, work) if quick else (HERE.parent / "docs", HERE / "results")
    publish([numbers for numbers in found if numbers], asdict(settings), sheet, docs=docs, results=results)


if __name__ == "__main__":
    main()
