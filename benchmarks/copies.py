"""How well are copies of training pictures told from honest pictures of the same kind?

Honest are held-out pictures: drawings of the demo's characters, and real ones of three studios where they are there
(`TI_SHARED`). Copies are training pictures again: compressed, noisy, darker, mirrored, moved by a twentieth, enlarged
by a twentieth, and all at once. Training sets of 3, 12 and 48 pictures; their mirror images (`flip`) change nothing,
since every picture is compared both ways.

    python benchmarks/copies.py

Writes `benchmarks/results/<date>-copies.json`.
"""

from __future__ import annotations

import argparse
import io
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline.evaluation.copies import SAME, alike, edges
from ti_pipeline.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Drawing = Image.Image

RESULTS = Path(__file__).parent / "results"
SEED, DRAWS = 6, 20
SIZES = (3, 12, 48)
FAULTY = ("near_duplicate", "tiny")  # drawn twice on purpose, and hardly a picture


def compressed(picture: Drawing, quality: int = 30) -> Drawing:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def noisy(picture: Drawing, deviation: float = 20) -> Drawing:
    pixels = np.asarray(picture).astype(float)
    noise = np.random.default_rng(SEED).normal(0, deviation, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype("uint8"))


def darker(picture: Drawing, share: float = 0.6) -> Drawing:
    return ImageEnhance.Brightness(picture).enhance(share)


def moved(picture: Drawing, share: float = 0.05) -> Drawing:
    """Move right and up, the border repeated behind."""
    by = round(picture.width * share)
    pixels = np.pad(np.asarray(picture), ((by, by), (by, by), (0, 0)), mode="edge")
    return Image.fromarray(pixels[2 * by : 2 * by + picture.height, : picture.width])


def enlarged(picture: Drawing, share: float = 0.05) -> Drawing:
    by = picture.width * share / 2
    return picture.resize(picture.size, box=(by, by, picture.width - by, picture.height - by))


def all_at_once(picture: Drawing) -> Drawing:
    return compressed(noisy(darker(ImageOps.mirror(moved(picture, 0.03))), 10), 60)


WAYS: dict[str, Callable[[Drawing], Drawing]] = {
    "JPEG of quality 30": compressed,
    "noise of 20 of 255": noisy,
    "darker by 0.4": darker,
    "mirrored": ImageOps.mirror,
    "moved by 0.05": moved,
    "enlarged by 0.05": enlarged,
    "all but enlarged": all_at_once,
}


def squared(picture: Drawing, side: int) -> Drawing:
    return ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)


def drawn(concept: str, count: int, side: int) -> list[Drawing]:
    posts = demo_posts(concept=concept, count=count, seed=SEED)
    return [squared(Image.open(io.BytesIO(p.data())), side) for p in posts if p.truth.flaw not in FAULTY]


def measured(pictures: Sequence[Drawing], sizes: Sequence[int] = SIZES, draws: int = DRAWS) -> dict[str, Any]:
    """Return the share of honest pictures called copies, and of copies found, by how many were trained on."""
    plain = np.stack([edges(picture) for picture in pictures])
    honest = alike(plain, plain)
    again = {way: alike(np.stack([edges(make(picture)) for picture in pictures]), plain) for way, make in WAYS.items()}
    told: dict[str, Any] = {}
    for size in (size for size in sizes if size < len(pictures)):
        alarms, found = [], {way: list[float]() for way in WAYS}
        for draw in range(draws):
            order = np.random.default_rng([SEED, draw]).permutation(len(pictures))
            trained, held_out = order[:size], order[size:]
            alarms += (honest[np.ix_(held_out, trained)].max(axis=1) >= SAME).tolist()
            for way, scores in again.items():
                found[way] += (scores[np.ix_(trained, trained)].max(axis=1) >= SAME).tolist()
        told[f"{size} trained on"] = {
            "honest pictures called copies": round(float(np.mean(alarms)), 4),
            "copies found": {way: round(float(np.mean(values)), 4) for way, values in found.items()},
        }
    return told


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    from ti_pipeline_tests.shared_data import PICTURES

    sets = {f"drawn: {concept}": drawn(concept, 90, 128) for concept in ("ember", "frost", "moss")}
    sets["drawn: ember, at 64 pixels"] = drawn("ember", 90, 64)
    for folder in sorted(PICTURES.glob("*/")):
        sets[f"real: {folder.name}"] = [squared(Image.open(path), 128) for path in sorted(folder.glob("*.png"))]
    results = {name: {"pictures": len(pictures)} | measured(pictures) for name, pictures in sets.items()}
    for name, result in results.items():
        print(name, *(f"  {key}: {value}" for key, value in result.items()), sep="\n")
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-copies.json"
    write_json(path, {"seed": SEED, "limit": SAME, "python": platform.python_version(), "sets": results})
    print(f"written to {path}")


if __name__ == "__main__":
    main()
