"""Training files: a variant's checkpoints, losses, states and record, written whole or not at all, and read again.

A training's folder holds `<variant>-<step>.pt` and `.safetensors`, the latter in diffusers' form in `diffusers/`;
`losses.parquet`, from the first losses on; the last two states to go on from; and when finished `training.json`: what
was trained and asked for, and the sha256 of every file. Not here: when which is written (`training_runs`), or earlier
trainings (`earlier`).
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import sha256_of, write_atomically, write_json
from ti_pipeline.inversion.earlier import DIFFUSERS, RECORD, STATES, read_record, read_state, set_aside_strays
from ti_pipeline.inversion.trainer import QUARTERS, mean_loss, quarter_errors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.inversion.base_models import Base
    from ti_pipeline.inversion.training_plans import Plan
    from ti_pipeline.inversion.variant_state import Run

__all__ = [
    "TrainingResult",
    "finished",
    "restore",
    "write_checkpoint",
    "write_losses",
    "write_record",
    "write_state",
]

LOSSES = "losses.parquet"
_TOLD = ("log", "checkpoints", "others")  # parts of a run's state that are no tensors
_MEASURED = ("validation_loss", "moved", "mean_norm", "nearest_tokens", "nearest_cosine")


@dataclass(frozen=True)
class TrainingResult:
    """A trained variant: its `embedding` and `losses` tables, what losses say, what applied, and if it was reused."""

    checkpoints: pd.DataFrame
    losses: pd.DataFrame
    summary: dict[str, Any]
    applied: dict[str, str]
    reused: bool


def finished(plan: Plan, *, reused: bool = True) -> TrainingResult | None:
    """Return the result in the folder if it is finished, is what is asked for, and every file is as it was written."""
    import pandas as pd
    import pyarrow.parquet as pq

    from ti_pipeline.inversion.losses import loss_summary
    from ti_pipeline.schemas import TABLES, from_arrow

    folder, record = plan.job.folder, read_record(plan.job.folder)
    if (record.get("fingerprint"), record.get("asked")) != (plan.fingerprint, plan.asked):
        return None
    if not _intact(folder, record["files"]):
        return None
    losses = from_arrow(pq.read_table(folder / LOSSES))
    columns = {column.name: column for column in TABLES["embedding"].columns}
    table = pd.DataFrame(record["checkpoints"], columns=list(columns))
    table = table.astype({name: "float64" for name, column in columns.items() if column.kind == "float64"})
    ends = [int(step) for step in table.step]
    spans = list(zip([1, *(end + 1 for end in ends)], ends, strict=False))
    skipped = int(losses[["loss", "gradient_norm", "vector_norm"]].isna().any(axis=1).sum())
    summary = loss_summary(losses, intervals=spans) | ({"skipped_updates": skipped} if skipped else {})
    return TrainingResult(table, losses, summary, dict(record["applied"]), reused)


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all((folder / name).is_file() and sha256_of(folder / name) == sha256 for name, sha256 in files.items())


def restore(run: Run, plan: Plan, base: Base) -> bool:
    """Let a run go on where its training was left, if that is possible; tell whether it was.

    The furthest state is taken before which every checkpoint that is asked for was kept. What was kept beyond it, or
    between what is asked for, stays.
    """
    folder = plan.job.folder
    states = [read_state(folder / name, base.device) for name in STATES]
    states = [
        state["run"] | json.loads(state["run"].pop("told"))
        for state in states
        if state.get("fingerprint") == plan.fingerprint
    ]
    record = read_record(folder)
    told = [row for state in states for row in (*state["checkpoints"], *state["others"])]
    if record.get("fingerprint") == plan.fingerprint:
        told += [*record["checkpoints"], *record["others"]]
    known = {row["step"]: row for row in reversed(told) if _intact(folder, files_of([row]))}
    asked, missing = _asked(run, known)
    usable = [state for state in states if missing is None or state["done"] < missing]
    run.others = list(known.values())
    if not usable:
        return False
    furthest = max(usable, key=lambda state: state["done"])
    now = [row for row in asked if row["step"] <= furthest["done"]]
    others = [row for step, row in sorted(known.items()) if row not in now]
    run.restore(furthest | {"checkpoints": now, "others": others})
    return True


def _asked(run: Run, known: dict[int, dict[str, Any]]) -> tuple[list[dict[str, Any]], int | None]:
    """Return the kept checkpoints that are asked for, up to the first that is missing, and that one's step."""
    every = run.variant.checkpoint_every
    for step in (*range(every, run.steps, every), run.steps):
        if step not in known:
            found, run.checkpoints = run.checkpoints, []
            return found, step
        run.checkpoints.append(known[step])
        if run.out_of_patience:
            break
    found, run.checkpoints = run.checkpoints, []
    return found, None


def write_state(run: Run, plan: Plan) -> None:
    """Write everything needed to go on; the state before stays beside it."""
    import torch

    last, before = (plan.job.folder / name for name in STATES)
    if last.exists():
        last.replace(before)
    state = run.state()
    # As text, since pickles of the same numbers differ by which objects they share.
    state["told"] = json.dumps({name: state.pop(name) for name in _TOLD})
    content = io.BytesIO()  # torch itself says nothing of a full disk
    torch.save({"fingerprint": plan.fingerprint, "recipe": json.dumps(plan.recipe), "run": state}, content)
    with write_atomically(last) as aside:
        aside.write_bytes(content.getbuffer())


def write_checkpoint(run: Run, plan: Plan, root: Path) -> dict[str, Any]:
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


def files_of(checkpoints: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the sha256 of each checkpoint file, by name."""
    names: dict[str, str] = {}
    for row in checkpoints:
        names[f"{row['checkpoint']}.pt"] = row["pt_sha256"]
        names[f"{row['checkpoint']}.safetensors"] = row["sha256"]
        names[_diffusers_file(row["checkpoint"])] = row["diffusers_sha256"]
    return names


def _diffusers_file(checkpoint: str) -> str:
    """Return its name in the variant's folder: in one of its own, since web UIs take files of one stem for one."""
    return f"{DIFFUSERS}/{checkpoint}.safetensors"


def write_record(run: Run, plan: Plan, applied: dict[str, str], *, levels: int) -> None:
    """Write the losses and, last, the record that makes the folder a finished one."""
    folder = plan.job.folder
    write_losses(run, plan, levels=levels)
    known = files_of([*run.checkpoints, *run.others])
    record = {
        "fingerprint": plan.fingerprint,
        "asked": plan.asked,
        "recipe": plan.recipe,
        "applied": list(applied.items()),  # in their order
        "files": files_of(run.checkpoints) | {LOSSES: sha256_of(folder / LOSSES)},
        "checkpoints": _with_mean_losses(run),
        "others": run.others,
    }
    write_json(folder / RECORD, record)
    set_aside_strays(folder, plan.job.name, set(known))
    (folder / STATES[1]).unlink(missing_ok=True)


def _with_mean_losses(run: Run) -> list[dict[str, Any]]:
    """Return the rows of the checkpoints that are asked for, each with the mean loss since the one before."""
    rows, since = [], 0
    for row in run.checkpoints:
        rows.append(row | {"mean_loss": mean_loss(run, since, row["step"])})
        since = row["step"]
    return rows


def write_losses(run: Run, plan: Plan, *, levels: int) -> None:
    """Write what is known of the losses, up to where the training ends."""
    import pyarrow.parquet as pq

    from ti_pipeline.schemas import TABLES

    with write_atomically(plan.job.folder / LOSSES) as aside:
        pq.write_table(TABLES["losses"].to_arrow(_losses(run, levels)), aside)


def _losses(run: Run, levels: int) -> pd.DataFrame:
    """Return the run's log as the table `losses`; what was not finite is missing."""
    import numpy as np
    import pandas as pd

    end = run.checkpoints[-1]["step"] if run.ended and run.failure is None and run.checkpoints else len(run.log)
    numbers = np.array([row[:3] for row in run.log[:end]], dtype="float64").reshape(-1, 3)
    numbers[~np.isfinite(numbers)] = np.nan
    quarters = np.array(quarter_errors(run, levels)[:end], dtype="float64").reshape(-1, QUARTERS)
    quarters[~np.isfinite(quarters)] = np.nan
    return pd.DataFrame(
        {
            "step": [i + 1 for i in range(end)],
            "epoch": [run.epoch(i)[0] for i in range(end)],
            "epoch_step": [run.epoch(i)[1] for i in range(end)],
            "loss": numbers[:, 0],
            "learning_rate": [run.rate.at(i) for i in range(end)],
            "gradient_norm": numbers[:, 1],
            "vector_norm": numbers[:, 2],
            **{f"error_quarter_{part + 1}": quarters[:, part] for part in range(QUARTERS)},
        }
    )
