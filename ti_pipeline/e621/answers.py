"""The site's answers as they came, kept beside the tables, so that tables can be made again without asking again.

Here: records of a finished search in one compressed file, and complete pages of one that is still going on. Not here:
asking (`client`), or what a record means (`records`).
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from ti_pipeline.files import fingerprint, sha256_of, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["AnswersError", "KeptAnswers", "PagesAside", "Records", "read_answers", "write_answers"]

# Pages of a broken off search that are older than this say too little about the site of today.
_STALE_AFTER = 24 * 3600.0  # seconds


class AnswersError(ValueError):
    """A file of kept answers cannot be read; the message names it and says what to do."""


class Records(Sequence[dict[str, Any]]):
    """Posts' records, packed: one takes some 800 bytes instead of 40,000, and is unpacked anew when it is asked for.

    Changing one that was given out changes nothing in here.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        """Take records, each with a whole `id`."""
        self.ids: list[int] = []
        self._packed: list[bytes] = []
        self.extend(records)

    def extend(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add records behind those that are there."""
        if isinstance(records, Records):
            self.ids += records.ids
            self._packed += records._packed
            return
        for record in records:
            self.ids.append(int(record["id"]))
            self._packed.append(zlib.compress(_as_json(record).encode("ascii"), 1))

    def picked(self, ids: Iterable[int]) -> Records:
        """Return the records of these ids, as far as they are here, in the order of the ids."""
        place = {post_id: index for index, post_id in enumerate(self.ids)}
        found = Records()
        for index in (place[post_id] for post_id in ids if post_id in place):
            found.ids.append(self.ids[index])
            found._packed.append(self._packed[index])
        return found

    def lines(self) -> Iterator[str]:
        """Yield the records as JSON, highest id first."""
        for index in sorted(range(len(self.ids)), key=lambda index: -self.ids[index]):
            yield zlib.decompress(self._packed[index]).decode("ascii")

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [json.loads(zlib.decompress(packed)) for packed in self._packed[index]]
        found: dict[str, Any] = json.loads(zlib.decompress(self._packed[index]))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(dict.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # records can be added


@dataclass(frozen=True)
class KeptAnswers:
    """What was searched for (site, query, limit), and the records that came, highest id first."""

    search: Mapping[str, Any]
    records: Records


def write_answers(path: Path, search: Mapping[str, Any], records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as gzipped JSON lines behind a first line `{"search": …}`; the same records give the same bytes."""
    packed = records if isinstance(records, Records) else Records(records)
    _write_lines(path, itertools.chain([_as_json({"search": dict(search)})], packed.lines()))


def read_answers(path: Path) -> KeptAnswers | None:
    """Return kept answers, or None where there are none. Raises `AnswersError` for a file that is something else."""
    if not path.exists():
        return None
    try:
        lines = _read_lines(path)
        search = next(lines)["search"]
        return KeptAnswers(search, Records(lines))
    except (OSError, EOFError, ValueError, KeyError, TypeError, StopIteration, zlib.error) as error:
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
                shutil.rmtree(other, ignore_errors=True)  # another run may do the same

    def read(self) -> list[Records]:
        """Return the pages so far, in the order in which they came."""
        try:
            return [Records(_read_lines(path)) for path in sorted(self._folder.glob("[0-9]*.gz"))]
        except FileNotFoundError:  # another run of the same search has just finished
            return []

    def add(self, number: int, page: Iterable[Mapping[str, Any]]) -> None:
        """Keep page `number` (from 0)."""
        _write_lines(self._folder / f"{number:06d}.jsonl.gz", map(_as_json, page))

    def discard(self) -> None:
        """Remove all pages: the search is done and its answers are kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _age(folder: Path) -> float:
    """Return how many seconds ago anything was last written into a folder."""
    try:
        return time.time() - max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
    except FileNotFoundError:  # another run is removing it
        return 0.0


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))  # ASCII: odd halves of characters survive


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    # Without a name and a time in its header, a gzip file depends on its contents alone.
    with (
        write_atomically(path) as aside,
        aside.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="ascii", newline="\n") as text,
    ):
        for line in lines:
            text.write(f"{line}\n")


def _read_lines(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)
