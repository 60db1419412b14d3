"""Counting tags: ours against pandas' `str.split().explode().value_counts()` and DuckDB, on the same posts in one run.

Made-up posts of a fixed seed: about 37 tags each, names as common as in real collections (Zipf), nine categories. Each
way is measured in a process of its own, so that peak memory is its own (read from Linux's /proc); the counts of all
ways must agree. The last way counts five million posts, for its memory.

    python benchmarks/tag_counting.py [posts, 1000000 unless given] [posts for memory, 5000000 unless given; 0: none]

Promised: counting takes at most a tenth of pandas' time and no more than DuckDB's, and five million posts fit into
4 GB. Prints seconds, peak memory over the input's own, and the ratios; writes
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
import pyarrow as pa
import pyarrow.compute as pc

from ti_pipeline.files import write_json
from ti_pipeline.studies import CATEGORIES
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tags import post_tags_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SEED = 6
TAGS_PER_POST = 37
NAMES = 106_844  # as many as the site has in real life
SLICE = 100_000
RESULTS = Path(__file__).parent / "results"


def names() -> list[str]:
    return [f"some_tag_{number:06d}" for number in range(NAMES)]


def drawn_uses(posts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return post and name of each use, ordered, each pair once; some names are thousands of times as common as most.

    Drawn a slice of posts at a time, so that the making of millions leaves no peak behind.
    """
    rng = np.random.default_rng(SEED)
    share = np.cumsum(1 / (np.arange(NAMES) + 20.0))
    rows, codes = [], []
    for start in range(0, posts, SLICE):
        size = min(SLICE, posts - start)
        drawn = np.searchsorted(share, rng.random((size, TAGS_PER_POST)) * share[-1]).astype(np.int32)
        drawn.sort(axis=1)
        fresh = np.ones_like(drawn, dtype=bool)
        fresh[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        rows.append(np.repeat(np.arange(start, start + size, dtype=np.int64), fresh.sum(axis=1)))
        codes.append(drawn[fresh])
    return np.concatenate(rows), np.concatenate(codes)


def encoded_post_tags(posts: int) -> pd.DataFrame:
    """Return the `post_tags` table as the pipeline makes and stores it; a name's number decides its category."""
    rows, codes = drawn_uses(posts)
    categories = (codes % len(CATEGORIES)).astype(np.int8)
    return pd.DataFrame(
        {
            "post_id": rows,
            "tag": pd.Categorical.from_codes(codes, pd.Index(names(), dtype="str")),
            "category": pd.Categorical.from_codes(categories, pd.Index(CATEGORIES, dtype="str")),
        },
        copy=False,
    )


def lists_by_category(posts: int) -> pd.DataFrame:
    """Return the columns of `posts` that tagging reads, as lists of text."""
    rows, codes = drawn_uses(posts)
    known = np.array(names(), dtype=object)
    frame = pd.DataFrame({"post_id": np.arange(posts), "status": "kept"})
    for number, category in enumerate(CATEGORIES):
        mine = codes % len(CATEGORIES) == number
        ends = np.cumsum(np.bincount(rows[mine], minlength=posts)).tolist()
        texts = known[codes[mine]].tolist()
        lists = [texts[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        frame[f"tags_{category}"] = pd.Series(lists, dtype=object)
    return frame


def strings(posts: int) -> pd.Series[Any]:
    """Return each post's tags as one text, separated by spaces: how other tools keep them."""
    rows, codes = drawn_uses(posts)
    ends = np.cumsum(np.bincount(rows, minlength=posts)).astype(np.int32)
    tags = pa.array(names()).take(pa.array(codes))
    lists = pa.ListArray.from_arrays(pa.array(np.append(0, ends).astype(np.int32)), tags)
    return pc.binary_join(lists, " ").to_pandas().astype("str")


def _counted_by_pandas(texts: pd.Series[Any]) -> pd.Series[Any]:
    return texts.str.split().explode().value_counts()


def _counted(post_tags: pd.DataFrame) -> pd.Series[Any]:
    return tag_frequencies(post_tags).set_index("tag")["count"]


def _duckdb_counts(query: str, given: pd.DataFrame | pd.Series[Any]) -> pd.Series[Any]:
    import duckdb

    table = given.to_frame("tags") if isinstance(given, pd.Series) else given
    with duckdb.connect() as connection:
        connection.register("given", table)
        found = connection.execute(query).df()
    return found.set_index("tag")["n"]


_OF_STRINGS = "select tag, count(*) as n from (select unnest(string_split(tags, ' ')) as tag from given) group by tag"
_OF_TABLE = "select cast(tag as varchar) as tag, count(*) as n from given group by tag"
PANDAS, OURS = "pandas: split, explode, value_counts", "tag_frequencies of the stored table"
DUCKDB = "DuckDB: string_split, unnest, group by"

# Each way: how its input is made (not measured), and how it counts (measured).
WAYS: dict[str, tuple[Callable[[int], Any], Callable[[Any], pd.Series[Any]]]] = {
    PANDAS: (strings, _counted_by_pandas),
    DUCKDB: (strings, lambda texts: _duckdb_counts(_OF_STRINGS, texts)),
    "DuckDB: group by, of the stored table": (encoded_post_tags, lambda table: _duckdb_counts(_OF_TABLE, table)),
    OURS: (encoded_post_tags, _counted),
    "tag_frequencies of plain text": (
        lambda posts: encoded_post_tags(posts).astype({"tag": "str", "category": "str"}),
        _counted,
    ),
    "post_tags_table, then tag_frequencies": (lists_by_category, lambda posts: _counted(post_tags_table(posts))),
}


def measured(way: str, posts: int) -> dict[str, Any]:
    """Run one way in this process and return its numbers."""
    prepare, count = WAYS[way]
    count(prepare(10))  # imports are not counting
    given = prepare(posts)
    pa.default_memory_pool().release_unused()
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew here
    start = time.perf_counter()
    counts = count(given)
    seconds = time.perf_counter() - start
    peak = _memory("VmHWM")
    text = json.dumps(sorted((str(tag), int(number)) for tag, number in counts.items()))
    return {
        "way": way,
        "posts": posts,
        "seconds": round(seconds, 3),
        "peak_mib": round((peak - before) / 1024),
        "peak_with_input_mib": round(peak / 1024),
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
    posts, many = (int(given) for given in [*arguments, *("1000000", "5000000")[len(arguments) :]])
    rows = [in_own_process(way, posts) for way in WAYS]
    if len({row["counts"] for row in rows}) != 1:
        raise SystemExit("the ways do not count the same")
    seconds = {row["way"]: row["seconds"] for row in rows}
    for row in rows:
        row["ratio_to_pandas"] = round(row["seconds"] / seconds[PANDAS], 4)
        row["ratio_to_duckdb"] = round(row["seconds"] / seconds[DUCKDB], 4)
        print(
            f"{row['way']:40} {row['seconds']:8.2f} s  {row['peak_mib']:6} MiB  {row['ratio_to_pandas']:.3f} of pandas"
            f"  {row['ratio_to_duckdb']:.3f} of DuckDB"
        )
    if many:
        rows.append(in_own_process(OURS, many))
        print(f"{many} posts: {rows[-1]['seconds']} s, {rows[-1]['peak_with_input_mib']} MiB with the table itself")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "pandas": pd.__version__}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-tag_counting.json"
    write_json(path, {"posts": posts, "tag_uses": rows[0]["uses"], "machine": machine, "ways": rows})
    print(f"{posts} posts, {rows[0]['uses']} uses of tags; written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
