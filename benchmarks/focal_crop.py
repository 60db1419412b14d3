"""Focal crops: where they put heads, and how fast, beside the centre and beside A1111's autocrop on the same pictures.

Pictures: drawn posts of a seed that nothing was tuned on (their heads are known, because they were drawn there), and,
where the real pictures are at hand, those of `ti_pipeline_tests/imaging/data/real_heads.csv`, trimmed to the animal so
that a square cannot hold all of it. The peer's file is read from the path given; none of its code is here.

    python -m benchmarks.focal_crop [--autocrop PATH] [--posts 100]

Prints the shares of pictures whose head's centre lies in the central 60 % of the crop and whose whole head lies in it,
then seconds of processor time, and how much faster all cores are than one; writes
`benchmarks/results/<date>-focal_crop.json`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
import time
import types
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import PIL
from packaging.version import parse
from PIL import Image, ImageChops, ImageDraw

from ti_pipeline.demo.heads import draw_head
from ti_pipeline.demo.pen import Pen
from ti_pipeline.demo.posts import demo_posts
from ti_pipeline.demo.styles import STYLES
from ti_pipeline.demo.world import CONCEPTS
from ti_pipeline.files import sha256_of, write_json
from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.crop import CropJob, crop_pictures
from ti_pipeline.imaging.cut import Source, cut_picture
from ti_pipeline.imaging.focal import interest_map, place_box
from ti_pipeline.imaging.measures import reduced
from ti_pipeline.studies import CropSet, FocalWeights
from ti_pipeline_tests.imaging.tables import images_table
from ti_pipeline_tests.shared_data import PICTURES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ti_pipeline.demo.posts import Truth
    from ti_pipeline.demo.world import Attributes

SEED = 2026
SIZE = 512
RESULTS = Path(__file__).parent / "results"
REAL_HEADS = Path(__file__).parents[1] / "ti_pipeline_tests/imaging/data/real_heads.csv"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Subject:
    """A picture as encoded bytes, and the boxes (left, top, right, bottom, pixels) of the heads in it."""

    data: bytes
    heads: list[Box]

    def rgb(self) -> Image.Image:
        """Return the decoded picture."""
        return Image.open(io.BytesIO(self.data)).convert("RGB")


def drawn_subjects(posts: int) -> list[Subject]:
    """Return drawn posts of every concept, `posts` of each."""
    found = []
    for concept in sorted(CONCEPTS):
        for post in demo_posts(concept=concept, count=posts, seed=SEED):
            with Image.open(io.BytesIO(post.data())) as picture:
                scale = picture.width / post.truth.size[0]
            heads = [tuple(scale * value for value in head) for head in drawn_heads(post.truth)]
            found.append(Subject(post.data(), heads))
    return found


def drawn_heads(truth: Truth) -> list[Box]:
    """Return the heads' boxes by drawing them alone: ears, horns, manes and hats included, scarves left out."""
    (x, y), unit = truth.centre, truth.unit
    heads = [_drawn_head(truth.attributes, truth.size, x, y, unit)]
    if truth.beside is not None:
        side = 1 if x < truth.size[0] / 2 else -1
        heads.append(_drawn_head(truth.beside, truth.size, x + side * 1.5 * unit, y, unit))
    return heads


def _drawn_head(attributes: Attributes, size: tuple[int, int], x: float, y: float, unit: float) -> Box:
    ground = Image.new("RGB", size, (1, 2, 3))
    picture = ground.copy()
    bare = replace(attributes, accessory="none") if attributes.accessory == "scarf" else attributes
    draw_head(Pen(ImageDraw.Draw(picture), x, y, unit, STYLES[attributes.style]).moved(0, -0.24, 0.8), bare)
    return ImageChops.difference(picture, ground).getbbox()


def real_subjects() -> list[Subject]:
    """Return the real pictures of the table of heads, trimmed to what differs from their background."""
    found = []
    for row in csv.DictReader(REAL_HEADS.read_text(encoding="utf-8").splitlines()):
        with Image.open(PICTURES / f"{row['picture']}.png") as picture:
            rgb = picture.convert("RGB")
        edge = ImageChops.difference(rgb, Image.new("RGB", rgb.size, rgb.getpixel((0, 0)))).getbbox()
        left, top, right, bottom = (
            min(max(float(row[name]) * length / 100, low), high) - low
            for name, length, low, high in (
                ("left", rgb.width, edge[0], edge[2]),
                ("top", rgb.height, edge[1], edge[3]),
                ("right", rgb.width, edge[0], edge[2]),
                ("bottom", rgb.height, edge[1], edge[3]),
            )
        )
        stream = io.BytesIO()
        rgb.crop(edge).save(stream, "PNG")
        found.append(Subject(stream.getvalue(), [(left, top, right, bottom)]))
    return found


def mirrored(subject: Subject) -> Subject:
    """Return a subject facing the other way: nearly all of the real animals face left, and a way might prefer that."""
    rgb = subject.rgb()
    stream = io.BytesIO()
    rgb.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(stream, "PNG")
    heads = [(rgb.width - right, top, rgb.width - left, bottom) for left, top, right, bottom in subject.heads]
    return Subject(stream.getvalue(), heads)


Square = tuple[float, float, float]


def by_us(rgb: Image.Image, _heads: list[Box]) -> Square:
    interest, _ = interest_map(reduced(rgb), FocalWeights())
    placed = place_box(interest, rgb.size, (min(rgb.size),) * 2)
    return placed.left, placed.top, placed.width


def by_centre(rgb: Image.Image, _heads: list[Box]) -> Square:
    side = min(rgb.size)
    return (rgb.width - side) / 2, (rgb.height - side) / 2, side


def by_truth(rgb: Image.Image, heads: list[Box]) -> Square:
    """Return the square that a person who knows the heads would place: what is possible at all."""
    side, wide = min(rgb.size), rgb.width > rgb.height
    places = [(at, 0, side) if wide else (0, at, side) for at in range(max(rgb.size) - side + 1)]
    return max(places, key=lambda square: sum(judged(square, heads)))


def judged(square: Square, heads: list[Box]) -> tuple[bool, bool]:
    """Tell whether a head's centre lies in the central 60 %, and whether a whole head lies in the square.

    In pictures of two either head will do.
    """
    left, top, side = square
    low, high = 0.2 * side, 0.8 * side
    centres = [((x0 + x1) / 2 - left, (y0 + y1) / 2 - top) for x0, y0, x1, y1 in heads]
    central = any(low <= x <= high and low <= y <= high for x, y in centres)
    whole = any(left <= x0 and top <= y0 and x1 <= left + side and y1 <= top + side for x0, y0, x1, y1 in heads)
    return central, whole


def load_autocrop(path: Path) -> Any:
    """Return the peer's module; what it imports of its own program and of old setuptools is stood in for."""
    paths = types.ModuleType("modules.paths_internal")
    paths.models_path = ""
    package = types.ModuleType("modules")
    package.paths_internal = paths
    resources = types.ModuleType("pkg_resources")
    resources.parse_version = parse
    sys.modules |= {"modules": package, "modules.paths_internal": paths, "pkg_resources": resources}
    spec = importlib.util.spec_from_file_location("autocrop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def autocrop_settings(autocrop: Any) -> Any:
    """Return the web UI's default weights without its face detector, whose model is not part of the program.

    Without that model the program tries human cascades and raises on any find (truth of an array), so that faces are
    off here; it would be slower with them.
    """
    return autocrop.Settings(SIZE, SIZE, corner_points_weight=0.5, entropy_points_weight=0.15, face_points_weight=0)


def by_autocrop(autocrop: Any) -> Callable[[Image.Image, list[Box]], Square]:
    """Return a placement by the peer's focal point, in the pixels of the whole picture."""
    settings = autocrop_settings(autocrop)

    def place(rgb: Image.Image, _heads: list[Box]) -> Square:
        scale = SIZE / min(rgb.size)
        small = rgb.resize((int(rgb.width * scale), int(rgb.height * scale)))
        focus = autocrop.focal_point(small, settings)
        x = min(max(focus.x - SIZE // 2, 0), small.width - SIZE)
        y = min(max(focus.y - SIZE // 2, 0), small.height - SIZE)
        return x / scale, y / scale, SIZE / scale

    return place


def quality(subjects: Sequence[Subject], place: Callable[[Image.Image, list[Box]], Square]) -> dict[str, float]:
    verdicts = [judged(place(subject.rgb(), subject.heads), subject.heads) for subject in subjects]
    central, whole = (sum(column) / len(verdicts) for column in zip(*verdicts, strict=True))
    return {"centre in the central 60 %": round(central, 4), "whole head inside": round(whole, 4)}


def speed(subjects: Sequence[Subject], autocrop: Any | None) -> dict[str, float]:
    """Return milliseconds of processor time per picture, every way on a picture before the next one."""
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "picture", Path(folder) / "crop.png"
        for number, subject in enumerate(subjects):
            path.write_bytes(subject.data)
            rgb = subject.rgb()
            ways: dict[str, Callable[[], Any]] = {
                "focal point": lambda rgb=rgb: by_us(rgb, []),
                "end to end": lambda: cut_picture(Source(path), CropSet(size=SIZE))[0].pixels.save(out),
                "pillow alone": lambda: _pillow_alone(path, out),
            }
            if autocrop is not None:
                ways["autocrop"] = lambda rgb=rgb: autocrop.crop_image(rgb, autocrop_settings(autocrop))
                ways["focal crop from pixels"] = lambda rgb=rgb: _from_pixels(rgb)
            for name, way in ways.items():
                start = time.process_time()
                way()
                if number:  # the first picture warms up
                    spent[name] = spent.get(name, 0.0) + time.process_time() - start
    return {name: round(1000 * seconds / (len(subjects) - 1), 2) for name, seconds in spent.items()}


def _pillow_alone(path: Path, out: Path) -> None:
    """Decode, cut the middle, resize and encode: what any cropping costs."""
    with Image.open(path) as picture:
        rgb = picture.convert("RGB")
    left, top, side = by_centre(rgb, [])
    square = rgb.crop((int(left), int(top), int(left) + side, int(top) + side))
    square.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(out)


def _from_pixels(rgb: Image.Image) -> Image.Image:
    left, top, side = (int(value) for value in by_us(rgb, []))
    return rgb.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def scaling(subjects: Sequence[Subject], rounds: int = 5) -> dict[str, Any]:
    """Return pictures per second of the audit and of cropping on one core and on all, the best of several rounds.

    Both work in as many threads as this process may use cores. What they leave must not depend on that.
    """
    every = sorted(os.sched_getaffinity(0))
    best: dict[str, dict[str, float]] = {"audit": {}, "crops": {}}
    left: dict[str, set[str]] = {"audit": set(), "crops": set()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, subject in enumerate(subjects):
            (root / f"{number}.jpg").write_bytes(subject.data)
        images = images_table({number: f"{number}.jpg" for number in range(len(subjects))})
        chosen = images[["post_id", "path"]].assign(curation="default", kept=True, split="train")
        for _ in range(rounds):
            for used in (every[:1], every):
                os.sched_setaffinity(0, used)
                jobs = {
                    "audit": lambda: audit_images(images, root=root),
                    "crops": lambda: crop_pictures(chosen, [CropJob("crops", CropSet(size=SIZE))], root=root)[0],
                }
                for name, job in jobs.items():
                    shutil.rmtree(root / "crops", ignore_errors=True)
                    start = time.perf_counter()
                    table = job()
                    rate = len(subjects) / (time.perf_counter() - start)
                    best[name][str(len(used))] = max(rate, best[name].get(str(len(used)), 0.0))
                    left[name].add(table.to_json() + "".join(map(sha256_of, sorted((root / "crops").glob("*.png")))))
    assert all(len(outcomes) == 1 for outcomes in left.values())
    return {
        name: {f"pictures a second on {count} cores": round(rate, 1) for count, rate in rates.items()}
        | {"ratio": round(max(rates.values()) / rates["1"], 2)}
        for name, rates in best.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--autocrop", type=Path, help="A1111's modules/textual_inversion/autocrop.py")
    parser.add_argument("--posts", type=int, default=100, help="drawn posts of each of the three concepts")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    autocrop = None if arguments.autocrop is None else load_autocrop(arguments.autocrop)
    ways = {"focal crop": by_us, "centre": by_centre, "best possible": by_truth}
    if autocrop is not None:
        ways["autocrop without its face model"] = by_autocrop(autocrop)
    sets = {"drawn": drawn_subjects(arguments.posts)}
    if PICTURES.is_dir():
        sets["real"] = real_subjects()
        sets["real, mirrored"] = list(map(mirrored, sets["real"]))
    qualities = {name: {way: quality(s, place) for way, place in ways.items()} for name, s in sets.items()}
    for name, by_way in qualities.items():
        for way, shares in by_way.items():
            print(f"{name:14} {len(sets[name]):5} pictures  {way:32} {shares}")
    large = [subject for subject in sets["drawn"] if min(subject.rgb().size) >= SIZE]
    spent = speed(large[:60], autocrop)
    ratios = {"end to end over pillow alone": round(spent["end to end"] / spent["pillow alone"], 3)}
    if autocrop is not None:
        ratios["autocrop over focal crop, from decoded pixels"] = round(
            spent["autocrop"] / spent["focal crop from pixels"], 2
        )
    print(spent, ratios, sep="\n")
    busy = round(os.getloadavg()[0], 1)  # what else ran just now: it takes from the second core first
    over_cores = scaling(large[:60])
    for name, rates in over_cores.items():
        print(f"{name:14} {rates}")
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "pillow": PIL.__version__}
    result: dict[str, Any] = {
        "seed": SEED,
        "size": SIZE,
        "machine": machine | {"opencv": cv2.__version__},
        "pictures": {name: len(s) for name, s in sets.items()},
        "quality": qualities,
        "processor milliseconds a picture": spent,
        "ratios": ratios,
        "over cores": over_cores | {"load average before": busy},
    }
    if arguments.autocrop is not None:
        result["autocrop sha256"] = sha256_of(arguments.autocrop)
    path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-focal_crop.json"
    write_json(path, result)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
