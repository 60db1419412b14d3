"""Sittings: which pictures a rater is asked about, in which order, and what becomes of the answers.

Pairs are two checkpoints' pictures of the same prompt, seed and settings; sheets are all pictures of one checkpoint and
axis. All raters of a study get the same questions, so that they can be compared, each in an order and with sides of
their own. Names are never part of a question's pictures. Not here: the page (`review`), or the votes' files (`votes`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.votes import Vote
from ti_pipeline.files import fingerprint
from ti_pipeline.study_evaluation import NAME_MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

    from ti_pipeline.evaluation.votes import VoteBook

__all__ = ["Picture", "Question", "Sitting", "contenders", "pair_questions", "sheet_questions"]

_SAME = ("axis", "value", "seed", "sampler", "steps", "cfg", "size")


@dataclass(frozen=True)
class Picture:
    """One picture of a question; the checkpoint is for the vote, not for the rater's eyes."""

    checkpoint: str
    cell: str
    path: str
    axis: str
    value: str
    seed: int
    prompt: str = ""


@dataclass(frozen=True)
class Question:
    """Two pictures side by side (`pair`), or a checkpoint's pictures of one axis (`sheet`)."""

    kind: str
    pictures: tuple[Picture, ...]

    @property
    def asked(self) -> str:
        """Return what the pictures should show."""
        first = self.pictures[0]
        return f"{first.axis}: {first.value}" if self.kind == "pair" else first.axis

    @property
    def prompts(self) -> list[str]:
        """Return the prompts of the pictures, each once, without the names that would tell checkpoints apart."""
        return list(dict.fromkeys(picture.prompt for picture in self.pictures))

    @property
    def cells(self) -> frozenset[str]:
        """Return what tells a question from others, whichever picture is on the left."""
        return frozenset(picture.cell for picture in self.pictures)

    @property
    def name(self) -> str:
        """Return a name for the question that tells nothing of its checkpoints."""
        return fingerprint(sorted(self.cells))[:16]

    @property
    def size(self) -> int:
        """Return how many votes an answer has."""
        return 1 if self.kind == "pair" else len(self.pictures)

    def votes(self, answer: str | Collection[str]) -> list[Vote]:
        """Return the votes of an answer: first, second or tie of a pair; the mismatching cells of a sheet."""
        if self.kind == "pair":
            left, right = self.pictures
            choice: Any = answer
            return [
                Vote(
                    kind="pair",
                    axis=left.axis,
                    value=left.value,
                    seed=left.seed,
                    first=left.checkpoint,
                    first_cell=left.cell,
                    second=right.checkpoint,
                    second_cell=right.cell,
                    choice=choice,
                )
            ]
        return [
            Vote(
                kind="cell",
                axis=one.axis,
                value=one.value,
                seed=one.seed,
                first=one.checkpoint,
                first_cell=one.cell,
                choice="mismatch" if one.cell in answer else "match",
            )
            for one in self.pictures
        ]


def contenders(images: pd.DataFrame, board: pd.DataFrame | None) -> list[str]:
    """Return who meets whom: the best checkpoint of each variant, or its last one while there is no leaderboard.

    A study with one variant sends all of its checkpoints.
    """
    if len(set(images.variant)) == 1:
        return list(dict.fromkeys(images.checkpoint))
    ranked = None if board is None else board[board.axis == "overall"].sort_values("rank")
    chosen = []
    for variant, rows in images.groupby("variant", sort=False):
        best = None if ranked is None else next(iter(ranked.checkpoint[ranked.variant == variant]), None)
        there = set(rows.checkpoint)
        chosen.append(str(best if best in there else rows.sort_values("step").checkpoint.iloc[-1]))
    return chosen


def pair_questions(images: pd.DataFrame, names: Sequence[str], *, seed: int, rater: str, count: int) -> list[Question]:
    """Return up to `count` pairs; checkpoints meet about equally often. `seed` is the study's."""
    shown = images[images.checkpoint.isin(names)]
    trials: list[dict[str, Picture]] = [
        {str(row.checkpoint): _picture(row) for row in rows.itertuples()} for _, rows in shown.groupby(list(_SAME))
    ]
    draws = random.Random(seed)  # noqa: S311 - no secret: the same questions for every rater
    met: dict[tuple[str, str], int] = dict.fromkeys(combinations(names, 2), 0)
    possible = {pair: [trial for trial in trials if set(pair) <= set(trial)] for pair in met}
    for trials in possible.values():
        draws.shuffle(trials)
    chosen: list[Question] = []
    while len(chosen) < count and any(possible.values()):
        fewest = min(met[pair] for pair in met if possible[pair])
        first, second = draws.choice([pair for pair in met if possible[pair] and met[pair] == fewest])
        trial = possible[first, second].pop()
        met[first, second] += 1
        chosen.append(Question("pair", (trial[first], trial[second])))
    own = random.Random(f"{seed}/{rater}")  # noqa: S311 - each rater has an order and sides of their own
    own.shuffle(chosen)
    return [Question("pair", tuple(own.sample(question.pictures, 2))) for question in chosen]


def sheet_questions(images: pd.DataFrame, names: Sequence[str], *, seed: int, rater: str) -> list[Question]:
    """Return a sheet for every named checkpoint and axis, axis after axis, checkpoints in an order of the rater's."""
    own = random.Random(f"{seed}/{rater}/sheets")  # noqa: S311 - see above
    sheets = []
    for _, of_axis in images[images.checkpoint.isin(names)].groupby("axis", sort=False):
        found = [tuple(map(_picture, rows.itertuples())) for _, rows in of_axis.groupby("checkpoint", sort=True)]
        own.shuffle(found)
        sheets += [Question("sheet", pictures) for pictures in found]
    return sheets


def _picture(row: Any) -> Picture:
    prompt = str(row.prompt).replace(str(row.token), NAME_MARK)
    about = (str(row.checkpoint), str(row.cell), str(row.path), str(row.axis), str(row.value), int(row.seed))
    return Picture(*about, prompt)


class Sitting:
    """A rater's way through questions of one kind: answers go to the book at once, and each can be taken back."""

    def __init__(self, questions: Sequence[Question], book: VoteBook, before: pd.DataFrame) -> None:
        """Go on where earlier sittings stopped: `before` are the rater's standing votes, earliest first."""
        self._book = book
        of_cell = {cell: at for at, question in enumerate(questions) for cell in question.cells}
        of_pair = {question.cells: at for at, question in enumerate(questions) if question.kind == "pair"}
        answered: dict[int, list[Vote]] = {}
        for row in before.to_dict("records"):
            vote = _vote({str(name): value for name, value in row.items()})
            pair = frozenset({vote.first_cell, vote.second_cell})
            at = of_pair.get(pair) if vote.kind == "pair" else None if of_pair else of_cell.get(vote.first_cell)
            if at is not None:
                answered.setdefault(at, []).append(vote)
        self._questions = questions
        # A sheet with a picture that nobody judged (it was drawn anew) is asked again.
        whole = {at: votes for at, votes in answered.items() if len(votes) == questions[at].size}
        self._answered = list(whole.items())
        self._waiting = [at for at in range(len(questions)) if at not in whole]

    @property
    def current(self) -> Question | None:
        """Return the question to answer, None when all are answered."""
        return self._questions[self._waiting[0]] if self._waiting else None

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many questions are answered, of how many."""
        return len(self._answered), len(self._questions)

    def answer(self, answer: str | Collection[str], *, asked: str) -> None:
        """Write the answer to the question named `asked`; on an error nothing is written and the question stays.

        Nothing happens unless that is the current question: a key pressed twice, or a second window that shows an
        older question, must not answer what nobody has seen.
        """
        if self.current is not None and self.current.name == asked:
            votes = self.current.votes(answer)
            self._book.append(*votes)
            self._answered.append((self._waiting.pop(0), votes))

    def skip(self) -> None:
        """Put the current question off until the others are answered."""
        self._waiting = [*self._waiting[1:], *self._waiting[:1]]

    def undo(self) -> list[Vote]:
        """Take the last answer back, also one of an earlier sitting, and return it; its question is asked again."""
        if not self._answered:
            return []
        at, votes = self._answered[-1]
        self._book.undo(*votes)
        self._answered.pop()
        self._waiting.insert(0, at)
        return votes


def _vote(row: dict[str, Any]) -> Vote:
    fields = ("kind", "axis", "value", "seed", "first", "first_cell", "choice", "second", "second_cell", "vote")
    return Vote(**{name: row[name] for name in fields})
