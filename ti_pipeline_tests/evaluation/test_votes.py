from pathlib import Path

import pandas as pd
import pytest

from ti_pipeline.evaluation.votes import Vote, VoteBook, VoteError, gathered_votes, votes_on
from ti_pipeline.schemas import TABLES


def pair(first: str = "a", second: str = "b", choice: str = "first", value: str = "wolf") -> Vote:
    return Vote("pair", "species", value, 6, first, f"{first}-{value}", choice, second, f"{second}-{value}")


def test_votes_are_on_disk_before_anything_else_happens(tmp_path: Path) -> None:
    book = VoteBook(tmp_path, "kim")
    for number, vote in enumerate([pair(), pair(value="lion", choice="tie"), pair(value="fox", choice="second")], 1):
        book.append(vote)
        assert len(gathered_votes(tmp_path)) == number
    table = gathered_votes(tmp_path)
    assert TABLES["votes"].problems(table) == []
    assert table.value.tolist() == ["wolf", "lion", "fox"]
    assert table.choice.tolist() == ["first", "tie", "second"]
    assert set(table.rater) == {"kim"}


def test_without_votes_there_is_an_empty_table(tmp_path: Path) -> None:
    assert TABLES["votes"].problems(gathered_votes(tmp_path / "nothing")) == []


def test_sittings_and_raters_do_not_touch_each_others_files(tmp_path: Path) -> None:
    books = [VoteBook(tmp_path, name) for name in ("kim", "kim", "sam")]
    for number in range(5):
        for place, book in enumerate(books):
            book.append(pair(value=f"{number}-{place}"))
    assert len(gathered_votes(tmp_path)) == 15
    assert len(list(tmp_path.glob("*.parquet"))) == 3


def test_undone_votes_are_gone_also_those_of_an_earlier_sitting(tmp_path: Path) -> None:
    one, other = pair(), pair(value="lion")
    book = VoteBook(tmp_path, "kim")
    book.append(one)
    book.append(other)
    book.undo(other)
    assert gathered_votes(tmp_path).value.tolist() == ["wolf"]
    VoteBook(tmp_path, "kim").undo(one)
    assert gathered_votes(tmp_path).empty


def test_the_later_vote_on_the_same_pictures_counts_whichever_way_round_they_were(tmp_path: Path) -> None:
    book = VoteBook(tmp_path, "kim")
    book.append(pair("a", "b", "first"))
    book.append(pair("b", "a", "first"))
    VoteBook(tmp_path, "sam").append(pair("a", "b", "first"))
    table = gathered_votes(tmp_path)
    assert [(row.rater, getattr(row, row.choice)) for row in table.itertuples()] == [("kim", "b"), ("sam", "a")]


def test_a_half_written_file_is_named_and_the_others_stay_whole(tmp_path: Path) -> None:
    VoteBook(tmp_path, "kim").append(pair())
    whole = next(tmp_path.glob("kim*.parquet"))
    half = tmp_path / "sam.20261123T000000.abc.parquet"
    half.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(VoteError, match=r"sam\.20261123T000000\.abc\.parquet is no whole file of votes"):
        gathered_votes(tmp_path)
    half.unlink()
    assert len(gathered_votes(tmp_path)) == 1


def test_what_a_killed_process_left_aside_is_not_read(tmp_path: Path) -> None:
    VoteBook(tmp_path, "kim").append(pair())
    (tmp_path / ".0123456789ab-partial.parquet").write_bytes(b"half")
    assert len(gathered_votes(tmp_path)) == 1


def test_a_vote_that_cannot_be_written_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    book = VoteBook(tmp_path, "kim")
    book.append(pair())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            book.append(pair(value="lion"))
    assert gathered_votes(tmp_path).value.tolist() == ["wolf"]
    book.append(pair(value="fox"))
    assert gathered_votes(tmp_path).value.tolist() == ["wolf", "fox"]


@pytest.mark.parametrize("name", ["", "../kim", "a/b", "kim sam", "x" * 65, "kim."])
def test_raters_have_safe_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(VoteError, match="letters and digits"):
        VoteBook(tmp_path, name)


def test_votes_on_pictures_that_were_drawn_anew_do_not_count(tmp_path: Path) -> None:
    book = VoteBook(tmp_path, "kim")
    book.append(pair())
    book.append(pair(value="lion"))
    book.append(Vote("cell", "species", "wolf", 6, "a", "a-wolf", "mismatch"))
    images = [pd.DataFrame({"cell": ["a-wolf"]}), pd.DataFrame({"cell": ["b-wolf", "a-lion"]})]
    kept = votes_on(gathered_votes(tmp_path), images)
    assert kept[["kind", "value"]].to_numpy().tolist() == [["pair", "wolf"], ["cell", "wolf"]]
    assert TABLES["votes"].problems(kept) == []
