"""The site's paging: limit, numbered pages, pages by id. Not here: what is paged (`search`, `site`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ti_pipeline_tests.emulator.answers import Refusal

DEFAULT_LIMIT, HIGHEST_LIMIT, LAST_PAGE = "75", 320, 750


@dataclass(frozen=True)
class Page:
    """A place in a listing: the `number`th page, or the rows with ids below or above `edge`."""

    limit: int
    kind: str
    edge: int

    @classmethod
    def read(cls, query: dict[str, str], default_limit: str = DEFAULT_LIMIT) -> Page:
        """Read `limit` and `page`. Raises `Refusal` (410) in the site's words."""
        limit, page = query.get("limit") or default_limit, query.get("page") or "1"
        if not re.fullmatch(r"[0-9]{1,9}", limit) or int(limit) > HIGHEST_LIMIT:
            raise Refusal(410, f"Limit must be between 0 and {HIGHEST_LIMIT}.")
        place = re.fullmatch(r"([ab]?)([0-9]{1,18})", page)
        if place is None or (not place[1] and int(place[2]) == 0):
            raise Refusal(410, "Invalid page number.")
        if not place[1] and int(place[2]) > LAST_PAGE:
            raise Refusal(410, f"You cannot go beyond page {LAST_PAGE}. Please narrow your search terms.")
        return cls(int(limit), place[1], int(place[2]))

    def of(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return this page of `rows`; pages by id pay no heed to the order that the rows come in."""
        if not self.kind:
            return rows[(self.edge - 1) * self.limit : self.edge * self.limit]
        if self.kind == "b":
            return sorted((row for row in rows if row["id"] < self.edge), key=_id, reverse=True)[: self.limit]
        nearest = sorted((row for row in rows if row["id"] > self.edge), key=_id)[: self.limit]
        return nearest[::-1]


def page_before(query: dict[str, str]) -> dict[str, str]:
    """Return the query of the page that a reader of this one has seen already: the same again, whatever is asked.

    Before `b<ID>` came the rows that reach down to ID; numbered readers get the first page for ever.
    """
    page = query.get("page", "1")
    if re.fullmatch(r"b[0-9]+", page):
        return {**query, "page": f"a{max(int(page[1:]) - 1, 0)}"}
    return {**query, "page": "1"}


def _id(row: dict[str, Any]) -> int:
    return row["id"]
