"""What a table contract is: typed columns with meanings and bounds, and how frames are held to them.

Here: the machinery. Not here: the product's tables (`schemas`), or where they are stored (`io_managers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    import pandera.pandas as pandera
    import pyarrow as pa

__all__ = ["Column", "Table", "TableError", "from_arrow"]


_AT_ONCE = 10_000  # rows


class TableError(ValueError):
    """A table does not meet its contract; the message names the table, the column and what is wrong."""


@dataclass(frozen=True)
class Column:
    """One column: `kind` is an Arrow type by name (`int64`, `string`, `float64`, `bool`, or ours)."""

    name: str
    kind: str
    meaning: str
    nullable: bool = False
    low: float | None = None
    high: float | None = None
    among: tuple[str, ...] | None = None

    def arrow_type(self) -> pa.DataType:
        """Return the Arrow type; `strings` is a list of strings, `timestamp` has microseconds in UTC.

        `words` is text that repeats, kept once and numbered (pandas' `category`).
        """
        import pyarrow as pa

        special = {
            "strings": pa.list_(pa.string()),
            "timestamp": pa.timestamp("us", tz="UTC"),
            "bool": pa.bool_(),
            "words": pa.dictionary(pa.int32(), pa.string()),
        }
        return special.get(self.kind) or getattr(pa, self.kind)()


@dataclass(frozen=True)
class Table:
    """A named contract: ordered columns and the columns that together identify a row."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema, meanings in each field's metadata."""
        import pyarrow as pa

        return pa.schema(
            [pa.field(c.name, c.arrow_type(), c.nullable, {"description": c.meaning}) for c in self.columns],
            metadata={"table": self.name, "description": self.meaning},
        )

    def empty(self) -> pd.DataFrame:
        """Return a frame without rows that meets the contract."""
        return from_arrow(self.arrow_schema().empty_table())

    def to_arrow(self, frame: pd.DataFrame) -> pa.Table:
        """Convert a frame to Arrow under this contract; nothing is added, dropped or coerced with loss.

        Raises `TableError` for a missing or unknown column, or a value that its column cannot hold.
        """
        import pyarrow as pa

        names = [c.name for c in self.columns]
        found = [str(name) for name in frame]
        missing, unknown = sorted(set(names) - set(found)), sorted(set(found) - set(names))
        if missing or unknown:
            raise TableError(f"table {self.name}: missing columns {missing}, unknown columns {unknown}")
        arrays = []
        for column in self.columns:
            try:
                values = frame[column.name].astype("category") if column.kind == "words" else frame[column.name]
                array = pa.Array.from_pandas(values, type=column.arrow_type())
            except (pa.ArrowException, OverflowError) as error:
                raise TableError(f"table {self.name}, column {column.name}: {error}") from error
            if array.null_count and not column.nullable:
                raise TableError(f"table {self.name}, column {column.name}: {array.null_count} missing values")
            arrays.append(array)
        return pa.Table.from_arrays(arrays, schema=self.arrow_schema())

    def pandera_schema(self) -> pandera.DataFrameSchema:
        """Return the pandera schema of bounds, allowed values, missing values and key; types are Arrow's job."""
        import pandera.pandas as pandera

        def checks(column: Column) -> list[Any]:
            found = []
            if column.low is not None:
                found.append(pandera.Check.ge(column.low))
            if column.high is not None:
                found.append(pandera.Check.le(column.high))
            if column.among is not None:
                found.append(pandera.Check.isin(column.among))
            return found

        columns = {
            c.name: pandera.Column(checks=checks(c), nullable=c.nullable, description=c.meaning) for c in self.columns
        }
        return pandera.DataFrameSchema(
            columns, strict=True, ordered=True, unique=list(self.key) or None, name=self.name
        )

    def problems(self, frame: pd.DataFrame) -> list[str]:
        """Return each way in which `frame` breaks the contract, in words; empty when it is met."""
        from pandera.errors import SchemaErrors

        try:
            self.to_arrow(frame)
            self.pandera_schema().validate(frame, lazy=True)
        except TableError as error:
            return [str(error)]
        except SchemaErrors as errors:
            cases = errors.failure_cases
            return [
                f"table {self.name}, column {column}: {check} fails for {len(rows)} rows, e.g. {rows.iloc[0]!r}"
                for (column, check), rows in cases.groupby(["column", "check"], dropna=False)["failure_case"]
            ]
        return []


def from_arrow(table: pa.Table) -> pd.DataFrame:
    """Return a frame in which missing integers and booleans stay integers and booleans, and lists are lists."""
    import pandas as pd
    import pyarrow as pa

    nullable = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    # Lists come apart from the rest: as pandas makes them they would be arrays, to be thrown away at once.
    lists = [arrow.name for arrow in table.schema if pa.types.is_list(arrow.type)]
    frame: pd.DataFrame = table.drop_columns(lists).to_pandas()
    for place, arrow in enumerate(table.schema):
        if arrow.type in nullable and arrow.nullable:
            frame[arrow.name] = table.column(arrow.name).to_pandas(types_mapper=nullable.get)
        elif pa.types.is_list(arrow.type):
            frame.insert(
                place, arrow.name, pd.Series(_lists(table.column(arrow.name)), dtype=object, index=frame.index)
            )
    return frame


def _lists(column: pa.ChunkedArray) -> list[list[Any] | None]:
    """Return a column of lists as lists; equal texts are one object, since tags repeat on thousands of posts."""
    import pyarrow as pa

    found: list[list[Any] | None] = []
    for chunk in (part for whole in column.chunks for part in _slices(whole)):
        values = chunk.flatten()
        if not pa.types.is_string(values.type):
            found += chunk.to_pylist()
            continue
        encoded = values.dictionary_encode()
        names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_pylist()
        start = 0
        for length in chunk.value_lengths().to_pylist():
            end = start + (length or 0)
            found.append(None if length is None else [None if c is None else names[c] for c in codes[start:end]])
            start = end
    return found


def _slices(array: pa.Array) -> Iterator[pa.Array]:
    """Yield an array in slices, so that what is made on the way to Python stays small."""
    for start in range(0, len(array), _AT_ONCE):
        yield array.slice(start, _AT_ONCE)
