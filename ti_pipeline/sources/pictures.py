"""Pictures of posts, brought into the content-addressed store `images/<md5[:2]>/<md5>.<ext>`.

Here: from the web, from folders and from the demo's drawings alike: fetched aside, checked, renamed. Not here: whether
the bytes are a good picture (`imaging.audit`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ti_pipeline.progress import Bar
from ti_pipeline.sources.reading import STILLS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from ti_pipeline.e621.client import E621Client
    from ti_pipeline.progress import Progress

__all__ = ["fetch_images"]

_AT_ONCE = 4


class _NoPictureError(Exception):
    """This one picture cannot be had; the message is the row's reason."""


@dataclass(frozen=True)
class _Digests:
    md5: str
    sha256: str
    size: int


class _OneAtATime:
    """A lock for each picture: two posts of one file, seen by two threads, are fetched once."""

    def __init__(self) -> None:
        self._locks: dict[object, threading.Lock] = {}

    def __call__(self, key: object) -> contextlib.AbstractContextManager[Any]:
        """Return the lock of a picture's md5; pictures whose md5 nobody stated are on their own."""
        return contextlib.nullcontext() if key is None else self._locks.setdefault(key, threading.Lock())


def fetch_images(
    posts: pd.DataFrame,
    *,
    root: Path,
    client: Callable[[], E621Client],
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Return the `images` table, one row for every post, with the pictures of kept posts stored under `root`.

    A picture that is there with the stated md5 is not fetched again. One that cannot be had is a row with its reason;
    what would fail for all (no user name, a full disk) is raised. `progress` is told of kept posts and megabytes;
    without one, a terminal shows a bar.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    all_posts = [{str(k): v for k, v in row.items()} for row in posts.to_dict("records")]
    kept = [post for post in all_posts if post["status"] == "kept"]
    # Clients refuse to exist without a user name; only pictures on the web need one.
    site = client() if any(_scheme(post) in {"http", "https"} for post in kept) else None
    fetched = _fetched(kept, root, site, progress or Bar())
    rows = [fetched.get(int(post["post_id"])) or _dropped_row(post) for post in all_posts]
    return from_arrow(pa.Table.from_pylist(rows, TABLES["images"].arrow_schema()))


def _fetched(
    kept: list[dict[str, Any]], root: Path, site: E621Client | None, progress: Progress
) -> dict[int, dict[str, Any]]:
    """Return the rows of kept posts by id; as many pictures are on their way at a time as the site bears."""
    rows: dict[int, dict[str, Any]] = {}
    size, one_at_a_time = 0, _OneAtATime()
    progress(0, len(kept), "pictures")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for row in pool.map(lambda post: _image_row(post, root, site, one_at_a_time), kept):
            rows[row["post_id"]] = row
            size += row.get("file_size", 0)
            progress(len(rows), len(kept), f"pictures ({size / 1e6:.1f} MB)")
    return rows


def _dropped_row(post: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a post whose picture nobody wants: left out before, for the reason that `posts` has."""
    return {"post_id": int(post["post_id"]), "status": "dropped", "reason": str(post["reason"])}


def _image_row(post: dict[str, Any], root: Path, site: E621Client | None, one_at_a_time: _OneAtATime) -> dict[str, Any]:
    row: dict[str, Any] = {"post_id": int(post["post_id"])}
    ext = str(_or_none(post["ext"]) or Path(urlsplit(str(post["file_url"])).path).suffix).lower().lstrip(".")
    if ext not in STILLS:
        return row | {"status": "skipped", "reason": f"not a still picture ({ext or 'unknown type'})"}
    try:
        with one_at_a_time(_or_none(post["md5"])):
            path, digests = _stored(post, ext, root, site)
    except _NoPictureError as error:
        return row | {"status": "failed", "reason": str(error)}
    return row | {
        "status": "ok",
        "reason": "",
        "path": path.relative_to(root).as_posix(),
        "md5": digests.md5,
        "sha256": digests.sha256,
        "file_size": digests.size,
    }


def _stored(post: dict[str, Any], ext: str, root: Path, site: E621Client | None) -> tuple[Path, _Digests]:
    """Return the picture's place in the store, fetching it unless it is there whole."""
    md5, size = _or_none(post["md5"]), _or_none(post["file_size"])
    if md5 is not None:
        place = _place(root, md5, ext)
        if place.is_file() and (there := _digests(place)).md5 == md5:
            return place, there
    with _aside(root, md5) as aside:
        _bring(post, aside, site)
        arrived = _digests(aside)
        if size is not None and arrived.size != size:
            raise _NoPictureError(f"{arrived.size} bytes arrived, {size} were stated")
        if md5 is not None and arrived.md5 != md5:
            raise _NoPictureError(f"md5 mismatch: {arrived.md5} arrived, {md5} was stated (replaced or damaged)")
        place = _place(root, arrived.md5, ext)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, place)  # noqa: PTH105 - os.replace is the atomic rename on every platform
    return place, arrived


@contextlib.contextmanager
def _aside(root: Path, md5: str | None) -> Iterator[Path]:
    """Yield a place for a picture that is not checked yet, which no other process uses."""
    aside = root / "images" / f".{md5 or 'picture'}-{uuid.uuid4().hex[:12]}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def _bring(post: dict[str, Any], aside: Path, site: E621Client | None) -> None:
    url, scheme = str(post["file_url"]), _scheme(post)
    if site is not None and scheme in {"http", "https"}:
        from ti_pipeline.e621.client import DownloadError

        try:
            site.download(url, aside, _or_none(post["md5"]), _or_none(post["file_size"]))
        except DownloadError as error:
            raise _NoPictureError(str(error)) from error
    else:
        aside.write_bytes(_local_bytes(url, scheme))


def _local_bytes(url: str, scheme: str) -> bytes:
    if scheme == "demo":
        from ti_pipeline.demo.posts import draw_demo_url

        return draw_demo_url(url)
    if scheme != "file":
        raise _NoPictureError(f"no way to fetch {scheme or 'such'} addresses")
    try:
        return Path(url2pathname(urlsplit(url).path)).read_bytes()
    except OSError as error:
        raise _NoPictureError(f"the file cannot be read ({error.strerror or error})") from error


def _place(root: Path, md5: str, ext: str) -> Path:
    return root / "images" / md5[:2] / f"{md5}.{ext}"


def _digests(path: Path) -> _Digests:
    data = path.read_bytes()
    return _Digests(hashlib.md5(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest(), len(data))


def _scheme(post: dict[str, Any]) -> str:
    return urlsplit(str(post["file_url"])).scheme


def _or_none(value: Any) -> Any:
    """Return None for any of pandas' ways to say that a value is missing."""
    import pandas as pd

    return None if pd.isna(value) else value
