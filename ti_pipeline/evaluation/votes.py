"""Votes: what people said of pictures, kept one small file per sitting so that nobody's vote is lost.

A sitting only appends: undoing is a vote too, that takes an earlier one back. Its file is written whole and renamed on
every vote, so that a killed process loses nothing and several raters never write to one file. Not here: which pictures
are shown (`review_plan`), or what follows from the votes (`people`).
"""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

__all__ = ["Vote", "VoteBook", "VoteError", "gathered_votes", "votes_on"]

_UNDO = "undo"
_RATER = re.compile(r"[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*")
_LONGEST_RATER = 64


class VoteError(ValueError):
    """A rater's name or a file of votes cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Vote:
    """What one rater said of two pictures (`pair`: first, second or tie), or of one (`cell`: match or mismatch).

    `first` of a pair was shown on the left. Of a single picture `second` and `second_cell` are empty.
    """

    kind: Literal["pair", "cell"]
    axis: str
    value: str
    seed: int
    first: str
    first_cell: str
    choice: Literal["first", "second", "tie", "match", "mismatch"]
    second: str = ""
    second_cell: str = ""
    vote: str = field(default_factory=lambda: uuid.uuid4().hex)


class VoteBook:
    """One sitting of one rater; its votes are on disk before `append` returns."""

    def __init__(self, folder: Path, rater: str) -> None:
        """Start a sitting in a study's folder of votes. Raises `VoteError` for a name that is no safe file name."""
        if not _RATER.fullmatch(rater) or len(rater) > _LONGEST_RATER:
            raise VoteError(
                f"rater {rater!r}: a name has letters and digits with single - or _ between them, at most 64"
            )
        self._rater = rater
        self._rows: list[dict[str, object]] = []
        self._path = folder / f"{rater}.{_now():%Y%m%dT%H%M%S}.{uuid.uuid4().hex[:8]}.parquet"

    def append(self, *votes: Vote) -> None:
        """Write votes, all or none. Raises `OSError` when they cannot be written; then they do not count."""
        self._write([asdict(vote) for vote in votes])

    def undo(self, *votes: Vote) -> None:
        """Take votes back, of this or of an earlier sitting."""
        self._write([asdict(vote) | {"kind": _UNDO} for vote in votes])

    def _write(self, new: list[dict[str, object]]) -> None:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [*self._rows, *(row | {"rater": self._rater, "at": _now()} for row in new)]
        with write_atomically(self._path) as aside:
            pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False), aside)
        self._rows = rows


def gathered_votes(folder: Path) -> pd.DataFrame:
    """Return the `votes` table of a study's folder, the earliest vote first; what was undone is left out.

    Where a rater judged the same pictures again, the later vote counts. Raises `VoteError` naming a file that cannot
    be read: leaving its votes out silently would change a verdict.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    names = [column.name for column in TABLES["votes"].columns]
    frames = [_read(path) for path in sorted(folder.glob("*.parquet")) if not path.name.startswith(".")]
    if not frames:
        return TABLES["votes"].empty()
    rows = pd.concat(frames, ignore_index=True).sort_values(["at", "vote"], kind="stable")
    taken_back = set(rows.vote[rows.kind == _UNDO])
    standing = rows[(rows.kind != _UNDO) & ~rows.vote.isin(taken_back)]
    # Shown the other way round it is still the same question.
    question = [
        (row.rater, row.kind, row.axis, *sorted((row.first_cell, row.second_cell))) for row in standing.itertuples()
    ]
    again = pd.Series(question, index=standing.index).duplicated(keep="last")
    return standing[~again][names].reset_index(drop=True)


def votes_on(votes: pd.DataFrame, images: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the votes on pictures of these `evaluation_images`; others judged what has been drawn anew since."""
    there = {"", *(str(cell) for table in images for cell in table.cell)}
    return votes[votes.first_cell.isin(there) & votes.second_cell.isin(there)].reset_index(drop=True)


def _read(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise VoteError(
            f"{path} is no whole file of votes ({error}): restore it, or move it out of the folder to go on without it;"
            " every other sitting has its own file"
        ) from error


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
