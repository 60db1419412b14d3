"""A file on its way: what has arrived lies in a side file, is checked against what was stated, and only then counts.

Here: the side file, going on where a download broke off (also in another process, when that has ended), size, md5 and
sha256; for pictures and the site's exports alike. Not here: asking for it (`client`), or where files are stored
(`sources.pictures`, `site_exports`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ti_pipeline.progress import Progress

__all__ = ["DownloadError", "Part", "PassingError"]

_BLOCK = 1 << 14  # bytes; of a connection that breaks off, what came of a block is lost
LARGEST_FILE = 256 * 1024 * 1024  # bytes; the site takes uploads up to 100 MB


class DownloadError(RuntimeError):
    """A file cannot be had; of a picture, the message is the reason kept in the `images` table."""


class PassingError(Exception):
    """A file did not arrive whole this time; asking again may help."""


class Part:
    """What has arrived of the file `target`, beside it under a name of its own.

    The name is this process's: two that fetch one file do not write into each other's, and the last to finish gives its
    copy the name. What an ended process has left behind is gone on with. Without a stated checksum nothing could tell
    whether two halves belong together, so there each download begins anew.
    """

    def __init__(self, target: Path, md5: str | None, size: int | None, sha256: str | None = None) -> None:
        """Take what is stated of the file: md5 and sha256 in hex, size in bytes."""
        self._target, self._size = target, size
        self._stated = {name: value for name, value in (("md5", md5), ("sha256", sha256)) if value is not None}
        name = f".{target.name.removeprefix('.')}"
        # The checksum says of which file: a picture has no other name, and tomorrow's export of this name is another.
        key = f".{md5}" if md5 else f"{name}.{sha256[:8]}" if sha256 else name
        self._path = target.with_name(f"{key}.{_owner()}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._stated:
            self._discard()
        elif not self._path.exists():
            self._adopt(key)
        if sha256 is not None:
            self._remove_older(name, key)

    @property
    def arrived(self) -> int:
        """How many bytes have arrived."""
        return self._path.stat().st_size if self._path.exists() else 0

    def is_whole(self) -> bool:
        """Tell whether everything has arrived already; a side file that is too long is discarded."""
        if self._size is not None and self.arrived > self._size:
            self._discard()
        return bool(self._stated) and self.arrived == self._size

    def headers(self) -> dict[str, str]:
        """Return what asks for the rest. Plain bytes, since sizes, offsets and the md5 are those of the file."""
        arrived = self.arrived
        return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})

    def receive(self, answer: requests.Response, progress: Progress | None = None) -> None:
        """Write an answer's body behind what is there, or from the start where the server sends the whole file.

        `progress` is told of bytes. Raises `DownloadError` where the file is not to be had, `PassingError` where
        another try may help.
        """
        append = self._continues(answer)
        most = LARGEST_FILE if self._size is None else self._size
        try:
            with self._path.open("ab" if append else "wb") as stream:
                for block in answer.iter_content(_BLOCK):
                    stream.write(block)
                    if progress is not None and self._size:
                        progress(min(stream.tell(), self._size), self._size, f"bytes of {self._target.name}")
                    if stream.tell() > most:
                        break
        except requests.RequestException as error:
            raise PassingError("the connection broke off in the middle") from error
        arrived = self.arrived
        if arrived > most:
            self._discard()
            raise PassingError(f"more than the {most} bytes allowed arrived")
        if not append and self._size is not None and arrived != self._size:
            self._discard()  # this is the whole file there: nothing of it leads to the stated one
            raise PassingError(_short(arrived, self._size))

    def finish(self) -> None:
        """Check size and checksums and give the file its name; raise `PassingError` where they are not as stated."""
        if self._size is not None and (arrived := self.arrived) != self._size:
            raise PassingError(_short(arrived, self._size))
        for name, stated in self._stated.items():
            with self._path.open("rb") as stream:
                found = hashlib.file_digest(stream, functools.partial(hashlib.new, name, usedforsecurity=False))
            if found.hexdigest() != stated:
                self._discard()
                told = f"{found.hexdigest()} arrived, {stated} was stated (replaced or damaged)"
                raise PassingError(f"{name} mismatch: {told}")
        self._path.replace(self._target)

    def give_up(self) -> None:
        """Keep only what a later run can go on from."""
        if not self._stated or not self.arrived:
            self._discard()

    def _continues(self, answer: requests.Response) -> bool:
        """Tell whether an answer is the rest of what is there; raise where it is no picture at all."""
        status = answer.status_code
        if status in {403, 404, 410}:
            self._discard()
            raise DownloadError(f"gone: the site answered {status}")
        if status == requests.codes.partial_content:
            if self._is_the_rest(answer.headers.get("Content-Range", "")):
                return True
            self._discard()
            raise PassingError("the file has changed since its first half arrived")
        if status == requests.codes.requested_range_not_satisfiable:
            self._discard()
            raise PassingError("the file is shorter than what has arrived of it")
        if status != requests.codes.ok:
            raise DownloadError(f"the site answered {status}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise PassingError("the site answered with a web page instead of the file")
        return False

    def _is_the_rest(self, content_range: str) -> bool:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if told is None or int(told[1]) != self.arrived:
            return False
        return told[2] == "*" or self._size is None or int(told[2]) == self._size

    def _adopt(self, key: str) -> None:
        """Go on with the longest side file whose process has ended; of two that try, one gets it."""
        left = [path for path in _side_files(self._target.parent, key) if _is_left_behind(path.name.removeprefix(key))]
        for path in sorted(left, key=lambda path: path.stat().st_size if path.exists() else 0, reverse=True)[:1]:
            with contextlib.suppress(FileNotFoundError):
                path.rename(self._path)

    def _remove_older(self, name: str, key: str) -> None:
        """Remove what is left of other files of the target's name: yesterday's export is some gigabytes."""
        for path in _side_files(self._target.parent, name):
            checksum, _, owner = path.name.removeprefix(f"{name}.").partition(".")
            if f"{name}.{checksum}" != key and _is_left_behind(f".{owner}"):
                path.unlink(missing_ok=True)

    def _discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _short(arrived: int, stated: int) -> str:
    return f"{arrived} bytes arrived, {stated} were stated"


def _owner() -> str:
    """Return a name for this process, on whichever machine of those that share a folder."""
    return f"{re.sub(r'[^A-Za-z0-9]', '-', socket.gethostname())}-{os.getpid()}"


def _side_files(folder: Path, key: str) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.startswith(f"{key}.") and path.name.endswith(".partial"))


def _is_left_behind(ending: str) -> bool:
    """Tell from a side file's ending whether nobody writes it any more: its process was on this machine and is gone."""
    host, _, number = ending.removesuffix(".partial").removeprefix(".").rpartition("-")
    if not number.isdigit():
        return ending == ".partial"  # of a version whose side files had no owner
    if host != _owner().rpartition("-")[0]:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return int(number) == os.getpid()
