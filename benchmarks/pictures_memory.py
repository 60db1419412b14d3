"""Memory of the audit and of cropping over many pictures: peak after the first tenth, and after all.

Drawn pictures of 160 × 120 pixels, a thousand different ones under many names, are audited and cropped to 64 pixels.
Each number of pictures has a process of its own, so that peaks do not mix.

    python -m benchmarks.pictures_memory [pictures, 10000 unless given]

Prints peak resident memory in MiB; writes `benchmarks/results/<date>-pictures_memory.json`.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ti_pipeline.files import write_json
from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.crop import CropJob, crop_pictures
from ti_pipeline.studies import CropSet
from ti_pipeline_tests.imaging.pictures import drawing
from ti_pipeline_tests.imaging.tables import images_table

if TYPE_CHECKING:
    from collections.abc import Sequence

DIFFERENT = 1000
RESULTS = Path(__file__).parent / "results"


def peak(root: str, count: int) -> dict[str, float]:
    """Audit and crop `count` pictures; return this process's peak memory in MiB and the seconds taken."""
    start = time.perf_counter()
    images = images_table({number: f"{number % DIFFERENT}.png" for number in range(count)})
    audit = audit_images(images, root=Path(root))
    chosen = pd.DataFrame({"post_id": audit.post_id, "path": images.path}).assign(
        curation="default", kept=True, split="train"
    )
    (crops,) = crop_pictures(chosen, [CropJob(f"crops/{count}", CropSet(size=64))], root=Path(root))
    assert (audit.status == "ok").all()
    assert (crops.status == "ok").all()
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak MiB": round(mebibytes, 1), "seconds": round(time.perf_counter() - start, 1)}


def main(arguments: Sequence[str]) -> None:
    count = int(arguments[0]) if arguments else 10_000
    spawn = multiprocessing.get_context("spawn")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(DIFFERENT):
            drawing(160, 120, seed=number).save(Path(folder) / f"{number}.png")
        for pictures in (count // 10, count):
            with spawn.Pool(1) as pool:
                found[str(pictures)] = pool.apply(peak, (folder, pictures))
            print(f"{pictures:6} pictures: {found[str(pictures)]}")
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-pictures_memory.json"
    write_json(path, {"machine": machine, "pictures": found})
    print(f"written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
