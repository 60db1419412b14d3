"""The site's manners as a session: who asks, how often, what is retried, and what no other host may learn.

Not here: what is asked for (`client`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import re
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests
from pyrate_limiter import InMemoryBucket, Limiter, Rate, SQLiteBucket
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from pyrate_limiter import AbstractBucket, RateItem
    from urllib3.response import BaseHTTPResponse

__all__ = ["ANONYMOUS", "FASTEST", "LOOPBACK", "identity", "polite_session", "shared_bucket"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANONYMOUS = f"ti_pipeline/{importlib.metadata.version('ti_pipeline')}"
FASTEST = 2.0  # requests per second: the site's hard limit
# Busy answers: the site's own and those of its edge.
_BUSY = (429, 500, 502, 503, 504, 520, 522, 524, 525)
_SKEW_MS = 2_000  # how far ahead another process's request may lie
_log = logging.getLogger(__name__)
_LONGEST_WAIT = 600  # seconds that a `Retry-After` may ask for; more is waited out in several pieces


def identity(username: str) -> str:
    """Return the User-Agent that the site asks for; it refuses generic ones."""
    return f"{ANONYMOUS} (by {username} on e621)"


def polite_session(user_agent: str, *, site: str, per_second: float, backoff: float) -> requests.Session:
    """Return a session that keeps to `per_second` and waits where the site asks for it.

    The rate is shared by everything that this user runs on this machine. Only rates that the real site would not
    bear, which are for servers on this machine, are kept per process and `site`.
    """
    from requests_ratelimiter import LimiterAdapter

    turns = _shared_turns(_budget(site), per_second)
    retry = _PacedRetry(
        total=5,
        backoff_factor=backoff,
        status_forcelist=_BUSY,
        allowed_methods=("GET",),
        raise_on_status=False,
        retry_after_max=_LONGEST_WAIT,
    )
    retry.turns = turns
    adapter = LimiterAdapter(limiter=turns, per_host=False, limit_statuses=(), max_retries=retry)
    session = _DiscreetSession()
    session.headers["User-Agent"] = user_agent
    session.auth = _no_login  # the client adds its login per request; without this, requests would look into .netrc
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class _Turns(Limiter):
    """A limiter whose threads wait one after the other, so that a wait for all of them is one held lock.

    Threads that waited side by side would wake each other's turns, and each wake-up costs them accuracy.
    """

    def __init__(self, bucket: AbstractBucket, buffer_ms: int) -> None:
        super().__init__(bucket, buffer_ms=buffer_ms)
        self.queue = threading.Lock()

    def try_acquire(self, *args: Any, **options: Any) -> Any:
        with self.queue:
            return super().try_acquire(*args, **options)


def _budget(site: str) -> str:
    """Return whose patience a request costs: that of one site on the web, or of one server on this machine."""
    parts = urlsplit(site)
    return f"-{parts.port}" if parts.hostname in LOOPBACK else ""


@functools.cache
def _shared_turns(budget: str, per_second: float) -> _Turns:
    """Return the one limiter of this process: evenly spaced requests, whichever client, thread or host they are for."""
    interval = max(1, round(1000 / per_second))
    rates = [Rate(1, interval)]
    if per_second > FASTEST:
        return _Turns(InMemoryBucket(rates), buffer_ms=0)
    user = os.getuid() if hasattr(os, "getuid") else ""  # where there are no numbers, the folder is the user's own
    path = Path(tempfile.gettempdir()) / f"ti_pipeline-requests-{user}{budget}.sqlite"
    return _Turns(shared_bucket(path, rates), buffer_ms=interval // 20)


class _SharedBucket(SQLiteBucket):
    """The requests of all processes, by the machine's clock; a clock that was set back makes nobody wait for it."""

    def put(self, item: RateItem) -> bool:
        """Take a turn if one is free; what lies in the future is forgotten first."""
        with self.lock:
            newest = self.conn.execute(f"SELECT MAX(item_timestamp) FROM '{self.table}'").fetchone()[0]  # noqa: S608
            ahead = 0 if newest is None else int(newest) - item.timestamp
            if ahead > _SKEW_MS:
                _log.warning("the clock was set back by %.0f s: requests go on at the usual pace", ahead / 1000)
                self.conn.execute(f"DELETE FROM '{self.table}' WHERE item_timestamp > ?", (item.timestamp,))  # noqa: S608
                self.conn.commit()
            return super().put(item)


def shared_bucket(path: Path, rates: list[Rate]) -> SQLiteBucket:
    """Return the bucket in a file that all processes share; a damaged file is told of and made anew."""
    try:
        return _opened(path, rates)
    except sqlite3.DatabaseError as error:
        if re.search("locked|readonly|unable to open|full", str(error)):  # nothing is wrong with the file
            raise
        _log.warning("%s, which keeps the pace of requests, is damaged (%s): it is made anew", path, error)
        for ending in ("", "-wal", "-shm"):
            path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
        return _opened(path, rates)


def _opened(path: Path, rates: list[Rate]) -> SQLiteBucket:
    bucket = _SharedBucket.init_from_file(rates, db_path=str(path), use_file_lock=True)
    found = bucket.conn.execute("PRAGMA quick_check").fetchone()[0]
    if found != "ok":
        bucket.close()  # type: ignore[no-untyped-call]
        raise sqlite3.DatabaseError(str(found))
    return bucket


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _PacedRetry(Retry):
    """urllib3 retries below the adapter's rate limit; here each retry waits for its turn as well."""

    turns: _Turns | None = None

    def new(self, **kw: Any) -> Self:
        other = super().new(**kw)
        other.turns = self.turns
        return other

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        if self.turns is None:
            super().sleep(response)
            return
        # What the site asks of one thread it asks of all: none gets a turn until the wait is over.
        told = response is not None and "Retry-After" in response.headers
        with self.turns.queue if told else contextlib.nullcontext():
            super().sleep(response)
        self.turns.try_acquire("retry")

    def parse_retry_after(self, retry_after: str) -> float:
        """Return seconds from a number or a date; for anything else 0, which means the usual backoff."""
        try:
            return super().parse_retry_after(retry_after)
        except InvalidHeader:
            return 0.0


class _DiscreetSession(requests.Session):
    """A session whose redirects to another host carry neither login nor name."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if urlsplit(prepared_request.url)[:2] != urlsplit(response.request.url)[:2]:
            prepared_request.headers.pop("Authorization", None)
            prepared_request.headers["User-Agent"] = ANONYMOUS
