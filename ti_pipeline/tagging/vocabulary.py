"""Vocabulary: which tags captions of a plan may use, and why each other one may not.

First what no setting can lift (a plan that uses no tags, the content policy, names with nothing to read), then the
rules of `reduction` in their order, for tags that the keep list does not name. The first rule that takes a tag decides;
its name and its words and numbers stand in the columns `rule` and `reason`.
Not here: the rules themselves, captions (`captions`), or the policy's list (`e621.policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.e621.spelling import spelling
from ti_pipeline.tagging.captions import caption_places
from ti_pipeline.tagging.frequencies import pictures_counted
from ti_pipeline.tagging.implications import closure
from ti_pipeline.tagging.incidence import incidence_of
from ti_pipeline.tagging.per_picture import Chooser
from ti_pipeline.tagging.pieces import readable
from ti_pipeline.tagging.reduction import RULES, Pool, Taken, first_match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan

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

    `frequencies` (columns tag, category, count and share; where they are known site_count, and lift, how many times
    commoner a tag is here than elsewhere) and `post_tags` are of the pictures that are trained; tags that stand on none
    of them have a count of 0 and are not kept. Budgets take the commonest tags of a category, ties by name; a budget
    larger than what exists keeps all. Tags of the keep list are kept whatever other rules say (the drop list too), and
    take places of their category's budget. Tags of `policy_excluded` are never kept, in no spelling.
    Raises `VocabularyError` where a rule needs implications or lifts and there are none, and where `concept` takes all.
    """
    import numpy as np

    from ti_pipeline.schemas import TABLES

    require_implications(plan, implications)
    if frequencies.empty:
        return TABLES["vocabulary"].empty()
    require_lifts(plan, frequencies)
    columns = ["tag", "category", "count", "share", *frequencies.columns.intersection(["site_count", "lift"])]
    table = frequencies[columns].sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
    pool, matches = _pool(table, post_tags, plan, implications)
    rules, reasons = [""] * len(table), [""] * len(table)
    for rule, reason_of in _absolute_rules(plan, policy_excluded, pool.chooser.uses.pictures):
        found = Taken({i: words for i in np.flatnonzero(pool.alive).tolist() if (words := reason_of(pool, i))})
        pool = _apply(pool, rule, found, rules, reasons)
    stays: dict[int, tuple[str, str]] = {}
    for rule, take in RULES:
        found = take(pool)
        pool = _apply(pool, rule, found, rules, reasons)
        if rule == "concept" and found.tags and not pool.alive.any():
            raise VocabularyError(_ALL_TAKEN.format(tags=", ".join(pool.names[i] for i in sorted(found.tags)[:8])))
        stays |= {i: (rule, words) for i, words in found.stays.items()}
    shares = table.share.tolist()
    for i in np.flatnonzero(pool.alive).tolist():
        default = ("kept", f"on {pool.counts[i]} pictures, share {shares[i]:.6g}")
        rules[i], reasons[i] = ("keep", f"keep list: {matches[i]}") if pool.listed[i] else stays.get(i, default)
    said = pool.in_captions(pool.alive)
    table = table[["tag", "category", "count", "share"]].assign(
        captions=said,
        caption_share=said / max(pool.chooser.uses.pictures, 1),
        kept=pool.alive,
        rule=rules,
        reason=reasons,
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
    if plan.concept == "auto" and not ("lift" in frequencies and frequencies.lift.notna().any()):
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
    listed = np.array([bool(match) for match in matches])
    on_site = np.full(len(names), -1)
    if "site_count" in table:
        on_site = table.site_count.fillna(-1).to_numpy(dtype=np.int64)
    lifts = np.full(len(names), np.inf)  # where nobody else is known to have a tag, it is rare elsewhere
    if "lift" in table:
        lifts = table.lift.fillna(np.inf).to_numpy(dtype=np.float64)
    uses = incidence_of(post_tags, names, pictures_counted(table))
    implied, places = closure(implications, names), caption_places(table, plan)
    categories = table.category.tolist()
    chooser = Chooser(uses, plan, counted=uses, places=places, categories=categories, listed=listed, implied=implied)
    pool = Pool(
        names,
        categories,
        table["count"].to_numpy(dtype=np.int64),
        on_site=on_site,
        lifts=lifts,
        places=places,
        listed=listed,
        alive=np.ones(len(names), dtype=bool),
        implied=implied,
        chooser=chooser,
        plan=plan,
    )
    return pool, matches


def _apply(pool: Pool, rule: str, found: Taken, rules: list[str], reasons: list[str]) -> Pool:
    """Note which tags a rule takes, and return the pool without them."""
    for i, words in found.tags.items():
        rules[i], reasons[i] = rule, words
    return pool.after(found)


def _absolute_rules(
    plan: CaptionPlan, excluded: Iterable[str], pictures: int
) -> list[tuple[str, Callable[[Pool, int], str]]]:
    """Return, per rule that no setting can lift, why it takes a tag ("" where it does not)."""
    spellings = {spelling(tag) for tag in excluded}
    untrained = f"on none of the {pictures} pictures that are trained"
    return [
        ("source", lambda _, __: "the plan uses no tags" if plan.source == "none" else ""),
        ("policy", lambda pool, i: "content policy: excluded" if spelling(pool.names[i]) in spellings else ""),
        ("readable", lambda pool, i: "" if readable(pool.names[i]) else "nothing to read in a caption"),
        ("training_set", lambda pool, i: "" if pool.counts[i] else untrained),
    ]
