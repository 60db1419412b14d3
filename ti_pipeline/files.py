"""Atomic files: everything is written aside and renamed, so that a killed process leaves nothing half-done.

Local paths, and Parquet files on any store. Not here: where tables lie (`io_managers`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from upath import UPath

__all__ = ["fingerprint", "sha256_of", "write_atomically", "write_json", "write_parquet"]


@contextlib.contextmanager
def write_atomically(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it there on success, remove it on any failure.

    The temporary name keeps the suffix (libraries choose formats by it) and starts with a dot, so that folder
    listings of finished files never see it. Parent folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{uuid.uuid4().hex[:12]}-partial{target.suffix}")
    try:
        yield aside
        os.replace(aside, target)  # noqa: PTH105 - os.replace is the atomic rename on every platform
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as UTF-8 JSON, sorted and indented (so that it diffs), atomically."""
    with write_atomically(path) as aside, aside.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)  # piece by piece: never whole in memory
        stream.write("\n")


def write_parquet(path: UPath, table: pa.Table) -> None:
    """Write a Parquet file to a local folder or any other store, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.protocol in ("", "file", "local"):
        with write_atomically(path.path) as aside:
            pq.write_table(table, aside, compression="zstd")
        return
    # Object stores show an object once it is whole, but a stream that fails is closed, and sent, as far as it came.
    whole = pa.BufferOutputStream()
    pq.write_table(table, whole, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole.getvalue().to_pybytes())


def sha256_of(path: Path | str) -> str:
    """Return the hex sha256 of a file, read in 1 MiB blocks."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return the hex sha256 of a JSON-able value in canonical form: the identity of settings and inputs."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()
