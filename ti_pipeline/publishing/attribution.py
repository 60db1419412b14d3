"""Attribution: whose pictures were used, and where they were published.

Here: the table, as a frame, as CSV and counted per artist. Not here: which pictures are used (`imaging.curation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ti_pipeline.publishing.untrusted import csv_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = ["artists_counted", "attribution_csv", "attribution_table", "curations_of"]

UNKNOWN_ARTIST = "unknown artist"
# Tags of the site's artist category that are remarks, not people.
_REMARKS = frozenset({"avoid_posting", "conditional_dnp", "epilepsy_warning", "jumpscare_warning", "sound_warning"})
_SITES = ("e621.net", "e926.net")


def attribution_table(
    posts: pd.DataFrame, training_set: pd.DataFrame, images: pd.DataFrame, curations: Sequence[str]
) -> pd.DataFrame:
    """Return one row per picture kept by any of `curations`, in the order of post ids.

    Columns: `post_id`; `artists`, `contributors` and `sources` (lists of text); `page` (the post's page on the site
    it was fetched from, else None); `md5` of the stored file; `split` (train where any curation trains on it, else
    validation). Raises `ValueError` when a kept picture has no row in `posts`.
    """
    import pandas as pd

    kept = training_set[training_set.kept & training_set.curation.isin(curations)]
    # "train" sorts before "validation", so the first row of a picture is that of a curation that trains on it.
    kept = kept.sort_values(["post_id", "split"]).drop_duplicates("post_id")[["post_id", "split"]]
    table = kept.merge(posts, on="post_id", how="left", validate="1:1", indicator=True)
    orphans = table.post_id[table["_merge"] != "both"].tolist()
    if orphans:
        raise ValueError(f"no provenance for {len(orphans)} pictures, e.g. post {orphans[0]}: make `posts` again")
    table = table.drop(columns="md5").merge(images[["post_id", "md5"]], on="post_id", how="left", validate="1:1")
    table["artists"] = [[tag for tag in tags if tag not in _REMARKS] for tags in table.tags_artist]
    pages = [_page(post, url) for post, url in zip(table.post_id, table.file_url, strict=True)]
    table["page"] = pd.Series(pages, dtype=object, index=table.index)  # object: a missing page stays None
    table = table.rename(columns={"tags_contributor": "contributors"})
    columns = ["post_id", "artists", "contributors", "sources", "page", "md5", "split"]
    return table[columns].reset_index(drop=True)


def _page(post_id: int, file_url: object) -> str | None:
    """Return the page of a post that came from the site, judged by where its file lies."""
    host = urlsplit(file_url).hostname if isinstance(file_url, str) and file_url.startswith("http") else None
    if host is None or not any(host == site or host.endswith(f".{site}") for site in _SITES):
        return None
    return f"https://e621.net/posts/{post_id}"


def curations_of(study: Study, variants: Iterable[str]) -> list[str]:
    """Return the curations whose pictures these variants of a study are trained on, each once."""
    crop_sets = study.crops.named()
    return list(dict.fromkeys(crop_sets[crop].curation for name in variants for crop in study.crops_of(name)))


def artists_counted(attribution: pd.DataFrame) -> list[tuple[str, int]]:
    """Return every artist with the number of pictures, most first, then by name."""
    names = attribution.artists.map(lambda artists: artists or [UNKNOWN_ARTIST]).explode()
    return sorted(
        ((str(name), int(n)) for name, n in names.value_counts().items()), key=lambda pair: (-pair[1], pair[0])
    )


def attribution_csv(attribution: pd.DataFrame) -> str:
    """Return the table as CSV (RFC 4180, line feeds); list entries are separated by spaces, which they cannot hold."""
    shown = attribution.copy()
    for column in ("artists", "contributors", "sources"):
        shown[column] = [
            csv_cell(" ".join("%20".join(entry.split()) for entry in entries)) for entries in shown[column]
        ]
    return str(shown.to_csv(index=False, lineterminator="\n"))
