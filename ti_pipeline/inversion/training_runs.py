"""Training runs: jobs in, checkpoints out; finished variants are reused, interrupted ones go on, the rest start anew.

What an earlier training of a variant left is set aside, and taken back when its settings are asked for again. Here:
grouping, reuse, and when files are written. Not here: the training itself (`trainer`), what decides its result
(`training_plans`), files (`training_files`), earlier trainings (`earlier`).
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import sha256_of
from ti_pipeline.inversion.applied import applied_settings
from ti_pipeline.inversion.earlier import has_earlier, set_aside, take_back
from ti_pipeline.inversion.embedding_files import EmbeddingFileError
from ti_pipeline.inversion.on_several_gpus import train_on_several
from ti_pipeline.inversion.processes import ALONE
from ti_pipeline.inversion.stopping import BusyError, Stopping, only_writer
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.training_files import (
    TrainingResult,
    finished,
    restore,
    write_checkpoint,
    write_losses,
    write_record,
    write_state,
)
from ti_pipeline.inversion.training_plans import VariantJob, crop_files, held_out, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.event_files import EventFiles
    from ti_pipeline.inversion.processes import Processes
    from ti_pipeline.inversion.training_plans import Plan
    from ti_pipeline.inversion.variant_state import Pictures, Run

    Progress = Callable[[int, int, str], None]
    Tell = Callable[[str], None]

__all__ = ["TrainingResult", "VariantJob", "train_variants"]

LOSSES_AFTER = 5.0  # seconds between writings of the losses: the file is whole each time, and grows


def train_variants(
    jobs: Sequence[VariantJob],
    *,
    root: Path,
    progress: Progress | None = None,
    processes: int = 1,
    together: Processes = ALONE,
    tensorboard: bool = False,
    tell: Tell | None = None,
) -> dict[str, TrainingResult]:
    """Train each job's variant, those with one base, precision, clip skip and resolution together in one process.

    Returns results by partition key (`<study>__<variant>`). `root` is the data folder that tables' paths start from.
    `processes` above 1 trains in as many new ones, a GPU to each; `together` is this one's place if it is among them.
    `tensorboard` writes event files into `tensorboard/` of each variant's folder; `tell` takes sentences for a log.
    A signal to stop is delivered after the update in work has been saved. Raises `TrainingError` before anything is
    loaded when a job cannot be trained (no pictures, no caption, another process in its folder), and, after all other
    variants are finished, for variants whose numbers stay infinite; `BaseModelError` for bases that are missing or do
    not fit.
    """
    plans = [_known_plan(job, writes=together.first, tell=tell) for job in jobs]
    results = {plan.job.key: result for plan in plans if (result := finished(plan)) is not None}
    open_plans = sorted((plan for plan in plans if plan.job.key not in results), key=lambda plan: plan.group)
    failures: list[str] = []
    if open_plans and processes > 1:
        own = [plan.job for plan in open_plans]
        train_on_several(own, root=root, processes=processes, tensorboard=tensorboard, progress=progress, tell=tell)
    else:
        for group in dict.fromkeys(plan.group for plan in open_plans):
            of_group = [plan for plan in open_plans if plan.group == group]
            with _only_writers(of_group, together):
                failures += _train_group(of_group, root, progress, together, tensorboard, tell)
    results |= {p.job.key: result for p in open_plans if (result := finished(p, reused=False)) is not None}
    if failures:
        raise TrainingError("; ".join(failures))
    return {job.key: results[job.key] for job in jobs}


def _known_plan(job: VariantJob, *, writes: bool, tell: Tell | None) -> Plan:
    """Return a job's plan; what was finished on a machine with another idea of `precision: auto` is as good.

    An earlier training of this very plan is taken back, if this process is the one that writes.
    """
    plan = make_plan(job)
    if job.variant.precision == "auto":
        others = [make_plan(job, precision=other) for other in ("fp32", "bf16") if other != plan.job.variant.precision]
        plan = next((other for other in others if finished(plan) is None and finished(other) is not None), plan)
    if writes and has_earlier(job.folder, plan.fingerprint):
        with _only_writers([plan], ALONE):
            _set_aside(plan, tell)
    return plan


@contextlib.contextmanager
def _only_writers(plans: Sequence[Plan], processes: Processes) -> Iterator[None]:
    """Hold the locks of plans' folders in the process that writes. Raises `TrainingError` if another one writes."""
    with contextlib.ExitStack() as held:
        for plan in plans if processes.first else ():
            _require_writable(plan)
            try:
                held.enter_context(only_writer(plan.job.folder))
            except BusyError as error:
                raise TrainingError(f"{plan.job.key}: {error}") from error
        yield


def _set_aside(plan: Plan, tell: Tell | None) -> None:
    """Make room for a plan's training: others are set aside, and its own, if it was, is taken back."""
    folder, name = plan.job.folder, plan.job.name
    for other in sorted(set_aside(folder, name, keep=plan.fingerprint)):
        if tell is not None:
            tell(
                f"{plan.job.key}: other settings or pictures than last time; the training {other[:8]} is kept in "
                f"{folder / 'earlier'} (python -m ti_pipeline.trainings lists all)"
            )
    if has_earlier(folder, plan.fingerprint):
        take_back(folder, plan.fingerprint)
        if tell is not None:
            tell(f"{plan.job.key}: its earlier training {plan.fingerprint[:8]} is taken back")


@dataclass
class _Group:
    """Variants in training together: their runs, and what is written of them, by the one process that writes."""

    plans: Mapping[str, Plan]
    runs: Mapping[str, Run]
    applied: Mapping[str, dict[str, str]]
    root: Path
    levels: int
    processes: Processes
    events: Mapping[str, EventFiles]
    written: dict[str, float] = field(default_factory=dict)  # when losses were written, by run

    def save(self, run: Run, checkpoint: bool) -> None:
        """Keep a run's state, and its checkpoint if it is one."""
        if not self.processes.first:
            return
        with _writing(self.plans[run.key], run):
            _save(run, self.plans[run.key], self.root, checkpoint=checkpoint)
            if run.key in self.events:
                self.events[run.key].write(run)

    def gathered(self, run: Run) -> None:
        """Write a run's losses, but not all the time."""
        now = time.monotonic()
        due = run.failure is not None or now - self.written.get(run.key, -math.inf) >= LOSSES_AFTER
        if self.processes.first and due:
            self.written[run.key] = now
            with _writing(self.plans[run.key], run):
                write_losses(run, self.plans[run.key], levels=self.levels)

    def finish(self) -> None:
        """Finish the folders of the runs that did not fail."""
        for key, run in self.runs.items():
            if run.failure is None and self.processes.first:
                with _writing(self.plans[key], run):
                    _finish(run, self.plans[key], self.applied[key], levels=self.levels)


def _train_group(
    plans: Sequence[Plan],
    root: Path,
    progress: Progress | None,
    processes: Processes,
    tensorboard: bool,
    tell: Tell | None,
) -> list[str]:
    """Train variants together and finish their folders; return the sentences of those that failed."""
    import torch

    from ti_pipeline.inversion.trainer import signal_levels, train

    base = _base_of(plans)
    with processes.first_before_others():
        runs = {plan.job.key: _start(plan, base, root, progress, processes, tell) for plan in plans}
    processes.wait()
    by_key = {plan.job.key: plan for plan in plans}
    applied = {key: applied_settings(run, base, processes) for key, run in runs.items()}
    if tell is not None:
        for key, settings in applied.items():
            tell(f"{key}: " + "; ".join(f"{name} {value}" for name, value in settings.items()))
    events = _event_files(runs, by_key) if tensorboard and processes.first else {}
    group = _Group(by_key, runs, applied, root, len(signal_levels(base)), processes, events)
    hooks: dict[str, Any] = {"save": group.save, "gathered": group.gathered}
    try:
        with Stopping() as stopping:
            train(base, list(runs.values()), progress=progress, processes=processes, stop=stopping.asked, **hooks)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{', '.join(runs)}: the GPU's memory does not hold their samples at once; train fewer variants in one "
            "run, or set a smaller batch_size (with gradient_accumulation), precision bf16, or a smaller resolution"
        ) from error
    finally:
        for own in events.values():
            own.close()
    group.finish()
    processes.wait()
    return [run.failure for run in runs.values() if run.failure is not None]


def _base_of(plans: Sequence[Plan]) -> Base:
    from ti_pipeline.inversion.base_models import load_base

    first = plans[0].job
    base = load_base(first.variant.base, first.base_source, folder=first.base_folder, precision=first.variant.precision)
    base.vae.to("cpu")  # it is on the device while it encodes, and not otherwise
    if any(plan.job.variant.gradient_checkpointing == "on" for plan in plans):
        base.keep_no_activations()
    return base


def _event_files(runs: Mapping[str, Run], plans: Mapping[str, Plan]) -> dict[str, EventFiles]:
    from ti_pipeline.inversion.event_files import EventFiles

    try:
        return {key: EventFiles(plans[key].job.folder / "tensorboard", run) for key, run in runs.items()}
    except ModuleNotFoundError as error:
        raise TrainingError(
            "TensorBoard is not installed: pip install 'ti_pipeline[tensorboard]', or train without"
        ) from error


def _require_writable(plan: Plan) -> None:
    """Raise `TrainingError` before hours are spent where a checkpoint cannot be kept."""
    folder = plan.job.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(
            f"{plan.job.key}: checkpoints cannot be written to {folder} ({error.strerror}); change its permissions, or "
            "set TI_DATA to another folder"
        ) from error


@contextlib.contextmanager
def _writing(plan: Plan, run: Run) -> Iterator[None]:
    """Turn a failing disk into a sentence: what was saved before stays, and the next run goes on from there."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{plan.job.key}: update {run.done} cannot be saved in {plan.job.folder} ({error.strerror or error}); make "
            "room or repair it and run again, which goes on from what was saved last"
        ) from error


def _start(
    plan: Plan, base: Base, root: Path, progress: Progress | None, processes: Processes, tell: Tell | None
) -> Run:
    """Return the variant's run: where its saved state left it, or at the beginning; other trainings are set aside."""
    from ti_pipeline.inversion.variant_state import Run, StartError

    job = plan.job
    try:
        run = Run.start(job.key, job.variant, base, *_pictures(plan, base, root, progress), folder=job.base_folder)
    except (EmbeddingFileError, StartError) as error:
        raise TrainingError(f"{job.key}: {error}") from error
    if not processes.first:  # the first has been here, and what it left is what it goes on from
        restore(run, plan, base)
        return run
    with _writing(plan, run):
        _set_aside(plan, tell)
        for leftover in (*job.folder.glob(".*-partial*"), *job.folder.glob("diffusers/.*-partial*")):
            leftover.unlink()
        if not restore(run, plan, base):
            write_state(run, plan)  # from now on the folder tells whose it is
    return run


def _pictures(plan: Plan, base: Base, root: Path, progress: Progress | None) -> tuple[Pictures, Pictures]:
    """Return what is trained on and what is held out, with latents from the cache that variants share."""
    import torch

    from ti_pipeline.inversion.latents import encode_crops, latent_masks
    from ti_pipeline.inversion.variant_state import Pictures

    rows, resolution, masked = plan.rows, plan.job.variant.resolution or 0, plan.job.variant.masked_loss
    for path, sha256 in crop_files(rows, masked=masked):
        if not (root / path).is_file() or sha256_of(root / path) != sha256:
            raise TrainingError(f"{plan.job.key}: the crop {path} is gone or was changed; make the crops again")
    try:
        latents = encode_crops(base, rows, root=root, resolution=resolution, progress=progress)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{plan.job.key}: the GPU's memory does not hold the autoencoder's work on one picture of {resolution} "
            "pixels; end what else uses it, or set a smaller resolution"
        ) from error
    if masked:
        masks = latent_masks(rows, root=root, resolution=resolution, latent_factor=base.latent_factor)
        latents = replace(latents, masks=masks)

    def part(wanted: pd.Series) -> Pictures:
        at = wanted.to_numpy().nonzero()[0].tolist()
        chosen = rows.iloc[at]
        return Pictures(
            chosen.post_id.tolist(),
            chosen.caption.tolist(),
            latents.at(at),
            chosen.stage.tolist(),
        )

    return part(rows.split == "train"), part(held_out(rows))


def _save(run: Run, plan: Plan, root: Path, *, checkpoint: bool) -> None:
    """Write a checkpoint's files if it is one, then the state that knows of them: a kill between loses nothing."""
    if checkpoint:
        run.checkpoints[-1] = write_checkpoint(run, plan, root)
        run.others = [row for row in run.others if row["step"] != run.done]
    write_state(run, plan)


def _finish(run: Run, plan: Plan, applied: dict[str, str], *, levels: int) -> None:
    """Write the losses and, last, the record that makes the folder a finished one; the last state stays."""
    write_record(run, plan, applied, levels=levels)
