"""Asking the emulator as anybody would, with plain `requests`: for its own tests, which must not need the product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from ti_pipeline_tests.emulator import Emulator

NAMED = {"User-Agent": "SomeTool/1.0 (by tester on e621)"}


def get(
    where: Emulator | str, path: str = "", headers: dict[str, str] | None = None, **query: str
) -> requests.Response:
    """Ask a site (or any address) by name, following nothing."""
    address = (where if isinstance(where, str) else where.url) + path
    return requests.get(address, params=query, headers={**NAMED, **(headers or {})}, timeout=10, allow_redirects=False)


def ids(answer: requests.Response) -> list[int]:
    """Return the ids of a page of posts."""
    assert answer.status_code == 200, answer.text
    return [record["id"] for record in answer.json()["posts"]]


def found(site: Emulator, tags: str, **query: str) -> list[int]:
    """Return what a search finds, on one page."""
    return ids(get(site, "/posts.json", tags=tags, limit="320", **query))
