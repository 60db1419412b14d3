"""The catalog: the site's tags, aliases, implications and do-not-post lists, shared by all studies.

Optional: without it tags are used as posts have them, and the fixed exclusion list stands as shipped.
"""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from ti_pipeline.resources import CatalogSource, DataStore, E621Site

__all__ = ["site_catalog"]

_TABLES = ("tag_catalog", "tag_aliases", "tag_implications", "do_not_post")
_EXPORTS = "raw/exports"


class CatalogConfig(dg.Config):
    """Where the catalog comes from, unless `TI_CATALOG` names a folder."""

    ask_api: bool = Field(
        default=False,
        description="Ask the API (some thousand requests) instead of fetching the site's database export (four).",
    )


@dg.multi_asset(
    name="site_catalog",  # a job is called `catalog`, and Dagster wants different names
    outs={name: dg.AssetOut(group_name="catalog", kinds={"parquet", "pandas"}, code_version="2") for name in _TABLES},
)
def site_catalog(
    config: CatalogConfig, catalog_source: CatalogSource, e621: E621Site, store: DataStore
) -> Iterator[dg.Output[Any]]:
    """Read the site's tags, aliases and implications from files (`TI_CATALOG`), its database export or its API."""
    from pathlib import Path

    from ti_pipeline.e621.catalog import fetch_catalog, fetch_export, read_catalog

    with store.work(reads=[_EXPORTS], writes=[_EXPORTS], alone=["e621"]) as root:
        began = time.perf_counter()
        if catalog_source.folder:
            tables = read_catalog(Path(catalog_source.folder))
        else:
            client = e621.client()
            tables = fetch_catalog(client) if config.ask_api else fetch_export(client, root / _EXPORTS)
        seconds = time.perf_counter() - began
    for name in _TABLES:
        metadata = {"seconds for all tables": seconds} | _depth(name, tables[name])
        yield dg.Output(tables[name], output_name=name, metadata=metadata)


def _depth(name: str, table: Any) -> dict[str, Any]:
    from ti_pipeline.e621.catalog import implication_closure

    if name != "tag_implications":
        return {}
    closure = implication_closure(table)
    return {"pairs over all steps": len(closure), "most steps": int(closure.steps.max()) if len(closure) else 0}
