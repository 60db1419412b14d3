"""What is asked and what is answered, as values: requests, their kinds, answers, refusals. Not here: who decides."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON = {"Content-Type": "application/json; charset=utf-8"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
TABLES = ("tags", "tag_aliases", "tag_implications")


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `server` is the listener it came to, header names are lower case.

    `target`: path and query as they were written.
    """

    server: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """Return what is asked for: posts, post, count, list, exports, dump, file or other."""
        if self.path.startswith("/data/"):
            return "file"
        if self.path.startswith("/db_export/"):
            return "dump"
        if self.path == "/posts.json":
            return "post" if "md5" in self.query else "posts"
        known = {"/posts/count.json": "count", "/db_exports.json": "exports"} | {f"/{n}.json": "list" for n in TABLES}
        if self.path in known:
            return known[self.path]
        return "post" if self.path.startswith("/posts/") else "other"


@dataclass(frozen=True)
class Answer:
    """What is sent, and how: `part` of the body (0 to 1, None for all of it), then the line's `end`.

    `end`: "" leaves the connection open; "close", "reset", "stall". `silent`: not even a head is sent. `whole`: this
    answer brings the last byte of a true file.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    part: float | None = None
    end: str = ""
    silent: bool = False
    whole: bool = False


class Refusal(Exception):  # noqa: N818 - the site refuses, nothing is in error
    """An answer with an error status, in one of the site's two JSON shapes."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.answer = refused(status, words)


def refused(status: int, words: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return the site's own words: `{success, reason}` for 403 and 404, `{success, message, code}` for the others."""
    said = {"reason": words} if status in {403, 404} else {"message": words, "code": None}
    return Answer(status, {**JSON, **(headers or {})}, json.dumps({"success": False, **said}).encode())


def web_page(status: int, words: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a page for people, as the edge sends them."""
    body = f"<!DOCTYPE html><html><head><title>e621</title></head><body>{words}</body></html>"
    return Answer(status, {**HTML, **(headers or {})}, body.encode())


def as_json(value: Any) -> Answer:
    return Answer(200, JSON, json.dumps(value).encode())
