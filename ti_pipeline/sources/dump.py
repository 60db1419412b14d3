"""The source `e621_export`: a study's search, answered by the site's posts dump.

Here: where the dump lies, what is searched for, and asking the site for the hits' records, since the dump has no links.
Not here: fetching the dump (`e621.dump_download`), converting it (`e621.export`), or searching it
(`e621.local_search`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.sources.reading import Reading, SourceError
from ti_pipeline.sources.search import Found, Wanted, answered

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ti_pipeline.e621.answers import PagesAside
    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.e621.search_language import Search
    from ti_pipeline.progress import Progress
    from ti_pipeline.studies import E621ExportSource

__all__ = ["Dumps", "search_dump"]

_AT_ONCE = 100  # posts that the client asks for in one request; each such page is kept aside


@dataclass(frozen=True)
class Dumps:
    """Where posts dumps are: `place` for studies that name none, `root` for what is made of them, and downloaded.

    `aliases`: old names of tags and those used now; the site, too, searches for the new ones.
    """

    root: Path
    place: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)


def search_dump(
    source: E621ExportSource,
    client: Callable[[], E621Client],
    *,
    dumps: Dumps,
    study: Path,
    folder: Path,
    seed: int,
    progress: Progress,
) -> Reading:
    """Return the records, as the site has them now, of what a study's search finds in the dump.

    `study`: the folder of the study file; `folder`: where the site's answers are kept, as for a search on the site. The
    dump is converted the first time. Raises `SourceError` for a query that is empty, cannot be answered by the dump or
    finds nothing, and what the dump and the client raise.
    """
    from ti_pipeline.e621.export import convert_dump, find_dump
    from ti_pipeline.e621.local_search import LocalSearch

    wanted = Wanted.of(source)
    search = _search(wanted, dumps, source.ratings)
    site = client()  # what it lacks is told before the dump is converted
    dump = find_dump(_place(source, study, dumps, site, progress))
    converted = LocalSearch(convert_dump(dump, dumps.root, progress=progress))
    found = converted.find(search, seed=seed).tolist()
    if not found:
        raise SourceError(f"source.query: {dump.name} has no posts for {wanted.query!r}")
    hits = found[: wanted.limit]
    cut_below = min(hits) if len(found) > len(hits) and search.order == "id" and not search.ascending else None
    notes = [*search.warnings, f"the search {wanted.query!r}: {len(found)} posts in {dump.name}"]

    def find(pages: PagesAside) -> Found:
        progress(0, len(hits), notes[-1])
        records = _records(hits, site, pages, progress)
        lost = len(hits) - len(records)
        return Found(records, notes + [f"{lost} of them are no longer on the site"] * (lost > 0), cut_below)

    return answered(wanted, site, find, folder=folder, searched="posts dump")


def _search(wanted: Wanted, dumps: Dumps, ratings: Sequence[str]) -> Search:
    """Read a search; its ratings are those of the study, also where the site's limit leaves no room to write them."""
    from ti_pipeline.e621.search_language import Group, SearchError, Text, parse_search

    try:
        search = parse_search(wanted.query, aliases=dumps.aliases)
    except SearchError as error:
        raise SourceError(f"source.query: {error}") from error
    return replace(search, where=Group((search.where, Text("rating", frozenset(ratings)))))


def _records(hits: list[int], site: E621Client, pages: PagesAside, progress: Progress) -> list[dict[str, object]]:
    """Return the site's records of `hits`, in their order, without those that the site no longer knows."""
    done = pages.read()
    known = {record["id"]: record for page in done for record in page}
    left = [post_id for post_id in hits if post_id not in known]
    for number, start in enumerate(range(0, len(left), _AT_ONCE), start=len(done)):
        page = list(site.posts(left[start : start + _AT_ONCE]))
        pages.add(number, page)
        known |= {record["id"]: record for record in page}
        progress(len(hits) - max(0, len(left) - start - _AT_ONCE), len(hits), "posts")
    return [known[post_id] for post_id in hits if post_id in known]


def _place(source: E621ExportSource, study: Path, dumps: Dumps, site: E621Client, progress: Progress) -> Path:
    """Return where the study's dump is said to be (its own paths start at the study file), or fetch the site's."""
    own, shared = (source.dump or "").strip(), (dumps.place or "").strip()
    if own:
        return study / Path(os.path.expandvars(own)).expanduser()
    if shared:
        return Path(shared).expanduser()
    from ti_pipeline.e621.dump_download import fetch_dump

    return fetch_dump(site, dumps.root, progress)
