"""Event files: a run's numbers while it trains, for those who watch TensorBoard (extra `tensorboard`).

The table `losses` is what the product itself reads; nothing here is read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.inversion.variant_state import Run

__all__ = ["EventFiles"]

_LOGGED = ("loss", "gradient_norm", "vector_norm")  # the first columns of a run's log
_MEASURED = ("validation_loss", "moved", "nearest_cosine")


class EventFiles:
    """Event files of one run in a folder; each number under its column's name and the number of updates done."""

    def __init__(self, folder: Path, run: Run) -> None:
        """Go on where the run does: what an interrupted one told of later updates is hidden by TensorBoard.

        Raises `ModuleNotFoundError` where TensorBoard is not installed.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=run.done + 1)
        self._told, self._told_checkpoints = run.done, len(run.checkpoints)

    def write(self, run: Run) -> None:
        """Write what is new in the run's log and among its checkpoints."""
        for done in range(self._told, len(run.log)):
            for name, value in zip(_LOGGED, run.log[done], strict=False):
                self._writer.add_scalar(name, value, done + 1)
            self._writer.add_scalar("learning_rate", run.rate.at(done), done + 1)
        for row in run.checkpoints[self._told_checkpoints :]:
            for name in _MEASURED:
                if row[name] is not None:
                    self._writer.add_scalar(name, row[name], row["step"])
        self._told, self._told_checkpoints = len(run.log), len(run.checkpoints)
        self._writer.flush()

    def close(self) -> None:
        """Close the newest file."""
        self._writer.close()
