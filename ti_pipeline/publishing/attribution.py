"""Attribution: whose pictures were used, and where they were published.

Here: the table, as a frame, as CSV and counted per artist. Not here: which pictures are used (`imaging.curation`), or
gathering where they come from (`sources.provenance`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ti_pipeline.publishing.untrusted import csv_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = ["COLUMNS", "artists_counted", "attribution_csv", "attribution_table", "curations_of"]

_LOCAL = re.compile(r"\s*(?:file:|[/\\~]|[A-Za-z]:[/\\])", re.IGNORECASE)  # paths of either kind of slashes
UNKNOWN_ARTIST = "unknown artist"
COLUMNS = ("post_id", "artists", "contributors", "sources", "page", "licence", "md5")


def attribution_table(provenance: pd.DataFrame, training_set: pd.DataFrame, curations: Sequence[str]) -> pd.DataFrame:
    """Return one row per picture kept by any of `curations`, in the order of post ids.

    Columns: those of `COLUMNS`, from `provenance`, and `split` (train where any curation trains on it, else
    validation). Raises `ValueError` when a kept picture has no row in `provenance`.
    """
    kept = training_set[training_set.kept & training_set.curation.isin(curations)]
    # "train" sorts before "validation", so the first row of a picture is that of a curation that trains on it.
    kept = kept.sort_values(["post_id", "split"]).drop_duplicates("post_id")[["post_id", "split"]]
    table = kept.merge(provenance[provenance.in_use], on="post_id", how="left", validate="1:1", indicator=True)
    orphans = table.post_id[table["_merge"] != "both"].tolist()
    if orphans:
        raise ValueError(
            f"no provenance for {len(orphans)} pictures, e.g. post {orphans[0]}: run the job prepare again"
        )
    return table[[*COLUMNS, "split"]].reset_index(drop=True)


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
    """Return the table as CSV (RFC 4180, line feeds); list entries are separated by spaces, which they cannot hold.

    Sources that are files of this machine are nobody else's business and say nothing to others: they are left out.
    """
    shown = attribution.copy()
    shown["sources"] = [[entry for entry in entries if not _LOCAL.match(entry)] for entries in shown.sources]
    for column in ("artists", "contributors", "sources"):
        shown[column] = [
            csv_cell(" ".join("%20".join(entry.split()) for entry in entries)) for entries in shown[column]
        ]
    return str(shown.to_csv(index=False, lineterminator="\n"))
