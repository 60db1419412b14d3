"""The site's answers as they came, kept beside the tables, so that tables can be made again without asking again.

Here: records of a finished search in one compressed file, and complete pages of one that is still going on. Not here:
asking (`client`), or what a record means (`records`).
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import fingerprint, sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ti_pipeline.e621.client import Page

__all__ = ["AnswersError", "KeptAnswers", "PagesAside", "read_answers", "write_answers"]

# Pages of a broken off search that are older than this say too little about the site of today.
_STALE_AFTER = 24 * 3600.0  # seconds


class AnswersError(ValueError):
    """A file of kept answers cannot be read; the message names it and says what to do."""


@dataclass(frozen=True)
class KeptAnswers:
    """What was searched for (site, query, limit), and the records that came, highest id first."""

    search: Mapping[str, Any]
    records: Page


def write_answers(path: Path, search: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as gzipped JSON lines behind a first line `{"search": …}`; the same records give the same bytes."""
    ordered = sorted(records, key=lambda record: -int(record["id"]))
    _write_lines(path, [{"search": dict(search)}, *ordered])


def read_answers(path: Path) -> KeptAnswers | None:
    """Return kept answers, or None where there are none. Raises `AnswersError` for a file that is something else."""
    if not path.exists():
        return None
    try:
        first, *records = _read_lines(path)
        return KeptAnswers(first["search"], records)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise AnswersError(f"{path} holds no answers of the site ({error}); delete it to ask the site again") from error


class PagesAside:
    """Complete pages of a search that is going on, one file each, in a folder named by what decides their contents.

    Pages of another search, or of one that broke off more than a day ago, are not those of this one: they are removed.
    """

    def __init__(self, folder: Path, search: Mapping[str, Any], *, before: Path) -> None:
        """Take the study's folder, the search, and the answers `before` it, which it will replace when it is done."""
        identity = fingerprint([dict(search), sha256_of(before) if before.exists() else None])
        self._folder = folder / f"pages-{identity[:16]}"
        for other in folder.glob("pages-*"):
            if other != self._folder or _age(other) > _STALE_AFTER:
                shutil.rmtree(other)

    def read(self) -> list[Page]:
        """Return the pages so far, in the order in which they came."""
        return [list(_read_lines(path)) for path in sorted(self._folder.glob("[0-9]*.gz"))]

    def add(self, number: int, page: Page) -> None:
        """Keep page `number` (from 0)."""
        _write_lines(self._folder / f"{number:06d}.jsonl.gz", page)

    def discard(self) -> None:
        """Remove all pages: the search is done and its answers are kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _age(folder: Path) -> float:
    """Return how many seconds ago anything was last written into a folder."""
    return time.time() - max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)


def _write_lines(path: Path, values: Sequence[Any]) -> None:
    # Without a name and a time in its header, a gzip file depends on its contents alone.
    with (
        write_atomically(path) as aside,
        aside.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii", newline="\n") as text,
    ):
        for value in values:
            text.write(json.dumps(value, separators=(",", ":")) + "\n")  # ASCII: odd halves of characters survive


def _read_lines(path: Path) -> list[Any]:
    with gzip.open(path, "rt", encoding="ascii") as lines:
        return [json.loads(line) for line in lines]
