"""The site's searches, answered by a converted posts dump.

Here: which posts a search finds, and in which order. Not here: what a search means (`search_language`), or how the
dump became these files (`export`).

Posts are rows, numbered through all parts in order of their ids; a condition is a boolean per row. Tags are looked up
in each part's index, which is mapped into memory, not read; numbers are read when first asked for, and then kept.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.export import part_files, schema
from ti_pipeline.e621.search_language import (
    Group,
    Has,
    Number,
    SourceLike,
    Status,
    Tag,
    Text,
    Wildcard,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ti_pipeline.e621.search_language import Search, Term
    from ti_pipeline.e621.search_values import Interval

    _Mask = NDArray[np.bool_]
    _Numbers = NDArray[Any]

__all__ = ["LocalSearch"]

WILDCARD_TAGS = 40
# What searches call a number, and what the dump does.
_COLUMNS = {
    "id": "id",
    "width": "image_width",
    "height": "image_height",
    "score": "score",
    "favcount": "fav_count",
    "tagcount": "tag_count",
    "filesize": "file_size",
    "change": "change_seq",
    "duration": "duration",
    "parent": "parent_id",
    "comment_count": "comment_count",
    "created": "created_at",
    "updated": "updated_at",
}
_TEXTS = {"rating": "rating", "type": "file_ext", "md5": "md5"}


class LocalSearch:
    """A converted dump to search in, as often as wanted; keeps the numbers that searches have used in memory."""

    def __init__(self, folder: Path) -> None:
        """Open what `export.convert_dump` made. Raises `ExportError` where it is not there or not complete."""
        import pyarrow.parquet as pq

        self._posts, indexes = part_files(folder)
        self._tags = [_mapped(path) for path in indexes]
        lengths = [pq.read_metadata(path).num_rows for path in self._posts]
        self._starts = [sum(lengths[:part]) for part in range(len(lengths))]
        self._count = sum(lengths)
        self._known: dict[str, _Numbers] = {}

    def __len__(self) -> int:
        """Return how many posts there are, deleted ones too."""
        return int(self._count)

    def find(self, search: Search, *, seed: int = 0) -> NDArray[np.int64]:
        """Return the ids of all posts that a search finds, in its order; its `limit` is the caller's business.

        Where the site leaves a tie open, the larger id comes first, under `_asc` orders the smaller. `order:random` is
        shuffled by the search's own seed, else by `seed`: always the same way, which is not the site's.
        """
        import numpy as np

        rows = np.flatnonzero(self._group(search.where))
        return np.asarray(self._numbers("id")[rows[self._order(search, rows, seed)]], dtype=np.int64)

    def _order(self, search: Search, rows: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
        """Return the places in `rows` in the order of a search; rows ascend with ids. Missing numbers come last."""
        import numpy as np

        if search.order == "random":
            shuffle = np.random.default_rng(seed if search.seed is None else search.seed)
            return shuffle.permutation(len(rows))
        if search.order == "id":
            return np.arange(len(rows)) if search.ascending else np.arange(len(rows))[::-1]
        if search.order == "md5":
            places = np.argsort(self._md5s(rows), kind="stable")
            return places if search.ascending else places[::-1]
        keys = self._numbers(search.order)[rows].astype(float)
        if search.ascending:
            return np.argsort(keys, kind="stable")
        return (len(rows) - 1) - np.argsort(-keys[::-1], kind="stable")

    def _mask(self, term: Term) -> _Mask:
        answers: dict[type, Callable[[Any], _Mask]] = {
            Tag: lambda tag: self._any_tag([tag.name]),
            Wildcard: lambda wildcard: self._any_tag(self._commonest(wildcard.pattern)),
            Number: lambda number: _within(self._numbers(number.field), number.intervals),
            Text: lambda text: self._text(_TEXTS[text.field], text.values),
            # An empty line fits a lone star, but is no source.
            SourceLike: lambda source: self._matching("source", _like(source.pattern)) & self._has_source(),
            Has: lambda has: self._has_parent() if has.field == "parent" else self._has_source(),
            Status: lambda status: self._status(status.name),
            Group: self._group,
        }
        return answers[type(term)](term)

    def _group(self, group: Group) -> _Mask:
        import numpy as np

        found = np.ones(self._count, bool)
        for term in group.must:
            found &= self._mask(term)
        for term in group.must_not:
            found &= ~self._mask(term)
        if group.should:
            found &= functools.reduce(np.logical_or, map(self._mask, group.should))
        return found

    def _any_tag(self, names: list[str]) -> _Mask:
        """Return which posts have at least one of these tags."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        found = np.zeros(self._count, bool)
        wanted = pa.array(names, pa.string())
        for start, tags in zip(self._starts, self._tags, strict=True):
            for place in np.flatnonzero(pc.is_in(tags["tag"], wanted)):
                found[tags["rows"][place].values.to_numpy() + start] = True
        return found

    def _commonest(self, pattern: str) -> list[str]:
        """Return the tags that a wildcard stands for: those on most posts that are not deleted."""
        import pyarrow as pa
        import pyarrow.compute as pc

        fitting = [pa.table(tags.select(["tag", "live"])) for tags in self._tags]
        fitting = [tags.filter(pc.match_like(tags["tag"], _sql_like(pattern))) for tags in fitting]
        if not fitting:
            return []
        counts = pa.concat_tables(fitting).group_by("tag").aggregate([("live", "sum")])
        commonest = counts.sort_by([("live_sum", "descending"), ("tag", "ascending")])
        return [str(name) for name in commonest["tag"][:WILDCARD_TAGS].to_pylist()]

    def _numbers(self, field: str) -> _Numbers:
        """Return a number of every post, as whole numbers, or as floats with NaN where some have none."""
        if field not in self._known:
            self._known[field] = self._read_numbers(field)
        return self._known[field]

    def _read_numbers(self, field: str) -> _Numbers:
        import numpy as np

        if field in {"mpixels", "ratio"}:
            width, height = (np.nan_to_num(self._numbers(side)).astype("int64") for side in ("width", "height"))
            known = ~(np.isnan(self._numbers("width")) | np.isnan(self._numbers("height")))
            # Two decimals, halves up, reckoned in whole numbers; without a size, the site reckons with 0 and 1.
            if field == "mpixels":
                return np.where(known, (width * height + 5_000) // 10_000, 0) / 100
            tall = np.maximum(height, 1)
            return np.where(known, (200 * width + tall) // (2 * tall), 100) / 100
        column = self._column(_COLUMNS[field])
        return np.asarray((column.cast("int64") if field in {"created", "updated"} else column).to_numpy())

    def _text(self, column: str, values: frozenset[str]) -> _Mask:
        import pyarrow as pa
        import pyarrow.compute as pc

        return _plain(pc.is_in(self._column(column), pa.array(sorted(values), pa.string())))

    def _matching(self, column: str, pattern: str) -> _Mask:
        import pyarrow.compute as pc

        return _plain(pc.match_substring_regex(self._column(column), pattern))

    def _has_source(self) -> _Mask:
        return self._matching("source", r"[^\s]")

    def _has_parent(self) -> _Mask:
        return _plain(self._column("parent_id").is_valid())

    def _status(self, name: str) -> _Mask:
        if name == "modqueue":
            return self._status("pending") | self._status("flagged")
        if name == "active":
            return ~(self._status("modqueue") | self._status("deleted"))
        return _plain(self._column(f"is_{name}"))

    def _md5s(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        import numpy as np

        return np.asarray(self._column("md5").take(rows).to_numpy(), dtype="S32")

    def _column(self, name: str) -> pa.ChunkedArray:
        import pyarrow as pa
        import pyarrow.parquet as pq

        empty = pa.schema([schema().field(name)]).empty_table()
        return pa.concat_tables([empty, *(pq.read_table(path, columns=[name]) for path in self._posts)])[name]


def _mapped(path: Path) -> pa.RecordBatch:
    """Return a part's index without reading it."""
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _plain(mask: Any) -> _Mask:
    """Return an Arrow column of booleans as an array; where it knows nothing, a post does not match."""
    import numpy as np

    return np.asarray(mask.fill_null(False).to_numpy())


def _within(values: _Numbers, intervals: tuple[Interval, ...]) -> _Mask:
    """Return which values lie in one of the intervals; missing ones (NaN) lie in none."""
    import numpy as np

    found = np.zeros(len(values), bool)
    for part in intervals:
        low = values > part.low if part.low_open else values >= part.low
        found |= low & (values < part.high if part.high_open else values <= part.high)
    return found


def _like(pattern: str) -> str:
    """Return a regular expression for a source's line that starts like `pattern`."""
    wild = {"*": r"[^\n]*", "?": r"[^\n]"}
    return "(?m)^" + "".join(wild.get(char) or re.escape(char) for char in pattern) + "$"


def _sql_like(pattern: str) -> str:
    r"""Return a wildcard as SQL's LIKE, by the site's rules: `\*` is a star."""
    escaped = {"%": r"\%", "_": r"\_", "*": "%", r"\*": "*", "\\\\": "\\\\", "\\": "\\\\"}
    return re.sub(r"%|_|\*|\\\*|\\\\|\\", lambda found: escaped[found[0]], pattern)
