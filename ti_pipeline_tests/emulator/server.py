"""The emulator itself: from a request to an answer, through the gates and faults. Not here: sockets (`listener`)."""

from __future__ import annotations

import collections
import threading
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from ti_pipeline_tests.emulator.answers import Answer, Refusal, Request, as_json, web_page
from ti_pipeline_tests.emulator.faults import FAULTS, FILES, Fault, Twist
from ti_pipeline_tests.emulator.gates import Edge, check_login, is_identified
from ti_pipeline_tests.emulator.listener import Listener
from ti_pipeline_tests.emulator.log import Entry, Log
from ti_pipeline_tests.emulator.pictures import send_file
from ti_pipeline_tests.emulator.site import Site
from ti_pipeline_tests.emulator.storm import Storm, address_of

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ti_pipeline_tests.emulator.changes import Change

Misfortune = str | Fault | Twist


class Emulator:
    """A site on 127.0.0.1, alive inside `with`; each of its hosts is a port of its own, opened when first spoken of.

    `files`: picture bytes by md5. `hidden`: ids whose link only members see. `login`: (name, key) that may log in.
    `pictures_apart`: links lead to a picture host of its own. `edge`: the rate that is let through (any, without one).
    `storm`: faults that come by themselves. `now`: the moment ages count from. `clock`: seconds since 1970, for the log
    and the edge. `stall`: seconds that a stalled answer keeps the line before it is reset (without: to the end).
    `retry_after`: seconds that busy answers ask to wait.
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        *,
        tables: Mapping[str, list[dict[str, Any]]] | None = None,
        hidden: Iterable[int] = (),
        login: tuple[str, str] | None = None,
        pictures_apart: bool = False,
        edge: Edge | None = None,
        storm: Storm | None = None,
        now: datetime.datetime | None = None,
        clock: Callable[[], float] | None = None,
        stall: float | None = None,
        retry_after: int = 0,
        log_file: Path | None = None,
        port: int = 0,
    ):
        self.site = Site(records, files or {}, tables=tables or {}, hidden=hidden, now=now)
        self.login, self.storm, self.clock, self.retry_after = login, storm, clock or _steady_clock(), retry_after
        self._pictures_apart, self._edge, self._stall = pictures_apart, edge, stall
        self._log = Log(log_file)
        self._scripted: list[tuple[str, Misfortune]] = []
        self._changes: list[tuple[int, Change]] = []
        self._pages, self._over = 0, False
        self._attempts: collections.Counter[str] = collections.Counter()
        self._lock = threading.RLock()
        self._port, self._listeners = port, dict[str, Listener]()

    @property
    def url(self) -> str:
        """The site's own address."""
        return self._address("site")

    @property
    def safe_url(self) -> str:
        """The safe host's address: nothing but safe posts in searches, no link to any other."""
        return self._address("safe")

    @property
    def pictures_url(self) -> str:
        """The address that links lead to."""
        return self._address("pictures" if self._pictures_apart else "site")

    @property
    def stranger_url(self) -> str:
        """Another host, whose business nothing is; it has the pictures, and of everything else nothing."""
        return self._address("stranger")

    @property
    def log(self) -> list[Entry]:
        """All requests so far, in the order of arrival."""
        return self._log.entries

    @property
    def files(self) -> dict[str, bytes]:
        """Picture bytes by md5."""
        return self.site.files

    def __enter__(self) -> Self:
        self._address("site")
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            listeners, self._over = list(self._listeners.values()), True
        for listener in listeners:
            listener.stop()
        self._log.close()

    def fail(self, path: str, fault: Misfortune, times: int = 1) -> None:
        """Let the next `times` requests whose path starts with `path` meet a fault, given itself or by name."""
        with self._lock:
            self._scripted += [(path, fault)] * times

    def after(self, pages: int, change: Change) -> None:
        """Apply a change once `pages` pages of posts have been answered truly, from the start on; 0 is now."""
        with self._lock:
            self._changes.append((pages, change))
            self._change()

    @property
    def pending_changes(self) -> int:
        """How many changes still wait for their page."""
        with self._lock:
            return len(self._changes)

    def asked(self, path: str) -> list[Entry]:
        """Return the requests so far whose path starts with `path`, in order."""
        return [entry for entry in self.log if entry.path.startswith(path)]

    def respond(self, request: Request) -> tuple[Answer, Entry]:
        """Answer a request, be it by a fault, and note both."""
        entry = self._log.arrived(request, self.clock())
        with self._lock:
            refused = self._edge.check(entry.time, self.clock()) if self._edge and not _strange(request) else None
            name, fault = (None, None) if refused else self._misfortune(request)
            if refused:
                answer, entry.fault = refused, "edge"
            elif fault is None:
                answer = self.truly(request)
                self._turn_the_page(request, answer)
            else:
                answer, entry.fault = fault.answer(request, self), name
        return answer, entry

    def note(self, entry: Entry) -> None:
        """Keep an entry whose answer has been decided, or corrected."""
        self._log.write(entry)

    def truly(self, request: Request) -> Answer:
        """Return what the site would say in fair weather."""
        if request.kind == "file":
            return send_file(request, self.site)
        if request.server == "stranger":
            return as_json({"posts": [], "tags": []})
        if request.server == "pictures":
            return web_page(404, "Not Found")
        if not is_identified(request.headers.get("user-agent", "")):
            return web_page(403, "Please describe your project and yourself in the User-Agent")
        try:
            return self._for_the_identified(request)
        except Refusal as refusal:
            return refusal.answer

    def _for_the_identified(self, request: Request) -> Answer:
        logged_in = check_login(request.headers, request.query, self.login)
        if request.kind in FILES:
            return send_file(request, self.site)
        blank = any(key.startswith("search[") and not value for key, value in request.query.items())
        if blank:
            return Answer(302, {"Location": _cleaned(request)})
        own = self._address(request.server)
        return as_json(self.site.answer(request, own=own, links=self.pictures_url, anonymous=not logged_in))

    def _misfortune(self, request: Request) -> tuple[str | None, Fault | Twist | None]:
        """Return the fault that this request meets: the script's first, else the storm's."""
        for place, (path, scripted) in enumerate(self._scripted):
            if request.path.startswith(path):
                del self._scripted[place]
                return (scripted, FAULTS[scripted]) if isinstance(scripted, str) else ("scripted", scripted)
        if self.storm is None or _strange(request):
            return None, None
        address = address_of(request)
        self._attempts[address] += 1
        name = self.storm.draw(request, self._attempts[address] - 1)
        return name, FAULTS.get(name or "")

    def _turn_the_page(self, request: Request, answer: Answer) -> None:
        if request.kind == "posts" and answer.status == 200:
            self._pages += 1
            self._change()

    def _change(self) -> None:
        due = [change for pages, change in self._changes if pages <= self._pages]
        self._changes = [(pages, change) for pages, change in self._changes if pages > self._pages]
        for change in due:
            change(self.site)

    def _address(self, server: str) -> str:
        with self._lock:
            if server not in self._listeners:
                if self._over:
                    raise RuntimeError(f"the emulator is over, and never opened its {server} host")
                port = self._port if server == "site" else 0
                self._listeners[server] = Listener(self, server, port, self._stall)
                self._listeners[server].start()
            return self._listeners[server].url


def _strange(request: Request) -> bool:
    return request.server == "stranger"


def _cleaned(request: Request) -> str:
    """Return the address without its blank search parameters."""
    kept = {key: value for key, value in request.query.items() if value or not key.startswith("search[")}
    return f"{request.path}?{urlencode(kept)}" if kept else request.path


def _steady_clock() -> Callable[[], float]:
    """Return seconds since 1970, counted so that setting the machine's clock does not move them."""
    began = time.time() - time.monotonic()
    return lambda: began + time.monotonic()
