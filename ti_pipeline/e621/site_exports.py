"""The site's list of its database exports, and their files as it states them.

Here: `/db_exports.json`, and one file of it with its size and sha256 checked. Not here: what is in the files
(`catalog`, `export`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.progress import Progress

__all__ = ["INDEX", "SiteExport", "SiteExportError", "fetch_file", "fetch_index", "read_index"]

INDEX = "db_exports.json"  # kept beside the files


class SiteExportError(ValueError):
    """The list or a file cannot be had, or is not what the site states; the message names it."""


@dataclass(frozen=True)
class SiteExport:
    """One file: its name (as `posts`), where it lies, its sha256 in hex, and its size in bytes if that is told."""

    name: str
    url: str
    checksum: str
    size: int | None


def fetch_index(client: E621Client, folder: Path) -> dict[str, SiteExport]:
    """Return the site's exports by name; the list is kept in `folder`. Raises `SiteExportError`."""
    from ti_pipeline.e621.client import DownloadError

    try:
        client.download(f"{client.url}/{INDEX}", folder / INDEX)
    except DownloadError as error:
        raise SiteExportError(f"{client.url}/{INDEX}: {error}") from error
    listed = read_index(folder / INDEX)
    return {e.name: SiteExport(e.name, urljoin(f"{client.url}/", e.url), e.checksum, e.size) for e in listed.values()}


def read_index(path: Path) -> dict[str, SiteExport]:
    """Return the exports of a kept list, by name; none where there is no list. Raises `SiteExportError`."""
    if not path.exists():
        return {}
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        rows = answer["db_exports"] if isinstance(answer, dict) else answer
        found = [(row["name"], row["url"], row["checksum"], row.get("file_size")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SiteExportError(
            f"{path} is not the site's list of exports ({error!r}); delete it and try again"
        ) from error
    for *texts, size in found:
        if not all(isinstance(text, str) for text in texts) or not isinstance(size, int | None):
            raise SiteExportError(f"{path} has an entry that is not name, url, checksum and size: {texts}; delete it")
    return {name: SiteExport(name, url, checksum.lower(), size) for name, url, checksum, size in found}


def fetch_file(client: E621Client, export: SiteExport, target: Path, progress: Progress | None = None) -> None:
    """Store an export's file under `target` once it is whole and has the stated sha256. Raises `SiteExportError`.

    A download that broke off is gone on with in the next run. `progress` is told of bytes.
    """
    from ti_pipeline.e621.client import DownloadError

    try:
        client.download(export.url, target, size=export.size, sha256=export.checksum, progress=progress)
    except DownloadError as error:
        raise SiteExportError(f"{export.url}: {error}; run again, and it goes on from there") from error
