"""Opens any picture file as upright 8-bit sRGB pixels, or says why it cannot be used.

Here: which formats and pixel modes are accepted and how each becomes RGB. Not here: whether a readable picture is
wanted (`curation`), or anything measured from its pixels (`measures`).

What happens to unusual pictures:

- 16-bit grey is scaled to 8 bits (65535 becomes 255), never clipped; floating-point and 32-bit pixels are refused,
  because nothing in the file says which value is white.
- Pixels are converted to sRGB by the embedded ICC profile, CMYK included; a broken profile or EXIF block is ignored,
  as browsers do, since the pixels are intact.
- Transparent pixels are laid over white, or over the colour asked for. Palettes and bilevel pictures are expanded.
- The EXIF turn is applied. Of an animation (or a TIFF of several pages) the first frame is used; `frames` counts
  them. A study that wants no animations forbids their tag.
- A JPEG may be decoded at a half, a quarter or an eighth by its own transform (`shrink`), which is several times as
  fast.
- Empty, truncated, unreadable, oversized and unknown files raise `PictureError`; truncated ones are never filled up.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMATS", "MAX_PIXELS", "Picture", "PictureError", "jpeg_shrink", "open_picture"]

# Pillow's own line between large and suspicious: a quarter of a GiB at three bytes a pixel.
MAX_PIXELS = 89_478_485

# Only what people post. Pillow knows forty more, some of which run other programs (EPS) or are not pictures at all.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on damaged files, found by mutating real ones; none of them is a fault of the caller.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class PictureError(ValueError):
    """A file is not a usable picture; `reason` says why without the path, the message names both."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """A decoded picture: upright `RGB` pixels without metadata, and what the file was like.

    `alpha` is 8-bit grey, 255 where opaque; None where every pixel is. `size` are the upright picture's width and
    height, pixels, also where fewer were decoded. `profile` is the embedded ICC profile's own description, `unreadable`
    where it is none, empty without one.
    """

    rgb: Image.Image
    alpha: Image.Image | None
    format: str
    mode: str
    frames: int
    orientation: int
    size: tuple[int, int]
    profile: str


def open_picture(path: Path, *, max_pixels: int = MAX_PIXELS, under: str = "#ffffff", shrink: int = 1) -> Picture:
    """Decode a whole picture file; the format is told by content, whatever the file's name says.

    `max_pixels` (width × height) is compared with the size that the header states, before any pixel is decoded, so
    that a decompression bomb costs no memory. `under` is the colour that shows through transparent pixels. A JPEG is
    decoded at 1 / `shrink` of its size (1, 2, 4 or 8, see `jpeg_shrink`), any other picture whole. Raises
    `PictureError` for every file that cannot be used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(path, f"cannot be read: {error.strerror}") from error
    if not content:
        raise PictureError(path, "the file is empty")
    try:
        return _decode(path, content, max_pixels, under, shrink)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(path, f"more than the {max_pixels:,} pixels allowed") from error
    except UnidentifiedImageError as error:
        raise PictureError(path, f"not a picture of a known format ({', '.join(FORMATS)})") from error
    except MemoryError as error:
        raise PictureError(path, "too large for this machine's memory") from error
    except _DAMAGE as error:
        raise PictureError(path, _damage(error)) from error


def _damage(error: Exception) -> str:
    words = str(error) or type(error).__name__
    cut_short = isinstance(error, EOFError) or "truncated" in words.lower()
    return f"truncated: {words}" if cut_short else f"damaged: {words}"


def _decode(path: Path, content: bytes, max_pixels: int, under: str, shrink: int) -> Picture:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(path, f"more than the {max_pixels:,} pixels allowed")
        mode, frames = image.mode, _frames(image)
        if shrink > 1 and image.format == "JPEG":
            image.draft(None, (max(1, width // shrink), max(1, height // shrink)))
        image.load()
        orientation = _orientation(image)
        rgb, alpha = _to_rgb(path, image, under)
        if orientation in _TURNS:
            rgb = rgb.transpose(_TURNS[orientation])
            alpha = None if alpha is None else alpha.transpose(_TURNS[orientation])
            width, height = (height, width) if orientation >= 5 else (width, height)
        profile = _profile(image)
        rgb.info.clear()  # Pillow would copy profiles, gamma and comments into every file saved from it
        return Picture(rgb, alpha, str(image.format), mode, frames, orientation, (width, height), profile)


def jpeg_shrink(path: Path, at_least: int) -> int:
    """Return the largest `shrink` that leaves a JPEG's shorter side at least so many pixels; 1 for any other file."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            shorter = min(image.size)
    except (*_DAMAGE, UnidentifiedImageError):
        return 1  # what is wrong with it is said where it is decoded
    return next((shrink for shrink in (8, 4, 2) if shorter >= shrink * at_least), 1)


def _profile(image: Image.Image) -> str:
    embedded = image.info.get("icc_profile")
    if not embedded:
        return ""
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(embedded))).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError):
        return "unreadable"


def _frames(image: Image.Image) -> int:
    """Return how many frames an animation has; the second view in a phone's MPO file does not make it one."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return 1
    return orientation if orientation in _TURNS else 1


def _to_rgb(path: Path, image: Image.Image, under: str) -> tuple[Image.Image, Image.Image | None]:
    """Return 8-bit sRGB pixels, and how opaque they are if any is not wholly."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return _from_16_bit(path, image).convert("RGB"), None
    if image.mode == "F":
        raise PictureError(path, "floating-point pixels, which state no white level")
    if not image.has_transparency_data:
        return _to_srgb(image), None
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    opaque = rgba.convert("RGB")
    opaque.info["icc_profile"] = image.info.get("icc_profile")
    colours = _to_srgb(opaque)
    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return colours, None
    laid_over = Image.new("RGB", image.size, under)
    laid_over.paste(colours, mask=alpha)
    return laid_over, alpha


def _from_16_bit(path: Path, image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(path, "32-bit pixels, which state no white level")
    # 65535 = 255 × 257, so that both ends of the range meet exactly.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert by the embedded profile where there is one that fits the pixels, plainly where there is none."""
    embedded = image.info.get("icc_profile")
    if image.mode in ("1", "P"):
        image = image.convert("RGB")
    if embedded:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
            if not ImageCms.getProfileDescription(profile).startswith("sRGB"):
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that is broken or of another colour space: its pixels count as sRGB, as in browsers
    return image if image.mode == "RGB" else image.convert("RGB")  # its pixels stay when its file is closed
