"""The numbers on the base model's card, against counting by hand and against every pair compared."""

import itertools
from dataclasses import replace

import pytest
import torch

from ti_pipeline.demo import base_measures
from ti_pipeline.demo.base_measures import accuracies, confusion, fresh_drawings, read_as
from ti_pipeline.demo.world import CONCEPTS, HELD_OUT_STYLES
from ti_pipeline_tests.demo.test_world import WOLF

SHOWN = [WOLF, replace(WOLF, species="fox"), replace(WOLF, species="fox", body="overweight")]


class Judge:
    """A scorer whose features say outright what it sees."""

    def __init__(self, features: dict[str, list[float]]):
        self.features = features

    def text_features(self, texts):
        return torch.tensor([self.features[text] for text in texts])


def test_accuracies_and_confusion_are_counts() -> None:
    found = {"species": ["wolf", "wolf", "fox"], "body": ["slim", "slim", "slim"]}
    assert accuracies(found, SHOWN) == {
        "species": pytest.approx(2 / 3, abs=1e-4),
        "body": pytest.approx(2 / 3, abs=1e-4),
    }
    table = confusion(found["species"], SHOWN, "species")
    assert table["wolf"]["wolf"] == table["fox"]["wolf"] == table["fox"]["fox"] == 1
    assert sum(sum(row.values()) for row in table.values()) == 3


def test_the_nearest_word_is_what_was_read() -> None:
    scorer = Judge({"": [0.0, 0.0, 0.1], "glasses": [1.0, 0, 0], "hat": [0, 1.0, 0], "scarf": [0, 0, -1.0]})
    seen = torch.tensor([[0.2, 0.9, 0.0], [0.0, 0.0, 1.0], [0.9, 0.0, 0.1]])
    assert read_as(scorer, seen, "accessory") == ["hat", "none", "glasses"]


def test_the_area_counts_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brightness:
        def image_features(self, pictures):
            level = torch.tensor([sum(p.convert("L").histogram()[128:]) / 4096 for p in pictures])
            return torch.stack([level, 1 - level], dim=1)

    monkeypatch.setattr(base_measures, "_REFERENCES", 5)
    monkeypatch.setattr(base_measures, "_POSITIVES", 12)
    monkeypatch.setattr(base_measures, "_NEGATIVES", 20)
    found = base_measures.concept_auc(Brightness())
    assert set(found) == {*CONCEPTS, *HELD_OUT_STYLES}
    own = Brightness().image_features(base_measures._of_concept("neon", 17))
    others = Brightness().image_features(fresh_drawings(20, "others")[1])
    score = [(features @ own[:5].T).mean(dim=1).tolist() for features in (own[5:], others)]
    wins = sum(1.0 if inside > outside else 0.5 * (inside == outside) for inside, outside in itertools.product(*score))
    assert found["neon"] == pytest.approx(wins / (12 * 20), abs=1e-4)


def test_fresh_drawings_are_no_training_drawings() -> None:
    from ti_pipeline.demo.train_base import World

    trained = {bytes(picture.numpy().tobytes()) for picture in World.draw(100, 0).pictures.permute(0, 2, 3, 1)}
    assert len(trained) == 100
    assert trained.isdisjoint(picture.tobytes() for picture in fresh_drawings(100)[1])
