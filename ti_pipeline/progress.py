"""Progress for people at a terminal: a bar with rate and time left. Runs of Dagster log lines instead (`assets`).

A progress callback is called with how many are done, of how many, and of what; 0 done means that the work begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Bar", "Progress"]

Progress = Callable[[int, int, str], None]


class Bar:
    """A progress callback that draws a bar where standard error is a terminal, and nothing elsewhere."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._bar: tqdm[Any] | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` are done; the bar is finished when all are."""
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc=what, disable=None)
        self._bar.total = total
        self._bar.set_description(what, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._bar = None
