"""What assets show beside their tables: progress in the log, small pictures, and results for one or many partitions.

Not here: anything computed from data; the pictures themselves are drawn by the domain packages.
"""

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import pandas as pd

__all__ = ["LogProgress", "by_partition", "picture"]

_SECONDS_BETWEEN_LINES = 5.0


class LogProgress:
    """A progress callback that writes to the run's log: at the start, every few seconds, and at the end."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        """Log to the run of `context`."""
        self._log = context.log
        self._before, self._done, self._total, self._began = 0, 0, 0, 0.0
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Tell that `done` of `total` are done; `what` says of which work.

        What was already done when the work was first told of does not count for its speed.
        """
        now = time.monotonic()
        if total != self._total or done < self._done or self._done == self._total:  # other work than before
            self._before, self._total, self._began = done, total, now
        self._done = done
        if done not in (0, total) and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        self._log.info(f"{what}: {done} of {total}{_speed(done - self._before, total - done, now - self._began)}")


def _speed(done: int, left: int, seconds: float) -> str:
    """Return how fast something goes, and how long what is left takes at that pace."""
    if done <= 0 or seconds <= 0:
        return ""
    rate = f", {done / seconds:.1f}/s" if done >= seconds else f", {seconds / done:.1f} s each"
    return rate + (f", {_span(seconds / done * left)} left" if left else "")


def _span(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


def picture(data: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """Return a small PNG, JPEG or WebP for the UI; it lives in the event log, so keep it under some 100 kB."""
    kind = {b"\x89PNG": "png", b"RIFF": "webp"}.get(data[:4], "jpeg")
    return dg.MetadataValue.md(f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def by_partition(
    context: dg.AssetExecutionContext,
    compute: Callable[[str], pd.DataFrame],
    describe: Callable[[str, pd.DataFrame], Mapping[str, Any]],
) -> dict[str, pd.DataFrame]:
    """Compute a table for each partition of the run, with each one's own metadata, and return them by key."""
    frames = {}
    for key in context.partition_keys:
        frames[key] = compute(key)
        context.add_asset_metadata(dict(describe(key, frames[key])), partition_key=key)
    return frames
