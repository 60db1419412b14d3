"""Suites: from a study's axes to the cells that have to be rendered.

Prompt search and replace as in A1111's X/Y grid: the first value is what is searched for (unless `search` says
otherwise), and each value takes its place. Not here: rendering (`sampler`), or which axes are shipped
(`study_evaluation`).
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

from ti_pipeline.files import fingerprint
from ti_pipeline.study_evaluation import NAME_MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from ti_pipeline.studies import Axis, Study
    from ti_pipeline.study_evaluation import Commonest, Evaluation

__all__ = [
    "Asked",
    "Cell",
    "SuiteError",
    "axes_of",
    "axes_shown",
    "cells_for",
    "cells_of",
    "chosen_checkpoints",
    "commonest_tags",
    "prompt_tags",
    "questions",
    "replaced",
]

# Where a study's own ranking has too few: the seed log's, picked by popularity on the site.
_SPECIES = ["domestic dog", "wolf", "tiger", "lion", "dragon"]
_DRAWING = "2"  # raise it when the same cell would get other pixels or other texts
_GROUP_SHARE = 0.9  # a name whose special cases make up this much of its pictures says nothing beside them


class SuiteError(ValueError):
    """A suite asks for something that is not there; the message names it and what there is."""


@dataclass(frozen=True)
class Cell:
    """One picture to render: everything that decides its pixels, and where it stands in the suite.

    `others` are name and sha256 of further embeddings that the prompts name.
    """

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
    precision: str = "fp32"
    others: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> tuple[tuple[str, str], ...]:
        """Return the names that prompts use with the sha256 of their embeddings' files; a reference has no own one."""
        return ((self.token, self.embedding_sha256), *self.others) if self.token else self.others

    @property
    def cell(self) -> str:
        """Return 16 hex digits that change whenever the picture would, or its place in the suite.

        The place counts too: the same picture may be asked for on two axes, and both are rows.
        """
        return fingerprint({"drawing": _DRAWING} | asdict(self))[:16]


def axes_of(
    study: Study, ranking: pd.DataFrame | None = None, implications: pd.DataFrame | None = None
) -> dict[str, Axis]:
    """Return the study's axes, or the shipped ones, all with their values.

    `ranking` is the study's `tag_frequencies`, `implications` the catalog's; both may be absent. Raises `SuiteError`
    for an axis of the commonest tags where there are fewer than two.
    """
    return {
        name: axis
        if axis.commonest is None
        else axis.model_copy(update={"values": _common_values(name, axis.commonest, ranking, implications)})
        for name, axis in study.evaluation.all_axes().items()
    }


def axes_shown(study: Study, images: pd.DataFrame) -> dict[str, Axis]:
    """Return the study's axes as they were asked: values of its ranking are those of its `evaluation_images`."""
    return {
        name: axis
        if axis.commonest is None
        else axis.model_copy(update={"values": list(dict.fromkeys(images.value[images.axis == name]))})
        for name, axis in study.evaluation.all_axes().items()
    }


def _common_values(
    name: str, wanted: Commonest, ranking: pd.DataFrame | None, implications: pd.DataFrame | None
) -> list[str]:
    tags = [] if ranking is None else commonest_tags(ranking, implications, wanted.category, wanted.count)
    known = [tag.replace("_", " ") for tag in tags]
    if wanted.category == "species":
        known += [tag for tag in _SPECIES if tag not in known]
    if len(known) < 2:
        raise SuiteError(
            f"evaluation.axes.{name}: the study has {len(known)} {wanted.category} tags, and an axis needs two:"
            " run the job prepare, or list `values`"
        )
    return known[: wanted.count]


def commonest_tags(ranking: pd.DataFrame, implications: pd.DataFrame | None, category: str, count: int) -> list[str]:
    """Return a category's commonest tags, the commonest first, without names of groups.

    A tag names a group when the tags that imply it, each counted by its own pictures, make up nine tenths of it: nearly
    every `canine` is a wolf, a fox or a dog, and a picture of either would be right.
    """
    ranked = ranking[ranking.category == category].sort_values(["category_rank", "tag"])
    counts = dict(zip(ranked.tag, ranked["count"], strict=True))
    special = dict.fromkeys(counts, 0)
    if implications is not None:
        for tag, implied in zip(implications.antecedent, implications.consequent, strict=True):
            if tag in counts and implied in special:
                special[implied] += counts[tag]
    return [tag for tag, number in counts.items() if special[tag] < _GROUP_SHARE * number][:count]


def replaced(axis: Axis, value: str, token: str) -> tuple[str, str]:
    """Return prompt and negative prompt for one value, the embedding's name in place of [name].

    A search text of letters that also stand in `[name]` leaves that mark whole; one that holds the mark itself
    (to compare a prompt with and without the embedding) replaces it. Raises `SuiteError` if it is found nowhere.
    """
    search = axis.search or axis.values[0]

    def parts(text: str) -> list[str]:
        return [text] if NAME_MARK in search else text.split(NAME_MARK)

    def with_value(text: str) -> str:
        return NAME_MARK.join(part.replace(search, value) for part in parts(text)).replace(NAME_MARK, token)

    if not any(search in part for text in (axis.prompt, axis.negative) for part in parts(text)):
        raise SuiteError(
            f"evaluation.axes: the search text {search!r} is nowhere in {axis.prompt!r} but in {NAME_MARK}"
        )
    return with_value(axis.prompt), with_value(axis.negative)


def prompt_tags(axis: Axis, value: str, others: Sequence[str] = ()) -> list[str]:
    """Return what a prompt asks for beside embeddings, between its commas; `others` are further embeddings' names."""
    prompt, _ = replaced(axis, value, "")
    unnamed = {"", *(name.casefold() for name in others)}
    return list(dict.fromkeys(tag for part in prompt.split(",") if (tag := part.strip()).casefold() not in unnamed))


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


def cells_for(
    study: Study,
    variant_name: str,
    checkpoints: pd.DataFrame,
    base_identity: str,
    *,
    axes: Mapping[str, Axis],
    others: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> list[Cell]:
    """Return the cells of a variant: checkpoints × axes × values × seeds × samplers × sizes × CLIP skips.

    `axes` are those of `axes_of`; `others` maps names of further embeddings to their files' sha256; `precision` is what
    will really be computed with. Raises `SuiteError` for what `chosen_checkpoints` and `replaced` refuse.
    """
    suite, variant = study.evaluation, study.variant(variant_name)
    asked = [
        Asked(variant_name, str(row.checkpoint), int(row.step), str(variant.token), str(row.sha256), *question)
        for row in chosen_checkpoints(checkpoints, suite.checkpoints).itertuples()
        for question in questions(axes, str(variant.token))
    ]
    skips = suite.clip_skips or [variant.clip_skip]
    return list(cells_of(suite, asked, base_identity, clip_skips=skips, others=others, precision=precision))


class Asked(NamedTuple):
    """A question to a checkpoint, whatever the seed and the sampler; without an embedding, the names are empty."""

    variant: str
    checkpoint: str
    step: int
    token: str
    embedding_sha256: str
    axis: str
    value: str
    prompt: str
    negative: str


def cells_of(
    suite: Evaluation,
    asked: Iterable[Asked],
    base_identity: str,
    *,
    clip_skips: Sequence[int],
    others: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> Iterator[Cell]:
    """Yield the cells of questions: each × samplers × sizes × CLIP skips × seeds."""
    for question in asked:
        named = _named(f"{question.prompt} {question.negative}", others or {})
        for sampler, size, clip_skip, seed in itertools.product(suite.samplers, suite.sizes, clip_skips, suite.seeds):
            yield Cell(
                **question._asdict(),
                seed=seed,
                sampler=sampler.name,
                steps=sampler.steps,
                cfg=sampler.cfg,
                size=size,
                clip_skip=clip_skip,
                long_prompts=suite.long_prompts,
                base_identity=base_identity,
                precision=precision,
                others=named,
            )


def questions(axes: Mapping[str, Axis], token: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield axis, value, prompt and negative prompt of every question, `token` in the embedding's place."""
    for name, axis in axes.items():
        for value in axis.values:
            yield name, value, *replaced(axis, value, token)


def _named(text: str, others: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return those of the other embeddings that a text names: only they decide its picture."""
    return tuple((name, sha256) for name, sha256 in sorted(others.items()) if name.casefold() in text.casefold())
