"""What a log proves about a client: its rate, its name, what it asked for twice, whom it told its key."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

from ti_pipeline_tests.emulator.gates import is_identified

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ti_pipeline_tests.emulator.log import Entry


def smallest_gap(entries: Iterable[Entry]) -> float:
    """Return the shortest time between two arrivals, in seconds; infinite for fewer than two."""
    times = sorted(entry.time for entry in entries)
    return min((later - earlier for earlier, later in itertools.pairwise(times)), default=float("inf"))


def most_within(entries: Iterable[Entry], seconds: float = 1.0) -> int:
    """Return the most arrivals in any window of time; one that is exactly `seconds` later is outside."""
    times = sorted(entry.time for entry in entries)
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def unidentified(entries: Iterable[Entry]) -> list[Entry]:
    """Return the requests to the site or its pictures that do not say who asks; strangers need not know."""
    return [entry for entry in entries if entry.server != "stranger" and not is_identified(entry.user_agent)]


def delivered_twice(entries: Iterable[Entry]) -> dict[str, int]:
    """Return how often each file was delivered whole that was so more than once, by path.

    A file counts when its last byte is sent, at once or at the end of several ranges. A client that is killed while a
    file is under way may rightly ask again: allow one per kill, or use `asked_again`.
    """
    counts = collections.Counter(entry.path for entry in entries if entry.whole)
    return {path: count for path, count in counts.items() if count > 1}


def asked_again(entries: Iterable[Entry], finished: Mapping[str, float]) -> list[Entry]:
    """Return the requests for files that were finished by then: `finished` has the time of each, by md5."""
    return [
        entry
        for entry in entries
        if entry.path.startswith("/data/")
        and entry.time > finished.get(entry.path.rsplit("/", 1)[1].split(".")[0], float("inf"))
    ]


def credentials_astray(entries: Iterable[Entry]) -> list[Entry]:
    """Return the requests that carried a login to a host that is not the site."""
    return [entry for entry in entries if entry.authorized and entry.server not in {"site", "safe"}]
