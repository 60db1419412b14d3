"""Lettering: labels of any script, wrapped and fitted into boxes of a picture.

DejaVu Sans, which ships with matplotlib, writes what it has; other letters (CJK, emoji in colour) come from the fonts
of the machine, and those that no font has are written as their code, e.g. U+72D7. Not here: where labels stand
(`grids`).
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

__all__ = ["SMALLEST", "Box", "height_of", "write_label"]

# (left, top, right, bottom) in pixels.
Box = tuple[int, int, int, int]

SMALLEST = 11  # pixels; smaller letters cannot be read without a glass
_MARGIN = 2
_INK = (20, 20, 20)
# Looked at first among the machine's fonts: drawn for all of a script. Others follow by their file names.
_PREFERRED = ("NotoSansCJK", "NotoColorEmoji", "NotoSans", "AppleColorEmoji", "PingFang", "msyh", "seguiemj")
_STRIKES = (109, 136, 128, 160, 96, 64, 32, 20)  # sizes that fonts of pictures come in
# Parts of an emoji that are no letters of their own: joiners, variants, skin tones.
_JOINING = {0x200D, 0xFE0E, 0xFE0F, *range(0x1F3FB, 0x1F400)}


@dataclass(frozen=True)
class _Face:
    """A font file; `strike` is the only size of one made of pictures, else None."""

    path: str
    strike: int | None
    letters: frozenset[int]


@dataclass(frozen=True)
class _Run:
    """Text of one face."""

    text: str
    face: _Face

    def width(self, size: int) -> float:
        """Return the advance in pixels."""
        drawn = self.face.strike or size
        return float(_font(self.face.path, drawn).getlength(self.text)) * size / drawn


def write_label(picture: Image.Image, box: Box, text: str, size: int, *, left: bool = False) -> None:
    """Write text into a box of an RGB picture: wrapped, in smaller letters if need be, at last shortened.

    Lines are centred, or start at the left. Nothing is drawn outside the box.
    """
    from PIL import Image

    width, height = box[2] - box[0] - 2 * _MARGIN, box[3] - box[1]
    lines, fitted = _fitted(readable(text), width, height, size)
    # Drawn on a piece of its own, so that an accent on an accent cannot reach into what is beside the box.
    piece = Image.new("RGB", (box[2] - box[0], height), picture.getpixel(box[:2]))
    y = (height - line_height(fitted) * len(lines)) // 2
    for line in lines:
        x = float(_MARGIN) if left else (piece.width - _width(line, fitted)) / 2
        for run in _runs(line):
            _draw(piece, run, round(x), y, fitted)
            x += run.width(fitted)
        y += line_height(fitted)
    picture.paste(piece, box[:2])


def height_of(text: str, width: int, size: int) -> int:
    """Return how many pixels high a box of so many pixels' width must be to hold the text in letters of this size."""
    return line_height(size) * len(list(_wrapped(readable(text), width - 2 * _MARGIN, size)))


def line_height(size: int) -> int:
    """Return the distance of lines in pixels."""
    return int(sum(_font(str(_dejavu()), size).getmetrics())) + 1


def readable(text: str) -> str:
    """Return the text with letters that no font has written as their code, and white space as spaces."""
    shown = (" " if c.isspace() else c if _is_drawn(c) else f"U+{ord(c):04X}" for c in text)
    return "".join(shown).strip() or " "


def _is_drawn(letter: str) -> bool:
    if ord(letter) in _JOINING:
        return True
    return letter.isprintable() and _face_of(letter) is not None


def _draw(piece: Image.Image, run: _Run, x: int, y: int, size: int) -> None:
    from PIL import Image, ImageDraw

    baseline = _font(str(_dejavu()), size).getmetrics()[0]
    font = _font(run.face.path, run.face.strike or size)
    if run.face.strike is None:
        ImageDraw.Draw(piece).text((x, y + baseline), run.text, font=font, fill=_INK, anchor="ls")
        return
    whole = Image.new("RGBA", (max(1, round(font.getlength(run.text))), run.face.strike * 5 // 4))
    ImageDraw.Draw(whole).text((0, run.face.strike), run.text, font=font, embedded_color=True, anchor="ls")
    high = max(1, round(whole.height * size / run.face.strike))
    small = whole.resize((max(1, round(run.width(size))), high), Image.Resampling.LANCZOS)
    piece.paste(small, (x, y + baseline - size), small)


def _fitted(text: str, width: int, height: int, size: int) -> tuple[list[str], int]:
    for smaller in range(size, SMALLEST - 1, -1):
        lines = list(_wrapped(text, width, smaller))
        if len(lines) * line_height(smaller) <= height:
            return lines, smaller
    lines = list(_wrapped(text, width, SMALLEST))[: max(1, height // line_height(SMALLEST))]
    while lines[-1] and _width(lines[-1] + "…", SMALLEST) > width:
        lines[-1] = lines[-1][:-1]
    return [*lines[:-1], lines[-1] + "…"], SMALLEST


def _wrapped(text: str, width: int, size: int) -> Iterator[str]:
    """Break text at spaces, and inside words that are longer than a line."""
    line = ""
    for word in text.split():
        if line and _width(f"{line} {word}", size) > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while _width(line, size) > width and len(line) > 1:
            cut = next(n for n in range(len(line) - 1, 0, -1) if n == 1 or _width(line[:n], size) <= width)
            yield line[:cut]
            line = line[cut:]
    yield line


def _width(line: str, size: int) -> float:
    return sum(run.width(size) for run in _runs(line))


@functools.lru_cache(maxsize=4096)
def _runs(line: str) -> tuple[_Run, ...]:
    """Return a line in pieces of one face each; what joins goes with the letter before it."""
    faces: list[_Face] = []
    for letter in line:
        joins = ord(letter) in _JOINING or unicodedata.combining(letter)
        faces.append(faces[-1] if joins and faces else _face_of(letter) or _first_face())
    # A joined emoji is one picture, whichever font has its parts.
    for at in range(1, len(line) - 1):
        if line[at] == "\u200d":
            faces[at + 1] = faces[at]
    groups = itertools.groupby(zip(line, faces, strict=True), key=lambda pair: pair[1].path)
    found = []
    for _, pairs in groups:
        letters = list(pairs)
        found.append(_Run("".join(letter for letter, _ in letters), letters[0][1]))
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _face_of(letter: str) -> _Face | None:
    """Return the first face that has a letter."""
    code = ord(letter)
    if code in _first_face().letters:
        return _first_face()
    return next((face for path in _machine_fonts() if code in (face := _face(path)).letters), None)


@functools.lru_cache(maxsize=1)
def _first_face() -> _Face:
    return _face(str(_dejavu()))


@functools.lru_cache(maxsize=1)
def _machine_fonts() -> tuple[str, ...]:
    """Return the font files of the machine, the preferred first; only letters that DejaVu lacks ask for them."""
    from matplotlib.font_manager import findSystemFonts

    def order(path: str) -> tuple[int, bool, str]:
        name = Path(path).name
        place = next((at for at, start in enumerate(_PREFERRED) if name.startswith(start)), len(_PREFERRED))
        return place, "Regular" not in name, name

    return tuple(sorted(findSystemFonts(), key=order))


@functools.lru_cache(maxsize=256)
def _face(path: str) -> _Face:
    """Read what a font has; one that cannot be read, or drawn by Pillow, has nothing."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        strike = None if font.scalable else next(size for size in _STRIKES if _is_drawable(path, size))
        return _Face(path, strike, frozenset(font.get_charmap()))
    except (OSError, RuntimeError, StopIteration):
        return _Face(path, None, frozenset())


def _is_drawable(path: str, size: int) -> bool:
    try:
        return _font(path, size) is not None
    except OSError:
        return False


@functools.lru_cache(maxsize=64)
def _font(path: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=1)
def _dejavu() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
