"""Stopping: a wish to stop waits until the update in work is done and saved, and a folder has one writer at a time.

Here: signals and locks. Not here: what is saved (`training_runs`), or how several processes are ended
(`on_several_gpus`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType, TracebackType

__all__ = ["BusyError", "Stopping", "only_writer"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")


class BusyError(RuntimeError):
    """Another process writes into the folder; the message names it."""


class Stopping:
    """While the body of a `with` runs, a first Ctrl-C, SIGTERM or Dagster's terminate is noted, not raised.

    The body asks `asked` between two updates, saves and returns; the signal is delivered behind it, to whoever handled
    it before. A second one is delivered at once. In threads other than the main one signals stay as they are.
    """

    def __init__(self) -> None:
        """Note nothing yet."""
        self._noted: int | None = None
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Whether somebody wants this process to stop."""
        return self._noted is not None

    def __enter__(self) -> Stopping:
        """Begin to note signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
                self._before[number] = signal.signal(number, self._note) or signal.SIG_DFL
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._noted is None:
            self._noted = number
        else:
            self._give_back()
            signal.raise_signal(number)

    def _give_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Deliver what was noted, unless the body failed by itself."""
        self._give_back()
        if self._noted is not None and kind is None:
            signal.raise_signal(self._noted)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system takes from a process that dies. Raises `BusyError` if another holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))  # beside it: the folder itself holds results only
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            f"another process is training into {folder}: wait until it has ended, or end it; two would mix their files"
        ) from error
    except NotImplementedError:  # a file system without locks: as good as it can be
        yield
        return
    try:
        yield
    finally:
        lock.release()
