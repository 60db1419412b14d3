"""Co-training: how far variants trained together end from the same variants trained alone, in each precision.

    python benchmarks/cotraining.py [--updates N]

Four variants of 8, 16, 32 and 64 vectors on the demo's base model, the same draws together and alone. In float64 they
are equal (a test holds that to 1e-9); in fp32 and bf16 the shape of a batch changes the rounding of its sums, and
training carries differences on. Prints the largest difference of any number of the vectors, and the mean distance
between the two embeddings' vectors as a share of how far training moved them. Writes
`benchmarks/results/<date>-cotraining.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training_speed import RESULTS, Place, Way, make_base, make_pictures, prepared

VECTORS = (8, 16, 32, 64)


def differences(place: Place, precision: str) -> dict[str, Any]:
    """Train together and alone in a precision; return each variant's differences."""
    from ti_pipeline.inversion.trainer import train

    base, start = prepared(Way("", VECTORS, 1, precision), place)
    together = [start(vectors, place.updates) for vectors in VECTORS]
    train(base, together, save=lambda *_: None)
    found = {}
    for run in together:
        alone = start(len(run.vectors), place.updates)
        train(base, [alone], save=lambda *_: None)
        apart, moved = (run.result - alone.result), (alone.result - alone.initial).norm(dim=1).mean()
        found[str(len(run.vectors))] = {
            "largest_difference": float(apart.abs().max()),
            "share_of_way": float(apart.norm(dim=1).mean() / moved),
        }
    return found


def main() -> None:
    """Measure, print and write."""
    from ti_pipeline.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200)
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as work:
        base, pictures = make_base("demo", Path(work) / "base"), make_pictures(Path(work) / "pictures", 64)
        place = Place(str(base), str(pictures), 64, "cpu", None, given.updates)
        for precision in ("fp64", "fp32", "bf16"):
            found[precision] = differences(place, precision)
            for vectors, row in found[precision].items():
                print(f"{precision} {vectors:>2} vectors: {row['largest_difference']:.2e}, ", end="")
                print(f"{row['share_of_way']:.2%} of the way")
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-cotraining.json"
    write_json(path, {"updates": given.updates, **found})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
