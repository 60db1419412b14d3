"""Works through pictures on all cores: Pillow, numpy and OpenCV release the interpreter while they compute.

Not here: what is done with a picture.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

__all__ = ["cores", "in_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# Each worker holds one decoded picture (up to a quarter of a GiB) and its copies; more cores than this do not help
# disks that are already busy.
MAX_WORKERS = 8
# How many items each worker is given ahead of the one waited for: it never idles behind a slow picture for long, and
# results do not pile up, so memory does not grow with the number of pictures.
_AHEAD = 16


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    *,
    what: str,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[_Result]:
    """Yield `function(item)` in the order of `items`; the first exception ends the work and is raised here.

    `progress(done, total, what)` is called in the caller's thread as results come.
    """
    import cv2.data  # noqa: F401 - OpenCV's first import swaps modules: threads that import it meanwhile find half of it

    workers = min(MAX_WORKERS, cores())
    executor = ThreadPoolExecutor(max_workers=workers)
    given = iter(items)
    waiting: deque[Future[_Result]] = deque()
    try:
        for done in range(1, len(items) + 1):
            waiting.extend(executor.submit(function, item) for item in islice(given, workers * _AHEAD - len(waiting)))
            result = waiting.popleft().result()
            if progress is not None:
                progress(done, len(items), what)
            yield result
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
