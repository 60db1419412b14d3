"""The posts dump as a source: converting it, beside `gzip -dc | wc -c`, and searching it, beside pandas and DuckDB.

A dump of a fixed seed (`drawn_dump`): about 37 tags a post, names as common as in real collections (Zipf). Converting
and unpacking take turns on the same file; each way of searching runs in a process of its own and answers the same
searches, with the same ids. DuckDB takes part where it is installed; the product does not need it.

    python benchmarks/dump_search.py [--posts 1000000] [--rounds 3] [--ways here pandas duckdb] [--folder FOLDER]

`--folder` keeps the drawn dump for the next time. Prints seconds, ratios and peak memory (all of the process's, read
from Linux's /proc); writes `benchmarks/results/<date>-dump_search-<posts>.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from drawn_dump import tag_names, write_dump

from ti_pipeline.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RESULTS = Path(__file__).parent / "results"
WARM_RUNS = 5
TAGS = tag_names()[:6]
# Wanted tags, unwanted tags, and the search that says so; all are by score, the best first.
SEARCHES = {
    "three common tags": (TAGS[:3], [], f"{TAGS[0]} {TAGS[1]} {TAGS[2]} order:score"),
    "one of them unwanted": (TAGS[3:5], TAGS[5:6], f"{TAGS[3]} {TAGS[4]} -{TAGS[5]} order:score"),
}

Answers = dict[str, list[int]]


def unpack(dump: Path) -> float:
    """Return the seconds that `gzip -dc | wc -c` takes."""
    start = time.perf_counter()
    with subprocess.Popen(["gzip", "-dc", str(dump)], stdout=subprocess.PIPE) as gzip:
        subprocess.run(["wc", "-c"], stdin=gzip.stdout, stdout=subprocess.DEVNULL, check=True)
    if gzip.returncode:
        raise SystemExit("gzip failed")
    return time.perf_counter() - start


def convert(dump: Path, root: Path) -> dict[str, float]:
    """Return what one conversion in this process costs."""
    from ti_pipeline.e621.export import convert_dump

    with tempfile.TemporaryDirectory() as few:
        convert_dump(drawn(Path(few), 10), Path(few))  # imports are not converting
    start, before = time.perf_counter(), os.times()
    convert_dump(dump, root)
    after = os.times()
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": after.user + after.system - before.user - before.system,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> int:
    """Return the largest memory that this process has had so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) // 1024


def search_here(dump: Path, root: Path) -> Callable[[str], list[int]]:
    """Open the converted dump."""
    from ti_pipeline.e621.export import convert_dump
    from ti_pipeline.e621.local_search import LocalSearch
    from ti_pipeline.e621.search_language import parse_search

    opened = LocalSearch(convert_dump(dump, root))
    return lambda name: opened.find(parse_search(SEARCHES[name][2])).tolist()


def search_by_pandas(dump: Path, root: Path) -> Callable[[str], list[int]]:
    """Read what is needed of the dump with pandas; tags are looked for in their strings."""
    import pandas as pd

    frame = pd.read_csv(dump, usecols=["id", "tag_string", "score", "is_deleted"], na_filter=False)
    frame = frame[frame["is_deleted"] == "f"].assign(tag_string=lambda rows: " " + rows["tag_string"] + " ")

    def find(name: str) -> list[int]:
        wanted, unwanted, _ = SEARCHES[name]
        found = frame
        for tag in wanted:
            found = found[found["tag_string"].str.contains(f" {tag} ", regex=False)]
        for tag in unwanted:
            found = found[~found["tag_string"].str.contains(f" {tag} ", regex=False)]
        return found.sort_values(["score", "id"], ascending=False)["id"].tolist()

    return find


def search_by_duckdb(dump: Path, root: Path) -> Callable[[str], list[int]]:
    """Let DuckDB search the converted Parquet files, with tags as lists."""
    import duckdb

    from ti_pipeline.e621.export import convert_dump, part_files

    files = [str(path) for path in part_files(convert_dump(dump, root))[0]]
    connection = duckdb.connect()
    connection.execute("SET threads = 2")

    def find(name: str) -> list[int]:
        wanted, unwanted, _ = SEARCHES[name]
        rows = connection.execute(
            "SELECT id FROM read_parquet($files) WHERE NOT is_deleted AND list_has_all(tags, $wanted) "
            "AND NOT list_has_any(tags, $unwanted) ORDER BY score DESC, id DESC",
            {"files": files, "wanted": wanted, "unwanted": unwanted},
        ).fetchall()
        return [row[0] for row in rows]

    return find


WAYS: dict[str, Callable[[Path, Path], Callable[[str], list[int]]]] = {
    "here": search_here,
    "pandas": search_by_pandas,
    "duckdb": search_by_duckdb,
}


def measured_searches(way: str, dump: Path, root: Path) -> tuple[dict[str, Any], Answers]:
    """Run all searches one way in this process; return its numbers and what was found."""
    start = time.perf_counter()
    find = WAYS[way](dump, root)
    row: dict[str, Any] = {"way": way, "opening_seconds": round(time.perf_counter() - start, 3)}
    found: Answers = {}
    for name in SEARCHES:
        seconds = []
        for _ in range(1 + WARM_RUNS):
            start = time.perf_counter()
            found[name] = find(name)
            seconds.append(time.perf_counter() - start)
        row[name] = {
            "first_seconds": round(seconds[0], 4),
            "warm_seconds": round(statistics.median(seconds[1:]), 4),
            "posts": len(found[name]),
        }
    return row | {"peak_mib": peak_mib()}, found


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` gives in a fresh interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def measured_conversions(dump: Path, root: Path, rounds: int) -> list[dict[str, float]]:
    """Return for each round what unpacking and converting cost; the last conversion stays."""
    rows = []
    for _ in range(rounds):
        shutil.rmtree(root, ignore_errors=True)
        gzip = unpack(dump)
        made = in_own_process(convert, dump, root)
        row = {"gzip_seconds": gzip, **made, "ratio": gzip / made["seconds"], "load": os.getloadavg()[0]}
        rows.append({name: round(value, 3) for name, value in row.items()})
        print(f"gzip {gzip:.2f} s, conversion {made['seconds']:.2f} s: {row['ratio']:.2f}, {made['peak_mib']} MiB")
    return rows


def compared_searches(dump: Path, root: Path, ways: Sequence[str]) -> list[dict[str, Any]]:
    """Return the numbers of those ways that are installed, which must find the same."""
    ways = [way for way in ways if way != "duckdb" or importlib.util.find_spec("duckdb")]
    results = [in_own_process(measured_searches, way, dump, root) for way in ways]
    if any(found != results[0][1] for _, found in results):
        raise SystemExit("the ways do not find the same")
    for row, _ in results:
        print(json.dumps(row))
    return [row for row, _ in results]


def drawn(folder: Path, posts: int) -> Path:
    """Return the drawn dump in `folder`, drawing it unless it is there."""
    dump = folder / f"posts-{posts}.csv.gz"
    if not dump.exists():
        aside = dump.with_suffix(".partial")
        write_dump(aside, posts)
        aside.replace(dump)
    return dump


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="conversions, each beside its gzip")
    parser.add_argument("--folder", type=Path, help="where the drawn dump is kept")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="pandas takes 2.4 GiB a million")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dump_search-", dir=given.folder) as made:
        dump = drawn(given.folder or Path(made), given.posts)
        conversions = measured_conversions(dump, Path(made) / "converted", given.rounds)
        size = sum(path.stat().st_size for path in (Path(made) / "converted").rglob("*") if path.is_file())
        searches = compared_searches(dump, Path(made) / "converted", given.ways)
        result = {
            "posts": given.posts,
            "dump_mib": dump.stat().st_size >> 20,
            "converted_mib": size >> 20,
            "conversions": conversions,
            "median_ratio": statistics.median(row["ratio"] for row in conversions),
            "searches": searches,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "pyarrow": pa.__version__},
        }
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-dump_search-{given.posts}.json"
    write_json(path, result)
    print(f"median ratio {result['median_ratio']}; written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
