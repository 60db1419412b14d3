"""The emulator's sockets: HTTP/1.1 with open connections, and every bad way to end one. Not here: what is answered."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from ti_pipeline_tests.emulator.answers import Answer, Request

if TYPE_CHECKING:
    from ti_pipeline_tests.emulator.log import Entry
    from ti_pipeline_tests.emulator.server import Emulator

_BLOCK = 1 << 16
_WORTH_PACKING = 1000
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, no seconds: closing sends a reset


class Listener:
    """One port of the emulator: a host with a `name` of its own (site, safe, pictures, stranger)."""

    def __init__(self, emulator: Emulator, name: str, port: int, stall: float | None):
        self.emulator, self.name, self.stall = emulator, name, stall
        self.ended = threading.Event()
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, hang up on everyone, and wait until all threads are gone."""
        self.ended.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.hang_up()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # they are waited for, so that nothing is answered after the end
    request_queue_size = 128

    def __init__(self, listener: Listener, port: int):
        self.listener = listener
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; one that is to be reset must not say goodbye first."""
        with self._lock:
            self._open.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(_RESET)) == _RESET:
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def hang_up(self) -> None:
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that hang up: being killed is their business. Other errors are the emulator's."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Ask the emulator, and deliver."""
        listener, parts = self.server.listener, urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        answer, entry = listener.emulator.respond(Request(listener.name, self.path, parts.path, query, headers))
        self.deliver(_packed(answer, headers), entry)

    def deliver(self, answer: Answer, entry: Entry) -> None:
        """Send an answer as far as it goes; its log line comes first, and is corrected if the client hangs up."""
        note = self.server.listener.emulator.note
        length = 0 if answer.silent else int(len(answer.body) * (1 if answer.part is None else answer.part))
        entry.status, entry.sent = 0 if answer.silent else answer.status, length
        entry.whole = answer.whole and length == len(answer.body)
        note(entry)
        sent = 0 if answer.silent else self.send(answer, length)
        if sent < length:
            entry.sent, entry.whole = sent, False
            note(entry)
        self.close_connection |= bool(answer.end) or sent < length
        if answer.end == "stall":
            self.server.listener.ended.wait(self.server.listener.stall)
        if answer.end in {"stall", "reset"}:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def send(self, answer: Answer, length: int) -> int:
        """Send head and `length` bytes of the body; return how many were sent before the client hung up."""
        self.send_response(answer.status)
        for key, value in ({"Content-Length": str(len(answer.body))} | dict(answer.headers)).items():
            self.send_header(key, value)
        sent = 0
        try:
            self.end_headers()
            while sent < length:
                self.wfile.write(answer.body[sent : min(sent + _BLOCK, length)])
                sent = min(sent + _BLOCK, length)
            self.wfile.flush()
        except OSError:
            return max(sent - 1, 0)
        return sent

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep quiet: the emulator's log remembers."""


def _packed(answer: Answer, headers: dict[str, str]) -> Answer:
    """Compress an answer of some length for clients that take it so; pictures and prepared bodies stay as they are."""
    is_data = answer.headers.get("Content-Type", "").startswith("application/json")
    wanted = "gzip" in headers.get("accept-encoding", "") and "Content-Encoding" not in answer.headers
    if not (is_data and wanted and len(answer.body) >= _WORTH_PACKING):
        return answer
    body = gzip.compress(answer.body, compresslevel=1, mtime=0)
    return dataclasses.replace(answer, body=body, headers={**answer.headers, "Content-Encoding": "gzip"})
