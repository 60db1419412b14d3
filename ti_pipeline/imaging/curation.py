"""Curation: which pictures make the training set, why each other one was left out, and which are held out.

Not here: measuring pictures (`audit`), what tags mean (`told_by_tags`), solving for target shares (`shares`), or tags
of the content policy, whose posts never come this far (`e621.policy`).
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ti_pipeline.imaging.agreement import by_pixels
from ti_pipeline.imaging.shares import ShareTarget, binding, chosen, nearest_shares
from ti_pipeline.imaging.told_by_tags import SIMPLE_BACKGROUND_TAGS, is_lettering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ti_pipeline.studies import Curation

__all__ = ["CurationError", "select_training_set"]

# Which question of `agreement` pixels answer for a share.
_BY_PIXELS = {"text": "lettering", "simple_background": "simple_background"}


class CurationError(ValueError):
    """A curation cannot be met by the pictures at hand; the message says what is missing."""


def select_training_set(
    posts: pd.DataFrame,
    post_tags: pd.DataFrame,
    images: pd.DataFrame,
    audit: pd.DataFrame,
    curations: Mapping[str, Curation],
    *,
    seed: int,
    warn: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Return the `training_set` table: one row per curation (in order) and kept post (in the order of `posts`).

    A picture is left out for the first of these that holds, in its `reason`: it is missing or unusable; it fails a
    filter (tags, solo, rating, score; format, animation, sides, sharpness, detail, lettering as audited); it is a
    near-duplicate of a better scored picture that passed the filters; the target shares or `images` leave no room for
    it (`shares.chosen`).

    `validation_share` of the kept pictures, rounded down, are held out: those whose sha256 of seed and id comes
    first, so that more pictures or another curation move few across. Raises `CurationError` for target shares that
    no set of pictures has, and for fewer pictures than `min_images`. `warn` is told, in a sentence, of a curation whose
    shares leave fewer than half of the pictures that it asks for, with the share that binds.
    """
    candidates = _candidates(posts, post_tags, images, audit)
    return pd.concat([_curate(name, c, candidates, seed, warn) for name, c in curations.items()], ignore_index=True)


def _candidates(
    posts: pd.DataFrame, post_tags: pd.DataFrame, images: pd.DataFrame, audit: pd.DataFrame
) -> pd.DataFrame:
    """Return one row per kept post with everything that curations ask about it."""
    tags = post_tags.groupby("post_id").tag.agg(frozenset)
    found = posts.loc[posts.status == "kept", ["post_id", "score", "rating"]].reset_index(drop=True)
    found["tags"] = [tags.get(post_id, frozenset()) for post_id in found.post_id]
    found = found.merge(images[["post_id", "path"]], on="post_id", how="left", validate="1:1")
    measured = [
        "post_id",
        "status",
        "reason",
        "format",
        "frames",
        "width",
        "height",
        "sharpness",
        "detail",
        "lettering",
        "simple_background",
        "duplicate_of",
    ]
    found = found.merge(audit[measured], on="post_id", how="left", validate="1:1")
    found["status"] = found.status.fillna("failed")
    found["reason"] = found.reason.fillna("no picture: it is not in the audit")
    for flag, question in _BY_PIXELS.items():
        found[f"seen_{flag}"] = by_pixels(question, found).to_numpy(dtype=bool)
    found["solo"] = [("solo" in tags) for tags in found.tags]
    found["simple_background"] = [not SIMPLE_BACKGROUND_TAGS.isdisjoint(tags) for tags in found.tags]
    found["text"] = [any(map(is_lettering, tags)) for tags in found.tags]
    return found


def _curate(
    name: str, curation: Curation, candidates: pd.DataFrame, seed: int, warn: Callable[[str], None]
) -> pd.DataFrame:
    if curation.shares_from == "pixels":
        candidates = candidates.assign(**{flag: candidates[f"seen_{flag}"] for flag in _BY_PIXELS})
    reason = _filter_reasons(curation, candidates)
    if curation.drop_duplicates:
        _drop_duplicates(candidates, reason)
    _meet_shares(name, curation, candidates, reason, warn)
    kept = reason == ""
    if kept.sum() < curation.min_images:
        raise CurationError(
            f"curation {name!r}: {kept.sum()} of {len(candidates)} pictures are left, min_images is "
            f"{curation.min_images}. Left out: {_counted(reason[~kept])}"
        )
    held_out = _held_out(candidates.post_id[kept].tolist(), curation.validation_share, seed)
    split = np.where(~kept, "out", np.where(candidates.post_id.isin(held_out), "validation", "train"))
    return pd.DataFrame(
        {
            "curation": name,
            "post_id": candidates.post_id.astype("int64"),
            "kept": kept.to_numpy(dtype=bool),
            "split": split,
            "reason": reason,
            "path": candidates.path,
            **{flag: candidates[flag].to_numpy(dtype=bool) for flag in ("solo", "simple_background", "text")},
        }
    )


def _counted(reasons: pd.Series[str]) -> str:
    return "; ".join(f"{count} × {reason}" for reason, count in reasons.value_counts().items()) or "none"


def _filter_reasons(curation: Curation, candidates: pd.DataFrame) -> pd.Series[str]:
    """Return, per candidate, the first filter that it fails, or an empty text."""
    reason = candidates.reason.where(candidates.status != "ok", "").astype(object)
    for sentence, fails in _filters(curation, candidates):
        reason[(reason == "") & fails.fillna(value=False)] = sentence
    return reason


def _filters(curation: Curation, candidates: pd.DataFrame) -> Iterator[tuple[str, pd.Series[bool]]]:
    """Yield the filters of a curation in order: the sentence for pictures left out, and which ones fail.

    The sentences carry the limit, not the picture's own value, so that they can be counted.
    """
    for tag in map(_spelled, curation.require_tags):
        yield f"lacks the required tag {tag}", candidates.tags.map(lambda tags, tag=tag: tag not in tags)
    for tag in map(_spelled, curation.forbid_tags):
        yield f"has the forbidden tag {tag}", candidates.tags.map(lambda tags, tag=tag: tag in tags)
    if curation.solo is not None:
        yield f"is {'not ' if curation.solo else ''}tagged solo", candidates.solo != curation.solo
    if curation.ratings is not None:
        yield f"rating is none of {', '.join(curation.ratings)}", ~candidates.rating.isin(curation.ratings)
    if curation.min_score is not None:
        yield f"score unknown (at least {curation.min_score} is wanted)", candidates.score.isna()
        yield f"score below {curation.min_score}", candidates.score < curation.min_score
    yield from _pixel_filters(curation, candidates)


def _pixel_filters(curation: Curation, candidates: pd.DataFrame) -> Iterator[tuple[str, pd.Series[bool]]]:
    """Yield the filters that ask what the audit measured."""
    if curation.formats is not None:
        yield f"format is none of {', '.join(curation.formats)}", ~candidates.format.isin(curation.formats)
    if not curation.animations:
        yield "is an animation", candidates.frames > 1
    sides = candidates[["width", "height"]]
    short, long = sides.min(axis=1), sides.max(axis=1)
    yield f"shorter side below {curation.min_side} px", short < curation.min_side
    yield f"longer than {curation.max_aspect:g} times its shorter side", long > curation.max_aspect * short
    yield f"sharpness below {curation.min_sharpness:g}", candidates.sharpness < curation.min_sharpness
    yield f"detail below {curation.min_detail:g} bits", candidates.detail < curation.min_detail
    yield f"lettering on more than {curation.max_lettering:g} of it", candidates.lettering > curation.max_lettering


def _spelled(tag: str) -> str:
    """Return a tag of the study file as the site spells it."""
    return "_".join(tag.lower().split())


def _preference(candidates: pd.DataFrame) -> pd.DataFrame:
    """Return candidates best score first, unknown scores last, smaller ids first among equals."""
    return candidates.sort_values(["score", "post_id"], ascending=[False, True], na_position="last", kind="stable")


def _drop_duplicates(candidates: pd.DataFrame, reason: pd.Series[str]) -> None:
    """Leave the best scored picture in each group of near-duplicates that passed the filters so far."""
    left = _preference(candidates[reason == ""])
    group = left.duplicate_of.fillna(left.post_id)
    reason[left.index[group.duplicated()]] = "near-duplicate of a better scored picture"


def _meet_shares(
    name: str, curation: Curation, candidates: pd.DataFrame, reason: pd.Series[str], warn: Callable[[str], None]
) -> None:
    left = _preference(candidates[reason == ""])
    targets = [
        ShareTarget(flag, share, left[flag].tolist())
        for flag, share in curation.shares.model_dump().items()
        if share is not None
    ]
    at_most = min(curation.images or len(left), len(left))
    if not len(left) or (at_most == len(left) and not targets):
        return
    scores = _filled(left.score)
    taken = chosen(targets, scores, at_most=at_most, tolerance=curation.share_tolerance)
    if targets and len(taken) < curation.min_images:
        raise CurationError(_unreachable(name, curation, targets, len(left), len(taken)))
    if targets and 2 * len(taken) < at_most:
        share, without = binding(targets, at_most=at_most, tolerance=curation.share_tolerance)
        warn(
            f"curation {name!r}: only {len(taken)} of the {at_most} pictures asked for have the target shares within "
            f"±{curation.share_tolerance:g}; what binds is {share}: without it there would be {without}"
        )
    out = left.index.difference(left.index[taken])
    better = "pictures that meet the target shares" if targets else "better scored pictures"
    reason[out] = f"no room: {better} take the {len(taken)} places"


def _filled(scores: pd.Series[float]) -> list[float]:
    """Return scores as numbers; an unknown one counts like the lowest known one."""
    known = scores.dropna()
    lowest = float(known.min()) if len(known) else 0.0
    return [lowest if pd.isna(score) else float(score) for score in scores]


def _unreachable(name: str, curation: Curation, targets: list[ShareTarget], left: int, reached: int) -> str:
    size = min(curation.min_images, left)
    nearest = nearest_shares(targets, size)
    wanted = ", ".join(f"{t.name} {t.share:g} (on {sum(t.has)} of {left} pictures)" for t in targets)
    reachable = ", ".join(f"{flag} {share:.3g}" for flag, share in nearest.items())
    return (
        f"curation {name!r}: at most {reached} pictures have the shares {wanted} within ±{curation.share_tolerance:g}, "
        f"min_images is {curation.min_images}. Nearest shares of {size} pictures: {reachable}. Change shares, "
        "share_tolerance or min_images, or widen the source"
    )


def _held_out(post_ids: list[int], share: float, seed: int) -> list[int]:
    def draw(post_id: int) -> bytes:
        return hashlib.sha256(f"{seed}:{post_id}".encode()).digest()

    count = int(Fraction(str(share)) * len(post_ids))
    return sorted(post_ids, key=draw)[:count]
