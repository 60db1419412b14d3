"""References: the suite's prompts without the embedding, and with the concept in words; the same for all variants.

They fix the lower end of the scale of likeness and tell what a base obeys by itself. Here: which cells they are, and
which variants are held against which of them. Not here: drawing and scoring them (`reference_runs`), or the scale
(`likeness`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.suites import Asked, cells_of, questions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ti_pipeline.evaluation.suites import Cell
    from ti_pipeline.studies import Axis, Study

__all__ = [
    "HELD_OUT",
    "NO_EMBEDDING",
    "WORDS",
    "Group",
    "groups_of",
    "reference_cells",
    "without_name",
]

NO_EMBEDDING, WORDS, HELD_OUT = "no embedding", "words", "held-out"
_PLACE = "\0"  # stands for the name while it is taken out: no prompt has it


@dataclass(frozen=True)
class Group:
    """Variants that share references: one base model, CLIP skip and crop sets (whose held-out pictures are theirs)."""

    label: str
    base: str
    clip_skips: tuple[int, ...]
    crops: tuple[str, ...]
    variants: tuple[str, ...]


def groups_of(study: Study) -> list[Group]:
    """Return the study's groups; a label is the base's name, and what else tells its groups apart."""
    shared: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[str]] = {}
    for name in study.variants:
        variant = study.variant(name)
        skips = tuple(study.evaluation.clip_skips) or (variant.clip_skip,)
        shared.setdefault((variant.base, skips, tuple(sorted(study.crops_of(name)))), []).append(name)
    found = []
    for (base, skips, crops), variants in shared.items():
        rivals = [key for key in shared if key[0] == base]
        label = base
        if len({key[1] for key in rivals}) > 1:
            label += f", clip skip {' and '.join(map(str, skips))}"
        if len({key[2] for key in rivals}) > 1:
            label += f", crops {' and '.join(crops)}"
        found.append(Group(label, base, skips, crops, tuple(variants)))
    return found


def reference_prompt(text: str, words: str = "") -> str:
    """Return a prompt with `words` in the place that `_PLACE` marks; without any, that place is taken out."""
    return text.replace(_PLACE, words) if words else without_name(text)


def without_name(text: str) -> str:
    """Return a prompt without what `_PLACE` marks: with its comma where it stands alone between two."""
    parts = [part for part in text.split(",") if part.strip() != _PLACE]
    return re.sub(r"\s{2,}", " ", ",".join(parts).replace(_PLACE, "")).replace(" ,", ",").strip(" ,")


def reference_cells(
    study: Study,
    base: str,
    base_identity: str,
    *,
    axes: Mapping[str, Axis],
    others: Mapping[str, str] | None = None,
    precision: str = "fp32",
) -> list[Cell]:
    """Return the cells of one base model: `no embedding`, and `words` where the study has some.

    They are asked as those of the variants of this base are; `variant` and `token` are empty. Raises what
    `suites.replaced` raises.
    """
    suite, marked = study.evaluation, list(questions(axes, _PLACE))
    asked = [
        Asked("", kind, 0, "", "", axis, value, *(reference_prompt(text, words) for text in texts))
        for kind, words in ((NO_EMBEDDING, ""), (WORDS, suite.words))
        if words or kind == NO_EMBEDDING
        for axis, value, *texts in marked
    ]
    skips = sorted({skip for group in groups_of(study) if group.base == base for skip in group.clip_skips})
    return list(cells_of(suite, asked, base_identity, clip_skips=skips, others=others, precision=precision))
