"""Records: a post as the site's API gives it, turned into a row of the `posts` table.

Tolerant of missing and unknown fields and categories, strict about the types of what is used. Not here: asking for
records (`client`) or the policy's rules (`policy`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy

__all__ = ["LEFT_SEARCH", "RecordError", "posts_table", "records_of", "refused"]

# Our own field on a record that its study's search no longer finds: why it is used no more.
LEFT_SEARCH = "ti_pipeline/left_search"

_LARGEST = 2**63 - 1
_MD5 = re.compile(r"[0-9a-f]{32}")
_EXT = re.compile(r"[a-z0-9]{1,8}")  # md5 and ext become file names
_log = logging.getLogger(__name__)


class RecordError(ValueError):
    """A record has a field of the wrong type; the message names the field."""


def posts_table(records: Iterable[Mapping[str, Any]], policy: ContentPolicy) -> pd.DataFrame:
    """Return the `posts` table of records in e621's shape, ordered by id; a left-out one keeps its id and the reason.

    Beside the site's fields, a record may carry `captions` and `said` (texts that a source has found with a picture,
    the latter for the policy alone), and `problem`: why its source could not read it, or `LEFT_SEARCH`: why it is used
    no more, unless the policy has a reason of its own. The first record of an id counts. A record without a usable id
    cannot be a row: it is logged and skipped.
    """
    import pyarrow as pa

    from ti_pipeline.schemas import TABLES, from_arrow

    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        if _is_whole(record.get("id"), low=0):
            rows.setdefault(record["id"], _row(record, policy))
        else:
            _log.warning("a record without a usable id is skipped: %.200r", dict(record))
    return from_arrow(pa.Table.from_pylist([rows[key] for key in sorted(rows)], TABLES["posts"].arrow_schema()))


def _row(record: Mapping[str, Any], policy: ContentPolicy) -> dict[str, Any]:
    """Return a row; strict reading comes first, because the policy must not judge what it cannot read."""
    try:
        fields = {} if record.get("problem") else _fields(record)
        reason = record.get("problem") or policy.refuses(record) or record.get(LEFT_SEARCH)
    except RecordError as error:
        reason = f"malformed record: {error}"
    if reason is None:
        return {"post_id": record["id"], "status": "kept", "reason": ""} | fields
    nothing: dict[str, Any] = {f"tags_{category}": [] for category in CATEGORY_NAMES}
    nothing |= {"tags_other": [], "locked_tags": [], "sources": [], "captions": [], "said": []}
    nothing["file_url"] = _own_file(record)
    return {"post_id": record["id"], "status": "dropped", "reason": str(reason)} | nothing


def _own_file(record: Mapping[str, Any]) -> str | None:
    """Return where a person's own picture lies, so that they find it; addresses on the web are not kept."""
    file = record.get("file")
    url = file.get("url") if isinstance(file, Mapping) else None
    return url if _is_text(url) and str(url).startswith("file:") else None


def refused(posts: pd.DataFrame, policy: ContentPolicy) -> dict[int, str]:
    """Return why the policy refuses rows of `posts` that were kept, by post id.

    None is refused by the policy that the table was made under; a newer catalog or opt-out may refuse some.
    """
    reasons = {record["id"]: policy.refuses(record) for record in records_of(posts[posts.status == "kept"])}
    return {post_id: reason for post_id, reason in reasons.items() if reason is not None}


def records_of(posts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield from rows of kept posts as much of each record as the policy looks at."""
    for row in posts.to_dict("records"):
        yield {
            "id": int(row["post_id"]),
            "rating": row["rating"],
            "tags": {category: row.get(f"tags_{category}") for category in (*CATEGORY_NAMES, "other")},
            "locked_tags": row.get("locked_tags"),
            "said": row.get("said"),
            "sources": row.get("sources"),
            "file": {"url": row["file_url"], "md5": row["md5"] if isinstance(row["md5"], str) else None},
        }


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    file, tags = _mapping(record, "file"), _mapping(record, "tags")
    # Categories to come are read too, and with that shown to the policy.
    by_category = {str(name): _strings(tags, name, "tags.") for name in tags}
    other = [tag for name, names in by_category.items() if name not in CATEGORY_NAMES for tag in names]
    _mapping(record, "flags")
    return {
        "rating": _text(record, "rating"),
        "score": _score(record.get("score")),
        "fav_count": _whole(record, "fav_count"),
        "created_at": _time(record.get("created_at")),
        "width": _whole(file, "width", "file."),
        "height": _whole(file, "height", "file."),
        "ext": _text(file, "ext", "file.", _EXT),
        "file_size": _whole(file, "size", "file."),
        "md5": _text(file, "md5", "file.", _MD5),
        "file_url": _text(file, "url", "file."),
        "sources": _strings(record, "sources"),
        **{f"tags_{name}": by_category.get(name, []) for name in CATEGORY_NAMES},
        "tags_other": other,
        "locked_tags": _strings(record, "locked_tags"),
        "captions": _strings(record, "captions"),
        "said": _strings(record, "said"),
    }


def _is_whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= _LARGEST


def _mapping(record: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = record.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise RecordError(f"{field} is {value!r:.60}, not an object of fields")
    return value or {}


def _whole(record: Mapping[str, Any], field: str, where: str = "", low: int = 0) -> int | None:
    value = record.get(field)
    if value is not None and not _is_whole(value, low):
        raise RecordError(f"{where}{field} is {value!r:.60}, not a whole number from {low}")
    return value


def _text(record: Mapping[str, Any], field: str, where: str = "", like: re.Pattern[str] | None = None) -> str | None:
    value = record.get(field)
    if value is None:
        return None
    if not _is_text(value) or (like is not None and not like.fullmatch(value)):
        raise RecordError(f"{where}{field} is {value!r:.60}, not a text as it should be")
    return str(value)


def _is_text(value: object) -> bool:
    """Tell whether a value is text that can be stored: JSON can smuggle halves of characters in."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _strings(record: Mapping[str, Any], field: str, where: str = "") -> list[str]:
    value = record.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(_is_text(item) for item in value):
        raise RecordError(f"{where}{field} is not a list of texts")
    return value


def _score(value: object) -> int | None:
    score = {"total": value} if not isinstance(value, Mapping) else value
    return _whole(score, "total", "score.", low=-_LARGEST)


def _time(value: object) -> datetime | None:
    """Read an ISO 8601 time; one without an offset is taken as UTC."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RecordError(f"created_at is {value!r:.60}, not a time") from error
