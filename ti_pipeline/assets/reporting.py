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
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        """Tell that `done` of `total` are done; `what` says of which work."""
        now = time.monotonic()
        if done not in (0, total) and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        if done == 0:
            self._began = now
        self._last = now
        spent = now - self._began
        rate = f", {done / spent:.1f}/s" if done and spent > 0 else ""
        left = f", {spent / done * (total - done):.0f} s left" if 0 < done < total else ""
        self._log.info(f"{what}: {done} of {total}{rate}{left}")


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
