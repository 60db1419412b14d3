"""Alpha: how opaque a picture is, kept beside its crop so that training can leave the transparent part out.

A picture with any transparent pixel has a second file, `alpha/<name of the crop>.png` in the crop set's folder: 8-bit
grey of the crop's size, 255 where the picture is opaque. Not here: which crops there are (`crop`), or what is done
with the alpha (`inversion.latents`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from ti_pipeline.files import sha256_of, write_atomically
from ti_pipeline.imaging.decode import alpha_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["alpha_path", "write_alpha"]


def alpha_path(crop: Path) -> Path:
    """Return where the alpha of a crop lies."""
    return crop.parent / "alpha" / f"{crop.stem}.png"


def write_alpha(source: Path, crop: Path, box: tuple[int, int, int, int], size: tuple[int, int]) -> str | None:
    """Write the alpha of a crop cut from `box` (left, top, right, bottom; upright picture) and resized to `size`.

    Returns the file's sha256, or None where no pixel of the crop is transparent: then there is no file.
    """
    alpha = alpha_of(source)
    part = None if alpha is None else alpha.crop(box)
    target = alpha_path(crop)
    if part is None or part.getextrema()[0] == 255:
        target.unlink(missing_ok=True)
        return None
    with write_atomically(target) as aside:
        part.resize(size, Image.Resampling.BOX).save(aside)
    return sha256_of(target)
