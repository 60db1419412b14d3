"""What reading a source gives, and how it fails. Not here: any particular source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STILLS", "Reading", "SourceError"]

# File types that can be a training picture; others are listed in tables with the reason why they are not used.
STILLS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "mpo"})


class SourceError(ValueError):
    """A source cannot be read; the message names the study's field and what to set."""


@dataclass(frozen=True)
class Reading:
    """Records in e621's shape, remarks for the log, and the file that keeps the site's answers, if one was asked."""

    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    answers: Path | None = None
