"""Pictures that are no pictures, disks that fill up, processes that die: rows with reasons, and never half a file."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.crop import CropJob, crop_pictures
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CropSet
from ti_pipeline_tests.imaging.pictures import drawing
from ti_pipeline_tests.imaging.tables import images_table
from ti_pipeline_tests.shared_data import PICTURES, needs_shared

FOLDER = "crops/study/64"


def training_set(paths: dict[int, str]) -> pd.DataFrame:
    table = pd.DataFrame(list(paths.items()), columns=["post_id", "path"])
    return table.assign(curation="default", kept=True, split="train", reason="")


def crop(root: Path, paths: dict[int, str]) -> pd.DataFrame:
    (crops,) = crop_pictures(training_set(paths), [CropJob(FOLDER, CropSet(size=64))], root=root)
    assert TABLES["crops"].problems(crops) == []
    return crops


def drawings(root: Path, count: int) -> dict[int, str]:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawing(100, 90, seed=number).save(root / f"images/{number}.png")
    return {number: f"images/{number}.png" for number in range(count)}


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / FOLDER).iterdir()}


def mutants(seed: int, count: int) -> list[bytes]:
    """Real pictures in several formats, with bytes changed, taken out, doubled, or swapped between two of them."""
    random = np.random.default_rng(seed)
    sources = []
    for path in sorted(PICTURES.rglob("*.png"))[::40]:
        with Image.open(path) as picture:
            small = picture.convert("RGBA").resize((160, 160))
        for form in ("PNG", "WEBP", "JPEG", "GIF", "TIFF", "AVIF"):
            stream = io.BytesIO()
            (small.convert("RGB") if form == "JPEG" else small).save(stream, form)
            sources.append(stream.getvalue())
    made = []
    for _ in range(count):
        data = bytearray(sources[random.integers(len(sources))])
        start = int(random.integers(len(data)))
        match random.integers(5):
            case 0:
                del data[start:]
            case 1:
                data[start : start + 200] = b""
            case 2:
                data[start:start] = data[start : start + 500]
            case 3:
                data[start:] = sources[random.integers(len(sources))][start:]
            case _:
                for place in random.integers(0, len(data), 8):
                    data[place] = random.integers(256)
        made.append(bytes(data))
    return made


@needs_shared
def test_mutated_real_pictures_end_as_rows_and_whole_crops(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    paths = {}
    for number, data in enumerate(mutants(seed=11, count=1000)):
        paths[number] = f"images/{number}.png"
        (tmp_path / paths[number]).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, which is not the question here
        audit = audit_images(images_table(paths), root=tmp_path)
        crops = crop(tmp_path, paths)
    assert TABLES["image_audit"].problems(audit) == []
    assert set(audit.status) == {"ok", "failed"}, "some survive their mutation, some do not"
    assert (audit.reason[audit.status == "failed"] != "").all()
    assert crops.status.tolist() == audit.status.tolist(), "what can be looked at can be cropped"
    there = {path.relative_to(tmp_path).as_posix() for path in (tmp_path / FOLDER).glob("*.png")}
    assert there == set(crops.path[crops.status == "ok"])
    for path in there:
        with Image.open(tmp_path / path) as whole:
            whole.load()
            assert whole.size == (64, 64)


@pytest.mark.parametrize(
    "content",
    [
        b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
        b"<!DOCTYPE html><title>503</title>",
        b"PK\x03\x04" + bytes(60),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        bytes(4096),
    ],
    ids=["svg", "html", "zip", "eps", "only a signature", "zeros"],
)
def test_other_files_under_a_pictures_name_are_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    row = audit_images(images_table({1: "x.png"}), root=tmp_path).iloc[0]
    assert row.status == "failed"
    assert "not a picture" in row.reason or "damaged" in row.reason or "truncated" in row.reason


def test_a_link_is_followed_and_one_to_nowhere_is_a_row(tmp_path: Path) -> None:
    drawing(90, 80).save(tmp_path / "there.png")
    (tmp_path / "link.png").symlink_to("there.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "folder.png").mkdir()
    names = ["link.png", "loop.png", "gone.png", "folder.png"]
    audit = audit_images(images_table(dict(enumerate(names))), root=tmp_path)
    assert audit.status.tolist() == ["ok", "failed", "failed", "failed"]
    assert audit.reason.str.startswith("cannot be read").tolist() == [False, True, True, True]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path, mount) -> None:
    paths = drawings(tmp_path, 2)
    mount(tmp_path / FOLDER, "ro,size=64k")
    with pytest.raises(OSError, match="Read-only file system") as raised:
        crop(tmp_path, paths)
    assert FOLDER in str(raised.value)


def test_a_disk_that_fills_up_leaves_whole_files_and_the_next_run_goes_on(tmp_path: Path, mount) -> None:
    paths = drawings(tmp_path, 40)
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / "images").symlink_to(tmp_path / "images")
    crop(calm, paths)
    whole = sum(map(len, contents(calm).values()))
    folder = mount(tmp_path / FOLDER, f"size={whole // 2}")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        crop(tmp_path, paths)
    left = contents(tmp_path)
    assert left
    assert all(left[name] == contents(calm)[name] for name in left if name != "index.json")
    subprocess.run(["mount", "-o", f"remount,size={4 * whole}", folder], check=True)
    assert (crop(tmp_path, paths).status == "ok").all()
    assert contents(tmp_path) == contents(calm)


KILLED = """
import sys
from pathlib import Path
from ti_pipeline_tests.imaging.test_robustness import CropJob, CropSet, FOLDER, crop_pictures, training_set
root, count = Path(sys.argv[1]), int(sys.argv[2])
crop_pictures(
    training_set({n: f"images/{n}.png" for n in range(count)}), [CropJob(FOLDER, CropSet(size=64))], root=root,
    progress=lambda done, total, what: print(done, flush=True),
)
"""


def test_a_killed_process_leaves_whole_files_and_the_next_run_makes_the_others(tmp_path: Path) -> None:
    count = 130
    paths = drawings(tmp_path, count)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(count)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        for line in process.stdout:
            if int(line) == 70:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    known = json.loads((tmp_path / FOLDER / "index.json").read_text())
    assert len(known) == 50, "the index is saved every 50 crops"
    for path in (tmp_path / FOLDER).glob("[0-9]*.png"):
        with Image.open(path) as whole:
            whole.load()
        os.utime(path, ns=(10**9, 10**9))
    assert (crop(tmp_path, paths).status == "ok").all()
    kept = {path.stem for path in (tmp_path / FOLDER).glob("*.png") if path.stat().st_mtime_ns == 10**9}
    assert kept == set(known)
    assert sorted(contents(tmp_path)) == sorted(["index.json", *(f"{number}.png" for number in range(count))])
