"""The client: asks e621 politely, one request per second, under the user's name.

Here: the protocol (paging, limits, errors in words, downloads). Not here: what is done with records (`records`), or
which study asks (`sources`). Source: the site's API help and server, as of mid-2026.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import requests

__all__ = ["DownloadError", "E621Client", "SiteError"]

PAGE_LIMIT = 320
LAST_NUMBERED_PAGE = 750
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_ADVICE = {
    401: "the API key or user name is wrong: check TI_E621_USERNAME and TI_E621_API_KEY",
    403: "the site refuses: check that TI_E621_USERNAME is your name there and that the key may read",
    404: "the site does not know this",
    410: "the search goes beyond what the site pages through: narrow source.query",
    422: "the site does not accept this search: at most 40 tags, and narrower wildcards in source.query",
}


class SiteError(RuntimeError):
    """The site did not answer as it should; the message says what was asked, what came, and what to do."""


class DownloadError(RuntimeError):
    """A picture did not arrive whole; the message is the reason kept in the `images` table."""


class E621Client:
    """One session with the site.

    `per_second` may be raised to the site's hard limit of 2, not beyond, except against an emulator on this machine.
    """

    def __init__(
        self,
        url: str = "https://e621.net",
        *,
        username: str,
        api_key: str | None = None,
        per_second: float = 1.0,
        timeout: float = 30.0,
    ) -> None:
        """Prepare a session. Raises `SiteError` without a user name, `ValueError` for a rate above the site's limit."""
        if not username.strip():
            raise SiteError("e621 wants to know who asks: set TI_E621_USERNAME to your user name there")
        host = urlsplit(url).hostname
        if per_second > 2 and host not in _LOOPBACK:
            raise ValueError(f"{per_second} requests per second are more than the site's limit of 2")
        self.url, self._host, self._timeout = url.rstrip("/"), host, timeout
        self._login = (username, api_key) if api_key else None
        self._session = _session(username, per_second)

    def search(self, query: str, limit: int) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of post records for a search as on the site, at most `limit` posts in all.

        Pages by id (`b<ID>`), which neither skips nor doubles while posts come and go; an `order:` needs numbered
        pages, where posts seen before are dropped. Ends on an empty page, never on a short one.
        Raises `SiteError`.
        """
        ordered = re.search(r"(^|\s)order:", query) is not None
        seen: set[int] = set()
        page: str | None = "1" if ordered else None
        while len(seen) < limit:
            parameters = {"tags": query, "limit": str(PAGE_LIMIT)} | ({} if page is None else {"page": page})
            answer = self._json("/posts.json", parameters)
            if not isinstance(answer, dict) or not isinstance(answer.get("posts"), list):
                raise SiteError(f"{self.url}/posts.json did not answer with posts: {str(answer)[:200]}")
            records = answer["posts"]
            fresh = [record for record in records if record.get("id") not in seen]
            if not records or (not fresh and not ordered):
                return  # empty, or the same page again
            yield fresh[: limit - len(seen)]
            seen |= {record["id"] for record in fresh}
            if ordered:
                if int(page or 1) >= LAST_NUMBERED_PAGE:
                    return
                page = str(int(page or 1) + 1)
            else:
                page = f"b{min(record['id'] for record in records)}"

    def count(self, query: str) -> int | None:
        """Return how many posts a search finds, or None where the site does not tell."""
        answer = self._json("/posts/count.json", {"tags": query})
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else None

    def pages(
        self, path: str, envelope: str, parameters: Mapping[str, str], *, most_pages: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a numbered listing such as `/tags.json` until an empty page."""
        for page in range(1, most_pages + 1):
            answer = self._json(path, {**parameters, "limit": str(PAGE_LIMIT), "page": str(page)})
            rows = answer.get(envelope, []) if isinstance(answer, dict) else answer
            if not rows:
                return
            yield from rows

    def download(self, url: str, target: Path, *, md5: str | None, size: int | None) -> None:
        """Store a picture under `target` once it is whole: stated size and md5 must match.

        Raises `DownloadError` with the reason. Credentials are sent to no other host than the API's.
        """
        import requests

        try:
            with self._session.get(url, stream=True, timeout=self._timeout) as answer:
                if answer.status_code in {403, 404, 410}:
                    raise DownloadError(f"gone ({answer.status_code})")
                if not answer.ok:
                    raise DownloadError(f"the site answered {answer.status_code}")
                with write_atomically(target) as aside:
                    _store(answer, aside, md5, size)
        except requests.RequestException as error:
            raise DownloadError(f"connection failed ({type(error).__name__})") from error

    def _json(self, path: str, parameters: Mapping[str, str]) -> Any:
        import requests

        address = f"{self.url}{path}"
        try:
            answer = self._get_staying_here(address, parameters)
        except requests.RequestException as error:
            raise SiteError(
                f"{address}: no answer ({type(error).__name__}); check the connection and run again"
            ) from error
        if answer.status_code != 200:
            advice = _ADVICE.get(answer.status_code, "try again later")
            raise SiteError(f"{address} answered {answer.status_code}{_reason(answer)}: {advice}")
        if "json" not in answer.headers.get("Content-Type", ""):
            raise SiteError(f"{address} answered with a web page instead of data: the site is busy; try again later")
        try:
            return answer.json()
        except ValueError as error:
            raise SiteError(f"{address} answered with broken data ({error}); try again") from error

    def _get_staying_here(self, address: str, parameters: Mapping[str, str]) -> requests.Response:
        """GET, following redirects within the host only, so that credentials stay with it."""
        answer = self._session.get(
            address, params=dict(parameters), auth=self._login, timeout=self._timeout, allow_redirects=False
        )
        for _ in range(5):
            if not answer.is_redirect:
                return answer
            address = urljoin(address, answer.headers["Location"])
            if urlsplit(address).hostname != self._host:
                raise SiteError(f"{self.url} sends us to another host ({urlsplit(address).hostname}); not followed")
            answer = self._session.get(address, auth=self._login, timeout=self._timeout, allow_redirects=False)
        raise SiteError(f"{self.url} redirects in a circle")


def _session(username: str, per_second: float) -> requests.Session:
    """Return a session with the site's manners: rate limit, patience with busy answers, identification."""
    import requests
    from requests_ratelimiter import LimiterAdapter
    from urllib3.util.retry import Retry

    retry = Retry(
        total=5,
        backoff_factor=1.0,
        status_forcelist=(429, 500, 502, 503, 520, 522, 524, 525),
        allowed_methods=("GET",),
        respect_retry_after_header=True,
        raise_on_status=False,
    )
    session = requests.Session()
    session.trust_env = False  # no credentials from a .netrc, which requests would send unasked
    version = importlib.metadata.version("ti_pipeline")
    session.headers["User-Agent"] = f"ti_pipeline/{version} (by {username} on e621)"
    adapter = LimiterAdapter(per_second=per_second, burst=1, max_retries=retry)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _store(answer: requests.Response, aside: Path, md5: str | None, size: int | None) -> None:
    digest, arrived = hashlib.md5(usedforsecurity=False), 0
    with aside.open("wb") as stream:
        for block in answer.iter_content(1 << 16):
            stream.write(block)
            digest.update(block)
            arrived += len(block)
    if size is not None and arrived != size:
        raise DownloadError(f"{arrived} bytes arrived, {size} were stated")
    if md5 is not None and digest.hexdigest() != md5:
        raise DownloadError(f"md5 is {digest.hexdigest()}, stated was {md5}")


def _reason(answer: requests.Response) -> str:
    """Return what the site says about an error, in either of its two shapes."""
    if "json" not in answer.headers.get("Content-Type", ""):
        return ""
    try:
        body = answer.json()
    except ValueError:
        return ""
    said = body.get("reason") or body.get("message") if isinstance(body, dict) else None
    return f" ({said})" if said else ""
