"""The audit beside mere decoding of the same files in the same run, and how its pixels agree with what tags say.

Files: drawn posts as JPEG, and the real pictures (PNG) where they are at hand. Each is decoded by Pillow alone, then
decoded and measured as the audit does, before the next file's turn, on one thread; a warm-up file is not counted.

    python -m benchmarks.audit_speed [posts, 150 unless given]

Prints milliseconds of processor time a picture, their ratio, and the confusion table of simple backgrounds; writes
`benchmarks/results/<date>-audit_speed.json`.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import PIL
from PIL import Image

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline.files import write_json
from ti_pipeline.imaging.agreement import agreement
from ti_pipeline.imaging.audit import audit_images, measured
from ti_pipeline.imaging.decode import open_picture
from ti_pipeline_tests.imaging.tables import images_table, tags_table
from ti_pipeline_tests.shared_data import PICTURES

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED = 2026
RESULTS = Path(__file__).parent / "results"


def milliseconds(paths: Sequence[Path]) -> dict[str, float]:
    """Return processor time per picture of decoding alone and of the whole audit of one picture."""
    spent = {"decode": 0.0, "audit": 0.0}
    for number, path in enumerate(paths):
        for name, way in (("decode", _decode), ("audit", _audit)):
            start = time.process_time()
            way(path)
            spent[name] += (time.process_time() - start) if number else 0.0
    found = {name: round(1000 * seconds / (len(paths) - 1), 2) for name, seconds in spent.items()}
    return found | {"ratio": round(spent["audit"] / spent["decode"], 3)}


def _decode(path: Path) -> None:
    with Image.open(path) as picture:
        picture.convert("RGB")


def _audit(path: Path) -> None:
    measured(1, open_picture(path))


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0]) if arguments else 150
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        posts = demo_posts(concept="ember", count=count, seed=SEED)
        for post in posts:
            (root / f"{post.record['id']}.jpg").write_bytes(post.data())
        drawn = [root / f"{post.record['id']}.jpg" for post in posts]
        sets = {"drawn, JPEG": drawn, "real, PNG": sorted(PICTURES.glob("*/*.png"))}
        speed = {name: milliseconds(paths) for name, paths in sets.items() if paths}
        images = images_table({post.record["id"]: f"{post.record['id']}.jpg" for post in posts})
        audit = audit_images(images, root=root)
    table = agreement(audit, tags_table({post.record["id"]: post.record["tags"]["general"] for post in posts}))
    for name, row in speed.items():
        print(f"{name:12} {row}")
    print(table.to_string(index=False))
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "pillow": PIL.__version__}
    result: dict[str, Any] = {
        "machine": machine | {"opencv": cv2.__version__},
        "pictures": {name: len(sets[name]) for name in speed},
        "processor milliseconds a picture": speed,
        "pixels and tags": table.to_dict("records"),
    }
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-audit_speed.json"
    write_json(path, result)
    print(f"written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
