import datetime

import pandas as pd
import pyarrow as pa
import pytest

from ti_pipeline.contracts import Column, Table, TableError, from_arrow
from ti_pipeline.schemas import TABLES

PETS = Table(
    "pets",
    "Pets.",
    (
        Column("id", "int64", "id", low=1),
        Column("kind", "string", "kind", among=("cat", "dog")),
        Column("weight", "float64", "kg", nullable=True, low=0, high=100),
        Column("legs", "int64", "legs", nullable=True),
        Column("names", "strings", "names"),
        Column("born", "timestamp", "when", nullable=True),
    ),
    key=("id",),
)


def pets(**changes: list) -> pd.DataFrame:
    columns = {
        "id": [1, 2],
        "kind": ["cat", "dog"],
        "weight": [4.5, None],
        "legs": pd.array([4, None], dtype="Int64"),
        "names": [["Tom", "Tommy"], []],
        "born": pd.to_datetime(["2020-01-01T10:00:00+02:00", None], utc=True),
    }
    return pd.DataFrame(columns | changes)


def test_a_good_table_has_no_problems_and_survives_the_trip() -> None:
    assert PETS.problems(pets()) == []
    back = from_arrow(PETS.to_arrow(pets()))
    assert back.legs.dtype == "Int64"
    assert back.names.tolist() == [["Tom", "Tommy"], []]
    assert back.born[0] == datetime.datetime(2020, 1, 1, 8, tzinfo=datetime.UTC)
    assert PETS.problems(back) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": [0, 2]}, "column id: greater_than_or_equal_to"),
        ({"id": [2, 2]}, "fails"),
        ({"kind": ["cat", "cow"]}, "column kind: isin"),
        ({"kind": ["cat", None]}, "column kind: 1 missing values"),
        ({"weight": [101.0, 1.0]}, "column weight: less_than_or_equal_to"),
        ({"id": ["one", 2]}, "column id:"),
        ({"names": ["Tom", "Tim"]}, "column names:"),
        ({"colour": ["red", "red"]}, "unknown columns ['colour']"),
    ],
)
def test_each_fault_is_named_with_its_column(changes: dict, words: str) -> None:
    problems = PETS.problems(pets(**changes))
    assert problems
    assert words in "\n".join(problems)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(TableError, match=r"table pets: missing columns \['kind'\]"):
        PETS.to_arrow(pets().drop(columns="kind"))


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_contract_can_be_written_and_read_empty(table: Table) -> None:
    assert table.problems(table.empty()) == []
    assert table.arrow_schema().names == [column.name for column in table.columns]
    assert all(isinstance(column.arrow_type(), pa.DataType) and column.meaning for column in table.columns)
    assert set(table.key) <= {column.name for column in table.columns}
