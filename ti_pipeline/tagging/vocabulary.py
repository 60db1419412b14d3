"""Vocabulary: which tags captions of a plan may use, and why each other one may not.

The rules in their order: what no setting can lift (a plan that does not use the posts' tags, the content policy, names
with nothing to read), then, for tags that the keep list does not name: categories, drop list, least count, least
share, budget per category. The first rule that speaks decides; its words and numbers stand in the `reason` column.
Not here: captions (`captions`), or the policy's list (`e621.policy`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.spelling import spelling
from ti_pipeline.tagging.captions import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan

__all__ = ["reduce_vocabulary"]

_NO_TAGS = {"none": "the plan uses no tags", "tagger": "the plan takes its tags from a tagger"}


def reduce_vocabulary(
    frequencies: pd.DataFrame, plan: CaptionPlan, policy_excluded: frozenset[str] = frozenset()
) -> pd.DataFrame:
    """Return the `vocabulary` table: every tag of `frequencies`, commonest first, with the decision and its rule.

    Budgets take the commonest tags of a category, ties by name; a budget larger than what exists keeps all. Tags of
    the keep list are kept whatever other lists, limits and budgets say, and take places of their category's budget.
    Tags of `policy_excluded` are never kept, in no spelling. Lists: `*` is any text; case and the difference between
    a space and an underscore do not matter.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if frequencies.empty:
        return TABLES["vocabulary"].empty()
    table = frequencies[["tag", "category", "count", "share"]]
    table = table.sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
    listed = _matching(table.tag, plan.keep)
    reason = pd.Series("", index=table.index, dtype="str")
    for words in _absolute_rules(table, plan, policy_excluded):
        reason = reason.where(reason != "", words)
    for words in _limits(table, plan):
        reason = reason.where((reason != "") | (listed != ""), words)
    budget = table.category.map(plan.budgets).astype("Int64")
    rank = _rank(table.category[reason == ""], listed).reindex(table.index)
    words = table.category + " budget " + budget.astype("str") + ": rank " + rank.astype("str")
    reason = reason.mask((reason == "") & (listed == "") & (rank > budget).fillna(value=False).astype(bool), words)
    kept = reason == ""
    because = words.where(budget.notna(), "on " + _pictures(table) + ", share " + _percent(table.share))
    because = because.mask(listed != "", "keep list: " + listed)
    return table.assign(kept=kept, reason=reason.where(~kept, because))


def _absolute_rules(table: pd.DataFrame, plan: CaptionPlan, excluded: frozenset[str]) -> Iterator[pd.Series[Any]]:
    """Yield, per rule that no setting can lift, why it drops each tag ("" where it does not)."""
    spellings = {spelling(tag) for tag in excluded}
    yield table.tag.map(lambda _: _NO_TAGS.get(plan.source, ""))
    yield table.tag.map(lambda tag: "content policy: excluded" if spelling(tag) in spellings else "")
    yield table.tag.map(lambda tag: "" if readable(tag) else "nothing to read in a caption")


def _limits(table: pd.DataFrame, plan: CaptionPlan) -> Iterator[pd.Series[Any]]:
    """Yield, per limit of the plan, why it drops each tag ("" where it does not)."""
    yield ("category " + table.category + " is not in the plan").mask(table.category.isin(plan.kept_categories()), "")
    dropped = _matching(table.tag, plan.drop)
    yield ("drop list: " + dropped).where(dropped != "", "")
    yield (f"min_count {plan.min_count}: on " + _pictures(table)).where(table["count"] < plan.min_count, "")
    rare = table.share < plan.min_share
    yield (f"min_share {plan.min_share:.6g}: share " + _percent(table.share)).where(rare, "")


def _rank(category: pd.Series[Any], listed: pd.Series[Any]) -> pd.Series[Any]:
    """Return each tag's place (from 1) in its category, those of the keep list first; the order is otherwise kept."""
    order = (listed[category.index] == "").sort_values(kind="stable").index
    rank: pd.Series[Any] = category[order].groupby(category[order], sort=False).cumcount() + 1
    return rank.astype("Int64")


def _pictures(table: pd.DataFrame) -> pd.Series[Any]:
    return table["count"].map("{} pictures".format).astype("str")


def _percent(share: pd.Series[Any]) -> pd.Series[Any]:
    return share.map("{:.6g}".format).astype("str")


def _matching(tags: pd.Series[Any], patterns: Sequence[str]) -> pd.Series[Any]:
    """Return the first pattern that matches each tag, "" where none does."""

    def plain(text: str) -> str:
        return text.replace(" ", "_").casefold()

    compiled = [
        (re.compile(".*".join(map(re.escape, plain(pattern).split("*"))), re.DOTALL), pattern) for pattern in patterns
    ]

    def first(tag: str) -> str:
        return next((pattern for regex, pattern in compiled if regex.fullmatch(plain(tag))), "")

    return tags.map(first).astype("str")
