"""Training on several GPUs of this machine: `train_variants` in a process for each, started by accelerate's launcher.

    accelerate launch --num_processes 4 --module ti_pipeline.inversion.on_several_gpus JOBS

JOBS is a file written by `train_on_several`, which is what people call; it is a pickle of this project's own making,
read within the same call. Not here: how the processes share the work (`processes`, `trainer`).
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.inversion.trainer import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ti_pipeline.inversion.training_runs import VariantJob

__all__ = ["train_on_several"]

_MODULE = "ti_pipeline.inversion.on_several_gpus"  # its __name__ when started is another


def train_on_several(jobs: Sequence[VariantJob], *, root: Path, processes: int, tensorboard: bool = False) -> None:
    """Train jobs in so many processes, each with a GPU of its own (where there is none, all of them on the CPU).

    What they leave in the jobs' folders is what one process would leave, up to rounding. Raises `TrainingError` with
    what the first process raised.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.pickle"
        path.write_bytes(pickle.dumps((list(jobs), root, tensorboard)))
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
        # Said in full, so that nobody's `accelerate config` decides how embeddings come out.
        options = ["--num_processes", str(processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [*launcher, *options, "--main_process_port", "0", "--module", _MODULE, str(path)]
        ended = subprocess.run(command, check=False)  # noqa: S603 - our own words
        if ended.returncode:
            told = path.with_suffix(".error")
            why = told.read_text(encoding="utf-8") if told.exists() else f"exit code {ended.returncode}, see above"
            raise TrainingError(f"training in {processes} processes failed: {why}")


def main(path: Path) -> None:
    """Train the jobs of a file as one of several processes; the first leaves a note of what went wrong."""
    from ti_pipeline.inversion.processes import launched
    from ti_pipeline.inversion.training_runs import train_variants

    jobs, root, tensorboard = pickle.loads(path.read_bytes())  # noqa: S301 - written by `train_on_several`
    processes = launched()
    try:
        train_variants(jobs, root=root, together=processes, tensorboard=tensorboard)
    except Exception as error:
        if processes.first:
            path.with_suffix(".error").write_text(str(error), encoding="utf-8")
        raise


if __name__ == "__main__":
    main(Path(sys.argv[1]))
