"""What the site knows and how it answers searches; written from the reference alone, apart from the product."""

from __future__ import annotations

import copy
from typing import Any

CATEGORIES = ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")


class Refusal(Exception):  # noqa: N818 - the site refuses, nothing is in error
    """An answer with an error status, in one of the site's two JSON shapes."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        key = "reason" if status in (403, 404) else "message"
        self.status = status
        self.body = {"success": False, key: words} | ({} if key == "reason" else {"code": None})


class Site:
    """Posts and tag tables of the emulated site; `base` is its own address, for links."""

    def __init__(self, posts: list[dict[str, Any]], tables: dict[str, list[dict[str, Any]]], hidden: set[int]):
        self.posts = {post["id"]: post for post in posts}
        self.tables = tables
        self.hidden = hidden

    def answer(self, path: str, query: dict[str, str], base: str) -> Any:
        """Return the JSON value of an API address. Raises `Refusal`."""
        if path == "/posts.json":
            found = self._page(self._search(query.get("tags", "")), query, ordered="order:" in query.get("tags", ""))
            return {"posts": [self._shown(post, base) for post in found]}
        if path == "/posts/count.json":
            return {"count": len(self._search(query.get("tags", ""))), "capped": False}
        if path.startswith("/posts/"):
            number = path.removeprefix("/posts/").removesuffix(".json")
            if not number.isdigit() or int(number) not in self.posts:
                raise Refusal(404, "not found")
            return {"post": self._shown(self.posts[int(number)], base)}
        name = path.removeprefix("/").removesuffix(".json")
        if name in self.tables:
            return self._page(self._listed(name, query), query) or {name: []}
        raise Refusal(404, "not found")

    def _search(self, text: str) -> list[dict[str, Any]]:
        terms = text.lower().split()
        if len([term for term in terms if not term.startswith("order:")]) > 40:
            raise Refusal(422, "You cannot search for more than 40 tags at a time.")
        order = next((term[6:] for term in terms if term.startswith("order:")), "")
        wanted = [term for term in terms if not term.startswith("order:")]
        found = [post for post in self.posts.values() if all(_meets(post, term) for term in wanted)]
        if "status:any" not in wanted:
            found = [post for post in found if not post["flags"]["deleted"]]
        found.sort(key=lambda post: post["id"], reverse=order != "id")
        if order == "score":
            found.sort(key=lambda post: -post["score"]["total"])
        return found

    def _listed(self, name: str, query: dict[str, str]) -> list[dict[str, Any]]:
        status = query.get("search[status]")
        rows = [row for row in self.tables[name] if status is None or row["status"].lower() == status.lower()]
        return sorted(rows, key=lambda row: -row["id"])

    def _page(self, found: list[Any], query: dict[str, str], *, ordered: bool = False) -> list[Any]:
        limit, page = query.get("limit", "75"), query.get("page", "1")
        if not limit.isdigit() or int(limit) > 320:
            raise Refusal(410, "Limit must be between 0 and 320.")
        if page[:1] in "ab" and page[1:].isdigit():
            by_id = sorted(found, key=lambda row: -row["id"])
            if page[0] == "b":
                return [row for row in by_id if row["id"] < int(page[1:])][: int(limit)]
            return [row for row in by_id if row["id"] > int(page[1:])][-int(limit) :]
        if not page.isdigit() or int(page) == 0:
            raise Refusal(410, "Invalid page number.")
        if int(page) > 750:
            raise Refusal(410, "You cannot go beyond page 750. Please narrow your search terms.")
        return found[(int(page) - 1) * int(limit) : int(page) * int(limit)]

    def _shown(self, post: dict[str, Any], base: str) -> dict[str, Any]:
        shown = copy.deepcopy(post)
        file = shown["file"]
        if shown["flags"]["deleted"] or shown["id"] in self.hidden:
            file["url"] = None
        elif file.get("url"):
            file["url"] = f"{base}/data/{file['md5'][:2]}/{file['md5'][2:4]}/{file['md5']}.{file['ext']}"
        return shown


def _meets(post: dict[str, Any], term: str) -> bool:
    if term.startswith("-"):
        return not _meets(post, term[1:])
    if term.startswith("rating:"):
        return term[7:8] not in ("s", "q", "e") or post["rating"] == term[7]
    if term == "status:any":
        return True
    return any(term in post["tags"].get(category, []) for category in CATEGORIES)
