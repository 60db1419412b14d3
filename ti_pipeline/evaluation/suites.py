"""Suites: from a study's axes to the cells that have to be rendered.

Prompt search and replace as in A1111's X/Y grid: the first value is what is searched for (unless `search` says
otherwise), and each value takes its place. Not here: rendering (`sampler`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ti_pipeline.files import fingerprint
from ti_pipeline.studies import Axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = [
    "DEFAULT_AXES",
    "Cell",
    "SuiteError",
    "axes_of",
    "cells_for",
    "chosen_checkpoints",
    "replaced",
]

_MARK = "[name]"


class SuiteError(ValueError):
    """A suite asks for something that is not there; the message names it and what there is."""


# Used by studies that declare no axes. Values by popularity on the site, as the seed log picked them.
DEFAULT_AXES: Mapping[str, Axis] = {
    "species": Axis(
        prompt="[name], domestic dog, solo, anthro", values=["domestic dog", "wolf", "tiger", "lion", "dragon"]
    ),
    "body_type": Axis(
        prompt="[name], wolf, muscular, solo, anthro",
        values=["muscular", "big muscular", "slightly chubby", "overweight", "musclegut"],
    ),
    "clothing": Axis(
        prompt="[name], wolf, coat, solo, anthro", values=["coat", "shirt", "pants", "shorts", "loincloth", "underwear"]
    ),
    "background": Axis(
        prompt="[name], wolf, detailed background, city",
        values=["detailed background, city", "detailed background, sea", "detailed background, room"],
    ),
    "multiple": Axis(
        prompt="[name], domestic dog, lion, duo, anthro", values=["domestic dog, lion", "wolf, tiger", "dragon, wolf"]
    ),
    "detail": Axis(
        prompt="[name], wolf, muscular, shirt, smile, blue eyes, sitting, detailed background, city, looking at viewer",
        values=["wolf", "tiger"],
    ),
}


@dataclass(frozen=True)
class Cell:
    """One picture to render: everything that decides its pixels, and where it stands in the suite."""

    variant: str
    checkpoint: str
    step: int
    axis: str
    value: str
    seed: int
    sampler: str
    steps: int
    cfg: float
    size: int
    prompt: str
    negative: str
    token: str
    embedding_sha256: str
    clip_skip: int
    long_prompts: str
    base_identity: str

    @property
    def cell(self) -> str:
        """Return 16 hex digits that change whenever the picture would, or its place in the suite.

        The place counts too: the same picture may be asked for on two axes, and both are rows.
        """
        return fingerprint(asdict(self))[:16]


def axes_of(study: Study) -> Mapping[str, Axis]:
    """Return the study's axes, or the default ones."""
    return study.evaluation.axes or DEFAULT_AXES


def replaced(axis: Axis, value: str, token: str) -> tuple[str, str]:
    """Return prompt and negative prompt for one value, the embedding's name in place of [name].

    A search text of letters that also stand in `[name]` leaves that mark whole; one that holds the mark itself
    (to compare a prompt with and without the embedding) replaces it. Raises `SuiteError` if it is found nowhere.
    """
    search = axis.search or axis.values[0]

    def parts(text: str) -> list[str]:
        return [text] if _MARK in search else text.split(_MARK)

    def with_value(text: str) -> str:
        return _MARK.join(part.replace(search, value) for part in parts(text)).replace(_MARK, token)

    if not any(search in part for text in (axis.prompt, axis.negative) for part in parts(text)):
        raise SuiteError(f"evaluation.axes: the search text {search!r} is nowhere in {axis.prompt!r} but in {_MARK}")
    return with_value(axis.prompt), with_value(axis.negative)


def chosen_checkpoints(checkpoints: pd.DataFrame, wanted: int | list[int]) -> pd.DataFrame:
    """Return the rows to evaluate: so many, evenly spread with the last one, or those of the given steps.

    Raises `SuiteError` for steps that have no checkpoint, and when there is no checkpoint at all.
    """
    if checkpoints.empty:
        raise SuiteError("there are no checkpoints to evaluate: run the job train for this variant")
    ordered = checkpoints.sort_values("step").reset_index(drop=True)
    if isinstance(wanted, list):
        missing = sorted(set(wanted) - set(ordered.step))
        if missing:
            known = ", ".join(map(str, ordered.step))
            raise SuiteError(f"evaluation.checkpoints: no checkpoint at step {missing[0]} (there are: {known})")
        return ordered[ordered.step.isin(wanted)].reset_index(drop=True)
    count = min(wanted, len(ordered))
    places = sorted({round((index + 1) * len(ordered) / count) - 1 for index in range(count)})
    return ordered.iloc[places].reset_index(drop=True)


def cells_for(study: Study, variant_name: str, checkpoints: pd.DataFrame, base_identity: str) -> list[Cell]:
    """Return the cells of a variant: checkpoints × axes × values × seeds × samplers × sizes.

    Raises `SuiteError` for what `chosen_checkpoints` and `replaced` refuse.
    """
    suite, variant = study.evaluation, study.variant(variant_name)
    cells = []
    for row in chosen_checkpoints(checkpoints, suite.checkpoints).itertuples():
        for axis_name, axis in axes_of(study).items():
            for value in axis.values:
                prompt, negative = replaced(axis, value, str(variant.token))
                cells += [
                    Cell(
                        variant=variant_name,
                        checkpoint=str(row.checkpoint),
                        step=int(row.step),
                        axis=axis_name,
                        value=value,
                        seed=seed,
                        sampler=sampler.name,
                        steps=sampler.steps,
                        cfg=sampler.cfg,
                        size=size,
                        prompt=prompt,
                        negative=negative,
                        token=str(variant.token),
                        embedding_sha256=str(row.sha256),
                        clip_skip=variant.clip_skip,
                        long_prompts=variant.long_prompts,
                        base_identity=base_identity,
                    )
                    for sampler in suite.samplers
                    for size in suite.sizes
                    for seed in suite.seeds
                ]
    return cells
