"""Sources: where posts and pictures come from. Every source speaks records in e621's shape.

Here: dispatch by kind. Not here: the site's protocol (`e621`), drawings (`demo`), reading sidecars (`sidecars`,
`folder`), the site's dump (`dump`), or fetching pictures (`pictures`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.sources.pictures import fetch_images
from ti_pipeline.sources.reading import Reading, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.sources.dump import Dumps
    from ti_pipeline.studies import DemoSource, E621ExportSource, E621Source, FolderSource

__all__ = ["Reading", "SourceError", "fetch_images", "fetch_posts"]


def fetch_posts(
    source: DemoSource | FolderSource | E621Source | E621ExportSource,
    *,
    folder: Path,
    client: Callable[[], E621Client],
    dumps: Dumps,
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> Reading:
    """Return the records of a study's source; `folder` is that of the study file, `dumps` where the site's dumps are.

    Raises `SourceError` when the study leaves open where to look, and what the source's own reader raises.
    """
    if source.kind == "demo":
        from ti_pipeline.demo.posts import demo_posts

        return Reading([post.record for post in demo_posts(concept=source.concept, count=source.pictures, seed=seed)])
    if source.kind == "folder":
        from ti_pipeline.sources.folder import read_folder

        if not (source.path or "").strip():
            raise SourceError("source.path is empty: set it to the folder with your pictures")
        path = Path(os.path.expandvars(str(source.path))).expanduser()
        return read_folder(folder / path, assume_rating=source.assume_rating)
    query = (source.query or "").strip()
    if not query:
        raise SourceError("source.query is empty: write the search there as you would on the site")
    query = _limited_to_ratings(query, source.ratings)
    if source.kind == "e621_export":
        from ti_pipeline.sources.dump import search_dump

        return search_dump(source, query, folder=folder, dumps=dumps, client=client, seed=seed, progress=progress)
    return _search(source, query, client)


def _search(source: E621Source, query: str, client: Callable[[], E621Client]) -> Reading:
    pages = client().search(query, source.limit)
    records = [record for page in pages for record in page]
    if not records:
        raise SourceError(f"source.query: the site finds no posts for {query!r}")
    return Reading(records, [f"the search {query!r} gave {len(records)} posts (at most {source.limit} were asked for)"])


def _limited_to_ratings(query: str, ratings: Sequence[str]) -> str:
    """Ask only for the allowed ratings, so that the limit counts usable posts; each record is checked all the same."""
    if re.search(r"(^|[\s~-])rating:", query, re.IGNORECASE):
        return query
    if len(ratings) == 1:
        return f"{query} rating:{ratings[0]}"
    return query + "".join(f" -rating:{letter}" for letter in "sqe" if letter not in ratings)
