"""Recorded answers of the site, and a plain record to vary. Not here: the emulator."""

import copy
import functools
import json
from typing import Any

from ti_pipeline_tests.shared_data import E621

PAGES = ("posts_fluffy_rating-s_limit320.json", "posts_fluffy_rating-s_limit320_page_b2269211.json")
STATES = ("pending", "flagged", "note_locked", "status_locked", "rating_locked", "deleted")


@functools.cache
def _posts() -> list[dict[str, Any]]:
    return [post for name in PAGES for post in json.loads((E621 / name).read_text(encoding="utf-8"))["posts"]]


def recorded_posts() -> list[dict[str, Any]]:
    """Return the 572 recorded posts, highest id first."""
    return copy.deepcopy(_posts())


def post(post_id: int = 1, *, tags: dict[str, list[str]] | None = None, **changes: Any) -> dict[str, Any]:
    """Return a record in the site's shape; `changes` replace whole fields."""
    record: dict[str, Any] = {
        "id": post_id,
        "created_at": "2026-07-14T02:31:17.553+03:00",
        "file": {
            "width": 380,
            "height": 381,
            "size": 4,
            "ext": "png",
            "md5": f"{post_id:032x}",
            "url": f"https://static1.e621.net/data/00/00/{post_id:032x}.png",
        },
        "score": {"up": 5, "down": -2, "total": 3},
        "tags": {"general": ["solo"], "species": ["wolf"], "artist": ["someone"]} | (tags or {}),
        "locked_tags": [],
        "flags": dict.fromkeys(STATES, False),
        "rating": "s",
        "fav_count": 7,
        "sources": ["https://example.org/a"],
    }
    return record | changes
