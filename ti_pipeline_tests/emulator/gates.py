"""Who may ask, and how often: the identification gate, the login, the edge's rate. Not here: what is answered then."""

from __future__ import annotations

import base64
import binascii
import email.utils
import re
import threading
from collections import deque

from ti_pipeline_tests.emulator.answers import Answer, Refusal, refused, web_page

_NAMED = re.compile(r"(?!Mozilla)[^/()]+/\S+ \(by \S+ on e621\)")


def is_identified(user_agent: str) -> bool:
    """Tell whether a User-Agent says which project asks and by whom, as `Project/1.0 (by username on e621)`."""
    return _NAMED.fullmatch(user_agent) is not None


def has_credentials(headers: dict[str, str], query: dict[str, str]) -> bool:
    return "authorization" in headers or "api_key" in query


def check_login(headers: dict[str, str], query: dict[str, str], login: tuple[str, str] | None) -> bool:
    """Return whether somebody is logged in. Raises `Refusal` (401) for a wrong key, whatever is asked for."""
    if not has_credentials(headers, query):
        return False
    if login is None or _credentials(headers, query) != login:
        raise Refusal(401, "SessionLoader::AuthenticationFailure")
    return True


def _credentials(headers: dict[str, str], query: dict[str, str]) -> tuple[str, str] | None:
    if "authorization" not in headers:
        return query.get("login", ""), query["api_key"]
    scheme, _, encoded = headers["authorization"].partition(" ")
    try:
        name, _, key = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (name, key) if scheme.lower() == "basic" else None


class Edge:
    """Lets at most so many requests through in any window of time, and refuses the others in changing forms.

    `limits`: pairs of a count and a window in seconds. Requests that were refused do not count.
    """

    def __init__(self, *limits: tuple[int, float]):
        self._limits = limits or ((2, 1.0),)
        self._passed: deque[float] = deque(maxlen=max(count for count, _ in self._limits))
        self._refusals = 0
        self._lock = threading.Lock()

    def check(self, moment: float, wall_clock: float) -> Answer | None:
        """Let a request through at `moment` (seconds on any steady clock) by returning nothing, or refuse it."""
        with self._lock:
            if all(self._within(moment, seconds) < count for count, seconds in self._limits):
                self._passed.append(moment)
                return None
            self._refusals += 1
            return (
                web_page(503, "Slow down"),
                refused(429, "Rate limit exceeded"),
                refused(429, "Rate limit exceeded", {"Retry-After": "1"}),
                web_page(429, "Slow down", {"Retry-After": http_date(wall_clock + 1)}),
            )[(self._refusals - 1) % 4]

    def _within(self, moment: float, seconds: float) -> int:
        return sum(moment - passed < seconds for passed in self._passed)


def http_date(wall_clock: float) -> str:
    """Return seconds since 1970 as HTTP writes dates."""
    return email.utils.formatdate(wall_clock, usegmt=True)
