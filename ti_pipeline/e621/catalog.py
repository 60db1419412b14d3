"""The tag catalog: the site's tags, aliases, implications and do-not-post lists, as tables.

Here: reading them from the site's database export, its API or files, alias chains, closures. Not here: what is refused
(`policy`), replacing a post's tags (`tagging`), or the export of posts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.site_exports import INDEX, SiteExportError, fetch_file, fetch_index, read_index
from ti_pipeline.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.client import E621Client

__all__ = [
    "CATEGORY_NAMES",
    "DO_NOT_POST_LISTS",
    "CatalogError",
    "fetch_catalog",
    "fetch_export",
    "implication_closure",
    "implied_by",
    "other_names",
    "read_catalog",
    "resolve_aliases",
]

# The site's category numbers, in its order.
CATEGORY_NAMES = ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")
# The tags that an artist's name implies who is on one of the site's lists.
DO_NOT_POST_LISTS = ("avoid_posting", "conditional_dnp")

_LINK = ("antecedent_name", "consequent_name", "status")
# What files are called at the site and by people, and the columns that are used.
_FILES = {
    "tag_catalog": (("tags", "e621_tags"), ("name", "category", "post_count")),
    "tag_aliases": (("tag_aliases",), _LINK),
    "tag_implications": (("tag_implications",), _LINK),
    "do_not_post": (("do_not_post", "dnp"), ("tag", "list")),
}
_SITE_NAMES = {"tag_catalog": "tags", "tag_aliases": "tag_aliases", "tag_implications": "tag_implications"}
_IF_NULL = {"category": "", "post_count": "0"}  # the whole numbers of the API, and what stands for none
_OPTIONAL = frozenset({"do_not_post"})  # the site has no such export: implications tell who is on its lists


class CatalogError(ValueError):
    """The catalog is missing or not what it should be; the message names file or address and what to do."""


def read_catalog(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables tag_catalog, tag_aliases, tag_implications and do_not_post from CSV files (`.csv`, `.csv.gz`).

    Files are found by how their names start, the last by name where there are several dates; columns are addressed by
    name. A file that the export's index beside it names must have the sha256 told there. Raises `CatalogError` for a
    missing file or column, a wrong sha256, a value that is none, and links that form a circle.
    """
    found = {table: _find(folder, table) for table in _FILES}
    try:
        checksums = {f"{name}.csv.gz": export.checksum for name, export in read_index(folder / INDEX).items()}
    except SiteExportError as error:
        raise CatalogError(str(error)) from error
    for path in found.values():
        if path is not None and path.name in checksums and sha256_of(path) != checksums[path.name]:
            raise CatalogError(f"{path} has not the sha256 that {INDEX} beside it tells; delete it and fetch it again")
    return _tables({table: _read_csv(path, table) for table, path in found.items() if path is not None})


def fetch_export(client: E621Client, folder: Path) -> dict[str, pd.DataFrame]:
    """Return the same tables from the site's database export, whose files are kept in `folder`: four requests.

    A file that is there with today's sha256 is not fetched again. Raises `CatalogError` where the site has no such
    export, or what comes has another sha256.
    """
    try:
        listed = fetch_index(client, folder)
        missing = sorted(set(_SITE_NAMES.values()) - set(listed))
        if missing:
            raise CatalogError(f"{client.url}/{INDEX} lists no {', '.join(missing)}; ask the API (ask_api) instead")
        for name in _SITE_NAMES.values():
            target = folder / f"{name}.csv.gz"
            if not target.exists() or sha256_of(target) != listed[name].checksum:
                fetch_file(client, listed[name], target)
    except SiteExportError as error:
        hint = "set TI_CATALOG to a folder with the export's files, or ask the API (ask_api)"
        raise CatalogError(f"{error}; {hint}") from error
    return read_catalog(folder)


def fetch_catalog(client: E621Client) -> dict[str, pd.DataFrame]:
    """Return the same tables from the API: some thousand requests, so the export is quicker. Raises `CatalogError`.

    Tags without posts are asked for too: old names have none.
    """
    active = {"search[status]": "active"}
    asked = {"tag_catalog": {"search[hide_empty]": "false"}, "tag_aliases": active, "tag_implications": active}
    # The API gives the newest first; exports the oldest.
    rows = {table: list(client.listing(_SITE_NAMES[table], asked[table]))[::-1] for table in asked}
    return _tables({table: _from_records(found, table) for table, found in rows.items()})


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


def implication_closure(implications: pd.DataFrame) -> pd.DataFrame:
    """Return every tag (antecedent) with every tag that it implies (consequent), and over how many `steps` at least.

    `implications`: the table of that name, without circles.
    """
    import pandas as pd

    step = implications.rename(columns={"antecedent": "consequent", "consequent": "further"})
    found = [implications.assign(steps=1)]
    while len(found[-1]):
        ahead = found[-1].merge(step, on="consequent")[["antecedent", "further"]]
        ahead = ahead.rename(columns={"further": "consequent"}).assign(steps=len(found) + 1)
        # Of two ways to the same tag the first counts; what was found before comes first, and is whole.
        both = pd.concat([*found, ahead], ignore_index=True)
        found.append(both[~both.duplicated(["antecedent", "consequent"])].iloc[sum(map(len, found)) :])
    return pd.concat(found, ignore_index=True)


def resolve_aliases(aliases: pd.DataFrame) -> pd.DataFrame:
    """Return aliases (antecedent, consequent) that lead straight to the end of their chains.

    Later rows win where one name has several aliases. Raises `CatalogError` that names a circle if there is one.
    """
    table = aliases.drop_duplicates("antecedent", keep="last").reset_index(drop=True)
    _require_no_circle(table, "aliases")
    next_name = table.set_index("antecedent")["consequent"]
    # Every pass doubles the steps taken at once, so that the longest possible chain needs log2(rows) passes.
    while (further := next_name.map(next_name)).notna().any():
        next_name = further.fillna(next_name)
    table["consequent"] = next_name.to_numpy()
    return table


def _require_no_circle(links: pd.DataFrame, what: str) -> None:
    """Raise `CatalogError` with the names of a circle, if one is left when links to no other link are taken off."""
    import numpy as np
    import pandas as pd

    numbers, names = pd.factorize(pd.concat([links["antecedent"], links["consequent"]], ignore_index=True))
    start, end = numbers.reshape(2, -1)
    while not (leads_on := np.isin(end, start)).all():
        start, end = start[leads_on], end[leads_on]
    if not len(start):
        return
    next_number = dict(zip(start.tolist(), end.tolist(), strict=True))
    walked = [int(start[0])]
    while (further := next_number[walked[-1]]) not in walked:
        walked.append(further)
    circle = " -> ".join(names[number] for number in [*walked[walked.index(further) :], further])
    raise CatalogError(
        f"the site's {what} form a circle: {circle}; use an older export (TI_CATALOG) until it is mended"
    )


def _find(folder: Path, table: str) -> Path | None:
    """Return the file of a table, or None for one that may be absent."""
    starts = _FILES[table][0]
    if not folder.is_dir():
        raise CatalogError(f"the catalog folder {folder} does not exist; set TI_CATALOG to the folder of the CSV files")
    found = [p for p in folder.iterdir() if p.name.startswith(starts) and p.name.endswith((".csv", ".csv.gz"))]
    if not found and table not in _OPTIONAL:
        wanted = " or ".join(f"{start}*.csv(.gz)" for start in starts)
        raise CatalogError(f"the catalog folder {folder} has no {wanted}; copy the site's export into it")
    return max(found, key=lambda path: path.name, default=None)


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


def _from_records(rows: Sequence[Mapping[str, Any]], table: str) -> pd.DataFrame:
    """Return rows of an API answer as `_read_csv` gives those of a file; unknown fields do not matter."""
    import pandas as pd

    columns = _FILES[table][1]
    return pd.DataFrame([[_cell(row, column, table) for column in columns] for row in rows], columns=columns, dtype=str)


def _cell(row: Mapping[str, Any], column: str, table: str) -> str:
    """Return one value as text. Raises `CatalogError` for one of another type than the site's."""
    value = row.get(column)
    if value is None and column in _IF_NULL:
        return _IF_NULL[column]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole if column in _IF_NULL else isinstance(value, str)):
        said = f"the site's {_SITE_NAMES[table]} have a row whose {column} is {value!r:.60}"
        raise CatalogError(f"{said}: {dict(row)!r:.200}; run again later, or use its export")
    return str(value)


def _tables(raw: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    implications = _active(raw["tag_implications"]).drop_duplicates(ignore_index=True)
    _require_no_circle(implications, "implications")
    return {
        "tag_catalog": _tags(raw["tag_catalog"]),
        "tag_aliases": resolve_aliases(_active(raw["tag_aliases"])),
        "tag_implications": implications,
        "do_not_post": _do_not_post(implications, raw.get("do_not_post")),
    }


def _active(links: pd.DataFrame) -> pd.DataFrame:
    """Keep active links; pending, deleted and `error: …` ones are not in force."""
    names = {"antecedent_name": "antecedent", "consequent_name": "consequent"}
    kept = links[links["status"] == "active"].rename(columns=names)[["antecedent", "consequent"]]
    return kept.reset_index(drop=True)


def _do_not_post(implications: pd.DataFrame, listed: pd.DataFrame | None) -> pd.DataFrame:
    """Return who is on which of the site's lists: by implication, and by a file of their own if there is one."""
    import pandas as pd

    implied = [(artist, name) for name in DO_NOT_POST_LISTS for artist in implied_by(implications, [name])]
    told = [] if listed is None else list(zip(listed["tag"], listed["list"], strict=True))
    rows = sorted({(artist, name) for artist, name in [*implied, *told] if artist not in DO_NOT_POST_LISTS})
    return pd.DataFrame(rows, columns=["artist", "list"], dtype=str)


def _tags(raw: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    whole = raw["post_count"].str.fullmatch(r"-?\d{1,18}")
    if not whole.all():
        bad = raw.loc[~whole].iloc[0]
        raise CatalogError(f"tag catalog: post_count of {bad['name']!r} is {bad['post_count']!r}, not a whole number")
    categories = raw["category"].map({str(number): name for number, name in enumerate(CATEGORY_NAMES)})
    # The site's counters drift below zero for emptied tags; categories may get added.
    table = pd.DataFrame(
        {
            "tag": raw["name"],
            "category": categories.fillna("unknown").astype("str"),
            "post_count": raw["post_count"].astype("int64").clip(lower=0),
        }
    )
    first = table.sort_values("post_count", ascending=False, kind="stable").drop_duplicates("tag")
    return first.sort_index().reset_index(drop=True)
