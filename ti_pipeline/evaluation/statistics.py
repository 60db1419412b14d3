"""Statistics: which checkpoint is best, per axis and overall, and how sure that is.

Boards: every axis (the share right), `obedience`, `likeness` and `overall`, whose rule is that of `decision`. All that
is said of one checkpoint beside another, here, on the page and on the card, comes from `comparison`, whose verdicts
hold for all pairs of a board at once. The best must have learned: its likeness is above that of its base without the
embedding, by a tenth of the way and beyond chance for all checkpoints at once; where none is, none is best.
Checkpoints that copy, are broken or lack trials are left out before anything is ranked. References stand on every board
and are never ranked.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.comparison import LIKENESS, OBEDIENCE, OVERALL, SURE, compared, learned
from ti_pipeline.evaluation.decision import scaled
from ti_pipeline.evaluation.estimates import estimates
from ti_pipeline.evaluation.references import NO_EMBEDDING
from ti_pipeline.evaluation.trials import JUDGED, excluded, gathered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.evaluation.comparison import Compared
    from ti_pipeline.evaluation.decision import Prefer
    from ti_pipeline.evaluation.trials import Trials

__all__ = ["Judged", "judged", "leaderboard", "leaderboard_plot", "meetings", "steps_plot"]


_SEEN = 0.1  # of the way: what is less, nobody sees, however sure it is


@dataclass(frozen=True)
class Judged:
    """The candidates' trials with all verdicts on them: `boards` by name, `learned` [c], who was left out and why."""

    everything: Trials
    trials: Trials
    boards: dict[str, Compared]
    learned: NDArray[np.bool_]
    left_out: dict[str, str]
    uncounted: tuple[str, ...]
    prefer: Prefer


def judged(
    scores: pd.DataFrame,
    references: pd.DataFrame,
    *,
    bases: Mapping[str, str],
    prefer: Prefer = "balanced",
    seed: int,
    negative: frozenset[str] = frozenset(),
) -> Judged:
    """Return the verdicts on `evaluation_scores` beside `reference_scores`; see `leaderboard`."""
    everything = gathered(scores, references, bases=bases, negative=negative)
    left_out = excluded(scores, everything)
    trials = everything.only(name for name in everything.checkpoints if name not in left_out)
    if not trials.checkpoints:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"there is no checkpoint to rank ({reasons})")
    on = scaled(trials)
    return Judged(
        everything=everything,
        trials=trials,
        boards=compared(trials, on, prefer=prefer, seed=seed),
        learned=(learned(on, seed=seed) < SURE) & (on.alike @ on.even >= _SEEN),
        left_out=left_out,
        uncounted=on.left_out,
        prefer=prefer,
    )


def leaderboard(
    scores: pd.DataFrame,
    references: pd.DataFrame,
    *,
    bases: Mapping[str, str],
    prefer: Prefer = "balanced",
    seed: int,
    votes: pd.DataFrame | None = None,
    negative: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """Return the `leaderboard` table; ties in score go to the earlier step, then by name.

    `bases` names each variant's references; on the axes in `negative` the embedding stands in the negative prompt only,
    so that nearer to the concept is worse: there, likeness counts the way from it. `prefer` shifts the overall score.
    People's `votes` stand beside the scores and do not change the ranking (see `people.with_votes`). Raises
    `ValueError` without any score, likeness or reference, and when no checkpoint is left to be ranked.
    """
    import pandas as pd

    from ti_pipeline.evaluation.people import with_votes
    from ti_pipeline.schemas import TABLES

    found = judged(scores, references, bases=bases, prefer=prefer, seed=seed, negative=negative)
    told = _scores(found).merge(_counts(scores, references, found), on=["axis", "checkpoint"])
    told = told.join(_about(scores), on="checkpoint")
    told[["variant", "step"]] = told[["variant", "step"]].fillna({"variant": "", "step": 0}).astype({"step": "int64"})
    table = pd.concat([_ranked(rows, found) for _, rows in told.groupby("axis", sort=True)], ignore_index=True)
    best = table[(table.axis == OVERALL) & table.best].checkpoint
    notes = _notes(found, table, best.iloc[0] if len(best) else None)
    whole = table.assign(**{name: table.checkpoint.isin(names) & (table.axis == OVERALL) for name, names in notes})
    return with_votes(whole, TABLES["votes"].empty() if votes is None else votes)


def _about(scores: pd.DataFrame) -> pd.DataFrame:
    return scores.drop_duplicates("checkpoint").set_index("checkpoint")[["variant", "step"]]


def _scores(found: Judged) -> pd.DataFrame:
    """Return score and interval by board and checkpoint, references included; each on the trials that it has."""
    import numpy as np
    import pandas as pd

    ranked = found.trials.with_references()
    others = [found.everything.only([name]) for name in found.left_out if name in found.everything.checkpoints]
    alone = [one.at(one.whole[0]) for one in others if one.whole.any()]
    rows = [
        pd.DataFrame({"axis": board, "checkpoint": part.checkpoints} | vars(estimate))
        for part in (ranked, *alone)
        for board, estimate in estimates(part, found.prefer).items()
    ]
    table = pd.concat(rows, ignore_index=True)
    # The lower end of the scale is no estimate.
    end = table.checkpoint.str.startswith(NO_EMBEDDING) & table.axis.isin([OBEDIENCE, LIKENESS, OVERALL])
    table.loc[end, ["low", "high"]] = np.stack([table.score[end]] * 2, axis=1)
    return table


def _counts(scores: pd.DataFrame, references: pd.DataFrame, found: Judged) -> pd.DataFrame:
    """Return by board and checkpoint the pictures that were drawn, each once, and those that miss what was asked."""
    import pandas as pd

    several = len(found.everything.labels) > 1
    named = references.checkpoint + (", " + references.base if several else "")
    rows = pd.concat([scores, references.assign(checkpoint=named).drop(columns="base")], ignore_index=True)
    asked, near = rows[rows.metric.isin(JUDGED)], rows[rows.metric == LIKENESS]
    boards = pd.concat(
        [
            asked,
            *(asked.assign(axis=board) for board in (OBEDIENCE, OVERALL)),
            *(near.assign(axis=board) for board in (LIKENESS, OVERALL)),
        ]
    )
    wrong = boards.cell.where((boards.metric == "match") & (boards.score < 1))
    counted = boards.assign(wrong=wrong).groupby(["axis", "checkpoint"])[["cell", "wrong"]].nunique()
    return counted.rename(columns={"cell": "pictures", "wrong": "mismatches"}).reset_index()


def _ranked(rows: pd.DataFrame, found: Judged) -> pd.DataFrame:
    """Return a board's rows, best first: candidates by rank, then those left out, then the references."""
    import numpy as np
    import pandas as pd

    names = found.trials.checkpoints
    place = {name: at for at, name in enumerate(names)}
    board = str(rows.axis.iloc[0])
    own = rows.checkpoint.map(place).astype("Int64")
    table = rows.assign(
        candidate=rows.variant != "",
        excluded=rows.checkpoint.map(found.left_out).astype("object"),
        learned=[bool(found.learned[place[name]]) if name in place else False for name in rows.checkpoint],
        counted=board not in found.uncounted,
        place=own,
        last=own.isna(),
    ).sort_values(
        ["last", "candidate", "learned", "score", "step", "checkpoint"],
        ascending=[True, False, False, False, True, True],
    )
    ranked = table[~table["last"]]
    at, verdicts = ranked.place.to_numpy(dtype="int64"), found.boards[board]
    lead, reach = verdicts.lead[at[0], at], verdicts.reach[at[0], at]
    p = verdicts.p[at[0], at]
    told = {
        "behind": lead,
        "behind_low": lead - reach,
        "behind_high": lead + reach,
        "p": p,
        "rank": np.arange(1, len(at) + 1),
    }
    first = np.arange(len(at)) == 0
    told = pd.DataFrame(told, index=ranked.index).reindex(table.index).astype({"rank": "Int64"})
    flags = pd.DataFrame(
        {"best": first & ranked.learned.iloc[0], "tied": ~first & (p >= SURE)}, index=ranked.index
    ).reindex(table.index, fill_value=False)
    return table.drop(columns=["place", "last"]).join(told).join(flags).assign(tells=verdicts.tells)


def _notes(found: Judged, table: pd.DataFrame, best: str | None) -> list[tuple[str, set[str]]]:
    return [("pareto", _pareto(found, best)), ("overfit", _overfit(found, table, best))]


def _pareto(found: Judged, best: str | None) -> set[str]:
    """Return the best and those that a maker may prefer: ahead of it in obedience or in likeness beyond chance.

    Of these, who is no better than another in either is not on the front. The two boards share the chance of an error.
    """
    import numpy as np

    if best is None:
        return set()
    names = found.trials.checkpoints  # none that has not learned: what it may be ahead in, its base does as well
    at, boards = names.index(best), [found.boards[name] for name in (OBEDIENCE, LIKENESS)]
    ahead = np.logical_or.reduce([(one.lead[:, at] > 0) & (one.p[:, at] < SURE / 2) for one in boards])
    behind = np.logical_and.reduce([one.lead <= 0 for one in boards])
    beaten = (behind & np.logical_or.reduce([one.lead < 0 for one in boards])).any(axis=1)
    kept = ahead & ~beaten & found.learned
    return {best} | {names[one] for one in np.flatnonzero(kept)}


def _overfit(found: Judged, table: pd.DataFrame, best: str | None) -> set[str]:
    """Return whom an earlier one of the variant beats in obedience, and who beats it in likeness, both beyond chance.

    That is overfitting as it is seen: likeness goes on rising while the prompt is followed less. Never the best by the
    rule, which has weighed the two.
    """
    steps = table.drop_duplicates("checkpoint").set_index("checkpoint")
    obeys, knows = found.boards[OBEDIENCE], found.boards[LIKENESS]
    names = found.trials.checkpoints
    fell, rose = ((one.lead < 0) & (one.p < SURE) for one in (obeys, knows))
    found_so = set()
    for at, name in enumerate(names):
        for other, earlier in enumerate(names):
            of_variant = steps.variant[name] == steps.variant[earlier] and steps.step[earlier] < steps.step[name]
            if of_variant and fell[at, other] and rose[other, at]:
                found_so.add(name)
    return found_so - {best}


def meetings(found: Judged, names: Sequence[str]) -> pd.DataFrame:
    """Return every pair of the named candidates on every board, by the verdicts that the leaderboard has.

    Columns: axis, first, second, lead (of the first in score), low, high, p; `p` and the interval hold for all pairs of
    the board at once. Names that were left out before ranking have no pairs.
    """
    import itertools

    import pandas as pd

    place = {name: at for at, name in enumerate(found.trials.checkpoints)}
    rows = [
        {"axis": board, "first": first, "second": second}
        | {
            "lead": one.lead[place[first], place[second]],
            "low": (one.lead - one.reach)[place[first], place[second]],
            "high": (one.lead + one.reach)[place[first], place[second]],
            "p": one.p[place[first], place[second]],
        }
        for board, one in found.boards.items()
        for first, second in itertools.combinations([name for name in names if name in place], 2)
    ]
    return pd.DataFrame(rows, columns=["axis", "first", "second", "lead", "low", "high", "p"])


def leaderboard_plot(table: pd.DataFrame, axis: str = OVERALL, top: int = 20) -> bytes:
    """Return a PNG: the best checkpoints of an axis with their intervals, then the references."""
    from matplotlib.figure import Figure

    shown = table[table.axis == axis].sort_values("rank").head(top).iloc[::-1]
    figure = Figure(figsize=(6.4, 0.9 + 0.22 * len(shown)), layout="constrained")
    axes = figure.subplots()
    spread = [(shown.score - shown.low).clip(lower=0), (shown.high - shown.score).clip(lower=0)]
    places = range(len(shown))
    axes.errorbar(shown.score, places, xerr=spread, fmt="o", color="#3b6ea8", ecolor="#9db8d6", capsize=3)
    axes.set_yticks(places, list(shown.checkpoint), fontsize=8, parse_math=False)
    axes.set_xlabel(f"{axis}, 95 % interval")
    return _png(figure)


def steps_plot(table: pd.DataFrame, axis: str = OVERALL) -> bytes:
    """Return a PNG: score against step, a line per variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    for variant, rows in table[(table.axis == axis) & table.candidate].groupby("variant", sort=False):
        ordered = rows.sort_values("step")
        axes.plot(ordered.step, ordered.score, marker="o", markersize=3, label=str(variant))
        axes.fill_between(ordered.step, ordered.low, ordered.high, alpha=0.12)
    axes.set(xlabel="updates", ylabel=axis)
    figure.legend(fontsize=8, loc="outside right upper")
    return _png(figure)


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90, metadata={"Software": None})
    return stream.getvalue()
