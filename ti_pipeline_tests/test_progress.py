import io
from types import SimpleNamespace

import pytest

from ti_pipeline.assets import reporting
from ti_pipeline.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_count_rate_and_time_left(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    bar = Bar()
    for done in (0, 1, 2):
        bar(done, 2, f"pictures ({done}.5 MB)")
    shown = terminal.getvalue()
    assert "0/2" in shown
    assert "pictures (2.5 MB): 100%" in shown
    assert "2/2 [" in shown
    assert "it/s" in shown or "s/it" in shown
    bar(0, 5, "crops")
    assert "crops" in terminal.getvalue().removeprefix(shown)


def test_elsewhere_nothing_is_drawn(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    bar = Bar()
    bar(0, 2, "pictures")
    bar(2, 2, "pictures")
    assert log.getvalue() == ""


@pytest.fixture
def log(monkeypatch):
    """A progress callback with a clock that is set by hand, and the lines that it logs."""
    clock, lines = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: clock.now))
    progress = reporting.LogProgress(SimpleNamespace(log=SimpleNamespace(info=lines.append)))

    def at(seconds, *step):
        clock.now = 100.0 + seconds
        progress(*step)

    return at, lines


def test_the_log_has_a_line_every_few_seconds_with_speed_and_time_left(log):
    at, lines = log
    at(0, 0, 600, "pictures")
    at(1, 20, 600, "pictures")  # too soon after the last line
    at(10, 200, 600, "pictures")
    at(30, 600, 600, "pictures")
    assert lines == ["pictures: 0 of 600", "pictures: 200 of 600, 20.0/s, 20 s left", "pictures: 600 of 600, 20.0/s"]


def test_slow_work_is_told_in_seconds_each_and_minutes_or_hours_left(log):
    at, lines = log
    at(0, 0, 1000, "training")
    at(80, 2, 1000, "training, loss 0.1")
    at(90, 1, 11, "crops")  # other work
    at(150, 2, 11, "crops")
    assert lines[1] == "training, loss 0.1: 2 of 1000, 40.0 s each, 11 h left"
    assert lines[2:] == ["crops: 1 of 11", "crops: 2 of 11, 60.0 s each, 9 min left"]


def test_what_an_earlier_run_has_done_does_not_count_for_the_speed(log):
    at, lines = log
    at(0, 500, 600, "training")
    at(10, 520, 600, "training")
    assert lines == ["training: 520 of 600, 2.0/s, 40 s left"]


def test_work_of_the_same_size_begins_anew(log):
    at, lines = log
    at(0, 0, 10, "scores of a")
    at(1, 10, 10, "scores of a")
    at(100, 2, 10, "scores of b")
    at(102, 10, 10, "scores of b")
    assert lines[:2] == ["scores of a: 0 of 10", "scores of a: 10 of 10, 10.0/s"]
    assert lines[2:] == ["scores of b: 2 of 10", "scores of b: 10 of 10, 4.0/s"]
