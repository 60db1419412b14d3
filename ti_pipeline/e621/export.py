"""The site's posts dump (`posts.csv.gz`), streamed once into Parquet sorted by id, with an index of its tags.

Here: reading the dump in bounded memory, checking it, going on where a killed conversion stopped. Not here: searching
it (`local_search`), the tag exports (`catalog`), or the policy: nothing is left out here, deleted posts neither.

The dump is cut at the ends of records into blocks; each block becomes one part: `posts-00000.parquet`, and
`tags-00000.arrow`, which tells for each tag the rows of the part that have it. Blocks depend on the dump alone, so a
conversion that goes on cuts the same blocks again and makes those parts that are missing.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import shutil
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import fingerprint, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pyarrow as pa

__all__ = ["ExportError", "convert_dump", "find_dump", "part_files", "schema"]

_FORMAT = 1  # of the converted files; another one is another folder
_BLOCK = 32 << 20  # bytes of unpacked dump; a worker needs some eight times as much memory
_LONGEST_RECORD = 64 << 20  # bytes; the site's longest are some 100 kB
_WORKERS = max(2, min(4, os.cpu_count() or 1))
_READ = 1 << 19  # bytes at a time; deflate unpacks to at most a thousand times as much
_TAIL = 1 << 16  # bytes from which a dump is known: gzip ends with checksum and size of all it holds
# Numbers, times and texts that searches and the policy use. The rest of the dump, descriptions above all, stays in it.
_WHOLE = ("image_width", "image_height", "fav_count", "parent_id", "file_size", "comment_count", "score")
_TIMES = ("created_at", "updated_at")
_TEXTS = ("md5", "source", "rating", "file_ext", "locked_tags")
_FLAGS = ("is_deleted", "is_pending", "is_flagged")
_FEW_VALUES = ["rating", "file_ext", "locked_tags", "tags.list.element"]


class ExportError(ValueError):
    """A dump is missing or not what it should be; the message names it and what to do."""


@dataclass(frozen=True)
class _Block:
    """Whole records of a dump, without the header; `start` is where they begin in the unpacked dump, in bytes."""

    number: int
    start: int
    records: memoryview


def find_dump(place: Path) -> Path:
    """Return the posts dump at `place`: the file itself, or the last by name of `posts*.csv(.gz)` in a folder.

    Raises `ExportError` if there is none.
    """
    if place.is_file():
        return place
    found = [path for path in place.glob("posts*") if path.name.endswith((".csv", ".csv.gz"))]
    if not found:
        raise ExportError(f"there is no posts dump at {place}: download posts.csv.gz from the site's database exports")
    return max(found, key=lambda path: path.name)


def convert_dump(
    dump: Path,
    root: Path,
    *,
    checksum: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    block_size: int = _BLOCK,
) -> Path:
    """Return the folder under `root` that holds the converted dump, converting it unless that is done.

    `checksum`: the sha256 that the site states; without it, `<dump>.sha256` is looked for (as `sha256sum` writes it).
    `progress` is told of bytes read. Needs some 1 GB of memory whatever the size of the dump. Raises `ExportError` for
    a dump that is cut short, damaged, not sorted by id, or not the one of the checksum; then nothing of it is kept.
    """
    folder = root / _identity(dump, block_size)
    stated = checksum or _stated_checksum(dump)
    if not (folder / "manifest.json").exists():
        try:
            manifest = _convert(dump, folder, stated, progress or (lambda done, total, what: None), block_size)
        except ExportError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_json(folder / "manifest.json", manifest)
    _require_checksum(dump, _manifest(folder)["sha256"], stated)
    return folder


def part_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the Parquet files of posts and the index files of a converted dump, in the order of ids.

    Raises `ExportError` where the conversion is not complete.
    """
    parts = range(_manifest(folder)["parts"])
    return [_posts_path(folder, part) for part in parts], [_tags_path(folder, part) for part in parts]


def schema() -> pa.Schema:
    """Return the columns of the Parquet files; times are UTC."""
    import pyarrow as pa

    fields: dict[str, pa.DataType] = {"id": pa.int64(), "change_seq": pa.int64(), "duration": pa.float64()}
    fields |= dict.fromkeys(_WHOLE, pa.int32()) | dict.fromkeys(_TIMES, pa.timestamp("us"))
    fields |= dict.fromkeys(_TEXTS, pa.string()) | dict.fromkeys(_FLAGS, pa.bool_())
    fields |= {"tag_count": pa.int32(), "tags": pa.list_(pa.field("element", pa.dictionary(pa.int32(), pa.string())))}
    return pa.schema(fields)


def _convert(
    dump: Path, folder: Path, stated: str | None, progress: Callable[[int, int, str], None], block_size: int
) -> dict[str, Any]:
    digest = hashlib.sha256()
    pieces = _unpacked(dump, digest, progress)
    header, begun = _header(pieces, dump)
    parts = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        running: deque[Future[None]] = deque()
        for block in _blocks(itertools.chain([begun], pieces), dump, block_size):
            parts = block.number + 1
            if not _posts_path(folder, block.number).exists():
                running.append(pool.submit(_write_part, block, header, dump, folder))
            # One block for each worker and one that waits: what is in memory does not grow with the dump.
            while len(running) > _WORKERS:
                running.popleft().result()
        for part in running:
            part.result()
    _require_checksum(dump, digest.hexdigest(), stated)
    _require_ascending(dump, [_posts_path(folder, part) for part in range(parts)])
    return {"dump": dump.name, "sha256": digest.hexdigest(), "parts": parts}


def _unpacked(dump: Path, digest: Any, progress: Callable[[int, int, str], None]) -> Iterator[bytes]:
    """Yield the bytes of a dump, gzipped (in one member or several) or plain; `digest` is fed with the file's own."""
    size = dump.stat().st_size
    if size == 0:
        raise ExportError(f"{dump} is empty: download it again")
    inflate: Any = None
    with dump.open("rb") as stream:
        gzipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        while piece := stream.read(_READ):
            digest.update(piece)
            progress(stream.tell(), size, "bytes of the posts dump converted")
            while gzipped and piece:
                inflate = inflate or zlib.decompressobj(wbits=31)
                try:
                    yield inflate.decompress(piece)
                except zlib.error as error:
                    raise ExportError(f"{dump} is damaged ({error}): download it again") from error
                piece = inflate.unused_data.lstrip(b"\0")  # gzip allows zeros behind a member
                inflate = None if inflate.eof else inflate
            if piece:
                yield piece
    if inflate is not None:
        raise ExportError(f"{dump} is cut short: the gzip data has no end; download it again")


def _header(pieces: Iterator[bytes], dump: Path) -> tuple[list[str], bytes]:
    """Return the names of the columns, and what has been read beyond them."""
    text = b""
    for piece in pieces:
        text += piece
        if b"\n" in text:
            break
    line, _, rest = text.partition(b"\n")
    names = next(csv.reader([line.decode("utf-8", "replace").rstrip("\r")]), [])
    missing = [name for name in _columns() if name not in names]
    if missing:
        raise ExportError(f"{dump} has no column {', '.join(missing)}: is it the site's posts dump?")
    return names, rest


def _blocks(pieces: Iterator[bytes], dump: Path, size: int) -> Iterator[_Block]:
    """Yield the records in blocks of at most `size` bytes; a longer record makes a longer block."""
    kept: list[bytes] = []
    length, most, number, start = 0, size, 0, 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        while length >= most:
            text = b"".join(kept)
            end = _end_of_records(text, most)
            if end:
                yield _Block(number, start, memoryview(text)[:end])
                number, start, most = number + 1, start + end, size
            elif most > _LONGEST_RECORD:
                raise ExportError(f"{dump}: no record ends for {most} bytes behind byte {start}: download it again")
            else:
                most *= 2
            kept, length = [text[end:]], length - end
    rest = b"".join(kept)
    if rest.count(b'"') % 2:
        raise ExportError(f"{dump} is cut short: it ends within a record; download it again")
    if rest:
        yield _Block(number, start, memoryview(rest))


def _end_of_records(text: bytes, most: int) -> int:
    """Return where the last whole record within the first `most` bytes ends, or 0.

    A line break ends a record where the number of quotes before it is even: in a quoted field, quotes are doubled.
    """
    quotes, end = text.count(b'"', 0, most), most
    while (newline := text.rfind(b"\n", 0, end)) >= 0:
        quotes -= text.count(b'"', newline, end)
        if quotes % 2 == 0:
            return newline + 1
        end = newline
    return 0


def _write_part(block: _Block, header: list[str], dump: Path, folder: Path) -> None:
    """Write one part; its Parquet file comes last, so that a part with one is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = _sorted(_parsed(block, header, dump), dump)
    posts, index = _with_tags(records)
    with write_atomically(_tags_path(folder, block.number)) as aside, pa.ipc.new_file(aside, index.schema) as writer:
        writer.write_batch(index)
    with write_atomically(_posts_path(folder, block.number)) as aside:
        pq.write_table(
            posts,
            aside,
            compression="lz4",
            use_dictionary=_FEW_VALUES,
            dictionary_pagesize_limit=len(block.records),  # a part's tags always fit
            write_statistics=["id"],
        )


def _parsed(block: _Block, header: list[str], dump: Path) -> pa.Table:
    """Return the columns in use of a block's records."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {field.name: field.type for field in schema()} | {"tag_string": pa.string()}
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(block.records),
            read_options=arrow_csv.ReadOptions(
                column_names=header, use_threads=False, block_size=len(block.records) + 1
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=_columns(),
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                true_values=["t"],
                false_values=["f"],
            ),
        )
    except pa.ArrowInvalid as error:
        raise ExportError(f"{dump}: behind byte {block.start} of the unpacked dump: {error}") from error
    return table.combine_chunks()


def _sorted(table: pa.Table, dump: Path) -> pa.Table:
    """Return records in the order of their ids, of which there may be no two."""
    import numpy as np

    if table["id"].null_count:
        raise ExportError(f"{dump} has a post without an id: download it again")
    ids = table["id"].to_numpy()
    if np.any(np.diff(ids) < 0):
        table = table.take(np.argsort(ids))
        ids = np.sort(ids)
    twice = ids[1:][np.diff(ids) == 0]
    if len(twice):
        raise ExportError(f"{dump} has post {twice[0]} twice: download it again")
    return table


def _with_tags(table: pa.Table) -> tuple[pa.Table, pa.RecordBatch]:
    """Return the posts with their tags as lists, and the index: tag, posts not deleted, rows."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.sparse import csr_array

    lists = pc.split_pattern(table["tag_string"].combine_chunks().fill_null(""), " ")
    encoded = lists.values.dictionary_encode()
    names, codes, offsets = encoded.dictionary, encoded.indices.to_numpy(), lists.offsets.to_numpy()
    blank = names.index("").as_py()
    if blank >= 0:  # a post without tags, or two spaces
        kept = codes != blank
        codes, offsets = codes[kept], np.concatenate([[0], np.cumsum(kept)])[offsets].astype("int32")
    deleted = table["is_deleted"].fill_null(False).to_numpy()
    live = np.bincount(codes[np.repeat(~deleted, np.diff(offsets))], minlength=len(names))
    # Transposing a sparse matrix sorts the rows by tag in linear time.
    by_tag = csr_array((np.ones(len(codes), bool), codes, offsets), shape=(len(table), len(names))).tocsc()
    rows = pa.ListArray.from_arrays(pa.array(by_tag.indptr, pa.int32()), pa.array(by_tag.indices, pa.int32()))
    index = pa.record_batch({"tag": names, "live": pa.array(live, pa.int32()), "rows": rows})
    tags = pa.ListArray.from_arrays(offsets, pa.DictionaryArray.from_arrays(codes, names))
    posts = table.append_column("tags", tags).append_column("tag_count", pa.array(np.diff(offsets), pa.int32()))
    flags = {name: posts[name].fill_null(False) for name in _FLAGS}
    columns = {name: flags.get(name, posts[name]) for name in schema().names}
    return pa.table(columns, schema=schema()), index


def _columns() -> list[str]:
    """Return the dump's columns that are used; it has more, and gets more."""
    return [name for name in schema().names if name not in {"tags", "tag_count"}] + ["tag_string"]


def _require_ascending(dump: Path, parts: list[Path]) -> None:
    import pyarrow.parquet as pq

    last = -1
    for path in parts:
        ids = pq.read_metadata(path).row_group(0).column(0).statistics
        if ids.min <= last:
            raise ExportError(f"{dump} is not sorted: post {ids.min} comes after post {last}; download it again")
        last = ids.max


def _require_checksum(dump: Path, found: str, stated: str | None) -> None:
    if stated is not None and stated.lower() != found:
        raise ExportError(f"{dump} has the sha256 {found}, stated is {stated}: download it again")


def _stated_checksum(dump: Path) -> str | None:
    beside = dump.with_name(f"{dump.name}.sha256")
    words = beside.read_text(encoding="utf-8").split() if beside.exists() else []
    return words[0] if words else None


def _identity(dump: Path, block_size: int) -> str:
    """Return a name for what is made of a dump, the same wherever the dump lies and whenever it came there."""
    size = dump.stat().st_size
    with dump.open("rb") as stream:
        stream.seek(max(0, size - _TAIL))
        tail = hashlib.sha256(stream.read()).hexdigest()
    return fingerprint({"format": _FORMAT, "size": size, "tail": tail, "block": block_size})[:16]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        raise ExportError(f"{folder} holds no finished conversion of a posts dump: convert the dump first")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _posts_path(folder: Path, part: int) -> Path:
    return folder / f"posts-{part:05d}.parquet"


def _tags_path(folder: Path, part: int) -> Path:
    return folder / f"tags-{part:05d}.arrow"
