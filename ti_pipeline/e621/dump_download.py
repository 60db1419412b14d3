"""The site's posts dump, downloaded once through the site's list of exports, its sha256 checked.

Here: from the list to a checked file. Not here: converting it (`export`), or the exports of tags (`catalog`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from ti_pipeline.e621.export import ExportError
from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ti_pipeline.e621.client import E621Client

__all__ = ["fetch_dump"]


def fetch_dump(client: E621Client, folder: Path) -> Path:
    """Return the site's posts dump in `folder`, downloading it from where `/db_exports.json` says unless it is there.

    A dump that is there is used until somebody deletes it: it is large, and the site makes a new one every day. Its
    sha256 is kept beside it, where `export.convert_dump` checks it again. Raises `ExportError` where the list has no
    posts dump or what arrives is another file than the list tells.
    """
    from ti_pipeline.e621.client import DownloadError

    target = folder / "posts.csv.gz"
    if target.exists():
        return target
    try:
        entry = _entry(client, folder)
        with write_atomically(target) as aside:
            client.download(entry["url"], aside, size=entry["file_size"])
            found = sha256_of(aside)
            if found != entry["checksum"]:
                stated = f"{entry['url']} has the sha256 {found}, the site states {entry['checksum']}"
                raise ExportError(f"{stated}: run again later")
            target.with_name(f"{target.name}.sha256").write_text(f"{found}  {target.name}\n", encoding="ascii")
    except DownloadError as error:
        raise ExportError(f"the posts dump cannot be downloaded: {error}; or set TI_POSTS_DUMP to a copy") from error
    return target


def _entry(client: E621Client, folder: Path) -> Mapping[str, Any]:
    """Return what the site's list says about the posts dump: address, size in bytes, sha256."""
    place = f"{client.url}/db_exports.json"
    with write_atomically(folder / "db_exports.json") as aside:
        client.download(place, aside)
        text = aside.read_text(encoding="utf-8")
    try:
        listed = json.loads(text)
        rows = listed["db_exports"] if isinstance(listed, dict) else listed
        (found,) = [row for row in rows if row["name"] == "posts"]
        url, size, checksum = found["url"], int(found["file_size"]), str(found["checksum"]).lower()
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{place} does not tell where the posts dump is; set TI_POSTS_DUMP to a copy") from error
    return {"url": urljoin(f"{client.url}/", url), "file_size": size, "checksum": checksum}
