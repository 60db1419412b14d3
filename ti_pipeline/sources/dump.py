"""The source `e621_export`: a study's search, answered by the site's posts dump.

Here: where the dump lies, what is searched for, and asking the site for the hits' records, since the dump has no links.
Not here: converting the dump (`e621.export`) and searching it (`e621.local_search`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.sources.reading import Reading, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.studies import E621ExportSource

__all__ = ["Dumps", "search_dump"]


@dataclass(frozen=True)
class Dumps:
    """Where posts dumps are: `place` for studies that name none, `converted` for what is made of them.

    `aliases`: old names of tags and those used now; the site, too, searches for the new ones.
    """

    converted: Path
    place: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


def search_dump(
    source: E621ExportSource,
    query: str,
    *,
    folder: Path,
    dumps: Dumps,
    client: Callable[[], E621Client],
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Reading:
    """Return the records, as the site has them now, of what `query` finds in the dump; `folder` is the study's.

    The dump is converted the first time. Raises `SourceError` where there is no dump or no hit, and what the dump, the
    search and the client raise.
    """
    from ti_pipeline.e621.export import convert_dump, find_dump
    from ti_pipeline.e621.local_search import LocalSearch
    from ti_pipeline.e621.search_language import parse_search

    search = parse_search(query, aliases=dumps.aliases)
    dump = find_dump(_place(source, folder, dumps))
    found = LocalSearch(convert_dump(dump, dumps.converted, progress=progress)).find(search, seed=seed)
    limit = source.limit if search.limit is None else min(source.limit, search.limit)
    hits = found[:limit].tolist()
    if not hits:
        raise SourceError(f"source.query: {dump.name} has no posts for {query!r}")
    by_id = {record["id"]: record for record in client().posts(hits)}
    records = [by_id[post_id] for post_id in hits if post_id in by_id]
    notes = [f"the search {query!r} finds {len(found)} posts in {dump.name}; {len(hits)} of them were asked for"]
    if len(records) < len(hits):
        notes.append(f"{len(hits) - len(records)} posts of the dump are no longer on the site")
    return Reading(records, [*search.warnings, *notes])


def _place(source: E621ExportSource, folder: Path, dumps: Dumps) -> Path:
    """Return where the study's dump is said to be; its own paths start at the study file."""
    own, shared = (source.dump or "").strip(), (dumps.place or "").strip()
    if own:
        return folder / Path(os.path.expandvars(own)).expanduser()
    if not shared:
        raise SourceError("source.dump is empty: set it, or TI_POSTS_DUMP, to the site's posts.csv.gz or its folder")
    return Path(shared).expanduser()
