"""Runs the project as its users do: `dagster job execute` in a process of its own, with data and studies of its own.

Starting such a process takes longer than what most tests let it do: Dagster, torch and diffusers are imported. So the
processes are forked from one that has imported them, and nothing of `ti_pipeline`, and does nothing else. Where one
must be started as people do (`fresh`), another hash seed included, it is.
"""

import atexit
import functools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
import pyarrow.parquet as pq

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("dagster", "dagster._cli", "alembic.command", "sqlalchemy.dialects.sqlite", "upath", "duckdb", "pandas"),
        *("pandera.pandas", "pyarrow.dataset", "pyarrow.parquet", "scipy.optimize", "cv2", "matplotlib.pyplot"),
        *("torch", "transformers", "safetensors.torch"),
        "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    ]
)
_TIMEOUT = 540


def _dagster(arguments: list[str], folder: Path, environment: dict[str, str], output: Connection) -> None:
    """Do what `dagster` does with its arguments, in a forked process, its output going to a pipe."""
    os.setsid()
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from dagster._cli import main

    sys.argv = ["dagster", *arguments]
    try:
        main()
    finally:
        atexit._run_exitfuncs()  # as at the end of any other process: forked ones leave them out


@functools.cache
def _a_home() -> Path:
    """Return a home of Dagster as the project sets it up: made once, for making one takes seconds."""
    from ti_pipeline.home import set_up

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    set_up(folder / "home")
    settings = folder / "home" / "dagster.yaml"
    settings.write_text(settings.read_text().replace("INFO", "DEBUG"))  # tests wait for what events say
    return folder / "home"


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

    @property
    def home(self) -> Path:
        """Dagster's home, beside the data: tests copy and compare data folders."""
        return self.data.parent / "dagster_home"

    @property
    def process_environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TI_", "DAGSTER_"))}
        if not self.home.exists():
            shutil.copytree(_a_home(), self.home)
        return {
            **kept,
            "TI_DATA": str(self.data),
            "TI_STUDIES": str(self.studies),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "TI_E621_PER_SECOND": "100",  # the emulator bears it, and only a site on this machine is asked so often
            **self.environment,
        }

    @contextmanager
    def started(self, *arguments: str) -> Iterator[tuple[ForkServerProcess, TextIO]]:
        """Start `dagster` and yield its process and what it prints; it and all that it started is killed in the end."""
        reader, writer = _FORKS.Pipe(duplex=False)
        process = _FORKS.Process(
            target=_dagster, args=(list(arguments), self.studies, self.process_environment, writer)
        )
        process.start()
        writer.close()
        try:
            with reader, open(reader.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
                yield process, lines
        finally:
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.join()

    def run(self, *arguments: str, fresh: bool = False) -> subprocess.CompletedProcess[str]:
        """Run `dagster` with arguments to its end; both of its outputs are in `stdout`."""
        if fresh:
            return subprocess.run(
                [sys.executable, "-m", "dagster", *arguments],
                cwd=self.studies,
                env=self.process_environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        with self.started(*arguments) as (process, lines):
            late = threading.Timer(_TIMEOUT, process.kill)
            late.start()
            said = lines.read()
            process.join()
            late.cancel()
        return subprocess.CompletedProcess(arguments, process.exitcode, said)

    def job(self, name: str, *keys: str, succeeds: bool = True, fresh: bool = False) -> str:
        """Execute a job over one partition or a range; return everything it printed."""
        done = self.run("job", "execute", "-m", "ti_pipeline.definitions", "-j", name, *job_tags(*keys), fresh=fresh)
        assert (done.returncode == 0) is succeeds, done.stdout[-6000:]
        return done.stdout

    def table(self, name: str, key: str) -> pd.DataFrame:
        from ti_pipeline.schemas import from_arrow  # here, so that forked processes import it with their own variables

        return from_arrow(pq.read_table(self.data / "tables" / name / f"{key}.parquet"))


def job_tags(*keys: str) -> list[str]:
    """Return the `--tags` argument of a partition or a range of them."""
    tags: dict[str, Any] = {}
    if len(keys) == 1:
        tags = {"dagster/partition": keys[0]}
    elif len(keys) == 2:
        tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[1]}
    return ["--tags", json.dumps(tags)] if tags else []
