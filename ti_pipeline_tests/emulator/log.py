"""What was asked and answered, in memory and as a file of JSON lines. Not here: what it proves (`proofs`)."""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ti_pipeline_tests.emulator.gates import has_credentials

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline_tests.emulator.answers import Request


@dataclass
class Entry:
    """One request and what became of it; `time` in seconds since 1970 when it arrived, `number` in that order.

    `sent`: bytes of the body; `whole`: the last byte of a true file was sent; `fault`: what was done to it. The file
    leaves out `headers` and every credential.
    """

    number: int
    time: float
    server: str
    host: str
    path: str
    query: dict[str, str]
    user_agent: str
    authorized: bool
    range: str | None
    status: int = 0
    sent: int = 0
    whole: bool = False
    fault: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False, compare=False)


class Log:
    """Keeps entries in `entries`, and where a path is given appends each to that file, flushed line by line."""

    def __init__(self, path: Path | None = None):
        self.entries: list[Entry] = []
        self._file = path.open("a", encoding="utf-8") if path else None
        self._number = 0
        self._lock = threading.Lock()

    def arrived(self, request: Request, time: float) -> Entry:
        """Note a request that arrived just now."""
        headers = request.headers
        with self._lock:
            self._number += 1
            entry = Entry(
                number=self._number,
                time=time,
                server=request.server,
                host=headers.get("host", ""),
                path=request.path,
                query=request.query,
                user_agent=headers.get("user-agent", ""),
                authorized=has_credentials(headers, request.query),
                range=headers.get("range"),
                headers=headers,
            )
            self.entries.append(entry)
        return entry

    def write(self, entry: Entry) -> None:
        """Write an entry's line; a later line of the same number stands for the earlier one."""
        line = {key: value for key, value in vars(entry).items() if key != "headers"}
        line["query"] = {key: value for key, value in entry.query.items() if key != "api_key"}
        with self._lock:
            if self._file is not None and not self._file.closed:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()


def read_log(path: Path) -> list[Entry]:
    """Read a log's file, in the order of arrival; a last line that was cut off is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    names = {name.name for name in dataclasses.fields(Entry)} - {"headers"}
    rows = [json.loads(line) for line in lines]
    entries = {row["number"]: Entry(**{name: row[name] for name in names}) for row in rows}
    return [entries[number] for number in sorted(entries)]
