"""Runs the project as its users do: `dagster job execute` in a process of its own, with data and studies of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from ti_pipeline.schemas import from_arrow


@dataclass(frozen=True)
class Graph:
    """A data folder and a folder of studies."""

    data: Path
    studies: Path
    environment: dict[str, str]

    @classmethod
    def new(cls, folder: Path, studies: dict[str, str], **environment: str) -> "Graph":
        """Write the studies' files and return a graph over empty data."""
        graph = cls(folder / "data", folder / "studies", environment)
        graph.studies.mkdir(parents=True, exist_ok=True)
        for name, text in studies.items():
            (graph.studies / f"{name}.yaml").write_text(text, encoding="utf-8")
        return graph

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "dagster", *arguments]

    @property
    def process_environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TI_", "DAGSTER_"))}
        return {
            **kept,
            "TI_DATA": str(self.data),
            "TI_STUDIES": str(self.studies),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
            "TI_E621_PER_SECOND": "100",  # the emulator bears it, and only a site on this machine is asked so often
            **self.environment,
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.studies,  # without DAGSTER_HOME, Dagster makes a home of its own where it is started
            env=self.process_environment,
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )

    def job(self, name: str, *keys: str, succeeds: bool = True) -> str:
        """Execute a job over one partition or a range; return everything it printed."""
        tags = job_tags(*keys)
        done = self.run("job", "execute", "-m", "ti_pipeline.definitions", "-j", name, *tags)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) is succeeds, said[-6000:]
        return said

    def table(self, name: str, key: str) -> pd.DataFrame:
        return from_arrow(pq.read_table(self.data / "tables" / name / f"{key}.parquet"))


def job_tags(*keys: str) -> list[str]:
    """Return the `--tags` argument of a partition or a range of them."""
    tags: dict[str, Any] = {}
    if len(keys) == 1:
        tags = {"dagster/partition": keys[0]}
    elif len(keys) == 2:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[1]}
    return ["--tags", json.dumps(tags)] if tags else []
