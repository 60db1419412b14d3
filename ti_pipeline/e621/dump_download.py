"""The site's posts dump, downloaded once, its sha256 checked.

Not here: converting it (`export`), the site's list of exports (`site_exports`), or the exports of tags (`catalog`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.e621.export import ExportError
from ti_pipeline.e621.site_exports import INDEX, SiteExportError, fetch_file, fetch_index
from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.progress import Progress

__all__ = ["fetch_dump"]


def fetch_dump(client: E621Client, folder: Path, progress: Progress | None = None) -> Path:
    """Return the site's posts dump in `folder`, downloading it from where the site's list says unless it is there.

    A dump that is there is used until somebody deletes it: it is large, and the site makes a new one every day. Its
    sha256 is kept beside it, where `export.convert_dump` checks it again. A download that broke off is gone on with in
    the next run; `progress` is told of bytes. Raises `ExportError` where the list has no
    posts dump or what arrives is another file than the list tells.
    """
    target = folder / "posts.csv.gz"
    if target.exists():
        return target
    try:
        listed = fetch_index(client, folder)
        if "posts" not in listed:
            raise ExportError(f"{client.url}/{INDEX} lists no posts dump; set TI_POSTS_DUMP to a copy")
        fetch_file(client, listed["posts"], target, progress)
        stated = target.with_name(f"{target.name}.sha256")
        with write_atomically(stated) as aside:
            aside.write_text(f"{listed['posts'].checksum}  {target.name}\n", encoding="ascii")
    except SiteExportError as error:
        raise ExportError(f"the posts dump cannot be downloaded: {error}; or set TI_POSTS_DUMP to a copy") from error
    return target
