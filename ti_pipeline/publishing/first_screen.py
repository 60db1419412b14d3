"""The page's first screen: which embedding, what it does to pictures, and where all of them stand.

Here: the same prompts and noises with and without the best embedding, beside the concept's own pictures; every
checkpoint by obedience and likeness; what is gained and lost against the next best. Not here: the verdict itself
(`verdict`), or HTML (`templates`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.references import NO_EMBEDDING
from ti_pipeline.publishing.pictures import Picture, picture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from PIL import Image

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.publishing.pairs import Meeting
    from ti_pipeline.publishing.verdict import Verdict

__all__ = ["Beside", "Point", "before_and_after", "gains", "own_pictures", "points", "ticks"]

_QUESTIONS = 6  # shown with and without: one after another from each axis
_SEEDS = 4
_SIDE = 112
_OWN = 3
_PALE = (225, 225, 225)
# The plot's field in its own pixels: left, top, width and height; and the span of both scales.
FIELD = (46, 12, 404, 288)
_LEAST, _MOST = -0.1, 1.15


@dataclass(frozen=True)
class Beside:
    """One question: above the base without the embedding, below with it, a column a seed."""

    axis: str
    value: str
    seeds: list[int]
    more: int
    shown: Picture


def before_and_after(results: StudyResults, checkpoint: str) -> list[Beside]:
    """Return pictures of the same prompts and noises without and with a checkpoint's embedding, from every axis.

    Every seed up to four; `more` is how many others there are. Empty where either was not drawn.
    """
    import pandas as pd

    tables = [table[table.checkpoint == checkpoint] for table in results.evaluation_images.values()]
    own = pd.concat(tables) if tables else pd.DataFrame()
    bare = results.reference_images[results.reference_images.checkpoint == NO_EMBEDDING]
    if own.empty or bare.empty:
        return []
    bare = bare[(bare.base == own.base.iloc[0]) & (bare.clip_skip == own.clip_skip.iloc[0])]
    first = own.drop_duplicates(["sampler", "steps", "cfg", "size"]).iloc[0]
    alike = [frame[(frame.sampler == first.sampler) & (frame["size"] == first["size"])] for frame in (own, bare)]
    found = []
    for axis, value in _in_turn(alike[0]):
        of_both = [frame[(frame.axis == axis) & (frame.value == value)].set_index("seed").path for frame in alike]
        seeds = [int(seed) for seed in of_both[0].index.unique() if seed in of_both[1].index]
        shown = seeds[:_SEEDS]
        if shown:
            rows = [[_first(results.root, paths, seed) for seed in shown] for paths in reversed(of_both)]
            alt = f"{value}: above without the embedding, below with {checkpoint}; seeds {', '.join(map(str, shown))}"
            drawn = picture(_sheet(rows), alt)
            found.append(Beside(str(axis), str(value), shown, len(seeds) - len(shown), drawn))
    return found


def _in_turn(images: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield questions, the first of each axis, then the second ones, until there are enough."""
    asked = images.drop_duplicates(["axis", "value"])
    turn = asked.groupby("axis", sort=False).cumcount()
    ordered = asked.assign(turn=turn).sort_values("turn", kind="stable").head(_QUESTIONS)
    yield from zip(ordered.axis, ordered.value, strict=True)


def _first(root: Path, paths: pd.Series[Any], seed: int) -> Path:
    found = paths.loc[[seed]].iloc[0]
    return root / str(found)


def own_pictures(results: StudyResults, variant: str) -> Picture | None:
    """Return three of the concept's own pictures, held-out ones where there are some; None without any."""
    import pandas as pd

    from ti_pipeline.evaluation.runs import concept_pictures

    tables = [results.crops[name] for name in results.study.crops_of(variant) if name in results.crops]
    if not tables:
        return None
    shown, what = concept_pictures(pd.concat(tables, ignore_index=True))
    paths = [results.root / str(path) for path in shown.path.iloc[:: max(1, len(shown) // _OWN)][:_OWN]]
    return picture(_sheet([paths]), f"three of the concept's own pictures ({what})") if paths else None


def _sheet(rows: Sequence[Sequence[Path]]) -> bytes:
    """Return rows of pictures as one WebP; a picture that is gone is grey."""
    from PIL import Image

    sheet = Image.new("RGB", (_SIDE * len(rows[0]), _SIDE * len(rows)), _PALE)
    for down, row in enumerate(rows):
        for across, path in enumerate(row):
            if path.is_file():
                sheet.paste(_cell(path), (across * _SIDE, down * _SIDE))
    stream = io.BytesIO()
    sheet.save(stream, "WEBP", quality=85)
    return stream.getvalue()


def _cell(path: Path) -> Image.Image:
    from PIL import Image

    with Image.open(path) as opened:
        small = opened.convert("RGB")
    return small.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Point:
    """A checkpoint or a reference in the plot: its place and the ends of its intervals, in the plot's pixels.

    `x` is obedience, `y` likeness, each middle, low and high; `colour` numbers the variant, None for references;
    `label` is where the name of a `named` one ends (or starts, left of the middle), out of the way of the others'.
    """

    name: str
    told: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    colour: int | None
    best: bool
    pareto: bool
    named: bool
    label: tuple[float, float] = (0.0, 0.0)


def place(value: float, *, down: bool) -> float:
    """Return where a share lies in the plot's field, in its pixels."""
    left, top, width, height = FIELD
    share = (min(max(value, _LEAST), _MOST) - _LEAST) / (_MOST - _LEAST)
    return round(top + height * (1 - share), 1) if down else round(left + width * share, 1)


def ticks() -> list[tuple[float, float, str]]:
    """Return where the plot's lines stand: across, down, and what is written at both."""
    return [(place(v, down=False), place(v, down=True), f"{v:g}") for v in (0, 0.25, 0.5, 0.75, 1)]


def points(results: StudyResults) -> list[Point]:
    """Return all checkpoints and references by obedience and likeness, references first and the best last."""
    board = results.leaderboard
    if not {"obedience", "likeness"} <= set(board.axis):
        return []
    by_axis = {axis: board[board.axis == axis].set_index("checkpoint") for axis in ("obedience", "likeness", "overall")}
    overall = by_axis["overall"]
    ranked = overall[overall["rank"].notna()].sort_values("rank")
    named = set(ranked.drop_duplicates("variant").index)
    colours = {name: at for at, name in enumerate(results.study.variants)}
    found = []
    for row in overall.sort_values(["candidate", "best"]).itertuples():
        spans = [by_axis[axis].loc[row.Index, ["score", "low", "high"]] for axis in ("obedience", "likeness")]
        told = ", ".join(
            f"{axis} {span.score:.2f}" for axis, span in zip(("obedience", "likeness"), spans, strict=True)
        )
        x, y = (
            tuple(place(float(v), down=down) for v in span) for span, down in zip(spans, (False, True), strict=True)
        )
        found.append(
            Point(
                name=str(row.Index),
                told=f"{row.Index}: {told}",
                x=(x[0], x[1], x[2]),
                y=(y[0], y[1], y[2]),
                colour=colours.get(str(row.variant)) if row.candidate else None,
                best=bool(row.best),
                pareto=bool(row.pareto),
                named=not row.candidate or row.Index in named,
            )
        )
    return _labelled(found)


_LETTERS = (95.0, 13.0)  # about how wide and high a name is in the plot, in its pixels


def _labelled(found: list[Point]) -> list[Point]:
    """Return the points with places for their names: beside them, moved down until they cover no other name."""
    taken: list[tuple[float, float]] = []
    placed = []
    for point in sorted(found, key=lambda point: (not point.best, point.y[0], point.name)):
        x, y = point.x[0], point.y[0] - 7
        while point.named and any(abs(x - a) < _LETTERS[0] and abs(y - b) < _LETTERS[1] for a, b in taken):
            y += 1
        if point.named:
            taken.append((x, y))
        placed.append(replace(point, label=(x, y)))
    order = {point.name: at for at, point in enumerate(found)}
    return sorted(placed, key=lambda point: order[point.name])


def gains(results: StudyResults, decision: Verdict, meetings: Sequence[Meeting]) -> list[str]:
    """Return what is gained and lost against the runner-up, and against the best with fewer vectors, in sentences."""
    if decision.best is None:
        return []
    first = decision.best
    study = results.study
    own = study.variant(first.variant).vectors
    board = results.leaderboard
    overall = board[(board.axis == "overall") & board["rank"].notna()].sort_values("rank")
    fewer = [row for row in overall.itertuples() if study.variant(str(row.variant)).vectors < own]
    rivals = [(str(decision.runner_up.checkpoint), "the runner-up")] if decision.runner_up else []
    if fewer and fewer[0].checkpoint not in {name for name, _ in rivals}:
        vectors = study.variant(str(fewer[0].variant)).vectors
        rivals.append((str(fewer[0].checkpoint), f"the best with fewer vectors ({vectors} for {own})"))
    return [_gain(board, meetings, first.checkpoint, name, what) for name, what in rivals]


def _gain(board: pd.DataFrame, meetings: Sequence[Meeting], first: str, other: str, what: str) -> str:
    parts = []
    for axis in ("obedience", "likeness"):
        of_axis = board[board.axis == axis].set_index("checkpoint").score
        lead = float(of_axis[first] - of_axis[other])
        met = next((m for m in meetings if m.input == axis and {m.first, m.second} == {first, other}), None)
        sure = "" if met is not None and met.winner else ", within chance"
        parts.append(f"{axis} {lead:+.2f}{sure}")
    return f"Against {what}, {other}: {'; '.join(parts)}."
