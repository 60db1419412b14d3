"""People's verdicts: how strong checkpoints are by pairwise votes, and how far raters and scores agree.

Strengths: Bradley & Terry (1952), a tie counted as half a win for each, with a normal prior on the log-strengths
(standard deviation `PRIOR`). Without a prior a checkpoint that won or lost every vote, or never met the others, has no
strength at all; with it, such a checkpoint has a wide interval. Intervals are Laplace's: normal, from the curvature at
the maximum, of what votes can tell: the difference from the mean of those that met. The level that all of them share
is told by the prior alone, and no number of votes would narrow it (Firth & de Menezes 2004).
Agreement of raters: Krippendorff's alpha (2004) for names without order, which allows raters who saw different
pictures. Not here: the votes' files (`votes`), or the automatic ranking (`statistics`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "PRIOR",
    "Agreement",
    "agreements",
    "bradley_terry",
    "groups_that_met",
    "krippendorff_alpha",
    "mismatches_by_people",
    "with_votes",
]

PRIOR = 1.5  # of log-odds: nine of ten pairs of checkpoints win between 3 % and 97 % of their meetings
_Z = 1.959963984540054
_PICTURES_NEEDED = 2  # for an agreement: one says nothing


@dataclass(frozen=True)
class Agreement:
    """How far two judgements agree: the share that is equal, and what is left of it beyond chance, if it can be said.

    `beyond_chance` is Krippendorff's alpha: 1 is perfect, 0 what chance gives.
    """

    what: str
    judged: int
    share: float
    beyond_chance: float | None


def bradley_terry(wins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-strengths [n] and their standard errors [n] from wins [n, n]: row over column, ties as halves.

    Both are of differences from the mean of the group that met, directly or through others; who met nobody is its own
    group, has strength 0 and the prior's width. Newton's method on the penalised log-likelihood, which is strictly
    concave, so the maximum is the only one.
    """
    import numpy as np

    count = len(wins)
    meetings, won = wins + wins.T, wins.sum(axis=1)
    strengths = np.zeros(count)
    for _ in range(100):
        chance = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        slope = won - (meetings * chance).sum(axis=1) - strengths / PRIOR**2
        spread = meetings * chance * (1 - chance)
        curve = np.diag(spread.sum(axis=1) + 1 / PRIOR**2) - spread
        step = np.linalg.solve(curve, slope)
        strengths = strengths + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-12:
            break
    from_mean = np.eye(count) - _share_of_group(meetings > 0)
    spread_of_all = from_mean @ np.linalg.inv(curve) @ from_mean.T
    alone = meetings.sum(axis=1) == 0
    errors = np.where(alone, PRIOR, np.sqrt(np.maximum(np.diag(spread_of_all), 0.0)))
    return from_mean @ strengths, errors


def _share_of_group(met: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return what takes the mean over each one's group: those that met, directly or through others."""
    import numpy as np
    from scipy.sparse.csgraph import connected_components

    _, group = connected_components(met, directed=False)
    same = (group[:, None] == group[None, :]).astype("float64")
    return np.asarray(same / same.sum(axis=1, keepdims=True))


def groups_that_met(votes: pd.DataFrame) -> list[list[str]]:
    """Return the checkpoints of pairwise votes in groups that met, directly or through others.

    Votes tell strengths within a group only; from one group to another it is the prior alone that compares.
    """
    groups: list[set[str]] = []
    for row in votes[votes.kind == "pair"].itertuples():
        met = {str(row.first), str(row.second)}
        joined = [group for group in groups if group & met]
        groups = [group for group in groups if not group & met] + [met.union(*joined)]
    return sorted(sorted(group) for group in groups)


def with_votes(board: pd.DataFrame, votes: pd.DataFrame) -> pd.DataFrame:
    """Return the whole `leaderboard` table from one without the columns of people's verdicts, and the `votes` table.

    `people` is the chance to win a vote against a checkpoint of average strength, with the ends of its 95 % interval,
    from the votes of the axis (of all axes for `overall`); `people_votes` counts them, `people_mismatches` the pictures
    that most raters ticked, of `people_judged`. Nothing is filled in where nobody voted.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    pairs, cells = votes[votes.kind == "pair"], votes[votes.kind == "cell"]
    told = []
    for axis in dict.fromkeys(board.axis):
        of_axis = pairs if axis == "overall" else pairs[pairs.axis == axis]
        ticked = mismatches_by_people(cells if axis == "overall" else cells[cells.axis == axis])
        told.append(_strengths(of_axis).join(ticked, how="outer").assign(axis=axis))
    people = pd.concat(told).rename_axis("checkpoint").reset_index()
    merged = board.merge(people, on=["axis", "checkpoint"], how="left", sort=False)
    counts = {name: merged[name].fillna(0).astype("int64") for name in ("people_votes", "people_judged")}
    whole = merged.assign(**counts, people_mismatches=merged.people_mismatches.astype("Int64"))
    return whole[[column.name for column in TABLES["leaderboard"].columns]]


def _strengths(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return `people` with its interval and `people_votes` by checkpoint."""
    import numpy as np
    import pandas as pd

    names = sorted({*pairs["first"], *pairs["second"]})
    place = {name: at for at, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for row in pairs.itertuples():
        first, second = place[row.first], place[row.second]
        share = {"first": 1.0, "second": 0.0, "tie": 0.5}[row.choice]
        wins[first, second] += share
        wins[second, first] += 1 - share
    strengths, errors = bradley_terry(wins) if names else (np.zeros(0), np.zeros(0))

    def chance(value: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(1 / (1 + np.exp(-value)))

    columns = {
        "people": chance(strengths),
        "people_low": chance(strengths - _Z * errors),
        "people_high": chance(strengths + _Z * errors),
        "people_votes": (wins + wins.T).sum(axis=1),
    }
    return pd.DataFrame(columns, index=pd.Index(names, dtype="str"))


def mismatches_by_people(cells: pd.DataFrame) -> pd.DataFrame:
    """Return, by checkpoint, how many pictures were judged and how many of them most of their raters ticked."""
    import pandas as pd

    if cells.empty:
        columns = {name: pd.Series(dtype="float64") for name in ("people_judged", "people_mismatches")}
        return pd.DataFrame(columns, index=pd.Index([], dtype="str"))
    ticked = cells.assign(wrong=cells.choice == "mismatch").groupby(["first", "first_cell"]).wrong.mean() > 0.5
    found = ticked.groupby("first").agg(["size", "sum"]).astype("float64")
    return found.rename(columns={"size": "people_judged", "sum": "people_mismatches"}).rename_axis(None)


def agreements(votes: pd.DataFrame, scores: pd.DataFrame) -> list[Agreement]:
    """Return how far raters agree with each other, and people with the scorer; only what was judged more than once.

    People's verdict on a picture or a pair is that of most raters; the scorer's on a pair is the higher `match` or
    `tags`, and pairs that it scores the same say nothing.
    """
    pairs, cells = votes[votes.kind == "pair"], votes[votes.kind == "cell"]
    said = {
        "raters on pairs": _ratings(pairs, [_side(row) for row in pairs.itertuples()]),
        "raters on single pictures": _ratings(cells, list(cells.choice)),
    }
    found = [_agreement(what, list(ratings.values())) for what, ratings in said.items()]
    judged = scores[scores.metric.isin(["match", "tags"])].set_index("cell").score.to_dict()
    by_scorer = [
        ("people and scorer on pairs", _with_scorer_on_pairs(pairs, judged)),
        ("people and scorer on single pictures", _with_scorer_on_cells(cells, judged)),
    ]
    found += [_agreement(what, ratings) for what, ratings in by_scorer]
    return [one for one in found if one is not None]


def _side(row: Any) -> str:
    """Return which picture of the question a vote is for, whichever side it was shown on.

    Not the checkpoint's name: answers by name would differ from question to question whatever raters say, and alpha
    would credit them for it. Which picture is the question's first is as good as drawn, since cells are hashes.
    """
    if row.choice == "tie":
        return "tie"
    return _sides(str(row.first_cell), str(row.second_cell))[row.choice == "second"]


def _sides(first: str, second: str) -> tuple[str, str]:
    """Return for each of two cells which one of their question it is."""
    return ("first", "second") if first < second else ("second", "first")


def _question(row: Any) -> tuple[str, str]:
    """Return what tells one question from another, whichever picture was on the left."""
    first, second = sorted((str(row.first_cell), str(row.second_cell)))
    return first, second


def _ratings(votes: pd.DataFrame, said: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Return what was said of each question, by however many raters."""
    found: dict[tuple[str, str], list[str]] = {}
    for row, answer in zip(votes.itertuples(), said, strict=True):
        found.setdefault(_question(row), []).append(answer)
    return found


def _majority(answers: Sequence[str]) -> str | None:
    """Return what most raters said, None when two answers have as many."""
    ranked = Counter(answers).most_common(2)
    return None if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _with_scorer_on_pairs(pairs: pd.DataFrame, judged: dict[str, float]) -> list[list[str]]:
    found = []
    for (one, other), answers in _ratings(pairs, [_side(row) for row in pairs.itertuples()]).items():
        people, first, second = _majority(answers), judged.get(one), judged.get(other)
        if people in (None, "tie") or first is None or second is None or first == second:
            continue
        found.append([str(people), "first" if first > second else "second"])
    return found


def _with_scorer_on_cells(cells: pd.DataFrame, judged: dict[str, float]) -> list[list[str]]:
    found = []
    for (_, cell), answers in _ratings(cells, list(cells.choice)).items():
        people = _majority(answers)
        if people is not None and cell in judged:
            found.append([people, "match" if judged[cell] == 1 else "mismatch"])
    return found


def _agreement(what: str, ratings: Iterable[Sequence[str]]) -> Agreement | None:
    units = [answers for answers in ratings if len(answers) > 1]
    if len(units) < _PICTURES_NEEDED:
        return None
    # Share of equal answers among all pairs of raters, each picture one voice.
    equal = [
        sum(n * (n - 1) for n in Counter(answers).values()) / (len(answers) * (len(answers) - 1)) for answers in units
    ]
    return Agreement(what, len(units), sum(equal) / len(equal), krippendorff_alpha(units))


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """Return Krippendorff's alpha for nominal data; `units` are the answers on each picture, at least two of some.

    None where all answers are the same: there is no chance to compare with. Krippendorff, Content Analysis (2004),
    section 11.3, by its coincidence matrix.
    """
    pairable = [Counter(answers) for answers in units if len(answers) > 1]
    total = sum(sum(counts.values()) for counts in pairable)
    values: Counter[Hashable] = Counter()
    for counts in pairable:
        values.update(counts)
    disagreed = sum(
        (sum(counts.values()) ** 2 - sum(n * n for n in counts.values())) / (sum(counts.values()) - 1)
        for counts in pairable
    )
    expected = (total**2 - sum(n * n for n in values.values())) / (total - 1) if total > 1 else 0.0
    return None if expected == 0 else 1 - disagreed / expected
