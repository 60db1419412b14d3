"""Posts dumps as Postgres' `COPY … CSV HEADER` writes them, for tests."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = [
    "id",
    "uploader_id",
    "created_at",
    "md5",
    "source",
    "rating",
    "image_width",
    "image_height",
    "tag_string",
    "locked_tags",
    "fav_count",
    "file_ext",
    "parent_id",
    "change_seq",
    "approver_id",
    "file_size",
    "comment_count",
    "description",
    "duration",
    "updated_at",
    "is_deleted",
    "is_pending",
    "is_flagged",
    "score",
    "up_score",
    "down_score",
    "is_rating_locked",
    "is_status_locked",
    "is_note_locked",
]


def post(post_id: int, **changes: Any) -> dict[str, Any]:
    """Return a row of the dump; None is null."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, False) | {
        "id": post_id,
        "uploader_id": 7,
        "created_at": "2024-06-10 07:52:11.177",
        "md5": f"{post_id:032x}",
        "source": "",
        "rating": "s",
        "image_width": 400,
        "image_height": 300,
        "tag_string": "solo wolf",
        "locked_tags": None,
        "fav_count": 3,
        "file_ext": "png",
        "parent_id": None,
        "change_seq": post_id * 10,
        "approver_id": None,
        "file_size": 1000,
        "comment_count": 0,
        "description": "",
        "duration": None,
        "updated_at": None,
        "score": 2,
        "up_score": 2,
        "down_score": 0,
    }
    return row | changes


def dump_text(posts: Iterable[dict[str, Any]], columns: Iterable[str] = COLUMNS) -> str:
    """Return the dump of posts; `columns` says which, in which order."""
    names = list(columns)
    lines = [",".join(names), *(",".join(_field(row[name]) for name in names) for row in posts)]
    return "".join(f"{line}\n" for line in lines)


def write_dump(path: Path, posts: Iterable[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress(dump_text(posts).encode(), 1, mtime=0))
    return path


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    text = str(value)
    quoted = text == "" or any(char in text for char in '",\n\r')
    return '"' + text.replace('"', '""') + '"' if quoted else text
