"""Publishing: finished files to any fsspec address (a mounted drive, `gs://`, `s3://`, `hf://`), verified there.

Here: sending, going on where a lost connection stopped, reading back. Not here: what is in a release (`release`), or
where the project's own data lies (`resources.DataStore`). Credentials are those of the address' own package.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ti_pipeline.files import sha256_of
from ti_pipeline.publishing.release import CHECKSUMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from upath import UPath

__all__ = ["PublishError", "Published", "publish_files", "publish_release"]

_CHUNK = 1 << 20


class PublishError(RuntimeError):
    """Files could not be published; the message names the address, the reason and what to do."""


@dataclass(frozen=True)
class Published:
    """What was done: the address, and the names of files that were sent or were there already."""

    url: str
    sent: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)


def publish_release(folder: Path, url: str, *, progress: Callable[[int, int, str], None] | None = None) -> Published:
    """Send a release's folder to `url`/<its name>; its checksums go last, so that a folder with them is whole.

    Environment variables in `url` expand. Files that are there are kept; a different file of the same name is never
    overwritten. Raises `PublishError`.
    """
    url = os.path.expandvars(url)
    if "$" in url:
        raise PublishError(f"publish.url {url} names an environment variable that is not set")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    ordered = [name for name in names if name != CHECKSUMS] + [CHECKSUMS]
    return publish_files(folder, ordered, f"{url.rstrip('/')}/{folder.name}", progress=progress)


def publish_files(
    folder: Path, names: Sequence[str], url: str, *, progress: Callable[[int, int, str], None] | None = None
) -> Published:
    """Send files of `folder` to `url` under their names and read each back there; see `publish_release`."""
    published = Published(url)
    try:
        from upath import UPath

        place = UPath(url)
        for done, name in enumerate(names, start=1):
            (published.sent if _send(folder / name, place / name) else published.there).append(name)
            if progress is not None:
                progress(done, len(names), f"published to {url}")
    except PublishError:
        raise
    except (ImportError, OSError, ValueError) as error:  # packages that are missing, networks, addresses
        why = str(error) or type(error).__name__
        raise PublishError(
            f"publish.url {url}: {why}; {len(published.sent)} files were sent, run again to go on"
        ) from error
    return published


def _send(source: Path, target: UPath) -> bool:
    """Send one file unless it is there; return whether it was sent."""
    wanted = sha256_of(source)
    if target.exists():
        if _sha256_at(target) == wanted:
            return False
        raise PublishError(
            f"{target} is another file than {source.name} here, and what is published is never overwritten: move it "
            "away, or publish elsewhere"
        )
    if target.protocol in ("", "file", "local"):  # object stores show a file only when it is whole; disks do not
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f".{uuid.uuid4().hex[:12]}-partial"
        try:
            aside.write_bytes(source.read_bytes())
            aside.rename(target)
        finally:
            aside.unlink(missing_ok=True)
    else:
        target.write_bytes(source.read_bytes())
    if _sha256_at(target) != wanted:
        target.unlink(missing_ok=True)
        raise PublishError(f"{target} did not arrive whole; it was removed there, run again")
    return True


def _sha256_at(place: UPath) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
