"""The site's list of its database exports, and their files as it states them.

Here: `/db_exports.json`, and one file of it with its size and sha256 checked. Not here: what is in the files
(`catalog`, `export`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.e621.client import E621Client

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
    _download(client, f"{client.url}/{INDEX}", folder / INDEX)
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


def fetch_file(client: E621Client, export: SiteExport, target: Path) -> None:
    """Store an export's file under `target` once it is whole and has the stated sha256. Raises `SiteExportError`."""
    with write_atomically(target) as aside:
        _download(client, export.url, aside, export.size)
        found = sha256_of(aside)
        if found != export.checksum:
            raise SiteExportError(
                f"{export.url} has not the sha256 that the site states ({found}, stated {export.checksum}); "
                "run again later"
            )


def _download(client: E621Client, url: str, target: Path, size: int | None = None) -> None:
    from ti_pipeline.e621.client import DownloadError

    try:
        client.download(url, target, size=size)
    except DownloadError as error:
        raise SiteExportError(f"{url}: {error}") from error
