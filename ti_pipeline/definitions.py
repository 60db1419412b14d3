"""The code location: assembly only.

`dagster … -m ti_pipeline.definitions` finds `defs`; tests call `build_defs` with resources of their own.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ti_pipeline.assets import MODULES
from ti_pipeline.checks import CHECKS
from ti_pipeline.home import adopt
from ti_pipeline.io_managers import ParquetTables
from ti_pipeline.jobs import JOBS
from ti_pipeline.resources import CatalogSource, DataStore, E621Site, PostsDump, data_url
from ti_pipeline.schedules import SCHEDULES

__all__ = ["build_defs", "defs"]


def build_defs(resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return all assets, checks, jobs and schedules with their resources; overrides replace resources by name."""
    resources: dict[str, Any] = {
        "io_manager": ParquetTables(url=data_url()),
        "store": DataStore(url=data_url()),
        "e621": E621Site(url=os.environ.get("TI_E621_URL") or "https://e621.net"),
        "catalog_source": CatalogSource(folder=os.environ.get("TI_CATALOG") or None),
        "posts_dump": PostsDump(path=os.environ.get("TI_POSTS_DUMP") or None),
    }
    return dg.Definitions(
        assets=dg.load_assets_from_modules(MODULES),
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        resources=resources | dict(resource_overrides or {}),
    )


adopt()
defs = build_defs()
