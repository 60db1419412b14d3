"""Recipes: what a name stands for, and what wins over it."""

import pytest

from ti_pipeline.files import fingerprint
from ti_pipeline.studies import Study, Variant
from ti_pipeline.study_recipes import RECIPES


def variant(**values) -> Variant:
    return Variant(**{"vectors": 8, "base": "tiny"} | values)


def test_classic_is_what_the_fields_are_without_a_recipe():
    plain, named = variant(steps=9), variant(steps=9, recipe="classic")
    assert plain == named
    assert (plain.optimizer, plain.learning_rate, plain.batch_size, plain.min_snr_gamma) == ("adamw", 0.005, 1, None)


def test_fast_fills_in_what_a_variant_leaves_open_and_no_more():
    fast = variant(recipe="fast", steps=100)
    assert {name: getattr(fast, name) for name in RECIPES["fast"]} == RECIPES["fast"]
    own = variant(recipe="fast", learning_rate=0.3, batch_size=1, epochs=7)
    assert (own.learning_rate, own.batch_size, own.epochs) == (0.3, 1, 7)
    assert own.optimizer == "directional"


def test_rates_of_one_optimizer_are_not_given_to_another():
    other = variant(recipe="fast", optimizer="adamw", steps=9)
    assert (other.learning_rate, other.lr_scheduler) == (0.005, "constant")
    assert other.min_snr_gamma == RECIPES["fast"]["min_snr_gamma"]


def test_a_study_gives_one_recipe_to_all_its_variants():
    study = Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo"},
            "base_models": {"tiny": {}},
            "common": {"base": "tiny", "recipe": "fast", "batch_size": 2, "steps": 3},
            "variants": {"v8": {"vectors": 8}, "old": {"vectors": 8, "recipe": "classic"}},
        }
    )
    assert (study.variants["v8"].optimizer, study.variants["v8"].batch_size) == ("directional", 2)
    assert (study.variants["old"].optimizer, study.variants["old"].batch_size) == ("adamw", 2)


@pytest.mark.parametrize("also", [{"note": "n"}, {"recipe": "classic"}, {"timesteps": "random"}])
def test_what_decides_nothing_changes_no_fingerprint(also):
    before = variant(steps=9).model_dump(mode="json", exclude={"note", "recipe", "timesteps"})
    assert fingerprint(variant(steps=9, **also).decisive()) == fingerprint(before)
    assert variant(steps=9, timesteps="spread").decisive() != before
