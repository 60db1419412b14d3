"""No work is thrown away: trainings are made longer, set aside, taken back, stopped and killed without a loss."""

import contextlib
import dataclasses
import errno
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from ti_pipeline.inversion import trainer, training_runs
from ti_pipeline.inversion.earlier import read_state, trainings_of
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.training_runs import train_variants
from ti_pipeline_tests.inversion.test_training_runs import StoppedError, checkpoint_files, clear, files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bases_are_read_once")]


def current(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in files(folder).items() if not name.startswith("earlier/")}


@pytest.fixture
def updates(monkeypatch) -> list[int]:
    """How many updates were done before each one that a test makes."""
    made, plain = [], trainer._update
    monkeypatch.setattr(trainer, "_update", lambda run, *rest: (made.append(run.done), plain(run, *rest)))
    return made


@pytest.mark.parametrize("more", [{}, {"latents": "random", "ema_decay": 0.9, "drop_tags": 0.5, "batch_size": 3}])
def test_a_longer_training_goes_on_and_is_what_it_would_have_been_at_once(root, make_job, updates, more):
    at_once = train_variants([make_job("a", steps=11, checkpoint_every=4, **more)], root=root)["s__a"]
    whole = files(make_job("a").folder)
    clear(make_job("a").folder)
    train_variants([make_job("a", steps=6, checkpoint_every=4, **more)], root=root)
    updates.clear()
    longer = train_variants([make_job("a", steps=11, checkpoint_every=4, **more)], root=root)["s__a"]
    assert updates == [6, 7, 8, 9, 10]
    assert longer.checkpoints.equals(at_once.checkpoints)
    assert longer.losses.equals(at_once.losses)
    found = files(make_job("a").folder)
    assert set(found) - set(whole) == set(checkpoint_files("a", 6))  # still there, though nobody asks for it now
    same = set(whole) - {"training.json", "state.pt"}  # these two tell of the sixth as well
    assert {name: found[name] for name in same} == {name: whole[name] for name in same}


def test_what_is_kept_of_a_training_is_chosen_anew_without_training(root, make_job, updates):
    first = train_variants([make_job("a", steps=8, checkpoint_every=2)], root=root)["s__a"]
    updates.clear()
    for settings, kept in (
        ({"steps": 8, "checkpoint_every": 4}, [4, 8]),
        ({"steps": 4, "checkpoint_every": 2}, [2, 4]),
        (
            {"steps": 8, "checkpoint_every": 2, "token": "other", "note": "x", "gradient_checkpointing": "on"},
            [2, 4, 6, 8],
        ),
        ({"steps": 8, "checkpoint_every": 2, "patience": 99}, [2, 4, 6, 8]),
    ):
        result = train_variants([make_job("a", **settings)], root=root)["s__a"]
        assert result.checkpoints.step.tolist() == kept
        assert len(result.losses) == kept[-1]
        own = first.checkpoints[first.checkpoints.step.isin(kept)]
        assert result.checkpoints.pt_sha256.tolist() == own.pt_sha256.tolist()
        since = [first.losses.loss[a:b].mean() for a, b in zip([0, *kept], kept, strict=False)]
        assert result.checkpoints.mean_loss.tolist() == pytest.approx(since)
    assert updates == []


def test_checkpoints_in_between_are_trained_again_and_those_that_were_there_stay(root, make_job, updates, monkeypatch):
    train_variants([make_job("a", steps=9, checkpoint_every=2)], root=root)
    finer = files(make_job("a").folder)
    clear(make_job("a").folder)
    train_variants([make_job("a", steps=9, checkpoint_every=4)], root=root)
    before = files(make_job("a").folder)
    updates.clear()

    def stopping(done, _total, what):
        if what.startswith("training") and done >= 3:
            raise StoppedError

    monkeypatch.setattr(trainer, "GATHER_AFTER", 0.0)
    with pytest.raises(StoppedError):
        train_variants([make_job("a", steps=9, checkpoint_every=2)], root=root, progress=stopping)
    kept = [name for step in (4, 8, 9) for name in checkpoint_files("a", step)]
    left = files(make_job("a").folder)
    assert {name: left[name] for name in kept} == {name: before[name] for name in kept}
    result = train_variants([make_job("a", steps=9, checkpoint_every=2)], root=root)["s__a"]
    assert result.checkpoints.step.tolist() == [2, 4, 6, 8, 9]
    assert files(make_job("a").folder) == finer


def test_a_schedule_that_depends_on_the_end_is_another_way(root, make_job, updates):
    train_variants([make_job("a", steps=4, lr_scheduler="cosine")], root=root)
    updates.clear()
    train_variants([make_job("a", steps=6, lr_scheduler="cosine")], root=root)
    assert updates[0] == 0
    assert [training.current for training in trainings_of(make_job("a").folder)] == [True, False]


def test_a_name_that_stands_in_a_caption_is_another_way(root, make_job, updates):
    train_variants([make_job("a", token="snow")], root=root)  # captions of the crops say snow
    updates.clear()
    train_variants([make_job("a", token="ember")], root=root)
    assert updates == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("changed", ["recipe", "picture"])
def test_a_changed_recipe_or_picture_loses_nothing_and_the_old_one_is_taken_back(
    root, make_job, updates, monkeypatch, changed
):
    job = make_job("a")
    train_variants([job], root=root)
    before = files(job.folder)
    crops = {"64": job.crops["64"][job.crops["64"].post_id != 12]}
    other = make_job("a", learning_rate=0.001) if changed == "recipe" else dataclasses.replace(job, crops=crops)
    plain = training_runs._save
    monkeypatch.setattr(trainer, "SAVE_EVERY", 1)

    def stopping(run, *args, **options):
        plain(run, *args, **options)
        raise StoppedError

    monkeypatch.setattr(training_runs, "_save", stopping)
    with pytest.raises(StoppedError):
        train_variants([other], root=root)
    monkeypatch.setattr(training_runs, "_save", plain)
    (own, old) = trainings_of(job.folder)
    assert (own.done, own.finished, own.current) == (1, False, True)
    assert (old.done, old.finished, old.current, old.checkpoints) == (6, True, False, 2)
    assert files(old.folder) == before
    updates.clear()
    assert train_variants([job], root=root)["s__a"].reused
    assert current(job.folder) == before
    train_variants([other], root=root)
    assert updates == [1, 2, 3, 4, 5]  # the other one, too, goes on where it was


def test_a_move_that_was_cut_short_is_finished_by_the_next_run(root, make_job, monkeypatch):
    from ti_pipeline.inversion import earlier

    job, other = make_job("a"), make_job("a", seed=8)
    train_variants([job], root=root)
    before = files(job.folder)
    plain = earlier._move
    for stop in (1, 4, 8):
        moved = []

        def cut(*place, moved=moved, stop=stop):
            if len(moved) == stop:
                raise StoppedError
            moved.append(place)
            plain(*place)

        for asked in (other, job):  # aside, and back
            monkeypatch.setattr(earlier, "_move", cut)
            with contextlib.suppress(StoppedError):
                train_variants([asked], root=root)
            monkeypatch.setattr(earlier, "_move", plain)
            moved.clear()
        assert train_variants([job], root=root)["s__a"].reused, stop
        assert current(job.folder) == before


def test_losses_are_there_from_the_first_reading_on(root, make_job, monkeypatch):
    monkeypatch.setattr(trainer, "GATHER_EVERY", 2)
    plain = trainer._update

    def breaking(run, *rest):
        plain(run, *rest)
        if run.done == 3:
            raise RuntimeError("something broke")

    monkeypatch.setattr(trainer, "_update", breaking)
    with pytest.raises(RuntimeError, match="something broke"):
        train_variants([make_job("a", steps=30, checkpoint_every=30)], root=root)
    assert pq.read_table(make_job("a").folder / "losses.parquet")["step"].to_pylist() == [1, 2]


SCRIPT = """
import pickle, sys, torch
from pathlib import Path
from ti_pipeline.inversion import trainer
from ti_pipeline.inversion.training_runs import train_variants
torch.set_num_threads(1)
trainer.GATHER_AFTER = 0.0
root, processes = Path(sys.argv[1]), int(sys.argv[2])
def progress(done, total, what):
    if what.startswith("training"):
        print(done, flush=True)
if __name__ == "__main__":
    jobs = pickle.loads((root / "jobs.pickle").read_bytes())
    train_variants(jobs, root=root, progress=progress, processes=processes)
"""


def started(root: Path, jobs: list, processes: int = 1) -> subprocess.Popen:
    (root / "jobs.pickle").write_bytes(pickle.dumps(jobs))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(processes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told_by(process: subprocess.Popen, at_least: int) -> int:
    """Wait until a training tells of so many updates; return of how many."""
    while (told := int(process.stdout.readline())) < at_least:
        pass
    return told


def test_a_signal_saves_the_update_in_work_and_a_second_writer_is_refused(root, make_job):
    job = make_job("a", steps=80, checkpoint_every=80, latents="random")
    train_variants([job], root=root)
    whole = files(job.folder)
    clear(job.folder)
    for number, wait in ((signal.SIGINT, 10), (signal.SIGTERM, 30), (signal.SIGKILL, 50)):
        with started(root, [job]) as process:
            told = told_by(process, wait)
            with pytest.raises(TrainingError, match=r"s__a: another process is training into .*s/a: wait"):
                train_variants([job], root=root)
            process.send_signal(number)
            rest, errors = process.communicate(timeout=100)
            last = [told, *map(int, rest.split())][-1]
        assert process.returncode == -number or (number == signal.SIGINT and "KeyboardInterrupt" in errors), errors
        done = read_state(job.folder / "state.pt")["run"]["done"]
        assert done - last in (0, 1) or number == signal.SIGKILL
        assert pq.read_table(job.folder / "losses.parquet").num_rows > 0
    train_variants([job], root=root)  # the lock of the killed one went with it
    assert files(job.folder) == whole


def children_of(pid: int) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.add(int(path.parent.name))
        except (OSError, IndexError):
            continue
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_is_left_behind_and_the_update_in_work_is_saved(root, make_job, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job = make_job("a", steps=100_000, checkpoint_every=100_000, batch_size=2)
    with started(root, [job], processes=2) as process:
        told_by(process, 3)
        workers = children_of(process.pid)
        assert len(workers) == 2
        process.send_signal(number)
        process.communicate(timeout=100)
    until = time.monotonic() + 60
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(is_running, workers))
    state = read_state(job.folder / "state.pt")["run"]
    assert state["done"] >= 3
    assert torch.isfinite(state["vectors"]).all()
    left = files(job.folder)
    assert not [name for name in left if "partial" in name]


def test_a_disk_that_is_full_at_any_write_is_told_and_loses_nothing(root, make_job, monkeypatch):
    from ti_pipeline import files as atomic

    job = make_job("a", steps=3, checkpoint_every=2)
    train_variants([job], root=root)
    whole, plain, failed = files(job.folder), atomic.os.replace, 0
    while True:
        clear(job.folder)
        written = []

        def full(source, target, written=written, room=failed):
            written.append(target)
            if len(written) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            plain(source, target)

        monkeypatch.setattr(atomic.os, "replace", full)
        try:
            train_variants([job], root=root)
        except TrainingError as error:
            assert "cannot be saved" in str(error)  # noqa: PT017 - the last round fails no more
            assert "No space left on device" in str(error)  # noqa: PT017
        monkeypatch.setattr(atomic.os, "replace", plain)
        if len(written) <= failed:
            break
        failed += 1
        assert not [name for name in files(job.folder) if "partial" in name]
        train_variants([job], root=root)
        assert files(job.folder) == whole
    assert failed >= 11  # three files and a state for each of two checkpoints, a first state, losses, the record
