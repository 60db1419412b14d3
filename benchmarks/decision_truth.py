"""Does the decision name the right embedding? Held against attributes that a judge of its own reads from the pictures.

Embeddings of three held-out concepts of the drawn world, from hardly trained to overdone, are drawn with and ranked as
a study is: references, likeness, obedience, the harmonic mean. The truth is read from other pictures of the same
embeddings (other seeds) by linear probes on ImageNet features, which know nothing of the scorer: does the species, the
background or the clothing asked for show, and the concept's own colour, eyes and marking?

    python benchmarks/decision_truth.py            # some 15 minutes on one core; prints the table, keeps dated JSON
    python benchmarks/decision_truth.py --quick    # one concept, few pictures: does it run?

Beside it the rule that the product had until 2026-11-28: the plain mean of the axes' shares and of the mean cosine
similarity to the held-out pictures. Needs the packages that `probes` names.
"""

from __future__ import annotations

import argparse
import datetime
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from inversion_quality import HERE, SIZE, TOKEN, Arm, Bench, Settings, Unit, drawings, words_for

from ti_pipeline.demo.world import CHOICES, CONCEPTS, bust, random_attributes, word_of
from ti_pipeline.files import write_json
from ti_pipeline.studies import Axis
from ti_pipeline.study_evaluation import Evaluation, Sampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from PIL import Image

HELD_OUT = 12  # as many as the demo's study has
PROBED = 3000  # drawings that the probes are fitted on
AXES = {"species": "[name], VALUE, simple background", "background": "[name], VALUE, bear"}
AXES |= {"clothing": "[name], VALUE, fox, simple background"}


@dataclass(frozen=True)
class Scale:
    """How much is trained and drawn."""

    concepts: tuple[str, ...] = tuple(CONCEPTS)
    vectors: tuple[int, ...] = (8, 16, 64)
    checkpoints: tuple[int, ...] = (20, 60, 200)
    seeds: int = 2  # for the decision, and as many others for the truth
    probed: int = PROBED


QUICK = Scale(("ember",), (1, 16), (4, 8), 2, 400)


def axes() -> dict[str, Axis]:
    """Return the suite's axes, their values in the words of prompts."""
    values = {name: [word_of(name, value) for value in CHOICES[name] if value != "none"] for name in AXES}
    return {name: Axis(prompt=text, search="VALUE", values=values[name]) for name, text in AXES.items()}


def trained(bench: Bench, unit: Unit, scale: Scale) -> dict[str, torch.Tensor]:
    """Return the vectors of every checkpoint of a unit by its name; `untrained` is where 16 vectors start."""
    arms = [Arm(vectors, "reduced") for vectors in scale.vectors]
    kept = bench.train(unit, arms, max(scale.checkpoints), lambda _done: None)
    found = {f"v{arm.vectors}-{step}": vectors for (arm, step), vectors in kept.items() if step in scale.checkpoints}
    return found | {"untrained-0": bench.initial(16)}


def drawn(
    bench: Bench, unit: Unit, vectors: Mapping[str, torch.Tensor], seeds: Sequence[int], root: Path
) -> pd.DataFrame:
    """Draw the suite with every checkpoint, without an embedding and in words; return a table with their paths."""
    from PIL import Image

    from ti_pipeline.evaluation.references import NO_EMBEDDING, WORDS, reference_prompt
    from ti_pipeline.evaluation.sampler import drawn_batches
    from ti_pipeline.evaluation.suites import Asked, cells_of, questions

    said = words_for(unit, "wolf").split(", ")
    looks = ", ".join(part for part in said if part != "wolf")
    suite = Evaluation(sizes=[SIZE], samplers=[Sampler(steps=20, cfg=6)])
    asked = [
        Asked(name.split("-")[0], name, int(name.split("-")[1]), TOKEN, name, *question)
        for name in vectors
        for question in questions(axes(), TOKEN)
    ]
    for name, text in ((NO_EMBEDDING, ""), (WORDS, looks)):
        asked += [
            Asked("", name, 0, "", "", axis, value, *(reference_prompt(part, text) for part in texts))
            for axis, value, *texts in questions(axes(), "\0")
        ]
    cells = list(cells_of(suite, asked, bench.base.identity, seeds=seeds, clip_skips=[1]))
    rows, done = [], 0
    for batch, pixels in drawn_batches(cells, 32, bench.base, vectors):
        for cell, picture in zip(batch, pixels, strict=True):
            Image.fromarray(picture).save(root / f"{cell.cell}.png")
            names = ("checkpoint", "variant", "step", "axis", "value", "seed", "prompt", "negative", "cell")
            rows.append({name: getattr(cell, name) for name in names} | {"path": f"{cell.cell}.png"})
        done += len(batch)
        print(f"{unit.name}: {done} of {len(cells)} pictures", flush=True)
    return pd.DataFrame(rows)


class Probes:
    """Linear probes for the attributes that prompts and concepts name, fitted on drawings through the autoencoder."""

    def __init__(self, bench: Bench, count: int) -> None:
        import random

        from probes import features, fit, load_network

        self.bench, self.network, self.features = bench, load_network(), features
        shown, pictures = [], []
        for index in range(count):
            rng = random.Random(f"probed {index}")
            shown.append(random_attributes(rng, style="flat"))
            pictures.append(bust(shown[-1], SIZE, rng))
        seen = features(self.network, self.blurred(pictures))
        self.names = [*AXES, "colour", "eyes", "marking", "accessory"]
        labels = {name: np.array([CHOICES[name].index(getattr(a, name)) for a in shown]) for name in self.names}
        self.fitted = {name: fit(seen, labels[name], len(CHOICES[name])) for name in self.names}

    def blurred(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Return pictures as the base's autoencoder gives them back: all that it draws looks so."""
        import torch
        from PIL import Image

        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        found = []
        with torch.inference_mode():
            for part in torch.split(pixels.float() / 127.5 - 1, 64):
                decoded = self.bench.base.vae.decode(self.bench.base.vae.encode(part).latent_dist.mean).sample
                found.append(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())
        return [Image.fromarray(picture) for picture in np.concatenate(found)]

    def read(self, pictures: Sequence[Image.Image]) -> dict[str, list[str]]:
        """Return what each picture shows, by attribute."""
        seen = self.features(self.network, pictures)
        return {name: [CHOICES[name][at] for at in probe.predict(seen).tolist()] for name, probe in self.fitted.items()}


def truth(probes: Probes, unit: Unit, images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return obedience, likeness and their harmonic mean of every checkpoint, as the probes read its pictures."""
    from PIL import Image

    seen = pd.DataFrame(probes.read([Image.open(root / path).convert("RGB") for path in images.path]))
    asked = [shown == value for shown, value in zip(_shown(seen, images), images.value, strict=True)]
    looks = {name: value for name, value in CONCEPTS[unit.concept].looks().items() if value != "none"}
    own = np.mean([seen[name] == value for name, value in looks.items()], axis=0)
    table = images.assign(right=np.array(asked, dtype=float), own=own)
    fresh = pd.DataFrame(probes.read(probes.blurred(drawings(unit, "reference", 40, unit.concept)[1])))
    most = float(np.mean([(fresh[name] == value).mean() for name, value in looks.items()]))
    right = table.pivot_table(index="checkpoint", columns="axis", values="right")
    base = table[table.checkpoint == "no embedding"].own.mean()
    obedience = (right / right.loc["no embedding"]).clip(upper=1).mean(axis=1)
    likeness = ((table.groupby("checkpoint").own.mean() - base) / (most - base)).clip(0, 1)
    harmonic = (2 * obedience * likeness / (obedience + likeness)).fillna(0)
    return pd.DataFrame({"obedience": obedience, "likeness": likeness, "true": harmonic})


def _shown(seen: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    """Return what each picture shows of the attribute that it was asked for, in the words of prompts."""
    return [word_of(axis, seen[axis][at]) for at, axis in enumerate(images.axis)]


def decided(bench: Bench, unit: Unit, images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return what the product says of every checkpoint, and what its earlier rule would have said."""
    from ti_pipeline.evaluation.likeness import with_likeness
    from ti_pipeline.evaluation.references import NO_EMBEDDING
    from ti_pipeline.evaluation.scorers import held_out_rows, score_images
    from ti_pipeline.evaluation.similarity import similarity_to
    from ti_pipeline.evaluation.statistics import leaderboard

    held_out = drawings(unit, "held out", HELD_OUT, unit.concept)[1]
    paths = [root / f"held-out-{index}.png" for index in range(HELD_OUT)]
    for path, picture in zip(paths, held_out, strict=True):
        picture.save(path)
    scores = score_images(images, axes(), bench.scorer, root=root, references=paths)
    among = held_out_rows(paths, [path.name for path in paths], bench.scorer, what="held out")
    own = scores.variant != ""
    references = with_likeness(
        pd.concat([scores[~own], among]), pd.concat([scores[scores.checkpoint == NO_EMBEDDING], among])
    )
    judged = with_likeness(scores[own], references)
    bases = dict.fromkeys(judged.variant.unique(), "demo")
    board = leaderboard(judged, references.assign(base="demo"), bases=bases, seed=1)
    overall = board[(board.axis == "overall") & board.candidate].set_index("checkpoint")
    seen = bench.scorer.image_features([root / path for path in images.path])
    cosine = images.assign(score=similarity_to(seen, bench.scorer.image_features(paths)).numpy())
    shares = scores[scores.metric == "match"].pivot_table(index="checkpoint", columns="axis", values="score")
    earlier = shares.assign(concept=cosine.groupby("checkpoint").score.mean()).mean(axis=1)
    return pd.DataFrame({"ours": overall.score, "best": overall.best, "earlier": earlier[overall.index]})


def of_concept(bench: Bench, probes: Probes, unit: Unit, scale: Scale, work: Path) -> dict[str, Any]:
    """Return a concept's table, what each rule names, and how far each ranking agrees with the truth."""
    import scipy.stats

    root = work / unit.concept
    root.mkdir(parents=True, exist_ok=True)
    vectors = trained(bench, unit, scale)
    seeds = range(100, 100 + 2 * scale.seeds)
    images = drawn(bench, unit, vectors, seeds, root)
    first = images.seed < seeds[scale.seeds]
    known = truth(probes, unit, images[~first].reset_index(drop=True), root)
    table = decided(bench, unit, images[first].reset_index(drop=True), root).join(known)
    found: dict[str, Any] = {"concept": unit.concept, "best available": round(float(table.true.max()), 4)}
    named = table.index[table.best.fillna(value=False).astype(bool)]
    picks = {"ours": named[0] if len(named) else None, "earlier": table.earlier.idxmax()}
    for rule, name in picks.items():
        reached = 0.0 if name is None else float(table.true[name])
        tau = float(scipy.stats.kendalltau(table[rule], table.true).statistic)
        share = reached / float(table.true.max())
        found[rule] = {"named": name, "true": round(reached, 4), "of the best": round(share, 4), "tau": round(tau, 4)}
    print(table.sort_values("true", ascending=False).round(3).to_string(), "\n", found, flush=True)
    return found | {"checkpoints": table.round(4).reset_index().to_dict("records")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=HERE.parent / "data/store/benchmarks/decision_truth")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    scale = QUICK if given.quick else Scale()
    settings = replace(Settings(), steps=max(scale.checkpoints), checkpoint_every=min(scale.checkpoints))
    bench = Bench(settings, given.work)
    probes = Probes(bench, scale.probed)
    found = [of_concept(bench, probes, Unit(concept, 7), scale, given.work) for concept in scale.concepts]
    for rule in ("ours", "earlier"):
        worst = min(one[rule]["of the best"] for one in found)
        tau = np.mean([one[rule]["tau"] for one in found])
        print(f"{rule}: the named reaches at least {worst:.1%} of the best available; Kendall tau {tau:.2f} on average")
    if not given.quick:
        today = datetime.datetime.now(tz=datetime.UTC).date()
        write_json(HERE / "results" / f"{today}-decision_truth.json", {"date": str(today), "concepts": found})


if __name__ == "__main__":
    main()
