"""Sources: where posts and pictures come from. Every source speaks records in e621's shape.

Here: dispatch by kind, and fetching pictures into the store. Not here: the site's protocol (`e621`), drawings
(`demo`), or reading sidecars (`sources.folder`).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.studies import DemoSource, E621Source, FolderSource

__all__ = ["Reading", "SourceError", "fetch_images", "fetch_posts"]

STILLS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
_AT_ONCE = 4


class SourceError(ValueError):
    """A source cannot be read; the message names the study's field and what to set."""


@dataclass(frozen=True)
class Reading:
    """Records in e621's shape, and remarks for the log."""

    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def fetch_posts(
    source: DemoSource | FolderSource | E621Source, *, folder: Path, client: Callable[[], E621Client], seed: int
) -> Reading:
    """Return the records of a study's source; `folder` is that of the study file.

    Raises `SourceError` when the study leaves open where to look, and what the source's own reader raises.
    """
    if source.kind == "demo":
        from ti_pipeline.demo.world import demo_posts

        return Reading([post.record for post in demo_posts(concept=source.concept, count=source.pictures, seed=seed)])
    if source.kind == "folder":
        from ti_pipeline.sources.folder import read_folder

        if not source.path:
            raise SourceError("source.path is empty: set it to the folder with your pictures")
        return read_folder(folder / _expanded(source.path), assume_rating=source.assume_rating)
    if not (source.query or "").strip():
        raise SourceError("source.query is empty: write the search there as you would on the site")
    asked = client()
    pages = asked.search(_limited_to_ratings(str(source.query), source.ratings), source.limit)
    return Reading([record for page in pages for record in page])


def _expanded(path: str) -> Path:
    import os

    return Path(os.path.expandvars(path)).expanduser()


def _limited_to_ratings(query: str, ratings: list[str]) -> str:
    """Ask only for the allowed ratings, so that the limit counts usable posts; each record is checked all the same."""
    if "rating:" in query:
        return query
    if len(ratings) == 1:
        return f"{query} rating:{ratings[0]}"
    return query + "".join(f" -rating:{letter}" for letter in "sqe" if letter not in ratings)


def fetch_images(
    posts: pd.DataFrame,
    *,
    root: Path,
    client: Callable[[], E621Client],
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Return the `images` table of the kept posts, with each picture in `images/<md5[:2]>/<md5>.<ext>` under `root`.

    A picture that is there with the stated md5 is not fetched again. A failed one is a row with its reason.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    kept = posts[posts.status == "kept"]
    web = any(str(url).startswith("http") for url in kept.file_url)
    asked = client() if web else None
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for row in pool.map(lambda post: _image_row(post, root, asked), list(kept.itertuples())):
            rows.append(row)
            if progress is not None:
                progress(len(rows), len(kept), "pictures")
    if not rows:
        return TABLES["images"].empty()
    frame = pd.DataFrame(rows, columns=[column.name for column in TABLES["images"].columns])
    frame["file_size"] = frame.file_size.astype("Int64")
    return frame


def _image_row(post: Any, root: Path, client: E621Client | None) -> dict[str, Any]:
    from ti_pipeline.e621.client import DownloadError

    ext = str(post.ext).lower() if isinstance(post.ext, str) else ""
    if ext not in STILLS:
        return {"post_id": post.post_id, "status": "skipped", "reason": f"not a still picture ({ext or 'unknown'})"}
    try:
        path = _stored(post, ext, root, client)
    except (DownloadError, OSError) as error:
        return {"post_id": post.post_id, "status": "failed", "reason": str(error)}
    return {
        "post_id": post.post_id,
        "status": "ok",
        "reason": "",
        "path": path.relative_to(root).as_posix(),
        "md5": path.stem,
        "sha256": sha256_of(path),
        "file_size": path.stat().st_size,
    }


def _stored(post: Any, ext: str, root: Path, client: E621Client | None) -> Path:
    """Return the picture's place in the store, fetching it if it is not there whole."""
    from ti_pipeline.e621.client import DownloadError

    size = None if post.file_size is None or post.file_size != post.file_size else int(post.file_size)
    md5 = post.md5 if isinstance(post.md5, str) else None
    if md5 is not None:
        place = _place(root, md5, ext)
        if place.exists() and _md5_of(place.read_bytes()) == md5:
            return place
        if post.file_url.startswith("http"):
            if client is None:
                raise DownloadError("no client for a picture on the web")
            client.download(post.file_url, place, md5=md5, size=size)
            return place
    data = _local_bytes(post.file_url)
    found = _md5_of(data)
    if md5 is not None and found != md5:
        raise DownloadError(f"md5 is {found}, stated was {md5}: the file has changed since it was listed")
    place = _place(root, found, ext)
    with write_atomically(place) as aside:
        aside.write_bytes(data)
    return place


def _place(root: Path, md5: str, ext: str) -> Path:
    return root / "images" / md5[:2] / f"{md5}.{ext}"


def _md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _local_bytes(url: str) -> bytes:
    from ti_pipeline.demo.world import draw_demo_url

    parts = urlsplit(url)
    if parts.scheme == "demo":
        return draw_demo_url(url)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path)).read_bytes()
    from ti_pipeline.e621.client import DownloadError

    raise DownloadError(f"no way to fetch {parts.scheme or 'this'} addresses without an md5")
