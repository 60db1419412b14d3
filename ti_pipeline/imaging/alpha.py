"""Alpha: how opaque a picture is, kept beside its crop so that training can leave the transparent part out.

A picture with any transparent pixel has a second file, `alpha/<name of the crop>.png` in the crop set's folder: 8-bit
grey of the crop's size, 255 where the picture is opaque. Not here: which crops there are (`crop`), or what is done
with the alpha (`inversion.latents`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

__all__ = ["alpha_path", "write_alpha"]


def alpha_path(crop: Path) -> Path:
    """Return where the alpha of a crop lies."""
    return crop.parent / "alpha" / f"{crop.stem}.png"


def write_alpha(alpha: Image.Image | None, crop: Path) -> str | None:
    """Write the alpha of a crop (8-bit grey of its size) and return the file's sha256.

    None where no pixel is transparent: then there is no file, and an earlier one is removed.
    """
    target = alpha_path(crop)
    if alpha is None or alpha.getextrema()[0] == 255:
        target.unlink(missing_ok=True)
        return None
    with write_atomically(target) as aside:
        alpha.save(aside)
    return sha256_of(target)
