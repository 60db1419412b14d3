"""Vocabulary: which tags captions of a plan may use, and why each other one may not.

First what no setting can lift (a plan that uses no tags, the content policy, names with nothing to read), then the
rules of `reduction` in their order, for tags that the keep list does not name. The first rule that takes a tag decides;
its name and its words and numbers stand in the columns `rule` and `reason`.
Not here: the rules themselves, captions (`captions`), or the policy's list (`e621.policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.e621.spelling import spelling
from ti_pipeline.tagging.captions import caption_order, readable
from ti_pipeline.tagging.frequencies import pictures_counted
from ti_pipeline.tagging.implications import closure
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.reduction import RULES, Pool, Taken, first_match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Mask

__all__ = ["VocabularyError", "reduce_vocabulary", "require_implications"]


class VocabularyError(ValueError):
    """A plan's rules cannot be applied to the tables at hand; the message says what is missing."""


def reduce_vocabulary(
    frequencies: pd.DataFrame,
    post_tags: pd.DataFrame,
    plan: CaptionPlan,
    policy_excluded: frozenset[str] = frozenset(),
    implications: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the `vocabulary` table: every tag of `frequencies`, commonest first, with the decision and its rule.

    `frequencies` and `post_tags` are of one study. Budgets take the commonest tags of a category, ties by name; a
    budget larger than what exists keeps all. Tags of the keep list are kept whatever other rules say (the drop list
    too), and take places of their category's budget. Tags of `policy_excluded` are never kept, in no spelling.
    Raises `VocabularyError` where a rule needs implications or lifts and there are none, and where `concept` takes all.
    """
    import numpy as np

    from ti_pipeline.schemas import TABLES

    require_implications(plan, implications)
    if frequencies.empty:
        return TABLES["vocabulary"].empty()
    require_lifts(plan, frequencies)
    table = frequencies[["tag", "category", "count", "share", "lift"]]
    table = table.sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
    pool, matches = _pool(table, post_tags, plan, implications)
    rules, reasons = [""] * len(table), [""] * len(table)
    for rule, reason_of in _absolute_rules(plan, policy_excluded):
        taken = {i: words for i in np.flatnonzero(pool.alive).tolist() if (words := reason_of(pool.names[i]))}
        pool = _apply(pool, rule, taken, rules, reasons)
    stays: dict[int, tuple[str, str]] = {}
    for rule, take in RULES:
        found = take(pool)
        pool = _apply(pool, rule, found.tags, rules, reasons, found.uses)
        if rule == "concept" and found.tags and not pool.alive.any():
            raise VocabularyError(_ALL_TAKEN.format(tags=", ".join(pool.names[i] for i in sorted(found.tags)[:8])))
        stays |= {i: (rule, words) for i, words in found.stays.items()}
    shares = table.share.tolist()
    for i in np.flatnonzero(pool.alive).tolist():
        default = ("kept", f"on {pool.counts[i]} pictures, share {shares[i]:.6g}")
        rules[i], reasons[i] = ("keep", f"keep list: {matches[i]}") if pool.listed[i] else stays.get(i, default)
    table = table.drop(columns="lift").assign(
        captions=pool.in_captions(pool.alive), kept=pool.alive, rule=rules, reason=reasons
    )
    return table.astype({"rule": "str", "reason": "str"})


def require_implications(plan: CaptionPlan, implications: pd.DataFrame | None) -> None:
    """Raise `VocabularyError` if the plan asks for implications and there are none."""
    if plan.implications != "keep" and (implications is None or implications.empty):
        raise VocabularyError(
            f"`implications: {plan.implications}` needs the site's implications, and the table tag_implications is "
            "empty: run the job catalog first, or set `implications: keep`"
        )


def require_lifts(plan: CaptionPlan, frequencies: pd.DataFrame) -> None:
    """Raise `VocabularyError` if the plan asks which tags are the concept's and nothing tells how common they are."""
    if plan.concept == "auto" and not frequencies.lift.notna().any():
        raise VocabularyError(
            "`concept: auto` compares the study's tags with others, and there are none: run the job catalog first for "
            "those of the site, name a study of other pictures in `contrast`, or list the concept's tags"
        )


_ALL_TAKEN = (
    "`concept` takes every tag that the plan has left ({tags}): captions would be empty and the embedding learn the "
    "subjects too; take more categories, list some of the tags in `keep`, or list the concept's tags"
)


def _pool(
    table: pd.DataFrame, post_tags: pd.DataFrame, plan: CaptionPlan, implications: pd.DataFrame | None
) -> tuple[Pool, list[str]]:
    """Return the pool of all tags, and the pattern of the keep list that names each one."""
    import numpy as np

    names = table.tag.tolist()
    matches = list(map(first_match(plan.keep), names))
    uses = incidence_of(post_tags, names, pictures_counted(table))
    pool = Pool(
        names,
        table.category.tolist(),
        table["count"].to_numpy(dtype=np.int64),
        places=np.argsort(caption_order(table, plan).index),
        listed=np.array([bool(match) for match in matches]),
        alive=np.ones(len(names), dtype=bool),
        every_use=uses,
        uses=uses,
        implied=closure(implications, names),
        lifts=table.lift.fillna(np.inf).to_numpy(dtype=np.float64),  # the site does not know it: rare there
        plan=plan,
    )
    return pool, matches


def _apply(
    pool: Pool, rule: str, taken: Mapping[int, str], rules: list[str], reasons: list[str], uses: Mask | None = None
) -> Pool:
    """Note which tags a rule takes, and return the pool without them."""
    for i, words in taken.items():
        rules[i], reasons[i] = rule, words
    return pool.after(Taken(taken, uses))


def _absolute_rules(plan: CaptionPlan, excluded: Iterable[str]) -> list[tuple[str, Callable[[str], str]]]:
    """Return, per rule that no setting can lift, why it takes a tag ("" where it does not)."""
    spellings = {spelling(tag) for tag in excluded}
    return [
        ("source", lambda _: "the plan uses no tags" if plan.source == "none" else ""),
        ("policy", lambda tag: "content policy: excluded" if spelling(tag) in spellings else ""),
        ("readable", lambda tag: "" if readable(tag) else "nothing to read in a caption"),
    ]
