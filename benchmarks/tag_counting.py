"""Counting tags: ours against pandas' `str.split().explode().value_counts()`, on the same posts in the same run.

Made-up posts of a fixed seed: about 37 tags each, names as common as in real collections (Zipf), nine categories. Each
way is measured in a process of its own, so that peak memory is its own (read from Linux's /proc); the counts of all
ways must agree.

    python benchmarks/tag_counting.py [posts, 200000 unless given]

Prints seconds, peak memory over the input's own, and the ratio to pandas; writes
`benchmarks/results/<date>-tag_counting.json`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ti_pipeline.files import write_json
from ti_pipeline.studies import CATEGORIES
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tags import post_tags_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEED = 6
TAGS_PER_POST = 37
NAMES = 106_844  # as many as the site has in real life
RESULTS = Path(__file__).parent / "results"


def drawn_tags(posts: int) -> list[list[str]]:
    """Return each post's tags, without repetition, the commonest names being thousands of times as common as most."""
    rng = np.random.default_rng(SEED)
    share = 1 / (np.arange(NAMES) + 20.0)
    names = np.array([f"some_tag_{number:06d}" for number in range(NAMES)], dtype=object)
    drawn = rng.choice(NAMES, size=(posts, TAGS_PER_POST), p=share / share.sum())
    return [names[np.unique(row)].tolist() for row in drawn]


def lists_by_category(tags: list[list[str]]) -> pd.DataFrame:
    """Return the columns of `posts` that tagging reads; a name's number decides its category."""
    columns: dict[str, list[list[str]]] = {f"tags_{category}": [] for category in CATEGORIES}
    filled = list(columns.values())
    for of_post in tags:
        for column in filled:
            column.append([])
        for tag in of_post:
            filled[int(tag[-6:]) % len(CATEGORIES)][-1].append(tag)
    frame = pd.DataFrame({"post_id": np.arange(len(tags)), "status": "kept"})
    return frame.assign(**{name: pd.Series(column, dtype=object) for name, column in columns.items()})


def _strings(tags: list[list[str]]) -> pd.Series[Any]:
    return pd.Series([" ".join(of_post) for of_post in tags])


def _encoded(post_tags: pd.DataFrame) -> pd.DataFrame:
    return post_tags.astype({"tag": "category", "category": "category"})


def _counted_by_pandas(strings: pd.Series[Any]) -> pd.Series[Any]:
    return strings.str.split().explode().value_counts()


def _counted(post_tags: pd.DataFrame) -> pd.Series[Any]:
    return tag_frequencies(post_tags).set_index("tag")["count"]


# Each way: how its input is made (not measured), and how it counts (measured).
WAYS: dict[str, tuple[Callable[[list[list[str]]], Any], Callable[[Any], pd.Series[Any]]]] = {
    "pandas: split, explode, value_counts": (_strings, _counted_by_pandas),
    "tag_frequencies of text": (lambda tags: post_tags_table(lists_by_category(tags)), _counted),
    "tag_frequencies of encoded text": (lambda tags: _encoded(post_tags_table(lists_by_category(tags))), _counted),
    "post_tags_table and tag_frequencies": (lists_by_category, lambda posts: _counted(post_tags_table(posts))),
}


def measured(way: str, posts: int) -> dict[str, Any]:
    """Run one way in this process and return its numbers."""
    prepare, count = WAYS[way]
    count(prepare(drawn_tags(10)))  # imports are not counting
    given = prepare(drawn_tags(posts))
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew here
    start = time.perf_counter()
    counts = count(given)
    seconds = time.perf_counter() - start
    text = json.dumps(sorted((str(tag), int(number)) for tag, number in counts.items()))
    return {
        "way": way,
        "seconds": round(seconds, 3),
        "peak_mib": round((_memory("VmHWM") - before) / 1024),
        "uses": int(counts.sum()),
        "counts": hashlib.sha256(text.encode()).hexdigest(),
    }


def _memory(field: str) -> int:
    """Return a field of Linux's process status in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")))


def in_own_process(way: str, posts: int) -> dict[str, Any]:
    """Return what `measured` finds in a fresh interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, way, posts).result()


def main(arguments: Sequence[str]) -> None:
    posts = int(arguments[0]) if arguments else 200_000
    rows = [in_own_process(way, posts) for way in WAYS]
    if len({row["counts"] for row in rows}) != 1:
        raise SystemExit("the ways do not count the same")
    for row in rows:
        row["ratio_to_pandas"] = round(row["seconds"] / rows[0]["seconds"], 4)
        print(
            f"{row['way']:40} {row['seconds']:8.2f} s  {row['peak_mib']:6} MiB  {row['ratio_to_pandas']:.3f} of pandas"
        )
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "pandas": pd.__version__}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-tag_counting.json"
    write_json(path, {"posts": posts, "tag_uses": rows[0]["uses"], "machine": machine, "ways": rows})
    print(f"{posts} posts, {rows[0]['uses']} uses of tags; written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
