"""Tables of scores and references as the graph makes them, from plain numbers, for tests of the decision."""

import numpy as np
import pandas as pd

BASES = {"v": "base", "w": "base", "x": "base", "u": "base"}
_ROW = ["cell", "variant", "checkpoint", "step", "axis", "value", "seed", "metric", "score", "read_as"]


def rows(checkpoint: str, found, *, metric: str = "match", axis: str = "species", seeds: int = 1) -> pd.DataFrame:
    """One picture a number: `seeds` of a value follow each other."""
    variant, step = checkpoint.split("-") if checkpoint[-1].isdigit() else ("", "0")
    about = {"variant": variant, "checkpoint": checkpoint, "step": int(step), "axis": axis, "metric": metric}
    told = [
        about
        | {"cell": f"{checkpoint}/{axis}/{n}", "value": f"value{n // seeds:03d}", "seed": n % seeds}
        | {"score": float(score), "read_as": None}
        for n, score in enumerate(found)
    ]
    return pd.DataFrame(told, columns=_ROW)


def scores(table: dict, *, metric: str = "match", axis: str = "species", seeds: int = 1) -> pd.DataFrame:
    """One metric of several checkpoints on one axis."""
    return pd.concat([rows(name, found, metric=metric, axis=axis, seeds=seeds) for name, found in table.items()])


def study(right: dict, near: dict, *, axis: str = "species", seeds: int = 1) -> pd.DataFrame:
    """Judged pictures and likeness of several checkpoints on one axis."""
    return pd.concat([scores(right, axis=axis, seeds=seeds), scores(near, metric="likeness", axis=axis, seeds=seeds)])


def references(right: dict, near: dict, *, held_out: float = 1.0, seeds: int = 1, base: str = "base") -> pd.DataFrame:
    """What is drawn without the embedding, by axis, and the concept's own pictures."""
    parts = [rows("held-out", [held_out], metric="likeness", axis="held-out")]
    for axis, found in right.items():
        parts += [
            rows("no embedding", found, axis=axis, seeds=seeds),
            rows("no embedding", near[axis], metric="likeness", axis=axis, seeds=seeds),
        ]
    return pd.concat(parts).assign(base=base)


def noisy(rng: np.random.Generator, level: float, count: int, spread: float = 0.1) -> list[float]:
    """Numbers around a level."""
    return (level + spread * rng.standard_normal(count)).tolist()
