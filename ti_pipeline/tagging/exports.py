"""Captions as files: a folder of pictures that kohya's scripts and Hugging Face datasets read as it is.

Beside each picture lies a `.txt` of the same name (kohya sd-scripts, A1111), and a `metadata.jsonl` names all pictures
with their captions (`imagefolder` of Hugging Face datasets: `file_name`, `text`; the tags as a list beside). Pictures
of several crop sets lie in a folder each. Masks of transparent pictures lie in a folder of their own, under the
pictures' names (kohya's `conditioning_data_dir`), so that no program takes them for pictures.
Not here: which pictures and captions (the assets), or attribution (`publishing`).
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pandas as pd

__all__ = ["write_dataset", "write_masks"]


def write_dataset(
    captions: pd.DataFrame, pictures: pd.DataFrame, root: Path, folder: Path, *, wording: Callable[[str], str] = str
) -> int:
    """Write pictures with their captions into `folder` and return how many; files of earlier exports go.

    `pictures` has post_id, crop_set and path, relative to `root`; `captions` is a `captions` table, and `wording` makes
    of a caption what is written. Pictures without a caption row are left out: they are not of this plan. Files keep the
    names of their crops, so that the same inputs give the same folder. An empty caption is an empty line: kohya's
    scripts refuse a file without any.
    """
    rows = pictures[["post_id", "crop_set", "path"]].merge(captions, on="post_id")
    rows = rows.sort_values(["crop_set", "post_id", "path"])
    several = len(set(rows.crop_set)) > 1
    written, lines = set(), []
    for row in rows.itertuples():
        source = root / row.path
        name = f"{row.crop_set}/{source.name}" if several else source.name
        text = wording(row.caption)
        written |= {
            _write(folder / name, source.read_bytes()),
            _write((folder / name).with_suffix(".txt"), (text or "\n").encode()),
        }
        entry = {"file_name": name, "text": text, "tags": list(row.tags)}
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    written.add(_write(folder / "metadata.jsonl", "".join(lines).encode()))
    _remove_others(folder, written)
    return len(rows)


def write_masks(pictures: pd.DataFrame, root: Path, folder: Path) -> int:
    """Write a mask for each picture into `folder`, white where it is opaque, and return how many.

    `pictures` as above, with the sides of each crop (`width`, `height`, pixels) and `alpha_sha256`, empty for pictures
    that are opaque all over. None are written where all are: the folder is removed.
    """
    from PIL import Image

    from ti_pipeline.imaging.alpha import alpha_path

    several, written = len(set(pictures.crop_set)) > 1, set()
    for row in pictures[pictures.alpha_sha256.notna().any() & pictures.path.notna()].itertuples():
        source = root / row.path
        if isinstance(row.alpha_sha256, str):
            content = alpha_path(source).read_bytes()
        else:
            stream = io.BytesIO()
            Image.new("L", (int(row.width), int(row.height)), 255).save(stream, format="PNG")
            content = stream.getvalue()
        name = f"{row.crop_set}/{source.stem}.png" if several else f"{source.stem}.png"
        written.add(_write(folder / name, content))
    if folder.is_dir():
        _remove_others(folder, written)
    return len(written)


def _write(path: Path, content: bytes) -> Path:
    with write_atomically(path) as aside:
        aside.write_bytes(content)
    return path


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Remove what an earlier export left: files, and folders that are empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in written:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()
