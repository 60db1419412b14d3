import io

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
