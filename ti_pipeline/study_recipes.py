"""Recipes: names for whole sets of a variant's settings, so that a study need not know what was measured to be good.

Here: what each name stands for, and how single fields win over it. Not here: the fields themselves (`study_training`).
"""

from __future__ import annotations

from typing import Any

__all__ = ["RECIPES", "with_recipe"]

# `classic` is what A1111's Train tab does: the fields' own defaults. `fast` is what reached the best score soonest on
# characters whose looks are known (`benchmarks/time_to_quality.py`, docs/time-to-quality.md).
RECIPES: dict[str, dict[str, Any]] = {
    "classic": {},
    "fast": {
        "optimizer": "directional",
        "learning_rate": 0.1,
        "lr_scheduler": "cosine",
        "timesteps": "spread",
        "min_snr_gamma": 5.0,
        "batch_size": 4,
        "checkpoint_every": 50,
    },
}
# Rates are of an optimizer: with another one than the recipe's they would be another recipe, and a bad one.
_OF_OPTIMIZER = ("learning_rate", "lr_scheduler")


def with_recipe(values: Any) -> Any:
    """Return a variant's values with those of its recipe where it sets none itself; what cannot be read stays.

    How long to train is no part of a recipe: it is the variant's own, as its vectors are.
    """
    name = values.get("recipe") if isinstance(values, dict) else None
    if not isinstance(name, str) or name not in RECIPES:
        return values
    recipe = RECIPES[name]
    if values.get("optimizer", recipe.get("optimizer")) != recipe.get("optimizer"):
        recipe = {field: value for field, value in recipe.items() if field not in _OF_OPTIMIZER}
    return {**recipe, **values}
