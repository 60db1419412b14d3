"""Records: a post as the site's API gives it, turned into a row of the `posts` table.

Tolerant of missing and unknown fields and categories, strict about the types of what is used. Not here: asking for
records (`client`) or the policy's rules (`policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import CATEGORY_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy

__all__ = ["RecordError", "posts_table"]


class RecordError(ValueError):
    """A record has a field of the wrong type; the message names the field."""


def posts_table(records: Iterable[Mapping[str, Any]], policy: ContentPolicy) -> pd.DataFrame:
    """Return the `posts` table of records in e621's shape; each left-out one keeps only its id and the reason.

    A record may carry `problem`: why its source could not read it. A second record of an id is ignored.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        row = _row(record, policy)
        rows.setdefault(row["post_id"], row)
    columns = [column.name for column in TABLES["posts"].columns]
    frame = pd.DataFrame([rows[key] for key in sorted(rows)], columns=columns)
    if frame.empty:
        return TABLES["posts"].empty()
    whole = ("score", "fav_count", "width", "height", "file_size")
    frame[list(whole)] = frame[list(whole)].astype("Int64")
    frame["created_at"] = pd.to_datetime(frame.created_at, utc=True).astype("datetime64[us, UTC]")
    return frame


def _row(record: Mapping[str, Any], policy: ContentPolicy) -> dict[str, Any]:
    post_id = record.get("id")
    if not isinstance(post_id, int) or isinstance(post_id, bool) or post_id < 0:
        raise RecordError(f"a record without a usable id: {str(record)[:200]}")
    try:
        reason = record.get("problem") or policy.refuses(record)
        row = _fields(record) if reason is None else {}
        reason = reason or ("no link to the picture" if not row["file_url"] else None)
    except (RecordError, TypeError, AttributeError) as error:
        reason = f"unreadable record: {error}"
    if reason is not None:
        empty: dict[str, Any] = {f"tags_{category}": [] for category in CATEGORY_NAMES}
        return {"post_id": post_id, "status": "dropped", "reason": reason, "sources": [], **empty}
    return {"post_id": post_id, "status": "kept", "reason": "", **row}


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    file = _of(record, "file", dict) or {}
    score = record.get("score")
    tags = _of(record, "tags", dict) or {}
    return {
        "rating": record["rating"],
        "score": _of(score, "total", int) if isinstance(score, dict) else None,
        "fav_count": _of(record, "fav_count", int),
        "created_at": _of(record, "created_at", str),
        "width": _of(file, "width", int),
        "height": _of(file, "height", int),
        "ext": _of(file, "ext", str),
        "file_size": _of(file, "size", int),
        "md5": _of(file, "md5", str),
        "file_url": _of(file, "url", str),
        "sources": _strings(record.get("sources"), "sources"),
        **{f"tags_{name}": _strings(tags.get(name), f"tags.{name}") for name in CATEGORY_NAMES},
    }


def _of(record: Mapping[str, Any], field: str, kind: type) -> Any:
    """Return a field of the right type, or None where it is missing or null. Raises `RecordError` otherwise."""
    value = record.get(field)
    if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise RecordError(f"{field} is {value!r}, wants {kind.__name__}")
    return value


def _strings(value: Any, field: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RecordError(f"{field} is not a list of texts")
    return value
