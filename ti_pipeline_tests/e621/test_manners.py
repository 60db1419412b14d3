"""The file by which all processes of a machine keep one pace: clocks that are set back, and damage."""

import logging
import sqlite3
import time

import pytest
from pyrate_limiter import Limiter, Rate

from ti_pipeline.e621.manners import shared_bucket

RATES = [Rate(1, 200)]


def turns(path, count: int) -> float:
    """Return how many seconds so many turns take."""
    limiter = Limiter(shared_bucket(path, RATES))
    begun = time.monotonic()
    for _ in range(count):
        limiter.try_acquire("turn")
    return time.monotonic() - begun


def test_a_clock_that_was_set_back_is_told_and_makes_nobody_wait(tmp_path, caplog):
    path = tmp_path / "requests.sqlite"
    turns(path, 1)
    with sqlite3.connect(path) as connection:  # as a request looks that was made before the clock was set back an hour
        connection.execute("UPDATE rate_bucket SET item_timestamp = item_timestamp + 3600000")
    connection.close()
    with caplog.at_level(logging.WARNING):
        taken = turns(path, 3)
    assert 0.4 <= taken < 30
    assert "clock was set back by 3600 s" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("damage", ["garbage", "torn"])
def test_a_damaged_file_is_named_and_made_anew(tmp_path, caplog, damage):
    path = tmp_path / "requests.sqlite"
    turns(path, 1)
    whole = path.read_bytes()
    path.write_bytes(b"no database at all" * 300 if damage == "garbage" else whole[:4096] + b"\xff" * 4096)
    for ending in ("-wal", "-shm"):
        path.with_name(f"{path.name}{ending}").unlink(missing_ok=True)
    with caplog.at_level(logging.WARNING):
        turns(path, 1)
    assert str(path) in caplog.text
    assert "made anew" in caplog.text
