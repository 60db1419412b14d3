"""The site's manners as a session: who asks, how often, what is retried, and what no other host may learn.

Not here: what is asked for (`client`).
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import requests
from pyrate_limiter import Limiter, Rate
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

__all__ = ["ANONYMOUS", "LOOPBACK", "identity", "polite_session"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ANONYMOUS = f"ti_pipeline/{importlib.metadata.version('ti_pipeline')}"
# Busy answers: the site's own and those of its edge.
_BUSY = (429, 500, 502, 503, 504, 520, 522, 524, 525)


def identity(username: str) -> str:
    """Return the User-Agent that the site asks for; it refuses generic ones."""
    return f"{ANONYMOUS} (by {username} on e621)"


def polite_session(user_agent: str, *, per_second: float, backoff: float) -> requests.Session:
    """Return a session that keeps to `per_second` (shared by the process) and waits where the site asks for it."""
    from requests_ratelimiter import LimiterAdapter

    limiter = _shared_limiter(per_second)
    retry = _PacedRetry(
        total=5,
        backoff_factor=backoff,
        status_forcelist=_BUSY,
        allowed_methods=("GET",),
        raise_on_status=False,
        retry_after_max=600,
    )
    retry.limiter = limiter
    adapter = LimiterAdapter(limiter=limiter, per_host=False, limit_statuses=(), max_retries=retry)
    session = _DiscreetSession()
    session.headers["User-Agent"] = user_agent
    session.auth = _no_login  # the client adds its login per request; without this, requests would look into .netrc
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


@functools.cache
def _shared_limiter(per_second: float) -> Limiter:
    """Return the one limiter of this rate: evenly spaced requests, whichever client, thread or host they belong to."""
    return Limiter(Rate(1, max(1, round(1000 / per_second))))


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class _PacedRetry(Retry):
    """urllib3 retries below the adapter's rate limit; here each retry waits for its turn as well."""

    limiter: Limiter | None = None

    def new(self, **kw: Any) -> Self:
        other = super().new(**kw)
        other.limiter = self.limiter
        return other

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        super().sleep(response)
        if self.limiter is not None:
            self.limiter.try_acquire("retry")


class _DiscreetSession(requests.Session):
    """A session whose redirects to another host carry neither login nor name."""

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        if urlsplit(prepared_request.url)[:2] != urlsplit(response.request.url)[:2]:
            prepared_request.headers.pop("Authorization", None)
            prepared_request.headers["User-Agent"] = ANONYMOUS
