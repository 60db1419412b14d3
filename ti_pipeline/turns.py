"""Taking turns: work that must not run twice at once waits for a lock of the operating system.

Such a lock ends with the process that holds it, however that dies, so nobody waits for a dead run; and who waits
sleeps, says so, and can be interrupted. A GPU has one lock on its machine, whichever data folder is worked on: a run
takes the first that is free. Without a GPU there is one lock in each data folder. Not here: what has to take turns
(the assets).
"""

from __future__ import annotations

import contextlib
import getpass
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["EVERY_GPU", "GPU", "first_free", "taking_turns"]

GPU = "gpu"
EVERY_GPU = "every gpu"  # for a training in several processes, each of which takes a GPU of its own
_SECONDS_BETWEEN_TRIES = 0.5


@contextlib.contextmanager
def taking_turns(folder: Path, names: Sequence[str], tell: Callable[[str], None]) -> Iterator[None]:
    """Hold the locks of `names` for the data folder `folder`, in the order of their names; `tell` who is waited for.

    `GPU` makes the one that was got the current CUDA device; on a machine without any it is a name like others.
    """
    with contextlib.ExitStack() as held:
        for name in sorted(set(names), key=lambda name: (name in (GPU, EVERY_GPU), name)):  # scarce ones last
            gpus = _gpus() if name in (GPU, EVERY_GPU) else []
            if not gpus:
                own = folder / ".locks" / f"{name.replace('/', '~').replace(EVERY_GPU, GPU)}.lock"
                held.enter_context(first_free([own], f"{name} in {folder}", tell))
            elif name == EVERY_GPU:
                for index, lock in enumerate(gpus):
                    held.enter_context(first_free([lock], f"GPU {index} of this machine", tell))
            else:
                _use(held.enter_context(first_free(gpus, "a GPU of this machine", tell)))
        yield


@contextlib.contextmanager
def first_free(locks: Sequence[Path], what: str, tell: Callable[[str], None]) -> Iterator[int]:
    """Hold the first of `locks` that nobody holds, waiting for one if need be; yield its index."""
    from filelock import FileLock, Timeout

    for place in locks:
        place.parent.mkdir(parents=True, exist_ok=True)
    waiting = False
    while True:
        for index, place in enumerate(locks):
            lock = FileLock(place)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield index
            finally:
                lock.release()
            return
        if not waiting:
            tell(f"waiting for {what}, which another run is using (it holds {', '.join(map(str, locks))})")
            waiting = True
        time.sleep(_SECONDS_BETWEEN_TRIES)


def _gpus() -> list[Path]:
    """Return the lock of each GPU that this process may use, in CUDA's order."""
    import torch

    if not torch.cuda.is_available():
        return []
    folder = Path(tempfile.gettempdir()) / f"ti_pipeline-{getpass.getuser()}"
    count = torch.cuda.device_count()
    return [folder / f"gpu-{torch.cuda.get_device_properties(index).uuid}.lock" for index in range(count)]


def _use(index: int) -> None:
    import torch

    torch.cuda.set_device(index)
