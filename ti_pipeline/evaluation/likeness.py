"""Likeness: how far pictures go from what the base draws without an embedding to the concept's own pictures.

Of a picture: its nearness to the concept's held-out pictures (`similarity.nearness`) over that of the same prompts
without the embedding, counted only as far as pictures of different prompts have stayed different. An embedding that
draws one picture whatever is asked is near to the concept with all of them, and has learned that one picture:

    likeness = before + (near - before) * min(1, kept),   kept = (1 - same) / ((1 - same before) * (1 - same among))

with `same` the mean similarity to the checkpoint's pictures of other prompts, `before` the same trial without an
embedding, and `among` the held-out pictures. An embedding as good as the concept's pictures makes pictures of
different prompts alike in what belongs to the concept, and may thus lose the share of variety that those lack; what
goes beyond is sameness. On this scale the base without an embedding is at its own nearness, and the held-out pictures
at theirs; the leaderboard counts the way from the one (0) to the other (1).
Not here: features (`scorers`), the ranking (`statistics`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.evaluation.references import HELD_OUT, NO_EMBEDDING, groups_of

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = ["LIKENESS", "likeness_of_study", "with_likeness"]

NEAR, SAME, LIKENESS = "near", "sameness", "likeness"
_TRIAL = ["axis", "value", "seed"]


def likeness_of_study(
    study: Study, scores: pd.DataFrame, references: pd.DataFrame, *, shares: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `evaluation_scores` and `reference_scores` with the likeness of each picture in its own group.

    Raw, as the leaderboard takes it, or as `shares` of the way from no embedding (0) to the concept's pictures (1).
    """
    import pandas as pd

    own, bare = [], []
    for group in groups_of(study):
        against = references[references.base == group.label]
        found = [with_likeness(rows, against) for rows in (scores[scores.variant.isin(group.variants)], against)]
        if shares:
            found = [_as_shares(rows, found[1]) for rows in found]
        own.append(found[0])
        bare.append(found[1])
    return pd.concat(own, ignore_index=True), pd.concat(bare, ignore_index=True)


def _as_shares(rows: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    ends = references[references.metric == LIKENESS].groupby("checkpoint").score.mean()
    if not {NO_EMBEDDING, HELD_OUT} <= set(ends.index) or ends[HELD_OUT] <= ends[NO_EMBEDDING]:
        return rows[rows.metric != LIKENESS]
    share = (rows.score - ends[NO_EMBEDDING]) / (ends[HELD_OUT] - ends[NO_EMBEDDING])
    return rows.assign(score=rows.score.where(rows.metric != LIKENESS, share))


def with_likeness(scores: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Return score rows of one group of references with their `likeness` rows, one for each that has `near`.

    `scores` are `evaluation_scores` or the reference rows themselves, `references` the rows of `reference_scores` of
    that group. Where there is no held-out picture, or nothing was drawn without the embedding, there is no likeness.
    """
    import pandas as pd

    near = scores[scores.metric == NEAR]
    bare = references[references.checkpoint == NO_EMBEDDING]
    if near.empty or bare.empty:
        return scores
    own = near.assign(same=near.cell.map(scores[scores.metric == SAME].set_index("cell").score))
    before = own[_TRIAL].merge(_by_trial(bare), on=_TRIAL, how="left").set_index(own.index)
    among = references[(references.checkpoint == HELD_OUT) & (references.metric == SAME)].score.mean()
    allowed = (1 - before.same) * (1 - (0.0 if pd.isna(among) else among))
    kept = ((1 - own.same) / allowed.clip(lower=1e-6)).clip(upper=1).fillna(1.0)
    # Both ways, also where a picture is less near than without an embedding: else chance would count on one side only.
    made = own.assign(metric=LIKENESS, score=before.near + (own.score - before.near) * kept)
    held_out = own.checkpoint == HELD_OUT
    made.loc[held_out, "score"] = own.score[held_out]
    return pd.concat([scores, made[made.score.notna()][scores.columns]], ignore_index=True)


def _by_trial(bare: pd.DataFrame) -> pd.DataFrame:
    """Return `near` and `same` of what was drawn without the embedding, a row a trial."""
    wide = bare[bare.metric.isin([NEAR, SAME])].pivot_table(index=_TRIAL, columns="metric", values="score")
    wide = wide.reindex(columns=[NEAR, SAME]).rename(columns={SAME: "same"})
    return wide.reset_index()
