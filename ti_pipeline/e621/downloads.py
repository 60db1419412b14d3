"""A picture on its way: what has arrived lies in a side file, is checked against what was stated, and only then counts.

Here: the side file, going on where a download broke off, size and md5. Not here: asking for it (`client`), or where
pictures are stored (`sources.pictures`).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DownloadError", "Part", "PassingError"]

LARGEST_FILE = 256 * 1024 * 1024  # bytes; the site takes uploads up to 100 MB


class DownloadError(RuntimeError):
    """A picture cannot be had; the message is the reason kept in the `images` table."""


class PassingError(Exception):
    """A picture did not arrive whole this time; asking again may help."""


class Part:
    """What has arrived of the picture `target`, beside it under a name of its own.

    Without a stated md5 nothing could tell whether two halves belong together, so there each download begins anew.
    """

    def __init__(self, target: Path, md5: str | None, size: int | None) -> None:
        """Take what is stated of the picture: md5 in hex, size in bytes."""
        self._target, self._md5, self._size = target, md5, size
        self._path = target.with_name(f".{target.name.removeprefix('.')}.partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if md5 is None:
            self._discard()

    def is_whole(self) -> bool:
        """Tell whether everything has arrived already; a side file that is too long is discarded."""
        if self._size is not None and self._arrived() > self._size:
            self._discard()
        return self._md5 is not None and self._arrived() == self._size

    def headers(self) -> dict[str, str]:
        """Return what asks for the rest. Plain bytes, since sizes, offsets and the md5 are those of the file."""
        arrived = self._arrived()
        return {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})

    def receive(self, answer: requests.Response) -> None:
        """Write an answer's body behind what is there, or from the start where the server sends the whole file.

        Raises `DownloadError` where the picture is not to be had, `PassingError` where another try may help.
        """
        append = self._continues(answer)
        most = LARGEST_FILE if self._size is None else self._size
        try:
            with self._path.open("ab" if append else "wb") as stream:
                for block in answer.iter_content(1 << 16):
                    stream.write(block)
                    if stream.tell() > most:
                        break
        except requests.RequestException as error:
            raise PassingError("the connection broke off in the middle") from error
        arrived = self._arrived()
        if arrived > most:
            self._discard()
            raise PassingError(f"more than the {most} bytes allowed arrived")
        if not append and self._size is not None and arrived != self._size:
            self._discard()  # this is the whole file there: nothing of it leads to the stated one
            raise PassingError(_short(arrived, self._size))

    def finish(self) -> None:
        """Check size and md5 and give the picture its name; raise `PassingError` where they are not as stated."""
        if self._size is not None and (arrived := self._arrived()) != self._size:
            raise PassingError(_short(arrived, self._size))
        with self._path.open("rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if self._md5 is not None and md5 != self._md5:
            self._discard()
            raise PassingError(f"md5 mismatch: {md5} arrived, {self._md5} was stated (replaced or damaged)")
        self._path.replace(self._target)

    def give_up(self) -> None:
        """Keep only what a later run can go on from."""
        if self._md5 is None or not self._arrived():
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
            raise PassingError("the site answered with a web page instead of the picture")
        return False

    def _is_the_rest(self, content_range: str) -> bool:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if told is None or int(told[1]) != self._arrived():
            return False
        return told[2] == "*" or self._size is None or int(told[2]) == self._size

    def _arrived(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _short(arrived: int, stated: int) -> str:
    return f"{arrived} bytes arrived, {stated} were stated"
