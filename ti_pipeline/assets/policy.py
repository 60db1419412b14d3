"""The content policy of a study, and its last gates before anything is trained.

Not here: the policy itself (`e621.policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upath import UPath

from ti_pipeline.io_managers import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy
    from ti_pipeline.resources import DataStore
    from ti_pipeline.study_files import LoadedStudy

__all__ = ["CATALOG", "exclusions_taken", "policy_of", "require_allowed_pictures", "require_clean_texts"]

# What the policy is closed over: dependencies of every asset that asks `policy_of`. They may be absent.
CATALOG = ("tag_aliases", "tag_implications", "do_not_post")


def policy_of(loaded: LoadedStudy, store: DataStore) -> ContentPolicy:
    """Return the study's policy, closed over the catalog, with the opt-outs of the study and of the data folder."""
    from ti_pipeline.e621.policy import load_policy

    tables, source = Tables(UPath(store.url)), loaded.study.source
    aliases, implications, do_not_post = (tables.read(name, None) for name in CATALOG)
    return load_policy(
        ratings=tuple(source.ratings),
        exclude_tags=tuple(source.exclude_tags),
        do_not_post=source.do_not_post,
        opt_out_files=_opt_out_files(loaded, store),
        aliases=aliases,
        implications=implications,
        do_not_post_artists=() if do_not_post is None else do_not_post["artist"],
    )


def _opt_out_files(loaded: LoadedStudy, store: DataStore) -> list[Path | UPath]:
    from ti_pipeline.e621.policy import OPT_OUT_FILE

    own = loaded.study.source.opt_out_file
    files: list[Path | UPath] = [loaded.path.parent / own] if own else []
    of_all = UPath(store.url) / OPT_OUT_FILE
    return [*files, of_all] if of_all.exists() else files  # nobody has to opt out


def exclusions_taken(loaded: LoadedStudy, store: DataStore, records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many of the records each of the study's exclusions takes, and each line of its own opt-out file.

    The data folder's opt-outs are of all studies: that they take nothing here means nothing.
    """
    from ti_pipeline.e621.policy import opt_out_lines
    from ti_pipeline.e621.taken import posts_taken

    tables, source = Tables(UPath(store.url)), loaded.study.source
    aliases, implications = (tables.read(name, None) for name in CATALOG[:2])
    own = opt_out_lines(loaded.path.parent / source.opt_out_file) if source.opt_out_file else []
    return posts_taken(
        records, exclude_tags=source.exclude_tags, opt_out=own, aliases=aliases, implications=implications
    )


def require_clean_texts(loaded: LoadedStudy, variant: str, captions: pd.DataFrame, policy: ContentPolicy) -> None:
    """Raise `PolicyError` if a text of the study, a caption, or one put into a template says an excluded tag."""
    from ti_pipeline.study_files import texts_of

    for location, text in texts_of(loaded.study):
        policy.require_clean_text(text, f"{loaded.path.name}: {'.'.join(map(str, location))}")
    resolved = loaded.study.variant(variant)
    for post_id, caption in zip(captions.post_id, captions.caption, strict=True):
        for line in ("[filewords]", *resolved.templates):
            text = line.replace("[filewords]", caption).replace("[name]", str(resolved.token))
            policy.require_clean_text(text, f"caption of post {post_id} in {line!r} for variant {variant}")


def require_allowed_pictures(
    loaded: LoadedStudy, crops: pd.DataFrame, posts: pd.DataFrame, policy: ContentPolicy
) -> None:
    """Raise `PolicyError` if a crop is of a post that the policy refuses today, or of none that was kept."""
    from ti_pipeline.e621.policy import PolicyError
    from ti_pipeline.e621.records import refused

    used = set(crops.post_id[crops.status == "ok"])
    reasons = refused(posts[posts.post_id.isin(used)], policy)
    reasons |= dict.fromkeys(used - set(posts.post_id[posts.status == "kept"]), "no kept post has this id")
    if reasons:
        first = min(reasons)
        raise PolicyError(
            f"study {loaded.study.name}: {len(reasons)} crops are of posts that must not be used, "
            f"e.g. post {first}: {reasons[first]}; run the job prepare again"
        )
