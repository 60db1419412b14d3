"""Likeness: on pictures that the world draws, whose likeness to the concept is known."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ti_pipeline.demo.world import Attributes, bust, random_attributes, word_of
from ti_pipeline.evaluation.likeness import with_likeness
from ti_pipeline.evaluation.references import HELD_OUT, NO_EMBEDDING
from ti_pipeline.evaluation.scorers import held_out_rows, load_scorer, score_images
from ti_pipeline.studies import Axis, BaseModelSource
from ti_pipeline_tests.tiny_models import DEMO_BASE

SPECIES = ["wolf", "fox", "tiger", "lion", "bear", "dragon"]
AXES = {"species": Axis(prompt="[name], wolf", values=[word_of("species", s) for s in SPECIES], search="wolf")}
SEEDS = 4
Draw = Callable[[str, random.Random], Attributes]


def anyone(species: str, rng: random.Random) -> Attributes:
    return dataclasses.replace(random_attributes(rng), species=species)


def ember(species: str, rng: random.Random) -> Attributes:
    return dataclasses.replace(random_attributes(rng, concept="ember"), species=species)


def one_ember(_species: str, _rng: random.Random) -> Attributes:
    return ember("wolf", random.Random(11))


def half_ember(species: str, rng: random.Random) -> Attributes:
    return (ember if rng.random() < 0.5 else anyone)(species, rng)


CHECKPOINTS: dict[str, Draw] = {
    NO_EMBEDDING: anyone,
    "v-honest": ember,
    "v-half": half_ember,
    "v-collapsed": one_ember,
    "v-nothing": anyone,
}


@pytest.fixture(scope="module")
def likeness(tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """The likeness of each kind of checkpoint, from no embedding (0) to other drawings of the concept (1)."""
    root = tmp_path_factory.mktemp("drawn")
    scorer = load_scorer(BaseModelSource(folder="scorer"), folder=DEMO_BASE)
    rows = []
    for checkpoint, draw in CHECKPOINTS.items():
        for species in SPECIES:
            for seed in range(SEEDS):
                rng = random.Random(f"{checkpoint}/{species}/{seed}")
                same = random.Random(3) if draw is one_ember else rng
                path = f"{checkpoint}-{species}-{seed}.png"
                bust(draw(species, rng), 64, same).save(root / path)
                row = {"checkpoint": checkpoint, "value": word_of("species", species), "seed": seed, "path": path}
                rows.append(row | {"variant": "v", "step": 1, "axis": "species", "cell": path})
    images = pd.DataFrame(rows)
    own = [held_out(root, number) for number in range(20)]
    scores = score_images(images, AXES, scorer, root=root, references=own)
    among = held_out_rows(own, [path.name for path in own], scorer, what="held out")
    references = pd.concat([scores[scores.checkpoint == NO_EMBEDDING], among])
    found = with_likeness(pd.concat([scores, among]), references)
    means = found[found.metric == "likeness"].groupby("checkpoint").score.mean()
    return (means - means[NO_EMBEDDING]) / (means[HELD_OUT] - means[NO_EMBEDDING])


def held_out(root: Path, number: int) -> Path:
    rng, path = random.Random(f"held out {number}"), root / f"held-out-{number}.png"
    bust(random_attributes(rng, concept="ember"), 64, rng).save(path)
    return path


def test_real_pictures_of_the_concept_reach_the_upper_end(likeness: pd.Series) -> None:
    assert likeness["v-honest"] == pytest.approx(1, abs=0.2)
    assert likeness["v-nothing"] < 0.15
    assert 0.2 < likeness["v-half"] < likeness["v-honest"] - 0.2


def test_one_picture_whatever_is_asked_is_no_likeness(likeness: pd.Series) -> None:
    assert likeness["v-collapsed"] < 0.1


def scores_of(checkpoint: str, near: float, same: float, seed: int = 1) -> list[tuple[object, ...]]:
    about = (checkpoint, "v", 1, "species", "wolf", seed)
    return [
        (f"{checkpoint}{seed}", *about, "near", near, None),
        (f"{checkpoint}{seed}", *about, "sameness", same, None),
    ]


def frame(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    names = ["cell", "checkpoint", "variant", "step", "axis", "value", "seed", "metric", "score", "read_as"]
    return pd.DataFrame(rows, columns=names)


@pytest.mark.parametrize(
    ("near", "same", "expected"),
    [
        (0.6, 0.4, 0.6),  # more variety than it needs
        (0.6, 0.52, 0.6),  # as much as the base's times the concept's: 0.8 * 0.6 = 0.48
        (0.6, 0.76, 0.2 + 0.4 * 0.5),  # half of it
        (0.9, 1.0, 0.2),  # the same picture for everything
        (0.1, 0.4, 0.1),  # less near than nothing
    ],
)
def test_sameness_beyond_the_concepts_own_takes_likeness_away(near: float, same: float, expected: float) -> None:
    references = frame(scores_of(NO_EMBEDDING, 0.2, 0.2) + scores_of(HELD_OUT, 0.7, 0.4))
    found = with_likeness(frame(scores_of("v-1", near, same)), references)
    assert found[found.metric == "likeness"].score.tolist() == pytest.approx([expected])


def test_without_held_out_pictures_or_references_there_is_no_likeness() -> None:
    scores = frame(scores_of("v-1", 0.6, 0.4))
    assert "likeness" not in set(with_likeness(scores, frame(scores_of(HELD_OUT, 0.7, 0.4))).metric)
    nothing = scores[scores.metric == "sameness"]
    assert "likeness" not in set(with_likeness(nothing, frame(scores_of(NO_EMBEDDING, 0.2, 0.2))).metric)
