"""Training runs: jobs in, checkpoints out; finished variants are reused, interrupted ones go on, the rest start anew.

A variant's folder holds `<variant>-<step>.pt` and `.safetensors`, the latter in diffusers' form in `diffusers/`,
`losses.parquet`, while unfinished the last two states to go on from, and when finished `training.json`: the fingerprint
of everything that decided the result, and the sha256 of every file.
Here: grouping, files, reuse. Not here: the training itself (`trainer`).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import fingerprint, sha256_of, write_atomically, write_json
from ti_pipeline.inversion.embedding_files import DAMAGED, EmbeddingFileError
from ti_pipeline.inversion.on_several_gpus import train_on_several
from ti_pipeline.inversion.processes import ALONE
from ti_pipeline.inversion.trainer import QUARTERS, TrainingError, quarter_errors
from ti_pipeline.inversion.variant_state import stages_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.event_files import EventFiles
    from ti_pipeline.inversion.processes import Processes
    from ti_pipeline.inversion.variant_state import Pictures, Run
    from ti_pipeline.studies import BaseModelSource, Variant

    Progress = Callable[[int, int, str], None]

__all__ = ["TrainingResult", "VariantJob", "train_variants"]

_MEASURED = ("mean_loss", "validation_loss", "moved", "mean_norm", "nearest_tokens", "nearest_cosine")
STATES = ("state.pt", "state-before.pt")  # the newest first: one that a failing disk damaged is not the only one
METHOD = "2"  # part of every fingerprint: raise it when the same settings would give other vectors


@dataclass(frozen=True)
class VariantJob:
    """A variant to train: resolved settings, where its base lies, its crop sets by name, captions, and its folder."""

    study: str
    name: str
    variant: Variant
    base_source: BaseModelSource
    base_folder: Path
    crops: Mapping[str, pd.DataFrame]
    captions: pd.DataFrame
    folder: Path
    origin: Mapping[str, str] = field(default_factory=dict)  # whose pictures these are: written into the files

    @property
    def key(self) -> str:
        """The variant's partition key."""
        return f"{self.study}__{self.name}"


@dataclass(frozen=True)
class TrainingResult:
    """A trained variant: its `embedding` and `losses` tables, what its losses say, and whether it was reused."""

    checkpoints: pd.DataFrame
    losses: pd.DataFrame
    summary: dict[str, Any]
    reused: bool


@dataclass(frozen=True)
class _Plan:
    """A checked job, the rows it trains on in order of post ids, and the fingerprint of what decides its result."""

    job: VariantJob
    identity: str
    rows: pd.DataFrame
    data_fingerprint: str
    fingerprint: str

    @property
    def group(self) -> tuple[str, str, int, int]:
        """What variants must share to be trained together."""
        variant = self.job.variant
        return (self.identity, variant.precision, variant.clip_skip, variant.resolution or 0)


def train_variants(
    jobs: Sequence[VariantJob],
    *,
    root: Path,
    progress: Progress | None = None,
    processes: int = 1,
    together: Processes = ALONE,
    tensorboard: bool = False,
) -> dict[str, TrainingResult]:
    """Train each job's variant, those with one base, precision, clip skip and resolution together in one process.

    Returns results by partition key (`<study>__<variant>`). `root` is the data folder that tables' paths start from.
    `processes` above 1 trains in as many new ones, a GPU to each; `together` is this one's place if it is among them.
    `tensorboard` writes event files into `tensorboard/` of each variant's folder.
    Raises `TrainingError` before anything is loaded when a job cannot be trained (no pictures, no caption), and,
    after all other variants are finished, for variants whose numbers became infinite;
    `BaseModelError` for bases that are missing or do not fit.
    """
    plans = [_plan(job) for job in jobs]
    results = {plan.job.key: result for plan in plans if (result := _finished(plan, root)) is not None}
    open_plans = sorted((plan for plan in plans if plan.job.key not in results), key=lambda plan: plan.group)
    failures: list[str] = []
    if open_plans and processes > 1:
        train_on_several([plan.job for plan in open_plans], root=root, processes=processes, tensorboard=tensorboard)
    else:
        for group in dict.fromkeys(plan.group for plan in open_plans):
            failures += _train_group(
                [plan for plan in open_plans if plan.group == group], root, progress, together, tensorboard
            )
    results |= {p.job.key: result for p in open_plans if (result := _finished(p, root, reused=False)) is not None}
    if failures:
        raise TrainingError("; ".join(failures))
    return {job.key: results[job.key] for job in jobs}


def _plan(job: VariantJob) -> _Plan:
    """Check a job and fingerprint it. Raises `TrainingError` naming the variant and what is missing."""
    import pandas as pd

    from ti_pipeline.inversion.base_models import base_identity

    parts = []
    for index, crop in enumerate(crop for crop, _ in stages_of(job.variant)):
        good = job.crops[crop][job.crops[crop].status == "ok"].sort_values(["post_id", "path"])
        if not (good.split == "train").any():
            raise TrainingError(f"{job.key}: there is no picture to train on in its crop set {crop!r}")
        parts.append(good.assign(stage=index))
    rows = pd.concat(parts, ignore_index=True).merge(job.captions[["post_id", "caption"]], on="post_id", how="left")
    uncaptioned = rows.loc[rows.caption.isna(), "post_id"].tolist()
    if uncaptioned:
        raise TrainingError(f"{job.key}: no caption for posts {uncaptioned[:5]}; make the captions again")
    if job.variant.masked_loss and "alpha_sha256" not in rows:
        raise TrainingError(f"{job.key}: masked_loss needs crops that know their transparency; make the crops again")
    identity = base_identity(job.variant.base, job.base_source, folder=job.base_folder)
    shown = ["post_id", "split", "sha256", "caption", "stage", *(["alpha_sha256"] * job.variant.masked_loss)]
    data = fingerprint(rows[shown].values.tolist())
    decides = {
        "method": METHOD,
        "study": job.study,
        "name": job.name,
        "base": identity,
        "variant": _recipe(job),
        "start": _sha256_of_start(job),
        "data": data,
    }
    return _Plan(job, identity, rows, data, fingerprint(decides))


def _recipe(job: VariantJob) -> dict[str, Any]:
    """Return a variant's settings; names of embeddings are found whatever their case, so that decides nothing."""
    recipe = job.variant.decisive()
    token = recipe["token"]
    return recipe | {"token": job.name if token and token.lower() == job.name.lower() else token}


def _sha256_of_start(job: VariantJob) -> str | None:
    from ti_pipeline.inversion.variant_state import initializer_path

    if job.variant.start != "file":
        return None
    path = initializer_path(job.variant, job.base_folder)
    return sha256_of(path) if path.is_file() else None  # a missing one is told when the variant starts


def _finished(plan: _Plan, root: Path, *, reused: bool = True) -> TrainingResult | None:
    """Return the result in the folder if it is finished, of this very plan, and every file is as it was written."""
    import pandas as pd
    import pyarrow.parquet as pq

    from ti_pipeline.inversion.losses import loss_summary
    from ti_pipeline.schemas import TABLES, from_arrow

    folder = plan.job.folder
    try:
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    if record.get("fingerprint") != plan.fingerprint or not _intact(folder, record.get("files", {})):
        return None
    losses = from_arrow(pq.read_table(folder / "losses.parquet"))
    columns = {column.name: column for column in TABLES["embedding"].columns}
    table = pd.DataFrame(record["checkpoints"], columns=list(columns))
    table = table.astype({name: "float64" for name, column in columns.items() if column.kind == "float64"})
    every = plan.job.variant.checkpoint_every
    ends = [int(step) for step in table.step]
    spans = [(end - (end % every or every) + 1, end) for end in ends]
    return TrainingResult(table, losses, loss_summary(losses, intervals=spans), reused)


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == sha256 for name, sha256 in files.items())


def _train_group(
    plans: Sequence[_Plan], root: Path, progress: Progress | None, processes: Processes, tensorboard: bool
) -> list[str]:
    """Train variants together and finish their folders; return the sentences of those that failed."""
    import torch

    from ti_pipeline.inversion.base_models import load_base
    from ti_pipeline.inversion.trainer import signal_levels, train

    first = plans[0].job
    for plan in plans:
        _require_writable(plan)
    base = load_base(first.variant.base, first.base_source, folder=first.base_folder, precision=first.variant.precision)
    with processes.first_before_others():
        runs = {plan.job.key: _start(plan, base, root, progress) for plan in plans}
    processes.wait()
    by_key = {plan.job.key: plan for plan in plans}
    events = _event_files(runs, by_key) if tensorboard and processes.first else {}

    def save(run: Run, checkpoint: bool) -> None:
        if not processes.first:
            return
        with _writing(by_key[run.key], run):
            _save(run, by_key[run.key], root, checkpoint=checkpoint)
            if run.key in events:
                events[run.key].write(run)

    try:
        train(base, list(runs.values()), save=save, progress=progress, processes=processes)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{', '.join(runs)}: the GPU's memory does not hold their samples at once; train fewer variants in one "
            "run, or set a smaller batch_size (with gradient_accumulation), precision bf16, or a smaller resolution"
        ) from error
    for own in events.values():
        own.close()
    for key, run in runs.items():
        if run.failure is None and processes.first:
            with _writing(by_key[key], run):
                _finish(run, by_key[key], levels=len(signal_levels(base)))
    processes.wait()
    return [run.failure for run in runs.values() if run.failure is not None]


def _event_files(runs: Mapping[str, Run], plans: Mapping[str, _Plan]) -> dict[str, EventFiles]:
    from ti_pipeline.inversion.event_files import EventFiles

    try:
        return {key: EventFiles(plans[key].job.folder / "tensorboard", run) for key, run in runs.items()}
    except ModuleNotFoundError as error:
        raise TrainingError(
            "TensorBoard is not installed: pip install 'ti_pipeline[tensorboard]', or train without"
        ) from error


def _require_writable(plan: _Plan) -> None:
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
def _writing(plan: _Plan, run: Run) -> Iterator[None]:
    """Turn a failing disk into a sentence: what was saved before stays, and the next run goes on from there."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{plan.job.key}: update {run.done} cannot be saved in {plan.job.folder} ({error.strerror or error}); make "
            "room or repair it and run again, which goes on from what was saved last"
        ) from error


def _start(plan: _Plan, base: Base, root: Path, progress: Progress | None) -> Run:
    """Return the variant's run: where its saved state left it, or at the beginning; leftovers are removed."""
    from ti_pipeline.inversion.variant_state import Run, StartError

    job = plan.job
    try:
        run = Run.start(job.key, job.variant, base, *_pictures(plan, base, root, progress), folder=job.base_folder)
    except (EmbeddingFileError, StartError) as error:
        raise TrainingError(f"{job.key}: {error}") from error
    (job.folder / "training.json").unlink(missing_ok=True)
    state = _newest_state(plan, base)
    if state is not None:
        run.restore(state)
    else:
        shutil.rmtree(job.folder / "tensorboard", ignore_errors=True)
    valid = {*STATES, *_files_of(run.checkpoints)} if state is not None else set()
    ours = re.compile(
        rf"(?:{re.escape(job.name)}-\d+\.(?:pt|safetensors)|losses\.parquet|state(?:-before)?\.pt|\..*-partial.*)"
    )
    for path in (*job.folder.glob("*"), *job.folder.glob("diffusers/*")):
        if ours.fullmatch(path.name) and path.relative_to(job.folder).as_posix() not in valid:
            path.unlink()
    return run


def _newest_state(plan: _Plan, base: Base) -> dict[str, Any] | None:
    """Return the newest state of this very plan whose checkpoints are all there and as they were written."""
    import torch

    folder = plan.job.folder
    for name in STATES:
        state: dict[str, Any] = {}
        # A damaged one is as good as none: the same draws give the same vectors from an earlier one or the beginning.
        with contextlib.suppress(*DAMAGED):
            state = torch.load(folder / name, map_location=base.device, weights_only=True)
        if state.get("fingerprint") == plan.fingerprint and _intact(folder, _files_of(state["run"]["checkpoints"])):
            found: dict[str, Any] = state["run"]
            return found
    return None


def _pictures(plan: _Plan, base: Base, root: Path, progress: Progress | None) -> tuple[Pictures, Pictures]:
    """Return what is trained on and what is held out, with latents from the cache that variants share."""
    from ti_pipeline.inversion.latents import encode_crops, latent_masks
    from ti_pipeline.inversion.variant_state import Pictures

    rows, resolution, masked = plan.rows, plan.job.variant.resolution or 0, plan.job.variant.masked_loss
    for path, sha256 in _crop_files(rows, masked=masked):
        if not (root / path).is_file() or sha256_of(root / path) != sha256:
            raise TrainingError(f"{plan.job.key}: the crop {path} is gone or was changed; make the crops again")
    latents = encode_crops(base, rows, root=root, resolution=resolution, progress=progress)
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

    # What is measured on has not been trained on in any stage, and is shown once.
    trained = rows.split == "train"
    held_out = ~rows.post_id.isin(rows.post_id[trained]) & ~rows.post_id.duplicated()
    return part(trained), part(held_out)


def _crop_files(rows: pd.DataFrame, *, masked: bool) -> Iterator[tuple[Path, str]]:
    """Yield each file that is trained on, relative to the data folder, with its sha256."""
    from pathlib import Path

    from ti_pipeline.imaging.alpha import alpha_path

    yield from zip(map(Path, rows.path), rows.sha256, strict=True)
    if masked:
        transparent = rows[rows.alpha_sha256.notna()]
        yield from zip(map(alpha_path, map(Path, transparent.path)), transparent.alpha_sha256, strict=True)


def _save(run: Run, plan: _Plan, root: Path, *, checkpoint: bool) -> None:
    """Write a checkpoint's files if it is one, then the state that knows of them: a kill between loses nothing."""
    import torch

    folder = plan.job.folder
    if checkpoint:
        run.checkpoints[-1] = _write_checkpoint(run, plan, root)
    last, before = (folder / name for name in STATES)
    if last.exists():
        last.replace(before)
    content = io.BytesIO()  # torch itself says nothing of a full disk
    torch.save({"fingerprint": plan.fingerprint, "run": run.state()}, content)
    with write_atomically(last) as aside:
        aside.write_bytes(content.getbuffer())


def _write_checkpoint(run: Run, plan: _Plan, root: Path) -> dict[str, Any]:
    """Write the checkpoint's three files; return its row of the table `embedding`, and diffusers' file's sha256."""
    from ti_pipeline.inversion.embedding_files import Embedding, save_diffusers, save_pt, save_safetensors, short_hash

    job, measured = plan.job, run.checkpoints[-1]
    name = f"{job.name}-{run.done}"
    vectors = run.result.float().cpu()
    embedding = Embedding(name, vectors, run.done, job.variant.base, plan.identity)
    pt, safetensors = job.folder / f"{name}.pt", job.folder / f"{name}.safetensors"
    diffusers = job.folder / _diffusers_file(name)
    metadata = {"study": job.study, "variant": job.name, "fingerprint": plan.fingerprint, **job.origin}
    metadata["data_fingerprint"] = plan.data_fingerprint
    save_pt(pt, embedding)
    save_safetensors(safetensors, embedding, metadata)
    save_diffusers(diffusers, embedding, metadata)
    return {
        "checkpoint": name,
        "step": run.done,
        "epoch": measured["epoch"],
        "vectors": len(vectors),
        "width": vectors.shape[1],
        "pt_path": pt.relative_to(root).as_posix(),
        "safetensors_path": safetensors.relative_to(root).as_posix(),
        "sha256": sha256_of(safetensors),
        "pt_sha256": sha256_of(pt),
        "diffusers_sha256": sha256_of(diffusers),
        "short_hash": short_hash(vectors),
        **{key: measured[key] for key in _MEASURED},
    }


def _files_of(checkpoints: list[dict[str, Any]]) -> dict[str, str]:
    """Return the sha256 of each checkpoint file, by name."""
    names = {f"{row['checkpoint']}.pt": row["pt_sha256"] for row in checkpoints}
    names |= {f"{row['checkpoint']}.safetensors": row["sha256"] for row in checkpoints}
    return names | {_diffusers_file(row["checkpoint"]): row["diffusers_sha256"] for row in checkpoints}


def _diffusers_file(checkpoint: str) -> str:
    """Return its name in the variant's folder: in one of its own, since web UIs take files of one stem for one."""
    return f"diffusers/{checkpoint}.safetensors"


def _finish(run: Run, plan: _Plan, *, levels: int) -> None:
    """Write the losses and, last, the record that makes the folder a finished one."""
    import pyarrow.parquet as pq

    from ti_pipeline.schemas import TABLES

    folder = plan.job.folder
    with write_atomically(folder / "losses.parquet") as aside:
        pq.write_table(TABLES["losses"].to_arrow(_losses(run, levels)), aside)
    files = _files_of(run.checkpoints) | {"losses.parquet": sha256_of(folder / "losses.parquet")}
    record = {"fingerprint": plan.fingerprint, "files": files, "checkpoints": run.checkpoints}
    write_json(folder / "training.json", record)
    for name in STATES:
        (folder / name).unlink(missing_ok=True)


def _losses(run: Run, levels: int) -> pd.DataFrame:
    """Return the run's log as the table `losses`."""
    import numpy as np
    import pandas as pd

    quarters = np.array(quarter_errors(run, levels), dtype="float64").reshape(-1, QUARTERS)
    done = range(len(run.log))
    return pd.DataFrame(
        {
            "step": [i + 1 for i in done],
            "epoch": [run.epoch(i)[0] for i in done],
            "epoch_step": [run.epoch(i)[1] for i in done],
            "loss": [row[0] for row in run.log],
            "learning_rate": [run.rate.at(i) for i in done],
            "gradient_norm": [row[1] for row in run.log],
            "vector_norm": [row[2] for row in run.log],
            **{f"error_quarter_{part + 1}": quarters[:, part] for part in range(QUARTERS)},
        }
    )
