"""The code location: assembly only.

`dagster … -m ti_pipeline.definitions` finds `defs`; tests call `build_defs` with resources of their own.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ti_pipeline.assets import MODULES
from ti_pipeline.assets.study import STUDY_PARTS
from ti_pipeline.checks import CHECKS
from ti_pipeline.command_line import speak_last
from ti_pipeline.home import adopt
from ti_pipeline.io_managers import ParquetTables
from ti_pipeline.jobs import JOBS, KEYS_OF_JOBS
from ti_pipeline.partitions import FAULTY
from ti_pipeline.resources import CatalogSource, DataStore, E621Site, PostsDump, data_url
from ti_pipeline.schedules import SCHEDULES, SENSORS

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
        assets=[*STUDY_PARTS, *dg.load_assets_from_modules(MODULES)],
        asset_checks=CHECKS,
        jobs=JOBS,
        schedules=SCHEDULES,
        sensors=SENSORS,
        resources=resources | dict(resource_overrides or {}),
        # A step at a time, in the run's process: ten small steps take 3 s, in a process each 28 s.
        executor=dg.in_process_executor,
        metadata={"studies left out": dg.MetadataValue.md(_left_out())} if FAULTY else None,
    )


def _left_out() -> str:
    return "\n".join(f"- {name}: {faults}" for name, faults in FAULTY.items())


speak_last(KEYS_OF_JOBS, FAULTY)
adopt()
if FAULTY:
    logging.getLogger(__name__).warning("studies left out for faults in their files:\n%s", _left_out())
defs = build_defs()
