"""The tag catalog: the site's tags, aliases and implications, from its CSV export or its API, as tables.

Here: reading, alias chains, closures. Not here: what is refused (`policy`), or replacing a post's tags (`tagging`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.client import E621Client

__all__ = ["CatalogError", "fetch_catalog", "implied_by", "other_names", "read_catalog", "resolve_aliases"]

# The site's category numbers, in its order.
CATEGORY_NAMES = ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")
_FILES = {
    "tag_catalog": (("tags", "e621_tags"), ("name", "category", "post_count")),
    "tag_aliases": (("tag_aliases",), ("antecedent_name", "consequent_name", "status")),
    "tag_implications": (("tag_implications",), ("antecedent_name", "consequent_name", "status")),
}
_log = logging.getLogger(__name__)


class CatalogError(ValueError):
    """A catalog file is missing or not what it should be; the message names it and what to do."""


def read_catalog(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables tag_catalog, tag_aliases and tag_implications from the site's CSV files (`.csv`, `.csv.gz`).

    Files are found by how their names start, the last by name where there are several dates; columns are addressed by
    name. Raises `CatalogError` for a missing file or column, or a value that is none.
    """
    raw = {table: _read_csv(_find(folder, table), table) for table in _FILES}
    return _tables(raw)


def fetch_catalog(client: E621Client) -> dict[str, pd.DataFrame]:
    """Return the same tables as `read_catalog` from the API: some thousand requests, so the export is quicker."""
    import pandas as pd

    active = {"search[status]": "active"}
    rows: dict[str, Iterable[Mapping[str, Any]]] = {
        "tag_catalog": client.listing("tags", {}),
        "tag_aliases": client.listing("tag_aliases", active),
        "tag_implications": client.listing("tag_implications", active),
    }
    raw = {table: pd.DataFrame.from_records(list(found)) for table, found in rows.items()}
    for table, frame in raw.items():
        missing = set(_FILES[table][1]) - set(frame) if len(frame) else set()
        if missing:
            raise CatalogError(f"the site's answer for {table} has no {', '.join(sorted(missing))}")
        raw[table] = frame.reindex(columns=list(_FILES[table][1])).astype(str)
    return _tables(raw)


def implied_by(implications: pd.DataFrame | None, tags: Iterable[str]) -> set[str]:
    """Return all tags that imply one of `tags`, over any number of steps (without `tags` themselves)."""
    start = set(tags)
    found = set(start)
    frontier = start
    while implications is not None and frontier:
        special = implications["antecedent"][implications["consequent"].isin(frontier)]
        frontier = set(special.tolist()) - found
        found |= frontier
    return found - start


def other_names(aliases: pd.DataFrame | None, tags: Iterable[str]) -> set[str]:
    """Return the old names of `tags`, and the names to use instead of those that are old themselves."""
    if aliases is None:
        return set()
    known = set(tags)
    old = aliases["antecedent"][aliases["consequent"].isin(known)]
    new = aliases["consequent"][aliases["antecedent"].isin(known)]
    return (set(old.tolist()) | set(new.tolist())) - known


def resolve_aliases(aliases: pd.DataFrame) -> pd.DataFrame:
    """Return aliases (antecedent, consequent) that lead straight to the end of their chains.

    Later rows win where one name has several aliases. Names that only lead around a circle have no end: they are
    left out and logged.
    """
    table = aliases.drop_duplicates("antecedent", keep="last").reset_index(drop=True)
    next_name = table.set_index("antecedent")["consequent"]
    # Every pass doubles the steps taken at once, so that the longest possible chain needs log2(rows) passes.
    for _ in range(max(1, len(table)).bit_length() + 1):
        further = next_name.map(next_name)
        if not further.notna().any():
            break
        next_name = further.fillna(next_name)
    circular = next_name.isin(next_name.index).to_numpy()
    if circular.any():
        _log.warning("aliases without an end are left out: %s", ", ".join(table.loc[circular, "antecedent"].head(20)))
    table["consequent"] = next_name.to_numpy()
    return table[~circular].reset_index(drop=True)


def _find(folder: Path, table: str) -> Path:
    starts = _FILES[table][0]
    if not folder.is_dir():
        raise CatalogError(f"the catalog folder {folder} does not exist; set TI_CATALOG to the folder of the CSV files")
    found = [p for p in folder.iterdir() if p.name.startswith(starts) and p.name.endswith((".csv", ".csv.gz"))]
    if not found:
        wanted = " or ".join(f"{start}*.csv(.gz)" for start in starts)
        raise CatalogError(f"the catalog folder {folder} has no {wanted}; copy the site's export into it")
    return max(found, key=lambda path: path.name)


def _read_csv(path: Path, table: str) -> pd.DataFrame:
    import pandas as pd

    columns = list(_FILES[table][1])
    try:
        # Tags are called `null` and `nan`: nothing is read as missing.
        frame = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8", usecols=lambda name: name in columns)
    except (ValueError, OSError, EOFError) as error:  # pandas' parser and decoder errors are ValueErrors
        raise CatalogError(f"{path} cannot be read as CSV: {error}") from error
    missing = [column for column in columns if column not in frame]
    if missing:
        raise CatalogError(f"{path} has no column {', '.join(missing)}")
    return frame[columns]


def _tables(raw: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    aliases = resolve_aliases(_active(raw["tag_aliases"]))
    implications = _active(raw["tag_implications"]).drop_duplicates(ignore_index=True)
    return {"tag_catalog": _tags(raw["tag_catalog"]), "tag_aliases": aliases, "tag_implications": implications}


def _active(links: pd.DataFrame) -> pd.DataFrame:
    """Keep active links; pending, deleted and `error: …` ones are not in force."""
    names = {"antecedent_name": "antecedent", "consequent_name": "consequent"}
    kept = links[links["status"] == "active"].rename(columns=names)[["antecedent", "consequent"]]
    return kept.reset_index(drop=True)


def _tags(raw: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    counts = pd.to_numeric(raw["post_count"], errors="coerce")
    if counts.isna().any():
        bad = raw.loc[counts.isna()].iloc[0]
        raise CatalogError(f"tag catalog: post_count of {bad['name']!r} is {bad['post_count']!r}, not a number")
    categories = raw["category"].map({str(number): name for number, name in enumerate(CATEGORY_NAMES)})
    # The site's counters drift below zero for emptied tags; categories may get added.
    table = pd.DataFrame(
        {
            "tag": raw["name"],
            "category": categories.fillna("unknown").astype("str"),
            "post_count": counts.astype("int64").clip(lower=0),
        }
    )
    first = table.sort_values("post_count", ascending=False, kind="stable").drop_duplicates("tag")
    return first.sort_index().reset_index(drop=True)
