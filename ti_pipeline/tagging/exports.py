"""Captions as files: a folder of pictures that kohya's scripts and Hugging Face datasets read as it is.

Beside each picture lies a `.txt` of the same name (kohya sd-scripts, A1111), and a `metadata.jsonl` names all pictures
with their captions (`imagefolder` of Hugging Face datasets: `file_name`, `text`; the tags as a list beside).
Not here: which pictures and captions (the assets), or attribution (`publishing`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

__all__ = ["write_dataset"]


def write_dataset(captions: pd.DataFrame, pictures: pd.DataFrame, root: Path, folder: Path) -> int:
    """Write pictures with their captions into `folder` and return how many; files of earlier exports go.

    `pictures` has post_id and path, relative to `root`; `captions` is a `captions` table. Pictures without a caption
    row are left out: they are not of this plan. Files are named by post, so that the same inputs give the same folder.
    """
    rows = pictures[["post_id", "path"]].merge(captions, on="post_id").sort_values("post_id")
    written = set()

    def write(name: str, content: bytes) -> None:
        written.add(name)
        with write_atomically(folder / name) as aside:
            aside.write_bytes(content)

    lines = []
    for row in rows.itertuples():
        source = root / row.path
        write(f"{row.post_id}{source.suffix}", source.read_bytes())
        write(f"{row.post_id}.txt", row.caption.encode())
        entry = {"file_name": f"{row.post_id}{source.suffix}", "text": row.caption, "tags": list(row.tags)}
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    write("metadata.jsonl", "".join(lines).encode())
    for stale in [path for path in folder.iterdir() if path.is_file() and path.name not in written]:
        stale.unlink()
    return len(rows)
