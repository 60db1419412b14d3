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
import os
import re
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ti_pipeline.evaluation.sittings import Question, Sitting
    from ti_pipeline.evaluation.votes import Vote

__all__ = ["Reviewed", "main", "page", "sittings_of"]

_SIDE = 640  # pixels; smaller pictures are enlarged by the browser
_PAIRS = 60
_OWN = 3  # of the concept's pictures stand above every question
# Keys that tick the pictures of a sheet in reading order; s, t and u mean something else.
_TICKS = "123456789abcdefghijklmnopqrvwxyz"
# Keys for the buttons of the tab in sight; not while something is being typed.
_KEYS = """
<script>
(() => {
  const keys = {ArrowLeft: 'left', ArrowRight: 'right', ArrowUp: 'tie', ArrowDown: 'skip', Enter: 'done',
                Backspace: 'undo', u: 'undo', s: 'skip', t: 'tie'};
  const shown = (id) => [...document.querySelectorAll('[id$="-' + id + '"]')].find((one) => one.offsetParent);
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
    // Enter on a button presses that button; a tab keeps the focus after it was chosen, and is no such button.
    if (event.key === 'Enter' && event.target.tagName === 'BUTTON' && event.target.role !== 'tab') return;
    const cells = [...document.querySelectorAll('#sheet button.thumbnail-lg')];
    const at = cells.length && cells[0].offsetParent ? 'TICKS'.indexOf(event.key) : -1;
    const target = at >= 0 ? cells[at] : keys[event.key] && shown(keys[event.key]);
    if (!target || !target.offsetParent) return;
    event.preventDefault();
    target.click();
  });
})();
</script>
""".replace("TICKS", _TICKS)
# What the page shows at the moment of a click, which may be older than what the sitting asks by then.
_ASKED = "() => document.querySelector('#{where} [data-asked]')?.dataset.asked ?? ''"
_STYLE = """
.pair {display: flex; gap: 8px; justify-content: center}
.pair figure {margin: 0; flex: 1 1 0; max-width: 640px}
.pair img {width: 100%; image-rendering: auto; border-radius: 6px}
.pair figcaption {text-align: center; opacity: .7}
.asked {font-size: 1.25rem; font-weight: 600; text-align: center}
.prompt {text-align: center; opacity: .8; font-family: ui-monospace, monospace; font-size: .85rem;
  overflow-wrap: anywhere}
.own {display: flex; gap: 6px; justify-content: center; align-items: center}
.own img {width: min(7rem, 26vw); border-radius: 6px}
@media (max-width: 640px) {
  .gradio-container {padding: 4px !important}
  .gradio-container .tabitem {padding: 4px !important}
  .pair {flex-direction: column; align-items: center}
  .pair figure {width: 100%}
  #sheet .grid-container {grid-template-columns: repeat(2, 1fr) !important; gap: 4px !important}
}
#sheet .grid-container {grid-template-columns: repeat(auto-fill, minmax(min(13rem, 45%), 1fr)) !important}
#sheet .grid-wrap {height: auto !important; max-height: none !important; min-height: 0 !important}
#sheet .caption-label {max-width: 100%; white-space: normal; overflow: visible; text-overflow: clip}
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
    own: tuple[Path, ...] = ()


def sittings_of(
    study: str, rater: str, *, root: Path, tables: Any, pairs: int = _PAIRS, checkpoints: Sequence[str] = ()
) -> Reviewed:
    """Return a rater's sittings over the pictures that the job `evaluate` made, of these checkpoints.

    Without `checkpoints` the best of each variant meet (see `sittings.contenders`).

    `tables` are those of the data folder (`io_managers.Tables`), which also gets the votes; `root` is the local folder
    that holds its pictures. Raises `ReviewError` for
    a study or a checkpoint without pictures, and `VoteError` for a bad name or a damaged file of votes.
    """
    import pandas as pd

    from ti_pipeline.evaluation.sittings import Sitting, contenders, pair_questions, sheet_questions
    from ti_pipeline.evaluation.votes import VoteBook, gathered_votes
    from ti_pipeline.partitions import FAULTY, STUDIES, keys_of

    if study in FAULTY:
        raise ReviewError(f"study {study!r} is left out for faults in its file:\n{FAULTY[study]}")
    if study not in STUDIES:
        raise ReviewError(f"there is no study {study!r} (known: {', '.join(STUDIES)})")
    found = [tables.read("evaluation_images", key) for key in keys_of("variants", study)]
    images = [table for table in found if table is not None and len(table)]
    if not images:
        raise ReviewError(f"study {study} has no pictures yet: run the job evaluate for its variants")
    cells = pd.concat(images, ignore_index=True)
    folder = tables.root / "votes" / study
    book, votes = VoteBook(folder, rater), gathered_votes(folder)
    before = votes[votes.rater == rater]
    names = list(dict.fromkeys(checkpoints)) or contenders(cells, tables.read("leaderboard", study))
    if unknown := sorted(set(names) - set(cells.checkpoint)):
        there = ", ".join(dict.fromkeys(cells.checkpoint))
        raise ReviewError(f"study {study} has no pictures of {', '.join(unknown)} (there are: {there})")
    seed = STUDIES[study].study.seed
    return Reviewed(
        study=study,
        rater=rater,
        root=root,
        pairs=Sitting(pair_questions(cells, names, seed=seed, rater=rater, count=pairs), book, before),
        sheets=Sitting(sheet_questions(cells, names, seed=seed, rater=rater), book, before),
        own=_own_pictures(study, tables, root),
    )


def _own_pictures(study: str, tables: Any, root: Path) -> tuple[Path, ...]:
    """Return some of the concept's own pictures, held-out ones where there are enough: what likeness is about."""
    import pandas as pd

    from ti_pipeline.evaluation.runs import concept_pictures
    from ti_pipeline.partitions import keys_of

    found = [tables.read("crops", key) for key in keys_of("crops", study)]
    crops = [table for table in found if table is not None and len(table)]
    if not crops:
        return ()
    shown, _ = concept_pictures(pd.concat(crops[:1], ignore_index=True))
    paths = [root / str(path) for path in shown.path.iloc[:: max(1, len(shown) // _OWN)][:_OWN]]
    return tuple(path for path in paths if path.is_file())


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
        return _pair(sitting.current, sitting.progress, reviewed)

    def after(how: str, asked: str) -> str:
        if how == "skip":
            sitting.skip()
        elif how == "undo":
            sitting.undo()
        else:
            sitting.answer(how, asked=asked)
        return now()

    seen, read = gradio.Textbox(visible=False), _ASKED.format(where="pair")
    for how, button in (buttons | {"skip": skip, "undo": undo}).items():
        button.click(functools.partial(after, how), inputs=seen, outputs=shown, js=read, show_progress="hidden")
    blocks.load(now, outputs=shown)


def _sheets_tab(gradio: Any, blocks: Any, reviewed: Reviewed) -> None:
    words = gradio.HTML(elem_id="sheet-words")
    gallery = gradio.Gallery(
        elem_id="sheet",
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
        asked, cells = _sheet(sitting.current, ticked, sitting.progress, reviewed)
        # Nothing stays selected, else a second click on the same picture would tell nobody.
        return asked, gradio.Gallery(value=cells, selected_index=None)

    def toggled(event: gradio.SelectData) -> tuple[str, Any]:
        question = sitting.current
        if question is not None:
            ticked.symmetric_difference_update({question.pictures[int(event.index)].cell})
        return now()

    # gradio reads this annotation to know what the function wants; it is text as long as annotations are postponed.
    toggled.__annotations__["event"] = gradio.SelectData

    def moved(how: str, asked: str) -> tuple[str, Any]:
        taken_back: list[Vote] = []
        if how == "done":
            sitting.answer(frozenset(ticked), asked=asked)
        elif how == "skip":
            sitting.skip()
        else:
            taken_back = sitting.undo()
        ticked.clear()
        ticked.update(vote.first_cell for vote in taken_back if vote.choice == "mismatch")
        return now()

    gallery.select(toggled, outputs=[words, gallery], show_progress="hidden")
    seen, read, shown = gradio.Textbox(visible=False), _ASKED.format(where="sheet-words"), [words, gallery]
    for how, button in (("done", done), ("skip", skip), ("undo", undo)):
        button.click(functools.partial(moved, how), inputs=seen, outputs=shown, js=read, show_progress="hidden")
    blocks.load(now, outputs=[words, gallery])


def _words(question: Question | None, asked: str, progress: tuple[int, int], own: Sequence[Path] = ()) -> str:
    done, of = progress
    name = question.name if question else ""
    prompts = "; ".join(question.prompts[:1] if question.kind == "pair" else question.prompts) if question else ""
    pictures = "".join(f'<img src="{_address(path)}" alt="a picture of the concept itself">' for path in own)
    shown = f'<div class="own"><span>the concept itself:</span>{pictures}</div>' if pictures and question else ""
    return (
        f'{shown}<p class="asked" data-asked="{name}">{html.escape(asked)}</p>'
        f'<p class="prompt">{html.escape(prompts)}</p>'
        f'<p style="text-align:center">{done} of {of} answered</p>'
    )


def _pair(question: Question | None, progress: tuple[int, int], reviewed: Reviewed) -> str:
    if question is None:
        return _words(None, "All pairs are answered. Thank you! Run the job compare to count the votes.", progress)
    pictures = "".join(
        f'<figure><img src="{_address(path)}" alt="{side} picture"><figcaption>{side}</figcaption></figure>'
        for side, path in zip(("left", "right"), (reviewed.root / one.path for one in question.pictures), strict=True)
    )
    asked = _words(question, f"Which is better? {question.asked}", progress, reviewed.own)
    return f'{asked}<div class="pair">{pictures}</div>'


def _sheet(
    question: Question | None, ticked: set[str], progress: tuple[int, int], reviewed: Reviewed
) -> tuple[str, list[Any]]:
    if question is None:
        words = "All sheets are answered. Thank you! Run the job compare to count the votes."
        return _words(None, words, progress), []
    cells = [
        (_small(reviewed.root / one.path, one.cell in ticked), f"{'✗ ' if one.cell in ticked else ''}{key}{one.value}")
        for key, one in zip(_keys(len(question.pictures)), question.pictures, strict=True)
    ]
    asked = f"{question.asked}: tick what does not show what stands on it"
    return _words(question, asked, progress, reviewed.own), cells


def _keys(count: int) -> list[str]:
    """Return what stands before each picture of a sheet: the key that ticks it, as far as there are keys."""
    return [f"{key}: " for key in _TICKS[:count]] + [""] * (count - len(_TICKS))


@functools.lru_cache(maxsize=1024)
def _small(path: Path, ticked: bool = False) -> str:
    """Write a picture's pixels alone (its texts name the checkpoint) to gradio's folder; return where.

    A ticked one gets a red frame. Kept, because a sheet is shown anew for every tick. Raises `ReviewError` for a
    picture that is gone.
    """
    from PIL import Image, ImageDraw

    if not path.is_file():
        raise ReviewError(f"{path} is gone: run the job evaluate again")
    with Image.open(path) as picture:
        pixels = picture.convert("RGB")
    pixels.thumbnail((_SIDE, _SIDE))
    if ticked:
        edge = (0, 0, pixels.width - 1, pixels.height - 1)
        ImageDraw.Draw(pixels).rectangle(edge, outline="#d11a1a", width=max(2, pixels.width // 24))
    shown = Path(os.environ["GRADIO_TEMP_DIR"]) / f"{uuid.uuid4().hex}.png"
    pixels.save(shown, compress_level=1)
    return str(shown)


def _address(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(Path(_small(path)).read_bytes()).decode()}"


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
    parser.add_argument("--checkpoints", nargs="+", default=(), help="default: the best of each variant")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    options = parser.parse_args(arguments)
    store = DataStore(url=data_url())
    with store.work(reads=[f"evaluation/{options.study}"]) as root, tempfile.TemporaryDirectory() as shown:
        # gradio reads both when it is imported; pictures that the page shows go with the folder.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=shown)
        try:
            tables = Tables(UPath(store.url))
            reviewed = sittings_of(
                options.study,
                options.rater,
                root=root,
                tables=tables,
                pairs=options.pairs,
                checkpoints=options.checkpoints,
            )
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
