"""A page to judge pictures on, without names: `make review STUDY=demo RATER=kim`.

Two pictures of the same prompt and seed side by side, answered by keys; and sheets of one checkpoint, on which what
does not show what was asked is ticked. It listens on this machine only (127.0.0.1) and asks nothing of the network.
Here: the page. Not here: what is asked (`evaluation.sittings`), or the votes' files (`evaluation.votes`).
"""

from __future__ import annotations

import argparse
import base64
import functools
import getpass
import html
import io
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.evaluation.sittings import Question, Sitting

__all__ = ["Reviewed", "main", "page", "sittings_of"]

_SIDE = 640  # pixels; smaller pictures are enlarged by the browser
_PAIRS = 60
# Keys for the buttons of the tab in sight; not while something is being typed.
_KEYS = """
<script>
(() => {
  const keys = {ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'tie', ArrowDown: 'skip', Enter: 'done',
                Backspace: 'undo', u: 'undo', s: 'skip', t: 'tie'};
  const shown = (id) => [...document.querySelectorAll('[id$="-' + id + '"]')].find((one) => one.offsetParent);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
    const sheet = /^[1-9]$/.test(event.key) && [...document.querySelectorAll('#sheet button.thumbnail-lg')];
    const target = sheet ? sheet[Number(event.key) - 1] : keys[event.key] && shown(keys[event.key]);
    if (!target || !target.offsetParent) return;
    event.preventDefault();
    target.click();
  });
})();
</script>
"""
_STYLE = """
.pair {display: flex; gap: 8px; justify-content: center}
.pair figure {margin: 0; flex: 1 1 0; max-width: 640px}
.pair img {width: 100%; image-rendering: auto; border-radius: 6px}
.pair figcaption {text-align: center; opacity: .7}
.asked {font-size: 1.25rem; font-weight: 600; text-align: center}
footer {display: none !important}
"""


class ReviewError(ValueError):
    """There is nothing to review; the message says which job to run."""


@dataclass(frozen=True)
class Reviewed:
    """A rater's two sittings over a study, and where its pictures lie."""

    study: str
    rater: str
    root: Path
    pairs: Sitting
    sheets: Sitting


def sittings_of(study: str, rater: str, *, root: Path, tables: Any, pairs: int = _PAIRS) -> Reviewed:
    """Return a rater's sittings over the pictures that the job `evaluate` made.

    `tables` reads the data folder's tables (`io_managers.Tables`), `root` is the data folder. Raises `ReviewError` for
    a study without pictures, and `VoteError` for a bad name or a damaged file of votes.
    """
    import pandas as pd

    from ti_pipeline.evaluation.sittings import Sitting, contenders, pair_questions, sheet_questions
    from ti_pipeline.evaluation.votes import VoteBook, gathered_votes
    from ti_pipeline.partitions import STUDIES, keys_of

    if study not in STUDIES:
        raise ReviewError(f"there is no study {study!r} (known: {', '.join(STUDIES)})")
    found = [tables.read("evaluation_images", key) for key in keys_of("variants", study)]
    images = [table for table in found if table is not None and len(table)]
    if not images:
        raise ReviewError(f"study {study} has no pictures yet: run the job evaluate for its variants")
    cells = pd.concat(images, ignore_index=True)
    folder = root / "votes" / study
    book, votes = VoteBook(folder, rater), gathered_votes(folder)
    before = votes[votes.rater == rater]
    names, seed = contenders(cells, tables.read("leaderboard", study)), STUDIES[study].study.seed
    return Reviewed(
        study=study,
        rater=rater,
        root=root,
        pairs=Sitting(pair_questions(cells, names, seed=seed, rater=rater, count=pairs), book, before),
        sheets=Sitting(sheet_questions(cells, names, seed=seed, rater=rater), book, before),
    )


def page(reviewed: Reviewed) -> Any:
    """Return the page as gradio's blocks, not yet launched."""
    import gradio

    with gradio.Blocks(analytics_enabled=False, title=f"Review of {reviewed.study}") as blocks:
        gradio.Markdown(f"**{reviewed.study}**, rater **{reviewed.rater}**. Every answer is kept at once.")
        with gradio.Tab("Pairs"):
            _pairs_tab(gradio, blocks, reviewed)
        with gradio.Tab("Mismatches"):
            _sheets_tab(gradio, blocks, reviewed)
    return blocks


def _pairs_tab(gradio: Any, blocks: Any, reviewed: Reviewed) -> None:
    shown = gradio.HTML(elem_id="pair")
    with gradio.Row():
        buttons = {
            "first": gradio.Button("← left", elem_id="pair-left", variant="primary"),
            "tie": gradio.Button("↑ as good", elem_id="pair-tie"),
            "second": gradio.Button("right →", elem_id="pair-right", variant="primary"),
        }
    with gradio.Row():
        skip = gradio.Button("↓ later", elem_id="pair-skip", size="sm")
        undo = gradio.Button("Backspace: take back", elem_id="pair-undo", size="sm")
    sitting = reviewed.pairs

    def now() -> str:
        return _pair(sitting.current, sitting.progress, reviewed.root)

    def after(how: str) -> str:
        if how == "skip":
            sitting.skip()
        elif how == "undo":
            sitting.undo()
        else:
            sitting.answer(how)
        return now()

    for how, button in (buttons | {"skip": skip, "undo": undo}).items():
        button.click(functools.partial(after, how), outputs=shown, show_progress="hidden")
    blocks.load(now, outputs=shown)


def _sheets_tab(gradio: Any, blocks: Any, reviewed: Reviewed) -> None:
    words = gradio.HTML(elem_id="sheet-words")
    gallery = gradio.Gallery(
        elem_id="sheet",
        columns=5,
        allow_preview=False,
        show_label=False,
        object_fit="contain",
        buttons=[],
        height="auto",
    )
    with gradio.Row():
        done = gradio.Button("Enter: done", elem_id="sheet-done", variant="primary")
        skip = gradio.Button("↓ later", elem_id="sheet-skip", size="sm")
        undo = gradio.Button("Backspace: take back", elem_id="sheet-undo", size="sm")
    sitting, ticked = reviewed.sheets, set[str]()

    def now() -> tuple[str, Any]:
        asked, cells = _sheet(sitting.current, ticked, sitting.progress, reviewed.root)
        # Nothing stays selected, else a second click on the same picture would tell nobody.
        return asked, gradio.Gallery(value=cells, selected_index=None)

    def toggled(event: gradio.SelectData) -> tuple[str, Any]:
        question = sitting.current
        if question is not None:
            ticked.symmetric_difference_update({question.pictures[int(event.index)].cell})
        return now()

    # gradio reads this annotation to know what the function wants; it is text as long as annotations are postponed.
    toggled.__annotations__["event"] = gradio.SelectData

    def moved(how: str) -> tuple[str, Any]:
        if how == "done":
            sitting.answer(frozenset(ticked))
        elif how == "skip":
            sitting.skip()
        else:
            sitting.undo()
        ticked.clear()
        return now()

    gallery.select(toggled, outputs=[words, gallery], show_progress="hidden")
    for how, button in (("done", done), ("skip", skip), ("undo", undo)):
        button.click(functools.partial(moved, how), outputs=[words, gallery], show_progress="hidden")
    blocks.load(now, outputs=[words, gallery])


def _words(asked: str, progress: tuple[int, int]) -> str:
    done, of = progress
    return f'<p class="asked">{html.escape(asked)}</p><p style="text-align:center">{done} of {of} answered</p>'


def _pair(question: Question | None, progress: tuple[int, int], root: Path) -> str:
    if question is None:
        return _words("All pairs are answered. Thank you! Run the job compare to count the votes.", progress)
    pictures = "".join(
        f'<figure><img src="{_address(root / one.path)}" alt="{side} picture"><figcaption>{side}</figcaption></figure>'
        for side, one in zip(("left", "right"), question.pictures, strict=True)
    )
    asked = f"Which is better? {question.asked}"
    return f'{_words(asked, progress)}<div class="pair">{pictures}</div>'


def _sheet(question: Question | None, ticked: set[str], progress: tuple[int, int], root: Path) -> tuple[str, list[Any]]:
    if question is None:
        return _words("All sheets are answered. Thank you! Run the job compare to count the votes.", progress), []
    cells = [
        (_small(root / one.path), f"{'✗ ' if one.cell in ticked else ''}{number}: {one.value}")
        for number, one in enumerate(question.pictures, start=1)
    ]
    asked = f"Tick what does not show what it should. {question.asked}"
    return _words(asked, progress), cells


def _small(path: Path) -> Any:
    """Return a picture's pixels alone: its texts name the checkpoint."""
    from PIL import Image

    if not path.is_file():
        raise ReviewError(f"{path} is gone: run the job evaluate again")
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    pixels.thumbnail((_SIDE, _SIDE))
    return pixels


def _address(path: Path) -> str:
    stream = io.BytesIO()
    _small(path).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def launch(blocks: Any, *, port: int | None, wait: bool) -> str:
    """Serve the page on this machine and return its address; `wait` blocks until it is closed."""
    import gradio

    fonts = ["system-ui", "sans-serif"]  # gradio's own theme would fetch one from the network
    theme = gradio.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
    _, address, _ = blocks.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        show_error=True,
        footer_links=[],
        prevent_thread_lock=True,
        ssr_mode=False,
        theme=theme,
        head=_KEYS,
        css=_STYLE,
    )
    if wait:
        print(f"review: {address}", flush=True)  # noqa: T201
        blocks.block_thread()
    return str(address)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from upath import UPath

    from ti_pipeline.evaluation.votes import VoteError
    from ti_pipeline.io_managers import Tables
    from ti_pipeline.resources import DataStore, data_url

    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.review", description=__doc__)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--rater", default=re.sub(r"[^A-Za-z0-9]+", "-", getpass.getuser()).strip("-"))
    parser.add_argument("--pairs", type=int, default=_PAIRS, help="how many pairs to ask about (default %(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    options = parser.parse_args(arguments)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    store = DataStore(url=data_url())
    votes = f"votes/{options.study}"
    with store.work(reads=[f"evaluation/{options.study}"], writes=[votes]) as root:
        try:
            tables = Tables(UPath(store.url))
            reviewed = sittings_of(options.study, options.rater, root=root, tables=tables, pairs=options.pairs)
            launch(page(reviewed), port=options.port, wait=True)
        except ModuleNotFoundError as error:
            print(f"{error}; the page needs: pip install 'ti_pipeline[review]'", file=sys.stderr)  # noqa: T201
            return 1
        except (ReviewError, VoteError) as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
