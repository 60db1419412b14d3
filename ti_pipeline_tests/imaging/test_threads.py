import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ti_pipeline.imaging import threads
from ti_pipeline.imaging.threads import cores, in_threads


def test_as_many_work_at_once_as_there_are_cores(monkeypatch):
    """Each waits until three are at work, which no fewer threads could bring about."""
    monkeypatch.setattr(threads, "cores", lambda: 3)
    together = threading.Barrier(3, timeout=60)
    seen = []

    def work(item):
        together.wait()
        return item * item

    results = in_threads(work, range(12), what="squares", progress=lambda *step: seen.append(step))
    assert list(results) == [item * item for item in range(12)]
    assert seen == [(done, 12, "squares") for done in range(1, 13)]


def test_the_first_exception_ends_the_work(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 1)
    done = []

    def work(item):
        done.append(item)
        if item == 2:
            raise ValueError("item 2")

    with pytest.raises(ValueError, match="item 2"):
        list(in_threads(work, range(10_000), what="items"))
    assert len(done) < 10_000


def test_items_are_taken_only_a_little_ahead_of_results():
    """So that results of a hundred thousand pictures do not wait in memory."""

    class Counted(list):
        taken = 0

        def __iter__(self):
            for item in super().__iter__():
                self.taken += 1
                yield item

    items = Counted(range(10_000))
    results = in_threads(lambda item: item, items, what="items")
    assert next(results) == 0
    assert 1 <= items.taken <= 200
    assert list(results) == list(range(1, 10_000))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to processes on Linux alone")
def test_only_cores_that_the_process_was_given_count():
    def on_one():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return cores()

    with ThreadPoolExecutor(1) as apart:  # the setting is a thread's own
        assert apart.submit(on_one).result() == 1
    assert cores() == len(os.sched_getaffinity(0))
