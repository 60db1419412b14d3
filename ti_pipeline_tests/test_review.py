"""The page to judge on, in a real browser: keys, ticks, taking back, several raters, and going on after a kill."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from upath import UPath

from ti_pipeline.evaluation.votes import VoteError, gathered_votes
from ti_pipeline.io_managers import Tables
from ti_pipeline.review import ReviewError, main, sittings_of
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.publishing.conftest import frame

CHROMIUM = shutil.which("chromium")
VARIANTS = ("v8", "v16")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A data folder in which two variants of the study `demo` have been evaluated."""
    for place, variant in enumerate(VARIANTS):
        rows = []
        for value, seed in itertools.product(("wolf", "lion"), (6, 7)):
            cell = f"{variant}{value}{seed}"
            path = tmp_path / "evaluation" / "demo" / variant / f"{cell}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            info = PngInfo()
            info.add_text("parameters", f"Checkpoint: {variant}-9")
            Image.new("RGB", (64, 64), (200 * place, 20 * seed, 90)).save(path, pnginfo=info)
            row = {"cell": cell, "variant": variant, "checkpoint": f"{variant}-9", "step": 9, "axis": "species"}
            row |= {"value": value, "seed": seed, "sampler": "DDIM", "steps": 20, "cfg": 7.0, "size": 64}
            row |= {"clip_skip": 1, "base": "b", "token": "t", "embedding_sha256": "0", "prompt": value, "negative": ""}
            rows.append(row | {"path": path.relative_to(tmp_path).as_posix(), "sha256": "0"})
        Tables(UPath(tmp_path)).write("evaluation_images", f"demo__{variant}", frame("evaluation_images", rows))
    return tmp_path


def sittings(store: Path, rater: str = "kim", study: str = "demo"):
    return sittings_of(study, rater, root=store, tables=Tables(UPath(store)))


def votes(store: Path) -> pd.DataFrame:
    return gathered_votes(store / "votes" / "demo")


def test_a_study_without_pictures_says_which_job_makes_them(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ReviewError, match="run the job evaluate"):
        sittings(store, study="reowoof")
    with pytest.raises(ReviewError, match="there is no study 'demmo'"):
        sittings(store, study="demmo")
    assert main(["--study", "demmo"]) == 1
    assert "there is no study 'demmo'" in capsys.readouterr().err


def test_a_half_written_file_of_votes_stops_before_anything_is_asked(store: Path) -> None:
    folder = store / "votes" / "demo"
    folder.mkdir(parents=True)
    (folder / "sam.20261123T000000.1.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(VoteError, match=r"sam\.20261123T000000\.1\.parquet is no whole file"):
        sittings(store)


def test_the_page_needs_its_extra(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("TI_DATA", str(store))
    assert main(["--study", "demo", "--rater", "kim"]) == 1
    assert "pip install 'ti_pipeline[review]'" in capsys.readouterr().err


class Server:
    """The command as a user starts it, in a process of its own."""

    def __init__(self, store: Path, rater: str) -> None:
        environment = os.environ | {"TI_DATA": str(store), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ti_pipeline.review", "--study", "demo", "--rater", rater],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "")
        self.address = next(line for line in lines if line.startswith("review: ")).removeprefix("review: ").strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def serve(store: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(rater: str) -> Server:
        servers.append(Server(store, rater))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium on the path")
    pytest.importorskip("gradio", reason="needs the extra `review`")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


def progress(page: Any, where: str, done: int, of: int) -> None:
    page.wait_for_function(
        f"document.querySelector('{where}')?.innerText.includes('{done} of {of} answered')", timeout=30_000
    )


@pytest.mark.slow
def test_a_rater_answers_takes_back_ticks_and_goes_on_after_a_kill(serve: Any, browser: Any, store: Path) -> None:
    server = serve("kim")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.address)
    progress(page, "#pair", 0, 4)
    shown = page.content()
    assert not any(name in shown for name in ("v8", "v16")), "names stay hidden"
    page.keyboard.press("ArrowLeft")
    progress(page, "#pair", 1, 4)
    assert votes(store).choice.tolist() == ["first"]
    page.keyboard.press("ArrowUp")
    progress(page, "#pair", 2, 4)
    page.keyboard.press("Backspace")
    progress(page, "#pair", 1, 4)
    assert len(votes(store)) == 1
    page.keyboard.press("ArrowRight")
    progress(page, "#pair", 2, 4)
    assert votes(store).choice.tolist() == ["first", "second"]

    page.get_by_role("tab", name="Mismatches").click()
    progress(page, "#sheet-words", 0, 2)
    labels = "[...document.querySelectorAll('#sheet .caption-label')]"
    ticks = f"{labels}.map(one => one.innerText.includes('✗') ? 1 : 0).join('')"
    page.wait_for_function(f"{ticks} === '0000'", timeout=30_000)
    for key, expected in (("2", "0100"), ("4", "0101"), ("2", "0001"), ("1", "1001")):
        page.keyboard.press(key)
        page.wait_for_function(f"{ticks} === '{expected}'", timeout=30_000)
    page.keyboard.press("Enter")
    progress(page, "#sheet-words", 1, 2)
    cells = votes(store).query("kind == 'cell'")
    assert cells.choice.tolist() == ["mismatch", "match", "match", "mismatch"]
    assert TABLES["votes"].problems(votes(store)) == []
    assert all(url.startswith((server.address, "data:", "blob:")) for url in asked), "no request leaves the machine"

    server.kill()
    assert len(votes(store)) == 6
    again, other = serve("kim"), serve("sam")
    page.goto(again.address)
    progress(page, "#pair", 2, 4)
    page.keyboard.press("Backspace")
    progress(page, "#pair", 1, 4)
    page.goto(other.address)
    progress(page, "#pair", 0, 4)
    page.keyboard.press("ArrowUp")
    progress(page, "#pair", 1, 4)
    assert sorted(votes(store).rater) == ["kim"] * 5 + ["sam"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_and_listens_on_this_machine_only(serve: Any, browser: Any, width: int) -> None:
    server = serve("kim")
    assert server.address.startswith("http://127.0.0.1:")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(server.address)
    progress(page, "#pair", 0, 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for side in ("left", "right"):
        assert page.get_by_alt_text(f"{side} picture").bounding_box()["width"] >= 100
