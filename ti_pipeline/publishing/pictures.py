"""Pictures inside the page: plots, contact sheets and grids as data addresses, within a budget of bytes.

Here: which pictures the page has, their alternative texts and their sizes. Not here: drawing them; each is drawn by
the package whose data it shows.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

__all__ = ["PAGE_BYTES", "Picture", "picture", "shrunk"]

# 15 MB for the page: base64 makes four bytes of three, and tables and text need some room too.
PAGE_BYTES = 15_000_000
PICTURE_BYTES = 10_000_000
_LONGEST_SIDES = (1600, 1280, 1024, 800, 640, 512, 400, 300)


@dataclass(frozen=True)
class Picture:
    """An encoded picture with its words; sizes in pixels."""

    data: bytes
    kind: str
    width: int
    height: int
    alt: str

    @property
    def address(self) -> str:
        """Return the picture as a `data:` address: base64 text without quotes or spaces."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


def picture(data: bytes, alt: str) -> Picture:
    """Return an encoded PNG, JPEG or WebP as a picture of the page."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        return Picture(data, str(opened.format).lower(), opened.width, opened.height, alt)


def shrunk(paths: Sequence[Path], *, at_most: int) -> list[bytes]:
    """Return pictures as WebP, all together about `at_most` bytes: each as large as its equal share allows.

    A picture that is too large for its share even at 300 pixels is given at that size. Raises `OSError` naming the
    file for one that is gone or unreadable.
    """
    return [_within(path, at_most // len(paths)) for path in paths]


def _within(path: Path, at_most: int) -> bytes:
    from PIL import Image

    with Image.open(path) as opened:
        rgb = opened.convert("RGB")
    data, longest = b"", min(max(rgb.size), _LONGEST_SIDES[0])
    for side in (longest, *(side for side in _LONGEST_SIDES if side < longest)):
        data = _webp(rgb, side)
        if len(data) <= at_most:
            break
    return data


def _webp(rgb: Image.Image, side: int) -> bytes:
    from PIL import Image

    small = rgb.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    return stream.getvalue()
