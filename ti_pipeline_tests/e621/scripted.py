"""A server on this machine whose every answer is a function's: for what the emulator does not do (yet).

Not here: the site's behaviour (the emulator's business).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Request:
    """One request as it arrived; header names are lower case, `moment` is on the monotonic clock."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    moment: float


@dataclass(frozen=True)
class Answer:
    """What to send; of the body only the first `sent` bytes, then `stall` keeps the line open or it is cut."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    stall: bool = False


class Scripted:
    """Answers with `respond(request, number of the request from 0)`, alive inside `with`; keeps a log."""

    def __init__(self, respond: Callable[[Request, int], Answer]):
        self.log: list[Request] = []
        self._respond = respond
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.log.append(request)
            number = len(self.log) - 1
        return self._respond(request, number)

    def wait_for_the_end(self) -> None:
        self._end.wait()


def _handler_of(server: Scripted) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.answer(Request(parts.path, dict(parse_qsl(parts.query)), headers, time.monotonic()))
            self.send_response(answer.status)
            for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[: answer.sent])
            self.wfile.flush()
            if answer.stall:
                server.wait_for_the_end()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Keep quiet: `Scripted.log` remembers."""

    return Handler
