"""The conversion of the posts dump, against Python's csv module."""

import csv
import gzip
import hashlib
import io
import math
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.e621.export import ExportError, convert_dump, find_dump, part_files
from ti_pipeline_tests.e621.dumps import COLUMNS, dump_text, post, write_dump

NASTY = [
    post(3, tag_string="solo \x01 wolf", source='https://a.example/"x",y\nhttps://b.example\r\n'),
    post(4, tag_string="", locked_tags="", source="", is_deleted=True, rating="e"),
    post(9, tag_string='"quoted" \u202eevil\u202c nidoran♀ pokémon_(species)', locked_tags="-a\nb", is_pending=True),
    post(12, tag_string="null nan NA -", description='line\n"1,2,"\n\n', duration=1.5, parent_id=3, score=-7),
    post(13, tag_string=" two  spaces ", source=None, image_width=None, image_height=None, is_flagged=True),
    post(2**31 - 1, created_at="2024-01-01 00:00:00", updated_at="2024-01-02 03:04:05.123456", change_seq=2**40),
]


def read_back(folder):
    paths, _ = part_files(folder)
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def by_csv(text):
    """What the dump says, by Python's csv module and the reference; that module cannot tell null from empty text."""
    whole = ("id", "image_width", "image_height", "fav_count", "parent_id", "change_seq", "file_size", "score")
    rows = []
    for raw in csv.DictReader(io.StringIO(text, newline="")):
        row = {name: int(raw[name]) if raw[name] else None for name in (*whole, "comment_count")}
        row |= {name: raw[name] or None for name in ("md5", "source", "rating", "file_ext", "locked_tags")}
        row |= {name: raw[name] == "t" for name in ("is_deleted", "is_pending", "is_flagged")}
        row |= {n: datetime.fromisoformat(raw[n]) if raw[n] else None for n in ("created_at", "updated_at")}
        row["duration"] = float(raw["duration"]) if raw["duration"] else None
        row["tags"] = [tag for tag in raw["tag_string"].split(" ") if tag]
        row["tag_count"] = len(row["tags"])
        rows.append(row)
    return rows


def without_empty_text(rows):
    return [{k: None if v == "" else v for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("block_size", [64, 700, 1 << 20])
def test_nasty_posts_arrive_as_the_csv_module_reads_them(tmp_path, block_size):
    folder = convert_dump(write_dump(tmp_path / "posts.csv.gz", NASTY), tmp_path / "made", block_size=block_size)
    assert without_empty_text(read_back(folder)) == by_csv(dump_text(NASTY))
    assert len(part_files(folder)[0]) == {64: 6, 700: 2, 1 << 20: 1}[block_size]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
TAGS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0 "), min_size=1, max_size=5), max_size=6)


@given(
    st.lists(st.tuples(TEXTS | st.none(), TAGS, TEXTS, st.booleans()), max_size=12),
    st.integers(1, 400),
    st.permutations(COLUMNS),
)
def test_any_text_arrives(tmp_path_factory, given_rows, block_size, columns):
    tmp_path = tmp_path_factory.mktemp("dump")
    rows = [
        post(2 * number + 1, source=source, tag_string=" ".join(tags), description=words, is_deleted=deleted)
        for number, (source, tags, words, deleted) in enumerate(given_rows)
    ]
    columns = ["added_lately", *columns]
    text = dump_text([row | {"added_lately": 'new, "odd"\n'} for row in rows], columns)
    (tmp_path / "posts.csv").write_bytes(text.encode())
    folder = convert_dump(tmp_path / "posts.csv", tmp_path, block_size=block_size)
    found = read_back(folder)
    assert [row["source"] for row in found] == [row["source"] for row in rows]  # also null or empty
    assert [row["tags"] for row in found] == [tags for _, tags, _, _ in given_rows]
    assert without_empty_text(found) == by_csv(text)


def test_the_index_tells_for_each_tag_its_posts(tmp_path):
    rows = [post(i, tag_string=f"t{i % 3} t{i % 5} all", is_deleted=i % 4 == 0) for i in range(1, 40)]
    rows = [row | {"tag_string": " ".join(sorted(set(row["tag_string"].split())))} for row in rows]
    folder = convert_dump(write_dump(tmp_path / "posts.csv.gz", rows), tmp_path, block_size=2000)
    found, live = {}, {}
    for posts, tags in zip(*part_files(folder), strict=True):
        ids = pq.read_table(posts)["id"].to_pylist()
        for entry in pa.ipc.open_file(tags).get_batch(0).to_pylist():
            found.setdefault(entry["tag"], []).extend(ids[row] for row in entry["rows"])
            live[entry["tag"]] = live.get(entry["tag"], 0) + entry["live"]
    assert len(part_files(folder)[0]) > 1
    names = {tag for row in rows for tag in row["tag_string"].split()}
    assert found == {tag: [row["id"] for row in rows if tag in row["tag_string"].split()] for tag in names}
    assert live == {
        tag: sum(tag in row["tag_string"].split() and not row["is_deleted"] for row in rows) for tag in names
    }


def test_shuffled_posts_are_sorted_within_a_part_and_refused_across_parts(tmp_path):
    rows = [post(i) for i in (5, 2, 9, 1)]
    dump = write_dump(tmp_path / "posts.csv.gz", rows)
    assert [row["id"] for row in read_back(convert_dump(dump, tmp_path))] == [1, 2, 5, 9]
    with pytest.raises(ExportError, match=r"posts\.csv\.gz is not sorted: post 2 comes after post 5"):
        convert_dump(dump, tmp_path, block_size=100)
    with pytest.raises(ExportError, match="has post 5 twice"):
        convert_dump(write_dump(dump, [post(5), post(5)]), tmp_path)


def test_nothing_but_a_header_is_a_dump_without_posts(tmp_path):
    folder = convert_dump(write_dump(tmp_path / "posts.csv.gz", []), tmp_path)
    assert part_files(folder) == ([], [])


def damaged_dumps():
    whole = gzip.compress(dump_text(NASTY).encode(), mtime=0)
    wrong = dump_text([post(1, score="many")])
    return {
        "empty": (b"", "is empty"),
        "cut gzip": (whole[:-40], "cut short"),
        "cut in the checksum": (whole[:-3], "cut short"),
        "flipped": (whole[:100] + bytes([whole[100] ^ 64]) + whole[101:], "damaged|cut short|byte"),
        "no posts dump": (b"id,name,category,post_count\n1,wolf,5,3\n", "no column change_seq"),
        "a web page": (b"<!DOCTYPE html><html></html>", "no column"),
        "cut in a field": (dump_text(NASTY).encode()[:-300].rsplit(b"line", 1)[0], "cut short"),
        "a column too few": (dump_text([post(1)]).encode() + b"2,3\n", "Expected 29 columns, got 2"),
        "no number": (wrong.encode(), "score|many"),
        "no utf-8": (dump_text([post(1, source="x")]).encode().replace(b",x,", b",\xff\xfe,"), "UTF8"),
        "no id": (dump_text([post(1, id=None)]).encode(), "without an id"),
    }


@pytest.mark.parametrize("case", damaged_dumps())
def test_a_damaged_dump_is_told_and_leaves_nothing(tmp_path, case):
    data, words = damaged_dumps()[case]
    dump = tmp_path / "posts-2026.csv.gz"
    dump.write_bytes(data)
    with pytest.raises(ExportError, match=rf"(?s)posts-2026\.csv\.gz.*({words})"):
        convert_dump(dump, tmp_path / "made", block_size=300)
    assert list((tmp_path / "made").glob("*")) == []


def test_gzip_of_several_members_padded_is_read_whole(tmp_path):
    text = dump_text(NASTY).encode()
    dump = tmp_path / "posts.csv.gz"
    dump.write_bytes(gzip.compress(text[:500]) + gzip.compress(text[500:]) + bytes(512))
    assert without_empty_text(read_back(convert_dump(dump, tmp_path))) == by_csv(text.decode())


def test_the_stated_checksum_must_be_the_dumps(tmp_path):
    dump = write_dump(tmp_path / "posts.csv.gz", NASTY)
    right = hashlib.sha256(dump.read_bytes()).hexdigest()
    for _ in range(2):  # converting it, and finding it converted
        with pytest.raises(ExportError, match=rf"sha256 {right}, stated is 00ff"):
            convert_dump(dump, tmp_path / "made", checksum="00ff")
        convert_dump(dump, tmp_path / "made", checksum=right.upper())
    (tmp_path / "posts.csv.gz.sha256").write_text(f"{right}  posts.csv.gz\n", encoding="ascii")
    convert_dump(dump, tmp_path / "other")
    (tmp_path / "posts.csv.gz.sha256").write_text("ab" * 32, encoding="ascii")
    with pytest.raises(ExportError, match="sha256"):
        convert_dump(dump, tmp_path / "third")


def test_the_dump_is_found_by_its_name(tmp_path):
    with pytest.raises(ExportError, match="no posts dump"):
        find_dump(tmp_path)
    for name in ("posts-2026-01-02.csv.gz", "posts-2026-01-01.csv", "tags.csv.gz", "posts.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert find_dump(tmp_path).name == "posts-2026-01-02.csv.gz"
    assert find_dump(tmp_path / "posts.txt").name == "posts.txt"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_conversion_goes_on_and_gives_the_same_bytes(tmp_path):
    rows = [post(i, tag_string=" ".join(f"t{i * k % 97}" for k in range(1, 9))) for i in range(1, 3000)]
    dump = write_dump(tmp_path / "posts.csv.gz", rows)
    calm = convert_dump(dump, tmp_path / "calm", block_size=20_000)
    code = f"""
import pathlib
from ti_pipeline.e621.export import convert_dump
convert_dump(pathlib.Path({str(dump)!r}), pathlib.Path({str(tmp_path / "killed")!r}), block_size=20_000)
"""
    killed = tmp_path / "killed" / calm.name
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while len(list(killed.glob("posts-*.parquet"))) < 3 and child.poll() is None:
        assert time.monotonic() < deadline
        os.sched_yield()
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in killed.glob("posts-*.parquet")}
    assert 3 <= len(done) < len(part_files(calm)[0])
    with pytest.raises(ExportError, match="no finished conversion"):
        part_files(killed)
    assert convert_dump(dump, tmp_path / "killed", block_size=20_000) == killed
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was done was not done again
    finished = {name: data for name, data in contents(killed).items() if not name.startswith(".")}
    assert finished == contents(calm)


def test_progress_ends_with_all_bytes_and_a_second_call_converts_nothing(tmp_path):
    dump = write_dump(tmp_path / "posts.csv.gz", NASTY)
    told = []
    folder = convert_dump(dump, tmp_path / "made", progress=lambda *values: told.append(values))
    assert told[-1][:2] == (dump.stat().st_size,) * 2
    before = contents(folder)
    dump.rename(tmp_path / "moved.csv.gz")
    assert convert_dump(tmp_path / "moved.csv.gz", tmp_path / "made", progress=lambda *values: told.append(0)) == folder
    assert 0 not in told
    assert contents(folder) == before


def test_times_are_utc_to_the_microsecond(tmp_path):
    folder = convert_dump(write_dump(tmp_path / "posts.csv.gz", NASTY), tmp_path)
    last = read_back(folder)[-1]
    assert last["updated_at"].replace(tzinfo=UTC) == datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert math.isclose(read_back(folder)[3]["duration"], 1.5)
