"""Provenance: for every stored picture whose it is, where it was published, and where and when it came from.

Here: the table. Not here: which pictures are used (`imaging.curation`), or what a release says of them
(`publishing.attribution`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import Source

__all__ = ["provenance_table"]

# Tags of the site's artist category that are remarks, not people.
_REMARKS = frozenset({"avoid_posting", "conditional_dnp", "epilepsy_warning", "jumpscare_warning", "sound_warning"})
_SITES = ("e621.net", "e926.net")


def provenance_table(
    posts: pd.DataFrame, images: pd.DataFrame, *, root: Path, source: Source, earlier: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return the `provenance` table: a row for every picture of `images` that is stored under `root`.

    `earlier` is the table of the last time. From it come the times of pictures that were there already, and rows of
    pictures that the study's posts no longer have but that are still stored, as not `in_use`: without them nobody could
    tell any more whose they are. A picture seen for the first time came when its file was written.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    contract = TABLES["provenance"]
    before = [] if earlier is None else contract.to_arrow(earlier).to_pylist()
    times = {(row["post_id"], row["sha256"]): row["fetched_at"] for row in before}
    rows = list(_stored(posts, images, root, source))
    for row in rows:
        row["fetched_at"] = times.get((row["post_id"], row["sha256"]), row["fetched_at"])
    now = {(row["post_id"], row["md5"]) for row in rows}
    left = [row for row in before if (row["post_id"], row["md5"]) not in now and (root / row["path"]).is_file()]
    rows += [{**row, "in_use": False} for row in left]
    rows.sort(key=lambda row: (row["post_id"], row["md5"]))
    return from_arrow(pa.Table.from_pylist(rows, contract.arrow_schema()))


def _stored(posts: pd.DataFrame, images: pd.DataFrame, root: Path, source: Source) -> Iterator[dict[str, Any]]:
    both = images[images.status == "ok"].merge(posts, on="post_id", validate="1:1", suffixes=("", "_stated"))
    for row in both.itertuples():
        yield {
            "post_id": row.post_id,
            "in_use": True,
            "path": row.path,
            "md5": row.md5,
            "sha256": row.sha256,
            "artists": [tag for tag in row.tags_artist if tag not in _REMARKS],
            "contributors": row.tags_contributor,
            "sources": row.sources,
            "page": _page(row.post_id, row.file_url),
            "rating": row.rating if isinstance(row.rating, str) else None,
            "licence": source.licence,
            "source": source.kind,
            "file_url": row.file_url if isinstance(row.file_url, str) else None,
            "fetched_at": datetime.fromtimestamp((root / row.path).stat().st_mtime, UTC),
        }


def _page(post_id: int, file_url: object) -> str | None:
    """Return the page of a post that came from the site, judged by where its file lies."""
    host = urlsplit(file_url).hostname if isinstance(file_url, str) and file_url.startswith("http") else None
    if host is None or not any(host == site or host.endswith(f".{site}") for site in _SITES):
        return None
    return f"https://e621.net/posts/{post_id}"
