"""Dagster's home: made once, kept up to date, adopted by commands without one, and honest about dead runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType

from ti_pipeline.home import main as home
from ti_pipeline.home import set_up
from ti_pipeline_tests.graph import Graph

EARLIER = """\
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


def test_a_home_is_made_once_and_stays_as_people_want_it(tmp_path: Path) -> None:
    set_up(tmp_path / "home")
    settings = tmp_path / "home" / "dagster.yaml"
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.python_log_level == "INFO"
        assert instance.run_monitoring_enabled
    settings.write_text(settings.read_text() + "# mine\n")
    set_up(tmp_path / "home")
    assert settings.read_text().endswith("# mine\n")


def test_an_earlier_versions_settings_are_renewed_unless_they_were_changed(tmp_path: Path) -> None:
    for name, text in {"old": EARLIER, "mine": EARLIER.replace("limit: 1", "limit: 2")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dagster.yaml").write_text(text)
        set_up(tmp_path / name)
    assert "pools" not in (tmp_path / "old" / "dagster.yaml").read_text()
    assert "limit: 2" in (tmp_path / "mine" / "dagster.yaml").read_text()


def test_a_run_whose_process_was_killed_is_closed_and_one_that_goes_on_is_not(tmp_path: Path) -> None:
    set_up(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance, subprocess.Popen(["cat"], stdin=-1) as lives:
        gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        runs, started = {}, DagsterEvent(DagsterEventType.RUN_START.value, "any")
        for name, pid in {"dead": int(gone.stdout), "alive": lives.pid, "ours": os.getpid()}.items():
            run = instance.create_run_for_job(dg.job(name=name)(lambda: None))
            instance.report_engine_event(f"Executing steps in process (pid: {pid})", run)
            instance.report_dagster_event(started, run.run_id)
            runs[name] = run.run_id
        set_up(tmp_path)
        status = {name: instance.get_run_by_id(run_id).status.value for name, run_id in runs.items()}
        assert status == {"dead": "FAILURE", "alive": "STARTED", "ours": "STARTED"}
        lives.send_signal(signal.SIGKILL)


def test_the_report_is_found_or_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("TI_DATA", str(tmp_path))
    assert home(["--report", "demo"]) == 1
    assert "there is no report of study demo" in capsys.readouterr().err
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "demo.html").write_text("x")
    assert home(["--report", "demo"]) == 0
    assert str(tmp_path / "reports" / "demo.html") in capsys.readouterr().out


@pytest.mark.slow
def test_a_command_without_a_home_uses_the_data_folders(tmp_path: Path) -> None:
    graph = Graph.new(tmp_path, {})
    config = tmp_path / "purge.yaml"
    config.write_text(json.dumps({"artist": "nobody"}))
    environment = {name: value for name, value in graph.process_environment.items() if name != "DAGSTER_HOME"}
    command = ["dagster", "job", "execute", "-m", "ti_pipeline.definitions", "-j", "purge", "-c", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=graph.studies,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(graph.studies.iterdir()) == [], "the throwaway home is gone"
    with dg.DagsterInstance.from_config(str(graph.data / "dagster_home")) as instance:
        assert [(run.job_name, run.status.value) for run in instance.get_runs()] == [("purge", "SUCCESS")]
