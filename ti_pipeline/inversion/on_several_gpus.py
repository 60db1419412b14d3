"""Training on several GPUs of this machine: `train_variants` in a process for each, which live no longer than this one.

Every process is told its place as `torchrun` tells it, and accelerate joins them. A process ends by itself when its
standard input does, which the system closes however this one ends; the first tells of its progress on its standard
output, a JSON list a line. Not here: how the processes share the work (`processes`, `trainer`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ti_pipeline.inversion.trainer import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ti_pipeline.inversion.training_plans import VariantJob

    Progress = Callable[[int, int, str], None]
    Tell = Callable[[str], None]

__all__ = ["train_on_several"]

_MODULE = "ti_pipeline.inversion.on_several_gpus"  # its __name__ when started is another
_LOOK = 0.2  # seconds between looks at whether a process has ended
GRACE = 60.0  # seconds that a process has to finish and save its update when it is to end


def train_on_several(
    jobs: Sequence[VariantJob],
    *,
    root: Path,
    processes: int,
    tensorboard: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> None:
    """Train jobs in so many processes, each with a GPU of its own (where there is none, all of them on the CPU).

    What they leave in the jobs' folders is what one process would leave, up to rounding. Raises `TrainingError` with
    what the first process that failed raised. Whatever else is raised here, a signal to stop among it, ends the
    processes, which save the update in work.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.pickle"
        path.write_bytes(pickle.dumps((list(jobs), root, tensorboard)))
        port = _free_port()
        workers = [_started(path, place, processes, port) for place in range(processes)]
        try:
            failed = _watched(workers, progress, tell)
        finally:
            _end(workers)
        if failed is not None:
            told = _error_of(path, failed)
            code = workers[failed].returncode
            ended = f"process {failed} was killed by signal {-code}" if code < 0 else f"exit code {code}, see above"
            why = told.read_text(encoding="utf-8") if told.exists() else ended
            raise TrainingError(f"training in {processes} processes failed: {why}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _started(path: Path, place: int, count: int, port: int) -> subprocess.Popen[bytes]:
    """Start one process: in a session of its own, so that a terminal's Ctrl-C reaches it through this one only."""
    places = {"RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    environment = os.environ | {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
    return subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-m", _MODULE, str(path)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if place == 0 else subprocess.DEVNULL,
        start_new_session=True,
    )


def _watched(workers: Sequence[subprocess.Popen[bytes]], progress: Progress | None, tell: Tell | None) -> int | None:
    """Wait until all processes have ended well, or one has not: return its place. Tells of the first one's progress."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(workers[0].stdout, lines), daemon=True)
    reader.start()
    while True:
        codes = [worker.poll() for worker in workers]
        failed = next((place for place, code in enumerate(codes) if code), None)
        ended = all(code is not None for code in codes)
        if ended:
            reader.join(GRACE)
        with contextlib.suppress(queue.Empty):
            told = lines.get(timeout=_LOOK) if not ended else lines.get_nowait()
            while True:
                _pass_on(told, progress, tell)
                told = lines.get_nowait()
        if failed is not None or ended:
            return failed


def _read(stream: IO[bytes] | None, lines: queue.SimpleQueue[bytes]) -> None:
    for line in stream or ():
        lines.put(line)


def _pass_on(line: bytes, progress: Progress | None, tell: Tell | None) -> None:
    told = json.loads(line)
    if len(told) == 3 and progress is not None:
        progress(*told)
    elif len(told) == 1 and tell is not None:
        tell(*told)


def _end(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """See to it that no process is left: ask them to stop, and kill those that do not."""
    try:
        for worker in workers:
            worker.terminate()  # does nothing to one that has ended
        until = time.monotonic() + GRACE
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.0, until - time.monotonic()))
    finally:  # also when somebody does not want to wait
        for worker in workers:
            worker.kill()
            worker.wait()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _error_of(path: Path, place: int) -> Path:
    return path.with_suffix(f".error-{place}")


def _end_with_parent() -> None:
    """Stop when the standard input ends; a process that cannot, since it waits for another one, is ended."""
    while os.read(0, 1):  # not through `sys.stdin`, whose lock the interpreter wants back at its end
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE / 2)
    os._exit(1)


def main(path: Path) -> None:
    """Train the jobs of a file as one of several processes; each leaves a note of what went wrong."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints something does not disturb the lines
    from ti_pipeline.inversion.processes import launched
    from ti_pipeline.inversion.training_runs import train_variants

    def say(*told: Any) -> None:
        if processes.first:
            with contextlib.suppress(BrokenPipeError):
                channel.write(json.dumps(told) + "\n")
                channel.flush()

    jobs, root, tensorboard = pickle.loads(path.read_bytes())  # noqa: S301 - written by `train_on_several`
    processes = launched()
    try:
        train_variants(jobs, root=root, together=processes, tensorboard=tensorboard, progress=say, tell=say)
    except Exception as error:
        with contextlib.suppress(FileNotFoundError):  # nobody is left to read it
            _error_of(path, processes.index).write_text(str(error), encoding="utf-8")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
