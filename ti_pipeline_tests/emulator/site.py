"""What the site knows, and the JSON it answers with. Not here: who may ask (`gates`), HTTP (`server`), files."""

from __future__ import annotations

import datetime
import random
import re
from typing import TYPE_CHECKING, Any

from ti_pipeline_tests.emulator import search
from ti_pipeline_tests.emulator.answers import TABLES, Refusal
from ti_pipeline_tests.emulator.exports import Exports
from ti_pipeline_tests.emulator.paging import DEFAULT_LIMIT, Page
from ti_pipeline_tests.emulator.records import Facts, as_seen, tag_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ti_pipeline_tests.emulator.answers import Request

Row = dict[str, Any]


class Site:
    """Posts, tables and files of the emulated site; tests and `changes` edit them in place while it runs.

    `posts` by id; `files` by md5; `hidden`: ids whose links only members see; `now` is the moment that ages count from.
    """

    def __init__(
        self,
        posts: Iterable[Row],
        files: Mapping[str, bytes],
        *,
        tables: Mapping[str, list[Row]],
        hidden: Iterable[int],
        now: datetime.datetime | None,
    ):
        self.posts = {post["id"]: post for post in posts}
        self.files = dict(files)
        self.tables = {name: list(tables.get(name, [])) for name in TABLES}
        self.hidden = set(hidden)
        self.exports = Exports(self)
        self._now = now
        self._chance = random.Random(0)

    def answer(self, request: Request, *, own: str, links: str, anonymous: bool) -> Any:
        """Return the JSON value of an API address. Raises `Refusal`.

        `own` and `links` are the addresses of this server and of the picture host, as links are written.
        """
        safe, query = request.server == "safe", request.query

        def seen(post: Row) -> Row:
            return as_seen(post, links=links, anonymous=anonymous, hidden=post["id"] in self.hidden, safe=safe)

        if request.kind == "posts":
            return {"posts": [seen(post) for post in self._page_of_posts(query, safe)]}
        if request.kind == "post":
            return {"post": seen(self._post(request))}
        if request.kind == "count":
            return {"count": len(self._find(self._read(query.get("tags", "")), safe)), "capped": False}
        if request.kind == "exports":
            return self.exports.index(own)
        if request.kind == "list":
            name = request.path.removeprefix("/").removesuffix(".json")
            return Page.read(query).of(self._listed(name, query)) or self._nothing(name)
        raise Refusal(404, "not found")

    def is_gone(self, md5: str) -> bool:
        """Tell whether a picture went with its post: everyone who had it is deleted."""
        owners = [post for post in self.posts.values() if post["file"]["md5"] == md5]
        return bool(owners) and all(post["flags"]["deleted"] for post in owners)

    def _page_of_posts(self, query: dict[str, str], safe: bool) -> list[Row]:
        wanted = self._read(query.get("tags", ""))
        return Page.read(query, wanted.limit or DEFAULT_LIMIT).of(self._find(wanted, safe))

    def _post(self, request: Request) -> Row:
        """Find the post of `/posts/ID.json` or `?md5=`; deleted ones are shown to those who know them."""
        number = re.fullmatch(r"/posts/([0-9]+)\.json", request.path)
        if number is not None:
            found = self.posts.get(int(number[1]))
        else:
            md5 = request.query.get("md5", "").lower()
            found = next((post for post in self.posts.values() if post["file"]["md5"] == md5), None)
        if found is None:
            raise Refusal(404, "not found")
        return found

    def _read(self, text: str) -> search.Search:
        """Read a query; its aliases are resolved (the reference leaves open whether, the site does)."""
        aliases = {
            row["antecedent_name"]: row["consequent_name"]
            for row in self.tables["tag_aliases"]
            if row["status"] == "active"
        }
        now = self._now or datetime.datetime.now(datetime.UTC)
        return search.read(text, expand=self._expand, aliases=aliases, now=now)

    def _find(self, wanted: search.Search, safe: bool) -> list[Row]:
        """Return the posts that a query finds, in its order; the safe host finds safe ones only."""
        found = [
            facts
            for facts in map(Facts, self.posts.values())
            if (wanted.sees_deleted or not facts.is_deleted)
            and (not safe or facts.record["rating"] == "s")
            and wanted.test(facts)
        ]
        return [facts.record for facts in wanted.sort(found, self._chance)]

    def _expand(self, text: str) -> list[str]:
        """Name the tags that a pattern stands for, the commonest first: by the table's count, else by the posts."""
        rows = {row["name"]: row["post_count"] for row in (*tag_table(self.posts.values()), *self.tables["tags"])}
        pattern = search.pattern_of(text)
        return sorted(filter(pattern.fullmatch, rows), key=lambda name: (-rows[name], name))

    def _listed(self, name: str, query: dict[str, str]) -> list[Row]:
        """Return a table's rows under its `search[…]` parameters."""
        asked = {key[7:-1]: value for key, value in query.items() if re.fullmatch(r"search\[\w+\]", key)}
        if name == "tags":
            asked.setdefault("hide_empty", "true")
        tests = [_FILTERS[key](value) for key, value in asked.items() if key in _FILTERS]
        rows = [row for row in self.tables[name] if all(test(row) for test in tests)]
        rows.sort(key=lambda row: -row["id"])
        if asked.get("order") == "count":
            rows.sort(key=lambda row: -row["post_count"])
        if asked.get("order") == "name":
            rows.sort(key=lambda row: row.get("name") or row["antecedent_name"])
        return rows

    def _nothing(self, name: str) -> Any:
        """Answer an empty list, in its two forms: some tables say so bare."""
        return [] if name == "tag_implications" else {name: []}


def _fits(key: str) -> Callable[[str], Callable[[Row], bool]]:
    """Compare a column with patterns (`*`), of which a comma list holds several."""

    def of(value: str) -> Callable[[Row], bool]:
        patterns = [search.pattern_of(part.strip().lower()) for part in value.split(",")]
        return lambda row: any(pattern.fullmatch(str(row[key]).lower()) for pattern in patterns)

    return of


def _is(key: str) -> Callable[[str], Callable[[Row], bool]]:
    return lambda value: lambda row: str(row[key]).lower() in {part.strip().lower() for part in value.split(",")}


_FILTERS: dict[str, Callable[[str], Callable[[Row], bool]]] = {
    "name": _is("name"),
    "name_matches": _fits("name"),
    "category": _is("category"),
    "hide_empty": lambda value: lambda row: value.lower() not in {"true", "1", "yes"} or row["post_count"] > 0,
    "antecedent_name": _is("antecedent_name"),
    "consequent_name": _is("consequent_name"),
    "status": _is("status"),
}
