"""Suites: from a study's axes to the cells that have to be rendered.

Prompt search and replace as in A1111's X/Y grid: the first value is what is searched for (unless `search` says
otherwise), and each value takes its place. Not here: rendering (`sampler`), or which axes are shipped
(`study_evaluation`).
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
    "first_seeds",
    "prompt_tags",
    "questions",
    "race_seeds",
    "replaced",
]

# Where a study's own ranking has too few: the seed log's, picked by popularity on the site.
_SPECIES = ["domestic dog", "wolf", "tiger", "lion", "dragon"]
_DRAWING = "2"  # raise it when the same cell would get other pixels or other texts
_GROUP_SHARE = 0.9  # a name whose special cases make up this much of its pictures says nothing beside them
# Where there is no catalog: the site's species tags on 10,000 posts or more whose special cases make up so much of them
# (its tags of April 2026, its implications of May 2025).
_GROUPS = frozenset(
    """
    accipitriform ailurid alligatorid animal_humanoid anseriform arachnid arthropod asinus avian bird_dog bovid
    bovid_humanoid bovine canid canid_demon canid_humanoid canine canine_humanoid canis cephalopod cetacean corvid
    corvus_(genus) crocodilian digimon_(species) dolphin draconcopode eeveelution elemental_creature
    elemental_humanoid equid equine eulipotyphlan feathered_scalie felid felid_humanoid feline_humanoid felis
    furred_scalie galliform generation_1_pokemon generation_2_pokemon generation_3_pokemon generation_4_pokemon
    generation_5_pokemon generation_6_pokemon generation_7_pokemon generation_8_pokemon generation_9_pokemon giraffid
    ground_squirrel haplorhine herding_dog hunting_dog hymenopteran lagomorph legendary_pokemon lepidopteran leporid
    leporid_humanoid lycanroc macropod mammal mammal_humanoid mammal_taur marine_humanoid marsupial mega_evolution
    mephitid mollusk mollusk_humanoid molosser monotreme murid murine mustelid musteline mythological_avian
    mythological_canine mythological_creature mythological_equine mythological_scalie new_world_deer nordic_sled_dog
    ornithischian oryctolagus oscine pantherine passerine pastoral_dog pinscher pokemon_(species) prehistoric_species
    primate procyonid raccoon_dog regional_form_(pokemon) retriever rodent scalie sciurid sheepdog spitz suid suine
    sus_(pig) taur theropod toothed_whale toy_dog true_fox true_musteline ursine werecanid werecanine werecreature
    """.split()  # noqa: SIM905 - a list of 110 words in quotes is no better to read
)
_log = logging.getLogger(__name__)


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
    if tags and (implications is None or implications.empty):
        _log.warning(
            "evaluation.axes.%s: there is no catalog, so a shipped list tells names of groups (mammal, canine) from the"
            " rest; it asks for %s. Run the job catalog for the site's own implications, or list `values`",
            name,
            ", ".join(tags),
        )
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
    every `canine` is a wolf, a fox or a dog, and a picture of either would be right. Without implications, the names
    are those of which that is so on the whole site.
    """
    ranked = ranking[ranking.category == category].sort_values(["category_rank", "tag"])
    counts = dict(zip(ranked.tag, ranked["count"], strict=True))
    if implications is None or implications.empty:
        return [tag for tag in counts if tag not in _GROUPS][:count]
    special = dict.fromkeys(counts, 0)
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
    seeds: Sequence[int] | None = None,
    others: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> list[Cell]:
    """Return the cells of a variant: checkpoints × axes × values × seeds × samplers × sizes × CLIP skips.

    `axes` are those of `axes_of`; `seeds` the study's if unset (of a race, the first ones); `others` maps names of
    further embeddings to their files' sha256; `precision` is what will really be computed with. Raises `SuiteError` for
    what `chosen_checkpoints` and `replaced` refuse.
    """
    suite, variant = study.evaluation, study.variant(variant_name)
    asked = [
        Asked(variant_name, str(row.checkpoint), int(row.step), str(variant.token), str(row.sha256), *question)
        for row in chosen_checkpoints(checkpoints, suite.checkpoints).itertuples()
        for question in questions(axes, str(variant.token))
    ]
    skips = suite.clip_skips or [variant.clip_skip]
    options: dict[str, Any] = {"clip_skips": skips, "others": others, "precision": precision}
    return list(cells_of(suite, asked, base_identity, seeds=seeds or first_seeds(study), **options))


def first_seeds(study: Study) -> list[int]:
    """Return the seeds that every checkpoint is drawn with: the study's list, or those of a race's first round."""
    suite = study.evaluation
    return suite.seeds if isinstance(suite.seeds, list) else race_seeds(study)[: suite.seeds.first]


def race_seeds(study: Study) -> list[int]:
    """Return all seeds that a race may draw, in their order: from the study's own on; none without a race."""
    seeds = study.evaluation.seeds
    return [] if isinstance(seeds, list) else list(range(study.seed, study.seed + seeds.most))


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
    seeds: Sequence[int],
    clip_skips: Sequence[int],
    others: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> Iterator[Cell]:
    """Yield the cells of questions: each × samplers × sizes × CLIP skips × seeds."""
    for question in asked:
        named = _named(f"{question.prompt} {question.negative}", others or {})
        for sampler, size, clip_skip, seed in itertools.product(suite.samplers, suite.sizes, clip_skips, seeds):
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
