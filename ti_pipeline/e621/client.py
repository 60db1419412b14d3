"""The client: asks e621 politely, one request per second, under the user's name.

Here: the protocol (paging, limits, errors in words, downloads). Not here: what is done with records (`records`), or
which study asks (`sources`). Source: the site's API help and server, as of mid-2026.
"""

from __future__ import annotations

import hashlib
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests

from ti_pipeline.e621.manners import ANONYMOUS, LOOPBACK, identity, polite_session
from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["DownloadError", "E621Client", "SiteError"]

PAGE_LIMIT = 320
LAST_NUMBERED_PAGE = 750
LARGEST_FILE = 256 * 1024 * 1024  # bytes; the site takes uploads up to 100 MB
_ATTEMPTS = 3  # for answers that came, but garbled; refused and busy ones are the session's own business
_ADVICE = {
    401: "the user name or API key is wrong (checked even for public searches): see TI_E621_USERNAME, TI_E621_API_KEY",
    403: "the site refuses: check that TI_E621_USERNAME is your name there, and that the key may read",
    404: "the site does not know this address; check TI_E621_URL",
    410: "the search goes beyond what the site pages through: narrow source.query, or leave out its order:",
    422: "the site does not accept this search: at most 40 tags, and narrower wildcards in source.query",
    429: "too many requests for the site's taste: wait some minutes, then run again",
}
# What can happen to a body on its way, though the answer's head was fine.
_CUT = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)


class SiteError(RuntimeError):
    """The site did not answer as it should; the message says what was asked, what came, and what to do."""


class DownloadError(RuntimeError):
    """A picture did not arrive whole; the message is the reason kept in the `images` table."""


class E621Client:
    """One session with the site; safe to use from several threads.

    `per_second` is shared by all clients of this process and may be raised to the site's hard limit of 2, not beyond,
    except against a server on this machine. `backoff`: seconds that waiting before a retry starts from.
    """

    def __init__(
        self,
        url: str = "https://e621.net",
        *,
        username: str,
        api_key: str | None = None,
        per_second: float = 1.0,
        backoff: float = 1.0,
        timeout: float = 30.0,
    ) -> None:
        """Prepare a session. Raises `SiteError` without a user name or for an address or rate that may not be."""
        parts = urlsplit(url)
        if not username.strip():
            raise SiteError("e621 wants to know who asks: set TI_E621_USERNAME to your user name there")
        if not (username.isascii() and username.isprintable()):
            raise SiteError(f"TI_E621_USERNAME {username!r} cannot stand in a User-Agent: use plain letters")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise SiteError(f"{parts._replace(netloc=parts.hostname or '').geturl()!r} is no site: set TI_E621_URL")
        local = parts.hostname in LOOPBACK
        if parts.scheme == "http" and not local:
            raise SiteError(f"{url} is not encrypted: set TI_E621_URL to its https:// address")
        if not 0 < per_second <= (2 if not local else float("inf")):
            raise SiteError(f"{per_second} requests per second are not allowed: the site's limit is 2")
        self.url, self._timeout, self._backoff = url.rstrip("/"), timeout, backoff
        self._login = (username.strip(), api_key) if api_key else None
        self._session = polite_session(identity(username.strip()), per_second=per_second, backoff=backoff)

    def search(self, query: str, limit: int) -> Iterator[list[dict[str, Any]]]:
        """Yield pages of post records for a search as on the site, at most `limit` posts in all, none twice.

        Pages by id (`b<ID>`), which neither skips nor doubles while posts come and go; an `order:` needs numbered
        pages. Ends on an empty page, never on a short one. Raises `SiteError`, also when a page by id repeats itself.
        """
        if re.search(r"(^|\s)order:", query, re.IGNORECASE):
            pages = self._numbered("/posts.json", "posts", {"tags": query})
        else:
            pages = self._by_id("/posts.json", "posts", {"tags": query}, most=limit)
        seen: set[int] = set()
        for records in pages:
            fresh = {_id(record, "posts"): record for record in records if _id(record, "posts") not in seen}
            page = list(fresh.values())[: limit - len(seen)]
            if page:
                yield page
            seen.update(fresh)
            if len(seen) >= limit:
                return

    def count(self, query: str) -> int | None:
        """Return how many posts a search finds, or None where the site does not tell. Raises `SiteError`."""
        answer = self._json("/posts/count.json", {"tags": query})
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else None

    def listing(self, name: str, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield all rows of `/<name>.json` (tags, tag_aliases, tag_implications), newest id first.

        Raises `SiteError`.
        """
        for rows in self._by_id(f"/{name}.json", name, parameters):
            yield from rows

    def download(self, url: str, target: Path, md5: str | None = None, size: int | None = None) -> None:
        """Store a picture under `target` once it is whole: stated size (bytes) and md5 must match.

        Raises `DownloadError` with the reason. No login goes with it, and to strangers' hosts no name either.
        """
        headers = {} if self._knows(url) else {"User-Agent": ANONYMOUS}
        for attempt in range(_ATTEMPTS):
            time.sleep(self._backoff * attempt)
            try:
                with self._session.get(url, headers=headers, stream=True, timeout=self._timeout) as answer:
                    _require_picture(answer)
                    with write_atomically(target) as aside:
                        _store(answer, aside, md5, size)
                    return
            except _CUT as error:
                problem, cause = "the connection broke off in the middle", error
            except requests.RequestException as error:
                raise DownloadError(f"no connection ({type(error).__name__})") from error
        raise DownloadError(problem) from cause

    def _by_id(
        self, path: str, envelope: str, parameters: Mapping[str, str], most: int = PAGE_LIMIT
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield pages, each of smaller ids than the one before, until an empty one."""
        lowest: int | None = None
        while True:
            place = {} if lowest is None else {"page": f"b{lowest}"}
            rows = self._rows(path, envelope, {**parameters, **place, "limit": str(min(most, PAGE_LIMIT))})
            if not rows:
                return
            below = min(_id(row, envelope) for row in rows)
            if lowest is not None and below >= lowest:
                raise SiteError(f"{self.url}{path} gives the same page again and again (below id {lowest}); run again")
            yield rows
            lowest = below

    def _numbered(self, path: str, envelope: str, parameters: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
        for page in range(1, LAST_NUMBERED_PAGE + 1):
            rows = self._rows(path, envelope, {**parameters, "page": str(page), "limit": str(PAGE_LIMIT)})
            if not rows:
                return
            yield rows

    def _rows(self, path: str, envelope: str, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the list in an answer; an empty one comes bare or in an envelope."""
        answer = self._json(path, parameters)
        rows = answer.get(envelope) if isinstance(answer, dict) else answer
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SiteError(f"{self.url}{path} did not answer with {envelope}: {str(answer)[:200]}")
        return rows

    def _json(self, path: str, parameters: Mapping[str, str]) -> Any:
        address = f"{self.url}{path}"
        for attempt in range(_ATTEMPTS):
            time.sleep(self._backoff * attempt)
            try:
                answer = self._get_staying_here(address, parameters)
                if answer.status_code != 200:
                    advice = _ADVICE.get(answer.status_code, "the site has a problem; run again later")
                    raise SiteError(f"{address} answered {answer.status_code}{_said(answer)}: {advice}")
                return _data(answer)
            except (*_CUT, _GarbledError) as error:
                problem, cause = str(error) or type(error).__name__, error
            except requests.RequestException as error:
                raise SiteError(f"{address}: no answer ({type(error).__name__}); check the connection") from error
        raise SiteError(f"{address}: {problem}; the site is busy, run again later") from cause

    def _get_staying_here(self, address: str, parameters: Mapping[str, str]) -> requests.Response:
        """GET, following redirects within the site only: data and login are nobody else's business."""
        asked: Mapping[str, str] | None = dict(parameters)
        for _ in range(5):
            answer = self._session.get(
                address, params=asked, auth=self._login, timeout=self._timeout, allow_redirects=False
            )
            if not answer.is_redirect:
                return answer
            address, asked = urljoin(address, answer.headers["Location"]), None
            if urlsplit(address)[:2] != urlsplit(self.url)[:2]:
                raise SiteError(f"{self.url} sends us to another host ({urlsplit(address).netloc}); not followed")
        raise SiteError(f"{self.url} redirects in a circle")

    def _knows(self, url: str) -> bool:
        """Tell whether an address is the site's own: its host, or a sibling under the same domain."""
        site, asked = urlsplit(self.url), urlsplit(url)
        domain = ".".join((site.hostname or "").split(".")[-2:])
        sibling = domain.upper() != domain.lower() and (asked.hostname or "").endswith(f".{domain}")
        return asked.netloc == site.netloc or (asked.scheme == "https" and sibling)


class _GarbledError(ValueError):
    """An answer of status 200 that holds no data."""


def _data(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        kind = "a web page" if answer.text.lstrip().startswith("<") else "broken data"
        raise _GarbledError(f"answered with {kind} instead of JSON") from error


def _said(answer: requests.Response) -> str:
    """Return what the site says about an error, in either of its two shapes; nothing for a web page."""
    try:
        body = answer.json()
    except ValueError:
        return " with a web page" if answer.text.lstrip().startswith("<") else ""
    said = body.get("reason") or body.get("message") if isinstance(body, dict) else None
    return f" ({said})" if said else ""


def _id(record: Mapping[str, Any], what: str) -> int:
    found = record.get("id")
    if not isinstance(found, int) or isinstance(found, bool):
        raise SiteError(f"the site sent {what} without an id: {str(dict(record))[:200]}")
    return found


def _require_picture(answer: requests.Response) -> None:
    if answer.status_code in {403, 404, 410}:
        raise DownloadError(f"gone: the site answered {answer.status_code}")
    if answer.status_code != 200:
        raise DownloadError(f"the site answered {answer.status_code}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError("the site answered with a web page instead of the picture")


def _store(answer: requests.Response, aside: Path, md5: str | None, size: int | None) -> None:
    digest, arrived = hashlib.md5(usedforsecurity=False), 0
    most = LARGEST_FILE if size is None else size
    with aside.open("wb") as stream:
        for block in answer.iter_content(1 << 16):
            arrived += len(block)
            if arrived > most:
                raise DownloadError(f"more than the {most} bytes allowed arrived")
            stream.write(block)
            digest.update(block)
    if size is not None and arrived != size:
        raise DownloadError(f"{arrived} bytes arrived, {size} were stated")
    if md5 is not None and digest.hexdigest() != md5:
        raise DownloadError(f"md5 is {digest.hexdigest()}, stated was {md5}: replaced or damaged")
