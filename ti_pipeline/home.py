"""Dagster's home inside the data folder, made and migrated once; and where a study's report lies.

`python -m ti_pipeline.home` sets up `DAGSTER_HOME`; with `--report STUDY` it prints the path of the report.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

__all__ = ["main", "set_up"]

_SETTINGS = """\
# Written by `python -m ti_pipeline.home`; edit freely, it is not overwritten.
telemetry:
  enabled: false
nux:
  enabled: false
python_logs:
  python_log_level: INFO  # the console shows progress, not each event; events are kept and shown in the UI all the same
concurrency:
  pools:
    granularity: op
    default_limit: 1  # pools: `gpu` trains or renders one thing at a time, `e621` keeps to the site's manners
"""


def set_up(home: Path) -> None:
    """Write `dagster.yaml` and make the instance's database, unless both are there.

    Two processes that first use an empty home at once corrupt its database, so it is made here, once.
    """
    from dagster import DagsterInstance

    from ti_pipeline.files import write_atomically

    settings, done = home / "dagster.yaml", home / ".migrated"
    if not settings.exists():
        with write_atomically(settings) as aside:
            aside.write_text(_SETTINGS, encoding="utf-8")
    if done.exists():
        return
    os.environ["DAGSTER_HOME"] = str(home)
    with DagsterInstance.get() as instance:
        instance.upgrade()
    done.touch()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.home", description=__doc__)
    parser.add_argument("--report", metavar="STUDY", help="print where the study's report lies")
    options = parser.parse_args(arguments)
    if options.report:
        from ti_pipeline.resources import DataStore, data_url

        path = DataStore(url=data_url()).root / "reports" / f"{options.report}.html"
        if not path.exists():
            print(f"there is no report of study {options.report} at {path}", file=sys.stderr)  # noqa: T201
            return 1
        print(f"report: {path}")  # noqa: T201
        return 0
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        print("set DAGSTER_HOME to the folder for Dagster's history, e.g. data/store/dagster_home", file=sys.stderr)  # noqa: T201
        return 2
    set_up(Path(home).resolve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
