from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from upath import UPath

from ti_pipeline.evaluation.votes import Vote, VoteBook, VoteError, gathered_votes, votes_on
from ti_pipeline.schemas import TABLES


@pytest.fixture(params=["folder", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UPath]:
    """A study's folder of votes, on this machine and on a store that is none."""
    if request.param == "folder":
        yield UPath(tmp_path / "votes" / "demo")
        return
    yield UPath("memory://people/votes/demo")
    store = fsspec.filesystem("memory")
    if store.exists("/people"):
        store.rm("/people", recursive=True)


def pair(first: str = "a", second: str = "b", choice: str = "first", value: str = "wolf") -> Vote:
    return Vote("pair", "species", value, 6, first, f"{first}-{value}", choice, second, f"{second}-{value}")


def test_votes_are_on_disk_before_anything_else_happens(folder: UPath) -> None:
    book = VoteBook(folder, "kim")
    for number, vote in enumerate([pair(), pair(value="lion", choice="tie"), pair(value="fox", choice="second")], 1):
        book.append(vote)
        assert len(gathered_votes(folder)) == number
    table = gathered_votes(folder)
    assert TABLES["votes"].problems(table) == []
    assert table.value.tolist() == ["wolf", "lion", "fox"]
    assert table.choice.tolist() == ["first", "tie", "second"]
    assert set(table.rater) == {"kim"}


def test_without_votes_there_is_an_empty_table(folder: UPath) -> None:
    assert TABLES["votes"].problems(gathered_votes(folder / "nothing")) == []


def test_sittings_and_raters_do_not_touch_each_others_files(folder: UPath) -> None:
    books = [VoteBook(folder, name) for name in ("kim", "kim", "sam")]
    for number in range(5):
        for place, book in enumerate(books):
            book.append(pair(value=f"{number}-{place}"))
    assert len(gathered_votes(folder)) == 15
    assert len(list(folder.glob("*.parquet"))) == 3


def test_undone_votes_are_gone_also_those_of_an_earlier_sitting(folder: UPath) -> None:
    one, other = pair(), pair(value="lion")
    book = VoteBook(folder, "kim")
    book.append(one)
    book.append(other)
    book.undo(other)
    assert gathered_votes(folder).value.tolist() == ["wolf"]
    VoteBook(folder, "kim").undo(one)
    assert gathered_votes(folder).empty


def test_the_later_vote_on_the_same_pictures_counts_whichever_way_round_they_were(folder: UPath) -> None:
    book = VoteBook(folder, "kim")
    book.append(pair("a", "b", "first"))
    book.append(pair("b", "a", "first"))
    VoteBook(folder, "sam").append(pair("a", "b", "first"))
    table = gathered_votes(folder)
    assert [(row.rater, getattr(row, row.choice)) for row in table.itertuples()] == [("kim", "b"), ("sam", "a")]


def test_a_half_written_file_is_named_and_the_others_stay_whole(folder: UPath) -> None:
    VoteBook(folder, "kim").append(pair())
    whole = next(folder.glob("kim*.parquet"))
    half = folder / "sam.20261123T000000.abc.parquet"
    half.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(VoteError, match=r"sam\.20261123T000000\.abc\.parquet is no whole file of votes"):
        gathered_votes(folder)
    half.unlink()
    assert len(gathered_votes(folder)) == 1


def test_a_table_that_is_none_of_votes_is_named_with_what_is_wrong(folder: UPath) -> None:
    book = VoteBook(folder, "kim")
    book.append(pair())
    path = next(folder.glob("kim*.parquet"))
    with path.open("rb") as stream:
        good = pq.read_table(stream)
    wrong = good.set_column(good.column_names.index("choice"), "choice", [["left"]])
    for table, words in ((good.drop_columns("rater"), r"missing columns \['rater'\]"), (wrong, "column choice")):
        with (folder / "sam.20261123T000000.abc.parquet").open("wb") as stream:
            pq.write_table(table, stream)
        with pytest.raises(VoteError, match=rf"sam\.20261123T000000\.abc\.parquet is no whole file of votes.*{words}"):
            gathered_votes(folder)


def test_what_a_killed_process_left_aside_is_not_read(folder: UPath) -> None:
    VoteBook(folder, "kim").append(pair())
    (folder / ".0123456789ab-partial.parquet").write_bytes(b"half")
    assert len(gathered_votes(folder)) == 1


def test_a_vote_that_cannot_be_written_does_not_count(folder: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    book = VoteBook(folder, "kim")
    book.append(pair())

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            book.append(pair(value="lion"))
    assert gathered_votes(folder).value.tolist() == ["wolf"]
    book.append(pair(value="fox"))
    assert gathered_votes(folder).value.tolist() == ["wolf", "fox"]


@pytest.mark.parametrize("name", ["", "../kim", "a/b", "kim sam", "x" * 65, "kim."])
def test_raters_have_safe_names(name: str, folder: UPath) -> None:
    with pytest.raises(VoteError, match="letters and digits"):
        VoteBook(folder, name)


def test_votes_on_pictures_that_were_drawn_anew_do_not_count(folder: UPath) -> None:
    book = VoteBook(folder, "kim")
    book.append(pair())
    book.append(pair(value="lion"))
    book.append(Vote("cell", "species", "wolf", 6, "a", "a-wolf", "mismatch"))
    images = [pd.DataFrame({"cell": ["a-wolf"]}), pd.DataFrame({"cell": ["b-wolf", "a-lion"]})]
    kept = votes_on(gathered_votes(folder), images)
    assert kept[["kind", "value"]].to_numpy().tolist() == [["pair", "wolf"], ["cell", "wolf"]]
    assert TABLES["votes"].problems(kept) == []
