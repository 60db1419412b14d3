"""What can go wrong with one answer, by name. Not here: when it does (`storm`, `Emulator.fail`), edits (`changes`).

A `Fault` is an answer instead of the true one, a `Twist` makes one out of it. `PASSING` ones pass: who asks again gets
the truth, so a correct client survives them without a trace. `STOPPING` ones rightly end a run, and the next goes on.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline_tests.emulator.answers import HTML, JSON, Answer, refused, web_page
from ti_pipeline_tests.emulator.gates import http_date
from ti_pipeline_tests.emulator.paging import page_before

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ti_pipeline_tests.emulator.answers import Request
    from ti_pipeline_tests.emulator.server import Emulator

PAGES = frozenset({"posts", "list"})
API = PAGES | {"post", "count", "exports"}
FILES = frozenset({"file", "dump"})
EVERYTHING = API | FILES


@dataclass(frozen=True)
class Fault:
    """An answer instead of the true one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    kinds: frozenset[str] = EVERYTHING

    def answer(self, request: Request, emulator: Emulator) -> Answer:
        return Answer(self.status, self.headers, self.body)


@dataclass(frozen=True)
class Twist:
    """An answer made out of the request and what the emulator would truly say; for requests of some kinds."""

    make: Callable[[Request, Emulator], Answer]
    kinds: frozenset[str] = EVERYTHING

    def answer(self, request: Request, emulator: Emulator) -> Answer:
        return self.make(request, emulator)


def _fixed(answer: Answer, kinds: frozenset[str] = EVERYTHING) -> Fault:
    return Fault(answer.status, answer.body, answer.headers, kinds)


def _broken_off(part: float, end: str) -> Twist:
    """Break the line off in the middle of the true answer, whose head promised all of it."""
    return Twist(lambda request, emulator: _spoilt(emulator.truly(request), part=part, end=end))


def _silent(end: str) -> Twist:
    return Twist(lambda request, emulator: Answer(end=end, silent=True))


def _rewritten(change: Callable[[bytes], bytes], kinds: frozenset[str]) -> Twist:
    """Change the true body into another, which arrives in good order."""

    def make(request: Request, emulator: Emulator) -> Answer:
        true = emulator.truly(request)
        return _spoilt(true, body=change(true.body)) if true.status in {200, 206} else true

    return Twist(make, kinds)


def _retold(change: Callable[[Any], Any], kinds: frozenset[str]) -> Twist:
    """Change what the true JSON says."""
    return _rewritten(lambda body: json.dumps(change(json.loads(body))).encode(), kinds)


def _spoilt(true: Answer, **changes: Any) -> Answer:
    return dataclasses.replace(true, whole=False, **changes)


def _busy(form: str, wait: Callable[[Emulator], str]) -> Twist:
    def make(request: Request, emulator: Emulator) -> Answer:
        headers = {"Retry-After": wait(emulator)}
        return refused(429, "Rate limit", headers) if form == "json" else web_page(503, "Slow down", headers)

    return Twist(make)


def _cut_gzip(request: Request, emulator: Emulator) -> Answer:
    """Send half of a compressed answer in good order; who cannot read gzip gets half of the plain one."""
    true = emulator.truly(request)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return _spoilt(true, body=true.body[: len(true.body) // 2])
    packed = gzip.compress(true.body, mtime=0)
    return _spoilt(true, body=packed[: len(packed) // 2], headers={**true.headers, "Content-Encoding": "gzip"})


def _again(request: Request, emulator: Emulator) -> Answer:
    """Answer with the page that came before this one; a first page has none, and comes as it is."""
    if "page" not in request.query:
        return emulator.truly(request)
    return emulator.truly(dataclasses.replace(request, query=page_before(request.query)))


def _without_range(request: Request, emulator: Emulator) -> Answer:
    headers = {name: value for name, value in request.headers.items() if name != "range"}
    return emulator.truly(dataclasses.replace(request, headers=headers))


def _to_stranger(request: Request, emulator: Emulator) -> Answer:
    return Answer(302, {"Location": emulator.stranger_url + request.target})


def _to_itself(request: Request, emulator: Emulator) -> Answer:
    return Answer(302, {"Location": request.target})


def _emptied(rows: Any) -> Any:
    return {key: [] for key in rows} if isinstance(rows, dict) else []


def _doubled(rows: Any) -> Any:
    """Say everything twice, as when posts move to the next page while it is read."""
    return {key: [*value, *value] for key, value in rows.items()} if isinstance(rows, dict) else [*rows, *rows]


def _novel(answer: Any) -> Any:
    """Add keys and a category that nobody has heard of to all posts."""
    for post in answer.get("posts") or [answer.get("post")]:
        if post:
            post |= {"heard_of": None, "numbers": {"a": [1.5, None]}, "tags": {**post["tags"], "novelty": []}}
            post["file"] |= {"hash": {"sha3": "0" * 64}}
            post["flags"] |= {"novel": True}
    return answer


def _flipped(body: bytes) -> bytes:
    """Damage one byte in the middle."""
    place = len(body) // 2
    return body[:place] + bytes(255 - byte for byte in body[place : place + 1]) + body[place + 1 :]


_PAGE = web_page(503, "Please wait").body
_ERRORS = (500, 502, 503, 520, 522, 524, 525)

FAULTS: dict[str, Fault | Twist] = {
    "429": _fixed(refused(429, "Rate limit")),
    "429 wait seconds": _busy("json", lambda emulator: str(emulator.retry_after)),
    "429 wait until": _busy("json", lambda emulator: http_date(emulator.clock() + emulator.retry_after)),
    "503 wait seconds": _busy("html", lambda emulator: str(emulator.retry_after)),
    **{f"{status} json": _fixed(refused(status, "Internal error")) for status in _ERRORS},
    **{f"{status} html": Fault(status, _PAGE, HTML) for status in _ERRORS},
    "200 html": Fault(200, _PAGE, HTML),
    "stalled": _silent("stall"),
    "stalled midway": _broken_off(0.5, "stall"),
    "reset": _silent("reset"),
    "reset midway": _broken_off(0.5, "reset"),
    "cut": _broken_off(0.5, "close"),
    "redirected": Twist(_to_itself),
    "truncated json": _rewritten(lambda body: body[: len(body) // 2], API),
    "malformed json": _rewritten(lambda body: body.replace(b":", b"=>", 1), API),
    "cut gzip": Twist(_cut_gzip, API),
    "empty page": _retold(_emptied, PAGES),
    "same page": Twist(_again, PAGES),
    "doubled": _retold(_doubled, PAGES),
    "unknown keys": _retold(_novel, frozenset({"posts", "post"})),
    "short file": _rewritten(lambda body: body[: len(body) // 2], FILES),
    "no bytes": _rewritten(lambda body: b"", FILES),
    "another file": _rewritten(lambda body: body[::-1] + b"\0", FILES),
    "damaged file": _rewritten(_flipped, FILES),
    "range ignored": Twist(_without_range, FILES),
    "file elsewhere": Twist(_to_stranger, frozenset({"file"})),
    "away": Twist(_to_stranger, API),
    "401": _fixed(refused(401, "SessionLoader::AuthenticationFailure"), API),
    "403": _fixed(refused(403, "Access Denied"), API),
    "403 html": _fixed(web_page(403, "Access Denied"), API),
    "422": _fixed(refused(422, "Your search is too broad"), frozenset({"posts", "count"})),
    "file refused": _fixed(web_page(403, "Forbidden"), FILES),
    "file gone": _fixed(web_page(404, "Not Found"), FILES),
}
STOPPING = ("away", "401", "403", "403 html", "422", "file refused", "file gone")
PASSING = tuple(name for name in FAULTS if name not in STOPPING)

BUSY = Fault(429, refused(429, "Rate limit").body, {**JSON, "Retry-After": "0"})
UNAVAILABLE = FAULTS["503 html"]
PAGE_INSTEAD = FAULTS["200 html"]
CUT = FAULTS["cut"]


def redirect_to(url: str) -> Fault:
    return Fault(302, b"", {"Location": url})


def same_again() -> Twist:
    return Twist(_again)
