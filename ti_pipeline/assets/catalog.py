"""The catalog: the site's tags, aliases and implications, shared by all studies.

Optional: without it tags are used as posts have them, and the fixed exclusion list stands as shipped.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ti_pipeline.resources import CatalogSource, E621Site

__all__ = ["site_catalog"]

_TABLES = ("tag_catalog", "tag_aliases", "tag_implications")


@dg.multi_asset(
    name="site_catalog",  # a job is called `catalog`, and Dagster wants different names
    outs={name: dg.AssetOut(group_name="catalog", kinds={"parquet", "pandas"}, code_version="1") for name in _TABLES},
    pool="e621",
)
def site_catalog(catalog_source: CatalogSource, e621: E621Site) -> Iterator[dg.Output[Any]]:
    """Read the site's tags, aliases and implications from exports (`TI_CATALOG`) or from its API."""
    from pathlib import Path

    from ti_pipeline.e621.catalog import fetch_catalog, read_catalog

    folder = catalog_source.folder
    tables = read_catalog(Path(folder)) if folder else fetch_catalog(e621.client())
    for name in _TABLES:
        yield dg.Output(tables[name], output_name=name)
