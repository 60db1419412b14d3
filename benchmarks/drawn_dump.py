"""A posts dump as the site writes it, but made up: for `dump_search.py`.

About 37 tags a post, names as common as in real collections; sources, descriptions with line breaks and quotes, some
deleted posts. Seeded: the same arguments give the same bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 6
TAGS_PER_POST = 37
NAMES = 106_844  # as many as the site has in real life
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
    "bg_color",
    "last_noted_at",
    "last_commented_at",
]
_AT_ONCE = 20_000
_PROSE = 'A "quick" study of foxes,\nas asked for; thanks for looking!\nMore of these are to come soon. '


def tag_names() -> list[str]:
    """Return names of tags, the commonest first."""
    return [f"{'some_longer_' * (number % 3 == 0)}tag_{number:06d}" for number in range(NAMES)]


def write_dump(path: Path, posts: int) -> None:
    """Write a dump of `posts` posts with ascending ids to `path` (`.csv.gz`)."""
    drawn, uses = np.array(tag_names(), dtype=object), 1 / (np.arange(NAMES) + 20.0)
    order = np.argsort(drawn.astype(str), kind="stable")  # a post's tags stand in alphabetical order
    names, chances = drawn[order], np.cumsum(uses[order]) / uses.sum()
    rng = np.random.default_rng(SEED)
    with gzip.open(path, "wt", compresslevel=6, encoding="utf-8", newline="") as stream:
        stream.write(",".join(COLUMNS) + "\n")
        for first in range(0, posts, _AT_ONCE):
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(
                _rows(rng, first, min(_AT_ONCE, posts - first), names, chances)
            )
            stream.write(text.getvalue())


def _rows(
    rng: np.random.Generator, first: int, count: int, names: np.ndarray[Any, Any], chances: np.ndarray[Any, Any]
) -> Iterator[list[Any]]:
    wanted = rng.poisson(TAGS_PER_POST + 3, count) + 1  # a few are drawn twice
    drawn = np.split(np.searchsorted(chances, rng.random(int(wanted.sum()))), np.cumsum(wanted)[:-1])
    numbers = rng.integers(0, 2**31, (count, 8)).tolist()
    scores = rng.geometric(0.02, count).tolist()
    md5s = rng.bytes(16 * count).hex()
    for row, (tags, few, score) in enumerate(zip(drawn, numbers, scores, strict=True)):
        number = (first + row + 1) * 2 + few[0] % 2
        moment = (
            f"20{10 + number % 15}-{1 + few[1] % 12:02d}-{1 + few[2] % 28:02d} {few[3] % 24:02d}:15:27.{few[4] % 10**6}"
        )
        yield [
            number, few[0] % 900_000, moment, md5s[32 * row : 32 * row + 32],
            f"https://example.org/artist_{few[5] % 5000}/status/{few[6]}\nhttps://img.example.org/{few[7]:x}.png",
            "sqe"[few[1] % 5 // 2], 400 + few[2] % 4000, 400 + few[3] % 4000,
            " ".join(names[np.unique(tags)]), "" if few[4] % 50 else "conditional_dnp", few[5] % 900,
            "jpg" if few[6] % 3 else "png", number // 2 if few[7] % 20 == 0 else "", number * 13,
            few[0] % 40_000 if few[3] % 4 else "", few[1] % 8_000_000, few[2] % 30,
            _PROSE * (few[3] % 5) if few[4] % 3 == 0 else "", "", moment, "t" if few[5] % 12 == 0 else "f", "f",
            "t" if few[6] % 999 == 0 else "f", score - 5, score, -(few[7] % 6), "f", "f", "f", "", "", "",
        ]  # fmt: skip
