"""Turns: a lock is waited for, got when its holder dies without a word, and waiting can be interrupted."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ti_pipeline.turns import EVERY_GPU, GPU, first_free, taking_turns

HOLD = """
import sys
from pathlib import Path
from ti_pipeline.turns import first_free
with first_free([Path(sys.argv[1])], "it", lambda words: print(words, flush=True)):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(lock: Path, says: str = "held") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert says in process.stdout.readline()
            yield process
        finally:
            process.kill()


def nobody(words: str) -> None:
    pytest.fail(f"nothing to wait for, but: {words}")


def test_who_waits_says_so_once_and_goes_on_when_the_holder_is_killed(tmp_path: Path) -> None:
    lock, told = tmp_path / "x.lock", []
    with holder(lock) as other:

        def tell(words: str) -> None:
            told.append(words)
            other.kill()

        with first_free([lock], "the machine", tell) as index:
            assert index == 0
    (words,) = told
    assert words.startswith("waiting for the machine, which another run is using")


def test_the_first_free_one_is_taken(tmp_path: Path) -> None:
    locks = [tmp_path / "a.lock", tmp_path / "b.lock"]
    with holder(locks[0]), first_free(locks, "one of two", nobody) as index:
        assert index == 1
    with first_free(locks, "one of two", nobody) as index:
        assert index == 0


def test_waiting_can_be_interrupted(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with first_free([lock], "it", nobody), holder(lock, says="waiting for it") as waiting:
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=60) != 0
        assert waiting.stdout.read() == "", "it never held the lock"


def test_turns_are_of_a_data_folder_and_given_back_after_an_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ti_pipeline.turns._gpus", list)  # as on a machine without one
    one, other = tmp_path / "one", tmp_path / "other"
    held = taking_turns(one, [GPU, "embeddings/s/v"], nobody)
    with pytest.raises(RuntimeError), held, taking_turns(other, [GPU], nobody):
        raise RuntimeError
    with taking_turns(one, [EVERY_GPU, "embeddings/s/v"], nobody):
        assert {lock.name for lock in (one / ".locks").iterdir()} == {"gpu.lock", "embeddings~s~v.lock"}


def test_each_gpu_of_a_machine_is_used_by_one(tmp_path: Path, monkeypatch) -> None:
    locks, used, told = [tmp_path / "gpu-a.lock", tmp_path / "gpu-b.lock"], [], []
    monkeypatch.setattr("ti_pipeline.turns._gpus", lambda: locks)
    monkeypatch.setattr("ti_pipeline.turns._use", used.append)
    with taking_turns(tmp_path / "one", [GPU], nobody):
        with taking_turns(tmp_path / "other", [GPU], nobody):
            assert used == [0, 1]
        with holder(locks[1]) as other:

            def tell(words: str) -> None:
                told.append(words)
                other.kill()

            with taking_turns(tmp_path / "third", [GPU], tell):
                assert used[-1] == 1
    assert len(told) == 1
