"""The page in a real browser: Debian's chromium, driven by playwright, on a phone, a tablet and a desktop."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from ti_pipeline.publishing.report import write_report
from ti_pipeline_tests.publishing.conftest import build_results, with_people

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WIDTHS = (390, 820, 1400)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium on the path")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small study's page, or the one that TI_PAGE names."""
    if given := os.environ.get("TI_PAGE"):
        return Path(given).resolve().as_uri()
    folder = tmp_path_factory.mktemp("browser")
    results = build_results(folder)
    for number, table in enumerate(results.evaluation_images.values()):
        table["path"] = [f"cells/{cell}.png" for cell in table.cell]
        for row in table.itertuples():
            path = results.root / row.path
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (100 * number, 4 * row.step, 200)).save(path)
    write_report(with_people(results), folder / "page.html")
    return (folder / "page.html").as_uri()


class Visit:
    """A page that was opened, with all that it asked for and complained of."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def unfolded(self):
        """Open every part, as a reader would one after another."""
        for part in self.page.locator(".part").all():
            if not part.evaluate("e => e.open"):
                part.locator("summary").first.click()
        return self.page


@pytest.fixture
def visit(browser, address) -> Iterator:
    visits = []

    def go(**options) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield go
    for one in visits:
        one.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_asks_for_nothing_and_has_no_complaints(visit, address, width, scheme):
    seen = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert seen.page.evaluate("document.documentElement.scrollWidth") == width
    # What is wider than its place scrolls inside of it, and nothing stands out of the page beside it.
    beyond = seen.page.evaluate(
        "w => [...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.scroll, nav, pre') && e.checkVisibility())"
        ".filter(e => e.getBoundingClientRect().right > w + 1)"
        ".map(e => e.outerHTML.slice(0, 80))",
        width,
    )
    assert beyond == []
    seen.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert [url for url in seen.asked if not url.startswith("data:")] == [address]
    assert seen.complaints == []


def panes(page) -> list[tuple[str, str]]:
    """The two panes as people see them: what is written above, and which picture."""
    found = page.eval_on_selector_all(
        ".panes figure", "all => all.map(e => [e.querySelector('figcaption').innerText, e.querySelector('img').src])"
    )
    return [(words, hashlib.sha256(source.encode()).hexdigest()) for words, source in found]


@pytest.mark.parametrize("width", WIDTHS)
def test_flicks_between_any_two_checkpoints(visit, width):
    page = visit(viewport={"width": width, "height": 900}).unfolded()
    names = page.eval_on_selector_all("#flick-a option", "all => all.map(e => e.value)")
    first, last = names[0], names[-1]
    page.get_by_label("Checkpoint A").select_option(first)
    page.get_by_label("Checkpoint B").select_option(last)
    before = panes(page)
    assert [words for words, _ in before] == [f"A: {first}", f"B: {last}"]
    assert before[0][1] != before[1][1]
    page.keyboard.press("f")  # the list of checkpoint B still has the focus
    assert panes(page) == before[::-1]
    page.keyboard.press("Shift+F")
    assert panes(page) == before
    page.get_by_role("button", name="Flip").click()
    assert panes(page) == before[::-1]
    assert page.get_attribute("#flick-flip", "aria-pressed") == "true"
    page.keyboard.press("ArrowRight")
    assert page.input_value("#flick-set") == "1"
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#flick-set") == "0"


def test_a_pane_shows_the_strip_of_its_checkpoint(visit):
    page = visit().unfolded()
    for name in page.eval_on_selector_all("#flick-a option", "all => all.map(e => e.value)"):
        page.get_by_label("Checkpoint A").select_option(name)
        wanted = page.eval_on_selector(f".strips [data-checkpoint='{name}'] img", "e => [e.src, e.alt]")
        assert page.eval_on_selector(".panes img", "e => [e.src, e.alt]") == wanted
        assert page.eval_on_selector(".panes img", "e => e.decode().then(() => e.naturalWidth)") > 0


@pytest.mark.parametrize("scripts", [True, False])
def test_a_grid_zooms_and_goes_back(visit, scripts):
    page = visit(viewport={"width": 390, "height": 800}, java_script_enabled=scripts).unfolded()
    grid = page.locator("#grids .zoom").first
    grid.scroll_into_view_if_needed()
    small = grid.locator("img").bounding_box()
    grid.click()
    big = grid.locator("span").bounding_box()
    assert (big["x"], big["y"], big["width"], big["height"]) == (0, 0, 390, 800)
    grid.locator("span").click(position={"x": 5, "y": 790})
    assert grid.locator("img").bounding_box()["width"] == small["width"]


def test_a_grid_zooms_by_keys(visit):
    page = visit(viewport={"width": 820, "height": 800}).unfolded()
    box = page.locator("#grids .zoom input").first
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked()
    page.keyboard.press("Escape")
    assert not box.is_checked()


def test_without_scripts_the_essentials_are_there(visit):
    page = visit(java_script_enabled=False, viewport={"width": 390, "height": 800}).unfolded()
    assert page.locator("#leaderboard table").first.is_visible()
    assert page.locator("#decision .winner").is_visible()
    assert page.locator("#decision .beside img").first.is_visible()
    assert page.locator(".winner bdi").inner_text() in page.locator(".beside img").first.get_attribute("alt")
    assert page.locator("#decision svg circle").first.is_visible()
    assert page.locator("#grids img").first.is_visible()
    assert page.locator("#pairs table").is_visible()
    assert page.locator("#flick").is_hidden()
    assert page.locator("#flicker noscript").inner_text().startswith("Flicking needs scripts")
    page.locator(".strips summary").first.click()
    assert page.locator(".strips img").first.is_visible()


def test_the_first_screens_are_few_and_links_open_what_is_folded(visit):
    page = visit(viewport={"width": 1440, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollHeight") <= 4 * 900
    assert page.locator("#pairs table").is_hidden()
    page.get_by_role("link", name="Pairs").click()
    page.locator("#pairs table").wait_for(state="visible")


def test_on_paper_nothing_is_folded_and_no_picture_waits(visit):
    page = visit().page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(e => e.open)")
    assert page.locator("img[loading=lazy]").count() == 0


def test_every_control_has_a_name(visit):
    page = visit().unfolded()
    for control in page.locator("select, button, input").all():
        label = control.evaluate("e => (e.labels[0]?.innerText || '') + (e.ariaLabel || '') + (e.innerText || '')")
        assert label.strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(visit, scheme):
    """Contrast by WCAG 2.2's formula, 4.5 to 1 for text, over every element that has text of its own."""
    page = visit(color_scheme=scheme).page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    pairs = page.evaluate(
        """() => [...document.querySelectorAll('body *')]
        .filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .map(e => {
          let ground = e;
          const opaque = x => !/rgba\\(.*, 0\\)/.test(getComputedStyle(x).backgroundColor);
          while (ground.parentElement && !opaque(ground)) ground = ground.parentElement;
          return [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor, e.outerHTML.slice(0, 60)];
        })"""
    )
    assert len(pairs) > 100
    poor = {(words, text, ground) for text, ground, words in pairs if contrast(text, ground) < 4.5}
    assert not poor


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(x) / 255 for x in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_has_a_contrast_of_21_to_1():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.478, abs=0.001)  # known: #777
