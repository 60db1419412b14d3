"""Attribution: whose pictures an embedding learned from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["attribution_of_variant", "attribution_table"]


def attribution_table(posts: pd.DataFrame, training_set: pd.DataFrame, *, site: str | None) -> pd.DataFrame:
    """Return a row per picture used by any of the given rows: post_id, artists, sources, page, md5, split.

    `site` is the address of the site whose posts these are, or None where ids mean nothing there.
    """
    used = training_set[training_set.kept].drop_duplicates("post_id")[["post_id", "split"]]
    table = used.merge(posts[["post_id", "tags_artist", "sources", "md5"]], on="post_id").sort_values("post_id")
    table["artists"] = [" ".join(names) or "unknown" for names in table.tags_artist]
    table["sources"] = [" ".join(links) for links in table.sources]
    table["page"] = [f"{site}/posts/{post_id}" if site else "" for post_id in table.post_id]
    return table[["post_id", "artists", "sources", "page", "md5", "split"]].reset_index(drop=True)


def attribution_of_variant(results: StudyResults, variant: str) -> pd.DataFrame:
    """Return the attribution of one variant: the pictures of its crop set's curation."""
    crop = results.study.crops.named()[str(results.study.variant(variant).crop)]
    rows = results.training_set[results.training_set.curation == crop.curation]
    site = "https://e621.net" if results.study.source.kind == "e621" else None
    return attribution_table(results.posts, rows, site=site)
