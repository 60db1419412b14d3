"""How many posts each of a study's own exclusions takes. Not here: what they mean (`exclusions`), or the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.matching import names_of
from ti_pipeline.e621.policy import load_policy, names_excluded, tags_told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

__all__ = ["posts_taken"]


def posts_taken(
    records: Iterable[Mapping[str, Any]],
    *,
    exclude_tags: Iterable[str],
    opt_out: Iterable[str],
    aliases: pd.DataFrame | None = None,
    implications: pd.DataFrame | None = None,
) -> dict[str, int]:
    """Return how many of the records each entry of `exclude_tags` and each line of `opt_out` takes, by the entry.

    Records that other rules refuse count as well. Entries are closed over the catalog, as in the policy.
    """
    excluded = {entry: names_of(names_excluded([entry], aliases, implications)) for entry in exclude_tags}
    artists = {line: load_policy(opt_out=[line], aliases=aliases) for line in opt_out}
    counted = dict.fromkeys([*excluded, *artists], 0)
    for record in records if counted else ():
        tags = tags_told(record)
        for entry, names in excluded.items():
            counted[entry] += any(map(names.has, tags))
        for line, policy in artists.items():
            counted[line] += policy.is_opted_out(record)
    return counted
