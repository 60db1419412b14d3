"""Dagster's home inside the data folder: made, migrated and kept up to date; and where a study's report lies.

`python -m ti_pipeline.home` sets up `DAGSTER_HOME`; with `--report STUDY` it prints the path of the report. A `dagster`
command that was started without `DAGSTER_HOME` gets that of the data folder (`adopt`).
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.command_line import dagster_command

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

__all__ = ["adopt", "default_home", "main", "set_up"]

_SETTINGS = """\
# Written by `python -m ti_pipeline.home`; edit freely: once it is changed, it is not overwritten.
telemetry:
  enabled: false
nux:
  enabled: false
python_logs:
  python_log_level: INFO  # the console shows progress, not each event; events are kept and shown in the UI all the same
run_monitoring:  # what the daemon of `make ui` does about runs whose process has died
  enabled: true
  poll_interval_seconds: 10
  free_slots_after_run_end_seconds: 10
"""
# What earlier versions wrote (sha256): replaced where nobody has changed it. Theirs had pools, whose slots outlived
# the runs that held them; see `turns` for what came instead.
_EARLIER = {
    "74d9c0e059f5714e6c2732b4c7bddbfc07a4640e7d1597601c8298e6142659bf",
    "6838c5db7468a55f0e80cff055b8fea4437bb76608406d11ca2cf1fa6a43fd09",
}
# Commands that make a throwaway home before they load the definitions.
_THROWAWAY = (["job", "execute"], ["asset", "materialize"])
_PID = re.compile(r"\(pid: (\d+)\)")


def default_home() -> Path:
    """Return where Dagster's home is unless `DAGSTER_HOME` says it: in the data folder, if that is on this machine."""
    from ti_pipeline.resources import DataStore, data_url, repository_root

    store = DataStore(url=data_url())
    return (store.root if store.is_local else repository_root() / "data" / "store") / "dagster_home"


def set_up(home: Path) -> None:
    """Write `dagster.yaml`, make the instance's database, and close runs whose process died.

    Two processes that first use an empty home at once corrupt its database, so it is made here, once.
    """
    from dagster import DagsterInstance
    from filelock import FileLock

    home.mkdir(parents=True, exist_ok=True)
    done = home / ".migrated"
    with FileLock(home / ".setting_up.lock"):
        _write_settings(home / "dagster.yaml")
        with DagsterInstance.from_config(str(home)) as instance:
            if done.exists():
                _close_dead_runs(instance)
            else:
                instance.upgrade()
                done.touch()


def _write_settings(path: Path) -> None:
    from ti_pipeline.files import write_atomically

    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() not in _EARLIER:
        return
    with write_atomically(path) as aside:
        aside.write_text(_SETTINGS, encoding="utf-8")


def _close_dead_runs(instance: DagsterInstance) -> None:
    """Report runs as failed whose process has died without a word: killed, out of memory, power lost."""
    from dagster import DagsterRunStatus, RunsFilter

    for run in instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])):
        if _has_died(instance, run):
            instance.report_run_failed(run, "The process of this run has died. Give the same command again to go on.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _has_died(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Tell whether the process that a run says it executes in is gone; only homes of one machine can be asked."""
    from dagster import DagsterEventType
    from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

    storage = instance.event_log_storage
    if os.name == "nt" or not isinstance(getattr(storage, "_storage", storage), SqliteEventLogStorage):
        return False
    told = [
        (int(found[1]), entry.timestamp)
        for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        if (found := _PID.search(entry.user_message or (entry.dagster_event and entry.dagster_event.message) or ""))
    ]
    return bool(told) and not any(_lives(pid, since) for pid, since in told)


def _lives(pid: int, since: float) -> bool:
    """Tell whether a process lives that already did at `since` (a time stamp): numbers are given out again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's: ours died, and the number was given out again
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return True
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:5] == "btime")
    return booted + ticks / os.sysconf("SC_CLK_TCK") <= since + 2  # the start is counted in whole seconds


def adopt() -> None:
    """Give a `dagster` command that has no `DAGSTER_HOME` the data folder's, starting it again where it must be.

    `dagster job execute` makes a throwaway home before it loads any definitions: there would be no history, and
    nothing to go on from in the UI.
    """
    if os.environ.get("DAGSTER_HOME") or dagster_command() not in _THROWAWAY:
        return
    home = default_home()
    set_up(home)
    os.environ["DAGSTER_HOME"] = str(home)
    _remove_throwaway_home()
    again = [sys.executable, *sys.orig_argv[1:]]
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "nt":  # there, execv returns to the shell at once
        raise SystemExit(subprocess.call(again))  # noqa: S603 - this very command
    os.execv(sys.executable, again)  # noqa: S606 - this very command


def _remove_throwaway_home() -> None:
    """Remove what the command would have removed at its end, which it no longer comes to."""
    from dagster import DagsterInstance
    from dagster._cli.utils import TMP_DAGSTER_HOME_PREFIX

    for instance in [thing for thing in gc.get_objects() if type(thing) is DagsterInstance]:
        folder = Path(instance.root_directory)
        if folder.name.startswith(TMP_DAGSTER_HOME_PREFIX):
            instance.dispose()
            shutil.rmtree(folder, ignore_errors=True)


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
    set_up(Path(os.environ.get("DAGSTER_HOME") or default_home()).resolve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
