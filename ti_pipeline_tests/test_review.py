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
from ti_pipeline.review import ReviewError, _keys, main, sittings_of
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.publishing.conftest import frame

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
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


def test_questions_show_the_concept_and_the_whole_prompt_without_names(store: Path) -> None:
    tables = Tables(UPath(store))
    images = tables.read("evaluation_images", "demo__v8")
    tables.write("evaluation_images", "demo__v8", images.assign(token="demo-v8", prompt="demo-v8, wolf, city"))
    rows = []
    for number in range(9):
        path = store / "crops" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (0, 20 * number, 0)).save(path)
        row = {"post_id": number, "part": 0, "flipped": False, "split": "validation", "status": "ok", "reason": ""}
        rows.append(row | {"path": path.relative_to(store).as_posix(), "sha256": f"{number}", "size": 8})
    tables.write("crops", "demo__512", frame("crops", rows))
    reviewed = sittings_of("demo", "kim", root=store, tables=tables, checkpoints=["v8-9"])
    assert [path.name for path in reviewed.own] == ["0.png", "3.png", "6.png"]
    asked = reviewed.sheets.current
    assert asked is not None
    assert asked.prompts == ["[name], wolf, city"]


@pytest.mark.parametrize(("count", "last"), [(4, "4: "), (9, "9: "), (10, "a: "), (32, "z: "), (34, "")])
def test_pictures_of_a_sheet_have_keys_as_far_as_there_are_some(count: int, last: str) -> None:
    found = _keys(count)
    assert (len(found), found[-1]) == (count, last)
    assert not {"s", "t", "u"} & {key[0] for key in found if key}, "these keys mean something else"


def sittings(store: Path, rater: str = "kim", study: str = "demo"):
    return sittings_of(study, rater, root=store, tables=Tables(UPath(store)))


def votes(store: Path) -> pd.DataFrame:
    return gathered_votes(UPath(store) / "votes" / "demo")


def test_a_study_without_pictures_says_which_job_makes_them(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ReviewError, match="run the job evaluate"):
        sittings(store, study="reowoof")
    with pytest.raises(ReviewError, match="there is no study 'demmo'"):
        sittings(store, study="demmo")
    assert main(["--study", "demmo"]) == 1
    assert "there is no study 'demmo'" in capsys.readouterr().err


def test_checkpoints_can_be_chosen_and_one_without_pictures_is_named(store: Path) -> None:
    tables = Tables(UPath(store))
    alone = sittings_of("demo", "kim", root=store, tables=tables, checkpoints=["v8-9"])
    assert (alone.pairs.progress, alone.sheets.progress) == ((0, 0), (0, 1))
    with pytest.raises(ReviewError, match=r"no pictures of v8-7 \(there are: v8-9, v16-9\)"):
        sittings_of("demo", "kim", root=store, tables=tables, checkpoints=["v8-7", "v8-9"])


def test_a_half_written_file_of_votes_stops_before_anything_is_asked(store: Path) -> None:
    folder = store / "votes" / "demo"
    folder.mkdir(parents=True)
    (folder / "sam.20261123T000000.1.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(VoteError, match=r"sam\.20261123T000000\.1\.parquet is no whole file"):
        sittings(store)


def test_votes_go_straight_to_a_remote_data_folder_past_the_mirror(store: Path) -> None:
    remote = UPath("memory://review")
    for variant in VARIANTS:
        Tables(remote).write(
            "evaluation_images", f"demo__{variant}", Tables(UPath(store)).read("evaluation_images", f"demo__{variant}")
        )
    kim, sam = (sittings_of("demo", rater, root=store, tables=Tables(remote)) for rater in ("kim", "sam"))
    kim.pairs.answer("first", asked=kim.pairs.current.name)
    sam.pairs.answer("tie", asked=sam.pairs.current.name)
    kim.pairs.answer("second", asked=kim.pairs.current.name)
    assert gathered_votes(remote / "votes" / "demo").rater.tolist() == ["kim", "sam", "kim"]
    assert not (store / "votes").exists()
    remote.fs.rm("/review", recursive=True)


def test_the_page_needs_its_extra(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("TI_DATA", str(store))
    assert main(["--study", "demo", "--rater", "kim"]) == 1
    assert "pip install 'ti_pipeline[review]'" in capsys.readouterr().err


# The command, with a line for every address that Python itself looks up, connects to or listens on.
AUDITED = """
import sys
from pathlib import Path
log = Path(sys.argv.pop(1)).open("a", buffering=1)
def told(event, args):
    if event in ("socket.connect", "socket.bind"):
        print(args[1][0] if isinstance(args[1], tuple) else args[1], file=log)
    elif event == "socket.getaddrinfo":
        print(args[0], file=log)
sys.addaudithook(told)
from ti_pipeline.review import main
sys.exit(main())
"""


class Server:
    """The command as a user starts it, in a process of its own."""

    def __init__(self, store: Path, rater: str) -> None:
        environment = os.environ | {"TI_DATA": str(store), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", AUDITED, str(store / "network.txt"), "--study", "demo", "--rater", rater],
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
    page.keyboard.press("Backspace")
    progress(page, "#sheet-words", 0, 2)
    page.wait_for_function(f"{ticks} === '1001'", timeout=30_000)  # taken back, the ticks are there to be mended
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
def test_only_what_is_in_sight_is_answered(serve: Any, browser: Any, store: Path) -> None:
    server = serve("kim")
    page, old = (browser.new_page() for _ in range(2))
    for window in (page, old):
        window.goto(server.address)
        progress(window, "#pair", 0, 4)
    page.keyboard.down("ArrowLeft")
    progress(page, "#pair", 1, 4)
    page.keyboard.down("ArrowLeft")  # the key is still held: browsers repeat it
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("ArrowUp")
    progress(page, "#pair", 2, 4)
    assert votes(store).choice.tolist() == ["first", "tie"]
    old.keyboard.press("ArrowRight")  # this window still shows the first pair
    progress(old, "#pair", 2, 4)
    assert votes(store).choice.tolist() == ["first", "tie"]
    old.keyboard.press("ArrowRight")
    progress(old, "#pair", 3, 4)
    assert votes(store).choice.tolist() == ["first", "tie", "second"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_and_listens_on_this_machine_only(serve: Any, browser: Any, store: Path, width: int) -> None:
    server = serve("kim")
    assert server.address.startswith("http://127.0.0.1:")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(server.address)
    progress(page, "#pair", 0, 4)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert set((store / "network.txt").read_text().split()) == {"127.0.0.1"}
    for side in ("left", "right"):
        assert page.get_by_alt_text(f"{side} picture").bounding_box()["width"] >= 0.75 * min(width, 640)
    page.get_by_role("tab", name="Mismatches").click()
    progress(page, "#sheet-words", 0, 2)
    pictures = page.locator("#sheet button.thumbnail-lg")
    sync_api.expect(pictures).to_have_count(4)
    frame_of_all = page.locator("#sheet").bounding_box()
    for picture in pictures.all():  # none is out of sight: it would count as a match
        box = picture.bounding_box()
        for start, length in (("x", "width"), ("y", "height")):
            assert frame_of_all[start] <= box[start]
            assert box[start] + box[length] <= frame_of_all[start] + frame_of_all[length]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
