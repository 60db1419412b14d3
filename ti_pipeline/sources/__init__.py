"""Sources: where posts and pictures come from. Every source speaks records in e621's shape.

Here: dispatch by kind. Not here: the site's protocol (`e621`), drawings (`demo`), reading sidecars (`sidecars`,
`folder`), searching the site (`search`) or its dump (`dump`), or fetching pictures (`pictures`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.progress import Bar
from ti_pipeline.sources.pictures import fetch_images
from ti_pipeline.sources.reading import Reading, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.progress import Progress
    from ti_pipeline.sources.dump import Dumps
    from ti_pipeline.studies import DemoSource, E621ExportSource, E621Source, FolderSource

__all__ = ["Reading", "SourceError", "fetch_images", "fetch_posts"]


def fetch_posts(
    source: DemoSource | FolderSource | E621Source | E621ExportSource,
    *,
    folder: Path,
    answers: Path,
    client: Callable[[], E621Client],
    dumps: Dumps | None = None,
    seed: int,
    ask_site: bool = True,
    redraw: bool = False,
    progress: Progress | None = None,
) -> Reading:
    """Return the records of a study's source; `folder` is that of the study file, `dumps` where the site's dumps are
    (beside the answers if nowhere else).

    What the site answers is kept in the folder `answers`; without `ask_site` it is taken from there. A
    random search is drawn once, and with `redraw` anew. `progress` is
    told of posts as they come; without one, a terminal shows a bar. Raises `SourceError` when the study leaves open
    where to look, and what the source's own reader raises.
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
    from ti_pipeline.sources.search import kept_search, search_site

    if not ask_site:
        return kept_search(source, folder=answers)
    if source.kind == "e621":
        return search_site(source, client, folder=answers, progress=progress or Bar(), seed=seed, redraw=redraw)
    from ti_pipeline.sources.dump import Dumps, search_dump

    return search_dump(
        source,
        client,
        dumps=dumps or Dumps(answers),
        study=folder,
        folder=answers,
        seed=seed,
        progress=progress or Bar(),
    )
