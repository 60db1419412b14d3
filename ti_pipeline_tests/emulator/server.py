"""The emulator's HTTP side: identification, login, redirects, pictures, scripted faults and a log of what was asked."""

from __future__ import annotations

import base64
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

from ti_pipeline_tests.emulator.site import Refusal, Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ti_pipeline_tests.emulator.faults import Fault

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_NAMED = re.compile(r"\S+/\S+ \(by \S+ on e621\)")


@dataclass(frozen=True)
class Asked:
    """One request as it arrived; header names are lower case."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class Emulator:
    """A site on 127.0.0.1 with a port of its own, alive inside `with`.

    `files`: picture bytes by md5. `hidden`: ids whose link is null. `login`: (name, key) that may log in.
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]] = (),
        files: Mapping[str, bytes] | None = None,
        *,
        tables: dict[str, list[dict[str, Any]]] | None = None,
        hidden: Iterable[int] = (),
        login: tuple[str, str] | None = None,
    ):
        names = ("tags", "tag_aliases", "tag_implications")
        self.site = Site(list(records), {name: (tables or {}).get(name, []) for name in names}, set(hidden))
        self.files = dict(files or {})
        self.login = login
        self.log: list[Asked] = []
        self._faults: list[tuple[str, Fault]] = []
        self._last: dict[str, bytes] = {}
        self._lock = threading.Lock()
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
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, path: str, fault: Fault, times: int = 1) -> None:
        """Answer the next `times` requests whose path starts with `path` by a fault."""
        with self._lock:
            self._faults += [(path, fault)] * times

    def asked(self, path: str) -> list[Asked]:
        """Return the requests so far whose path starts with `path`, in order."""
        return [entry for entry in self.log if entry.path.startswith(path)]

    def respond(self, asked: Asked) -> tuple[int, dict[str, str], bytes, bool]:
        """Return status, headers, body, and whether to break off in the middle of the body."""
        with self._lock:
            self.log.append(asked)
            fault = next((entry for entry in self._faults if asked.path.startswith(entry[0])), None)
            if fault is not None:
                self._faults.remove(fault)
        if fault is not None and fault[1].again:
            return 200, _JSON, self._last[asked.path], False
        if fault is not None and not fault[1].cut:
            return fault[1].status, fault[1].headers, fault[1].body, False
        status, headers, body = self._truly(asked)
        self._last[asked.path] = body
        return status, headers, body, fault is not None

    def _truly(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        if asked.path.startswith("/data/"):
            body = self.files.get(asked.path.rsplit("/", 1)[1].split(".")[0])
            return (404, {"Content-Type": "text/html"}, b"<html>404</html>") if body is None else (200, {}, body)
        if not _NAMED.fullmatch(asked.headers.get("user-agent", "")):
            return 403, {"Content-Type": "text/html"}, b"<html>Describe yourself in the User-Agent</html>"
        blank = {key for key, value in asked.query.items() if key.startswith("search[") and not value}
        if blank:
            kept = {key: value for key, value in asked.query.items() if key not in blank}
            return 302, {"Location": f"{asked.path}?{urlencode(kept)}"}, b""
        try:
            self._check_login(asked.headers.get("authorization"))
            return 200, _JSON, json.dumps(self.site.answer(asked.path, asked.query, self.url)).encode()
        except Refusal as refusal:
            return refusal.status, _JSON, json.dumps(refusal.body).encode()

    def _check_login(self, authorization: str | None) -> None:
        if authorization is None:
            return
        expected = None if self.login is None else base64.b64encode(":".join(self.login).encode()).decode()
        if authorization != f"Basic {expected}":
            raise Refusal(401, "SessionLoader::AuthenticationFailure")


def _handler_of(emulator: Emulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers)
            status, answer_headers, body, cut = emulator.respond(asked)
            self.send_response(status)
            for name, value in answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Keep quiet: `Emulator.log` remembers."""

    return Handler
