"""What can go wrong on the way: scripted, so that a test says which request meets which misfortune."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """An answer instead of the true one; `cut` sends half of the true one, `again` the last one of that address."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    again: bool = False


_PAGE = b"<!DOCTYPE html><html><head><title>e621</title></head><body>Please wait</body></html>"
_HTML = {"Content-Type": "text/html; charset=utf-8"}

BUSY = Fault(429, b'{"success":false,"reason":"Rate limit"}', {"Retry-After": "0", "Content-Type": "application/json"})
UNAVAILABLE = Fault(503, _PAGE, _HTML)
PAGE_INSTEAD = Fault(200, _PAGE, _HTML)
CUT = Fault(cut=True)


def redirect_to(url: str) -> Fault:
    return Fault(302, b"", {"Location": url})


def same_again() -> Fault:
    return Fault(again=True)
