"""A post's record as the site writes it: what can be read off it, and how a viewer sees it.

Not here: which records there are (`world`), how they are searched (`search`).
"""

from __future__ import annotations

import collections
import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# In the order of their numbers.
CATEGORIES = ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")
FLAGS = ("pending", "flagged", "note_locked", "status_locked", "rating_locked", "deleted")


class Facts:
    """What a search asks of a record; records of every age are understood, and what one lacks is None."""

    def __init__(self, record: dict[str, Any]):
        self.record = record
        self.id: int = record["id"]
        self.file: dict[str, Any] = record["file"]

    @cached_property
    def tags(self) -> frozenset[str]:
        return frozenset(tag for tags in self.record["tags"].values() for tag in tags)

    def flag(self, name: str) -> bool:
        return bool(self.record["flags"].get(name))

    @property
    def score(self) -> int:
        return self.record["score"]["total"]

    @property
    def pixels(self) -> int:
        return self.file["width"] * self.file["height"]

    @property
    def ratio(self) -> float:
        return round(self.file["width"] / self.file["height"], 2) if self.file["height"] else 0.0

    @property
    def created(self) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self.record["created_at"]).astimezone(datetime.UTC)

    @property
    def parent(self) -> int | None:
        return self.record.get("relationships", {}).get("parent_id")

    @property
    def is_deleted(self) -> bool:
        return self.flag("deleted")


def as_seen(record: dict[str, Any], *, links: str, anonymous: bool, hidden: bool, safe: bool) -> dict[str, Any]:
    """Return a record with its links for a viewer, or without: deleted, hidden from strangers, not for the safe host.

    `links`: the picture host's address. A record without a link keeps none, for everyone.
    """
    barred = record["flags"]["deleted"] or (hidden and anonymous) or (safe and record["rating"] != "s")
    file = record["file"]
    path = f"{file['md5'][:2]}/{file['md5'][2:4]}/{file['md5']}"
    seen = {**record, "file": {**file, "url": f"{links}/data/{path}.{file['ext']}" if file.get("url") else None}}
    for name in ("preview", "sample"):
        if name in record:
            kinds = {key: end for key, end in (("url", "jpg"), ("alt", "webp")) if record[name].get(key)}
            seen[name] = {**record[name], **{k: f"{links}/data/{name}/{path}.{end}" for k, end in kinds.items()}}
    if barred:
        for name in {"file", "preview", "sample"} & set(seen):
            seen[name] = {**seen[name], **dict.fromkeys({"url", "alt"} & set(seen[name]))}
    return seen


def tag_table(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `/tags.json` that belong to posts: every tag with its category and how many posts carry it."""
    counts: collections.Counter[str] = collections.Counter()
    categories: dict[str, int] = {}
    for record in records:
        for category, tags in record["tags"].items():
            counts.update(set(tags))
            categories |= dict.fromkeys(tags, CATEGORIES.index(category) if category in CATEGORIES else 0)
    moment = "2020-03-05T05:49:37.994-05:00"
    return [
        {
            "id": number,
            "name": name,
            "post_count": counts[name],
            "category": categories[name],
            "related_tags": "",
            "related_tags_updated_at": moment,
            "is_locked": False,
            "created_at": moment,
            "updated_at": moment,
        }
        for number, name in enumerate(sorted(counts), 1)
    ]
