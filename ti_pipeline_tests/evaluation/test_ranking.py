"""The automatic ranking of checkpoints against known truth: pictures whose attributes are known, drawn by the world."""

import dataclasses
import random
from pathlib import Path

import pandas as pd
import pytest
import scipy.stats

from ti_pipeline.demo.world import CHOICES, bust, random_attributes, word_of
from ti_pipeline.evaluation.scorers import load_scorer, score_images
from ti_pipeline.evaluation.statistics import leaderboard
from ti_pipeline.studies import Axis, BaseModelSource

DEMO = Path(__file__).parents[2] / "data" / "base_models" / "demo"
CHECKPOINTS, SEEDS = 24, 3


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, pd.Series]:
    """Pictures of checkpoints that obey less and less, their table, and the true share of each that obeys.

    A checkpoint is drawn by the world itself: with its own chance a picture shows another species than the one asked
    for. The last checkpoint's pictures are those of the first.
    """
    root, rng = tmp_path_factory.mktemp("drawn"), random.Random(5)
    rows, obeyed = [], {}
    for number in range(CHECKPOINTS):
        right = []
        for species in CHOICES["species"]:
            for seed in range(SEEDS):
                shown = rng.choice(CHOICES["species"]) if rng.random() < number / CHECKPOINTS else species
                attributes = dataclasses.replace(random_attributes(rng), species=shown)
                path = root / f"{number}-{species}-{seed}.png"
                bust(attributes, 64, rng).save(path)
                right.append(shown == species)
                rows.append((f"v-{number}", word_of("species", species), seed, path.name))
        obeyed[f"v-{number}"] = sum(right) / len(right)
    rows += [(f"v-{CHECKPOINTS}", value, seed, path) for name, value, seed, path in rows if name == "v-0"]
    table = pd.DataFrame(rows, columns=["checkpoint", "value", "seed", "path"])
    steps = table.checkpoint.str[2:].astype(int)
    cells = [str(number) for number in range(len(table))]
    return root, table.assign(cell=cells, variant="v", step=steps, axis="species"), pd.Series(obeyed)


def test_the_ranking_agrees_with_the_truth_and_equal_checkpoints_tie(drawn) -> None:
    root, images, obeyed = drawn
    axes = {
        "species": Axis(
            prompt="[name], wolf", values=[word_of("species", s) for s in CHOICES["species"]], search="wolf"
        )
    }
    scorer = load_scorer(BaseModelSource(folder="scorer"), folder=DEMO)
    scores = score_images(images, axes, scorer, root=root, references=[])
    near = scores[scores.metric == "match"].assign(metric="likeness", score=0.5)
    bare = near[near.checkpoint == "v-0"].assign(variant="", checkpoint="no embedding", base="demo")
    own = bare.head(1).assign(checkpoint="held-out", score=1.0)
    references = pd.concat([bare.assign(metric="match", score=1.0), bare.assign(score=0.1), own])
    board = leaderboard(pd.concat([scores, near]), references, bases={"v": "demo"}, seed=1)
    found = board[board.axis == "species"].set_index("checkpoint")
    ours, truth = found.score[obeyed.index], obeyed
    assert scipy.stats.kendalltau(ours, truth).statistic >= 0.8
    twin = found.loc[f"v-{CHECKPOINTS}"]
    assert twin.score == found.score["v-0"]
    assert bool(twin.tied) == bool(found.tied["v-0"])
    assert twin.behind == found.behind["v-0"]
