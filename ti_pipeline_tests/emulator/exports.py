"""The database export: its index with checksums, and the csv.gz files in Postgres' CSV dialect.

Not here: how files are sent (`pictures`).
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline_tests.emulator.records import Facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ti_pipeline_tests.emulator.site import Site

# The columns of today's export; `COLUMNS_TO_COME` stand for those that the site will add, in places of its choosing.
COLUMNS = {
    "posts": (
        "id,uploader_id,created_at,md5,source,rating,image_width,image_height,tag_string,locked_tags,fav_count,file_ext,"
        "parent_id,change_seq,approver_id,file_size,comment_count,description,duration,updated_at,is_deleted,is_pending,"
        "is_flagged,score,up_score,down_score,is_rating_locked,is_status_locked,is_note_locked,bg_color,last_noted_at,"
        "last_commented_at"
    ),
    "tags": "id,name,category,post_count,created_at,updated_at,is_locked",
    "tag_aliases": "id,antecedent_name,consequent_name,created_at,status",
    "tag_implications": "id,antecedent_name,consequent_name,created_at,status",
}
COLUMNS_TO_COME = {"numbers_to_come": [1, 2], "flag_to_come": True, "words_to_come": 'said "so",\nthen left'}
_TIMES = {"created_at", "updated_at", "last_noted_at", "last_commented_at"}


@dataclass(frozen=True)
class Dump:
    """One file of the export as it was made."""

    name: str
    data: bytes
    made_at: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def path(self) -> str:
        """Return an address that nobody can guess from the name: the index has to be asked."""
        return f"/db_export/{self.checksum[:12]}/{self.name}.csv.gz"


class Exports:
    """The export of a site: made when first asked for, then the same until `renew`, whatever happens to the posts.

    `added` columns come first in every row.
    """

    def __init__(self, site: Site):
        self._site = site
        self._dumps: list[Dump] = []
        self.added: dict[str, Any] = {}

    def renew(self, added: Mapping[str, Any] | None = None) -> None:
        """Make the next export anew from what the site knows then."""
        self._dumps = []
        self.added = dict(added or {})

    def index(self, own: str) -> list[dict[str, Any]]:
        """Return the answer of `/db_exports.json`."""
        return [
            {
                "name": dump.name,
                "file_name": f"{dump.name}.csv.gz",
                "file_size": len(dump.data),
                "checksum": dump.checksum,
                "updated_at": dump.made_at,
                "url": own + dump.path,
            }
            for dump in self._made()
        ]

    def file(self, path: str) -> bytes | None:
        """Return the file of an address from the index."""
        return next((dump.data for dump in self._made() if dump.path == path), None)

    def _made(self) -> list[Dump]:
        if not self._dumps:
            posts = (_post_row(self._site.posts[number]) for number in sorted(self._site.posts))
            tables = {"posts": posts, **self._site.tables}
            made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            self._dumps = [Dump(name, self._packed(name, rows), made_at) for name, rows in tables.items()]
        return self._dumps

    def _packed(self, name: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
        columns = [*self.added, *COLUMNS[name].split(",")]
        lines = [",".join(columns)]
        lines += (",".join(_field(column, (self.added | dict(row)).get(column)) for column in columns) for row in rows)
        return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


def _post_row(post: dict[str, Any]) -> dict[str, Any]:
    file, facts = post["file"], Facts(post)
    return {
        **post,
        "uploader_id": post.get("uploader_id", 1),
        "md5": file["md5"],
        "source": "\n".join(post.get("sources", [])),
        "image_width": file["width"],
        "image_height": file["height"],
        "tag_string": " ".join(sorted(facts.tags)),
        "locked_tags": " ".join(post.get("locked_tags", [])) or None,
        "file_ext": file["ext"],
        "parent_id": facts.parent,
        "change_seq": post.get("change_seq", 0),
        "comment_count": post.get("comment_count", 0),
        "file_size": file["size"],
        "description": post.get("description", ""),
        "score": facts.score,
        "up_score": post["score"].get("up", 0),
        "down_score": post["score"].get("down", 0),
        **{f"is_{flag}": facts.flag(flag) for flag in post["flags"]},
    }


def _field(column: str, value: Any) -> str:
    """Write a value as Postgres does: nothing for null, quotes only where they are needed, and for an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, list):
        value = "{" + ",".join(map(str, value)) + "}"
    if column in _TIMES:
        value = _without_zone(value)
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if not text or re.search(r'[,"\n\r]', text) else text


def _without_zone(moment: str) -> str:
    """Write a moment in UTC without saying so; one that is none stays as it is."""
    try:
        moved = datetime.datetime.fromisoformat(moment).astimezone(datetime.UTC)
    except ValueError:
        return moment
    text = moved.replace(tzinfo=None).isoformat(" ", "microseconds")
    return text.rstrip("0").rstrip(".")
