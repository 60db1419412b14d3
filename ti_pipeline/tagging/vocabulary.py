"""Vocabulary: which tags captions of a plan may use, and why each other one may not.

Rules in order: categories, policy, drop list, keep list (which overrides what follows), least count, least share,
budget per category. The first rule that speaks decides; its words and numbers stand in the `reason` column.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from ti_pipeline.studies import CaptionPlan

__all__ = ["reduce_vocabulary"]


def reduce_vocabulary(
    frequencies: pd.DataFrame, plan: CaptionPlan, policy_excluded: frozenset[str] = frozenset()
) -> pd.DataFrame:
    """Return the `vocabulary` table: every tag of `frequencies` with the decision and the rule behind it.

    Budgets take the commonest tags of a category, ties by name; tags of the keep list count towards them.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    table = frequencies[["tag", "category", "count", "share"]].copy()
    if table.empty:
        return TABLES["vocabulary"].empty()
    table = table.sort_values(["count", "tag"], ascending=[False, True]).reset_index(drop=True)
    reason = pd.Series("", index=table.index, dtype="str")

    def drop(rows: pd.Series, words: pd.Series | str) -> None:
        undecided = rows & (reason == "")
        reason[undecided] = words if isinstance(words, str) else words[undecided]

    if plan.source == "none":
        drop(table["count"] > 0, "the plan uses no tags")
    drop(~table.category.isin(plan.kept_categories()), "category " + table.category + " is not in the plan")
    drop(table.tag.isin(policy_excluded), "excluded by the content policy")
    drop(_matches(table.tag, plan.drop), "in the drop list")
    wanted = _matches(table.tag, plan.keep) & (reason == "")
    drop(
        (table["count"] < plan.min_count) & ~wanted,
        "on " + table["count"].astype("str") + f" pictures, fewer than {plan.min_count}",
    )
    drop(
        (table.share < plan.min_share) & ~wanted,
        "share " + table.share.map("{:.4f}".format) + f", less than {plan.min_share}",
    )
    for category, budget in plan.budgets.items():
        alive = (table.category == category) & (reason == "")
        rank = (alive & wanted).cumsum().where(wanted, int((alive & wanted).sum()) + (alive & ~wanted).cumsum())
        drop(alive & ~wanted & (rank > budget), f"{category} budget {budget}: rank " + rank.astype("str"))
    kept = reason == ""
    why = "share " + table.share.map("{:.4f}".format)
    table["kept"] = kept
    table["reason"] = reason.where(~kept, ("in the keep list, " + why).where(wanted, why))
    return table


def _matches(tags: pd.Series, patterns: Iterable[str]) -> pd.Series:
    """Tell which tags match any pattern; `*` is the only wildcard."""
    literal = "|".join(fnmatch.translate(re.sub(r"([?\[])", r"[\1]", pattern)) for pattern in patterns)
    if not literal:
        return tags == "\0 no tag"
    return tags.map(lambda tag: re.match(literal, tag) is not None).astype(bool)
