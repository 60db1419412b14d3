"""References: what is asked without the embedding, and which variants share it."""

from typing import Any

import pytest

from ti_pipeline.evaluation.decision import rule_of
from ti_pipeline.evaluation.references import (
    NO_EMBEDDING,
    WORDS,
    groups_of,
    reference_cells,
    without_name,
)
from ti_pipeline.studies import Study

SPECIES = {"prompt": "[name], wolf, solo", "values": ["wolf", "fox"]}


def study(variants: dict[str, Any] | None = None, **evaluation: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo", "concept": "ember"},
            "base_models": {"one": {"folder": "one"}, "two": {"folder": "two"}},
            "captions": {"none": {"source": "none"}},
            "crops": {"sizes": [512, 768]},
            "common": {"base": "one", "captions": "none", "crop": 512, "steps": 10, "vectors": 1},
            "variants": variants or {"a": {}, "b": {}},
            "evaluation": {"axes": {"species": SPECIES}, "seeds": [6, 7], **evaluation},
        }
    )


@pytest.mark.parametrize(
    ("marked", "left"),
    [
        ("\0, wolf, solo", "wolf, solo"),
        ("wolf, \0, solo", "wolf, solo"),
        ("wolf, solo, \0", "wolf, solo"),
        ("a photo of \0, wolf", "a photo of, wolf"),
        ("a photo of \0 in a city", "a photo of in a city"),
        ("\0", ""),
    ],
)
def test_the_name_is_taken_out_with_its_comma(marked: str, left: str) -> None:
    assert without_name(marked) == left


def test_references_ask_the_suite_without_the_embedding_and_in_words() -> None:
    of = study(words="purple fur, red eyes")
    cells = reference_cells(of, "one", "identity", axes=of.evaluation.all_axes())
    asked = {(cell.checkpoint, cell.prompt, cell.seed) for cell in cells}
    assert asked == {
        (kind, prompt, seed)
        for seed in (6, 7)
        for kind, prompt in [
            (NO_EMBEDDING, "wolf, solo"),
            (NO_EMBEDDING, "fox, solo"),
            (WORDS, "purple fur, red eyes, wolf, solo"),
            (WORDS, "purple fur, red eyes, fox, solo"),
        ]
    }
    assert {(cell.token, cell.embedding_sha256, cell.named) for cell in cells} == {("", "", ())}
    assert {cell.checkpoint for cell in reference_cells(study(), "one", "i", axes=of.evaluation.all_axes())} == {
        NO_EMBEDDING
    }


def test_variants_share_references_as_far_as_they_can() -> None:
    (alone,) = groups_of(study())
    assert (alone.label, alone.variants) == ("one", ("a", "b"))
    found = groups_of(study({"a": {}, "b": {"clip_skip": 2}, "c": {"crop": 768}, "d": {"base": "two"}}))
    assert [(group.label, group.variants) for group in found] == [
        ("one, clip skip 1, crops 512", ("a",)),
        ("one, clip skip 2, crops 512", ("b",)),
        ("one, clip skip 1, crops 768", ("c",)),
        ("two", ("d",)),
    ]
    of = study({"a": {}, "b": {"clip_skip": 2}})
    cells = reference_cells(of, "one", "i", axes=of.evaluation.all_axes())
    assert sorted({cell.clip_skip for cell in cells}) == [1, 2]


def test_the_rule_knows_the_studys_preference_its_references_and_negative_prompts() -> None:
    axes = {
        "plain": SPECIES,
        "negative": {"prompt": "wolf, solo", "negative": "[name], blurry", "values": ["wolf", "fox"]},
        "both": {"prompt": "[name], wolf", "negative": "[name], blurry", "values": ["wolf", "fox"]},
    }
    rule = rule_of(study({"a": {}, "b": {"crop": 768}}, axes=axes, prefer="likeness"))
    assert rule["negative"] == {"negative"}
    assert rule["prefer"] == "likeness"
    assert rule["bases"] == {"a": "one, crops 512", "b": "one, crops 768"}
