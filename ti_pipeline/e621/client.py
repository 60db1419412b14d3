"""The client: asks e621 politely, one request per second, under the user's name.

Here: the protocol (paging, limits, errors in words). Not here: how often it may ask (`manners`), how a picture arrives
(`downloads`), what is done with records (`records`), or which study asks (`sources`). Source: the site's API help and
server, as of mid-2026.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests

from ti_pipeline.e621.downloads import DownloadError, Part, PassingError
from ti_pipeline.e621.manners import ANONYMOUS, FASTEST, LOOPBACK, identity, polite_session

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ti_pipeline.progress import Progress

__all__ = ["DownloadError", "E621Client", "Page", "SiteError", "is_ordered", "is_random"]

Page = list[dict[str, Any]]

PAGE_LIMIT = 320
LAST_NUMBERED_PAGE = 750
_IDS_AT_ONCE = 100  # keeps the address below 2,000 characters, which every server takes
_ATTEMPTS = 3  # for answers that came, but garbled; refused and busy ones are the session's own business
_ADVICE = {
    401: "the user name or API key is wrong (checked even for public searches): see TI_E621_USERNAME, TI_E621_API_KEY",
    403: "the site refuses: check that TI_E621_USERNAME is your name there, and that the key may read",
    404: "the site does not know this address; check TI_E621_URL",
    410: "the search goes beyond what the site pages through: narrow source.query, or leave out its order:",
    422: "the site does not accept this search: at most 40 tags, and narrower wildcards in source.query",
    429: "too many requests for the site's taste: wait some minutes, then run again",
}


class SiteError(RuntimeError):
    """The site did not answer as it should; the message says what was asked, what came, and what to do.

    `status`: that of the answer, if there was one.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        """Take the message and the status."""
        super().__init__(message)
        self.status = status


class E621Client:
    """One session with the site; safe to use from several threads.

    `per_second` is shared by all processes of this machine and may be raised to the site's hard limit of 2, not
    beyond, except against a server on this machine. `backoff`: seconds that waiting before a retry starts from.
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
        if not 0 < per_second <= (float("inf") if local else FASTEST):
            raise SiteError(f"{per_second} requests per second are not allowed: the site's limit is {FASTEST:.0f}")
        self.url, self._timeout, self._backoff = url.rstrip("/"), timeout, backoff
        self._login = (username.strip(), api_key) if api_key else None
        self._session = polite_session(
            identity(username.strip()), site=self.url, per_second=per_second, backoff=backoff
        )

    @property
    def logged_in(self) -> bool:
        """Tell whether requests carry a login: some posts show their links only then."""
        return self._login is not None

    def search(self, query: str, limit: int, *, after: Sequence[Sequence[Mapping[str, Any]]] = ()) -> Iterator[Page]:
        """Yield pages of post records for a search as on the site, at most `limit` posts in all, none twice.

        Pages by id (`b<ID>`), which neither skips nor doubles while posts come and go; an `order:` or `randseed:` needs
        numbered pages, of which the site gives 750. `after`: all pages that an earlier search yielded; goes on behind
        them. Ends on an empty page, never on a short one. Raises `SiteError`, also when the site repeats a page for
        ever.
        """
        seen = {_id(record, "posts") for page in after for record in page}
        if is_ordered(query):
            pages = self._numbered("/posts.json", "posts", {"tags": query}, first=len(after) + 1, seen=seen)
        else:
            lowest = min((_id(record, "posts") for record in after[-1]), default=None) if after else None
            pages = self._by_id("/posts.json", "posts", {"tags": query}, most=limit, lowest=lowest)
        while len(seen) < limit and (rows := next(pages, None)) is not None:
            fresh = {_id(row, "posts"): row for row in rows if _id(row, "posts") not in seen}
            page = list(fresh.values())[: limit - len(seen)]
            seen.update(fresh)
            yield page

    def count(self, query: str) -> int | None:
        """Return how many posts a search finds, or None where the site does not tell. Raises `SiteError`."""
        try:
            answer = self._json("/posts/count.json", {"tags": query})
        except SiteError as error:
            if error.status == requests.codes.not_found:  # a site of another age, whose searches may work all the same
                return None
            raise
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else None

    def posts(self, ids: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Yield the posts of these ids that the site still knows, deleted ones too: one request for 100 of them.

        Ids that an answer leaves out are asked for again before they count as unknown. Raises `SiteError`.
        """
        left = sorted(set(ids), reverse=True)
        while left:
            batch, left = set(left[:_IDS_AT_ONCE]), left[_IDS_AT_ONCE:]
            for attempt in range(_ATTEMPTS if batch else 0):
                time.sleep(self._backoff * attempt)
                query = f"id:{','.join(map(str, sorted(batch)))} status:any"
                for row in self._rows("/posts.json", "posts", {"tags": query, "limit": str(PAGE_LIMIT)}):
                    if _id(row, "posts") in batch:
                        batch.remove(_id(row, "posts"))
                        yield row
                if not batch:
                    break

    def listing(self, name: str, parameters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        """Yield all rows of `/<name>.json` (tags, tag_aliases, tag_implications), newest id first.

        Raises `SiteError`.
        """
        for rows in self._by_id(f"/{name}.json", name, parameters):
            yield from rows

    def download(
        self,
        url: str,
        target: Path,
        md5: str | None = None,
        size: int | None = None,
        *,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Store a file under `target` once it is whole: stated size (bytes), md5 and sha256 must match.

        What arrives is kept in a side file, from which a broken off download goes on, also in a later run; as long as
        each try brings more of it, it is asked for again. `progress` is told of bytes. Raises `DownloadError` with the
        reason. No login goes with it, and to strangers' hosts no name either.
        """
        headers = {} if self._knows(url) else {"User-Agent": ANONYMOUS}
        part = Part(target, md5, size, sha256)
        problem: Exception | None = None
        failed, arrived = 0, part.arrived
        while failed < _ATTEMPTS:
            time.sleep(self._backoff * failed)
            try:
                if not part.is_whole():
                    asked = {**headers, **part.headers()}
                    with self._session.get(url, headers=asked, stream=True, timeout=self._timeout) as answer:
                        part.receive(answer, progress)
                part.finish()
                return
            except PassingError as error:
                problem = error
            except requests.RequestException as error:
                part.give_up()
                raise DownloadError(f"no connection ({type(error).__name__})") from error
            got_further, arrived = part.arrived > arrived, part.arrived
            failed = 1 if got_further else failed + 1
        part.give_up()
        raise DownloadError(str(problem)) from problem

    def _by_id(
        self,
        path: str,
        envelope: str,
        parameters: Mapping[str, str],
        *,
        most: int = PAGE_LIMIT,
        lowest: int | None = None,
    ) -> Iterator[Page]:
        """Yield pages, each of smaller ids than the one before (`lowest`), until an empty one."""
        while True:
            place = {} if lowest is None else {"page": f"b{lowest}"}
            asked = {**parameters, **place, "limit": str(min(most, PAGE_LIMIT))}
            rows = self._page(path, envelope, asked, known=() if lowest is None else range(lowest, sys.maxsize))
            if not rows:
                return
            below = min(_id(row, envelope) for row in rows)
            if lowest is not None and below >= lowest:
                raise SiteError(f"{self.url}{path} gives the same page again and again (below id {lowest}); run again")
            yield rows
            lowest = below

    def _numbered(
        self, path: str, envelope: str, parameters: Mapping[str, str], *, first: int, seen: Container[int]
    ) -> Iterator[Page]:
        """Yield pages by number until an empty one. Page after page of nothing but `seen` ids is a `SiteError`.

        One such page may come: posts move on to the next page when others come in before them.
        """
        barren = 0
        for number in range(first, LAST_NUMBERED_PAGE + 1):
            asked = {**parameters, "page": str(number), "limit": str(PAGE_LIMIT)}
            rows = self._page(path, envelope, asked, known=seen)
            if not rows:
                return
            barren = 0 if any(_id(row, envelope) not in seen for row in rows) else barren + 1
            if barren == _ATTEMPTS:
                raise SiteError(f"{self.url}{path} gives the same page again and again (page {number}); run again")
            yield rows

    def _page(self, path: str, envelope: str, parameters: Mapping[str, str], known: Container[int]) -> Page:
        """Return a page that brings ids not yet `known`; one that does not must come several times to be believed.

        Now and then the site gives an empty page in the middle, or once more the one before.
        """
        rows: Page = []
        for attempt in range(_ATTEMPTS):
            time.sleep(self._backoff * attempt)
            rows = self._rows(path, envelope, parameters)
            if any(_id(row, envelope) not in known for row in rows):
                break
        return rows

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
                with self._get_staying_here(address, parameters) as answer:
                    body = _body(answer)
                    if answer.status_code == 200:
                        return _data(body)
                    advice = _ADVICE.get(answer.status_code, "the site has a problem; run again later")
                    said = f"{address} answered {answer.status_code}{_said(body)}: {advice}"
                    raise SiteError(said, answer.status_code)
            except _GarbledError as error:
                problem = error
            except requests.RequestException as error:
                raise SiteError(f"{address}: no answer ({type(error).__name__}); check the connection") from error
        raise SiteError(f"{address}: {problem}; the site is busy, run again later") from problem

    def _get_staying_here(self, address: str, parameters: Mapping[str, str]) -> requests.Response:
        """GET, following redirects within the site only: data and login are nobody else's business."""
        asked: Mapping[str, str] | None = dict(parameters)
        for _ in range(5):
            answer = self._session.get(
                address, params=asked, auth=self._login, timeout=self._timeout, allow_redirects=False, stream=True
            )
            if not answer.is_redirect:
                return answer
            answer.close()
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
    """An answer that broke off, or one of status 200 that holds no data."""


def is_ordered(query: str) -> bool:
    """Tell whether a search asks for an order of its own, which pages by id would override."""
    return re.search(r"(^|\s)(?:-?order|randseed):", query, re.IGNORECASE) is not None


def is_random(query: str) -> bool:
    """Tell whether a search draws posts by chance."""
    return re.search(r"(^|\s)(?:-?order:\"?random|randseed:)", query, re.IGNORECASE) is not None


def _body(answer: requests.Response) -> bytes:
    """Read an answer whose head has come; whatever goes wrong from here on is worth another try."""
    try:
        return answer.content
    except requests.RequestException as error:
        raise _GarbledError("the answer broke off in the middle") from error


def _data(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        kind = "a web page" if _is_page(body) else "broken data"
        raise _GarbledError(f"answered with {kind} instead of JSON") from error


def _is_page(body: bytes) -> bool:
    return body.lstrip().startswith(b"<")


def _said(body: bytes) -> str:
    """Return what the site says about an error, in either of its two shapes; nothing for a web page."""
    try:
        told = json.loads(body)
    except ValueError:
        return " with a web page" if _is_page(body) else ""
    said = told.get("reason") or told.get("message") if isinstance(told, dict) else None
    return f" ({said})" if said else ""


def _id(record: Mapping[str, Any], what: str) -> int:
    found = record.get("id")
    if not isinstance(found, int) or isinstance(found, bool):
        raise SiteError(f"the site sent {what} without an id: {str(dict(record))[:200]}")
    return found
