"""Processes: one training spread over several GPUs, a process to each, as accelerate's launcher starts them.

Every process draws the same samples and makes the same updates; each computes its share of a batch, and what they
computed is added up. So there is nothing to broadcast, any number of processes trains the same embedding, and only the
first of them writes.
Here: whose sample is whose, adding up, and starting. Not here: what is computed (`trainer`), files (`training_runs`).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

__all__ = ["ALONE", "Processes", "launched"]


@dataclass(frozen=True)
class Processes:
    """This process's place (from 0) among those that train together."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def shares(self, sizes: Sequence[int]) -> list[slice]:
        """Return which samples of batches of these sizes are this process's: dealt out in turn over all batches."""
        starts = [0, *accumulate(sizes)]
        return [slice((self.index - start) % self.count, None, self.count) for start in starts[: len(sizes)]]

    def add_up(self, tensors: Sequence[torch.Tensor], *, flag: bool = False) -> bool:
        """Replace each tensor by its sum over all processes, in place; tell whether any of them raised its `flag`.

        All in one exchange, so that processes that stop do so at the same one.
        """
        if self.count == 1:
            return flag
        import torch

        raised = tensors[0].new_full((1,), float(flag)).double()
        flat = torch.cat([*(tensor.detach().double().reshape(-1) for tensor in tensors), raised])
        torch.distributed.all_reduce(flat)
        *sums, flags = torch.split(flat, [*(tensor.numel() for tensor in tensors), 1])
        with torch.no_grad():
            for tensor, total in zip(tensors, sums, strict=True):
                tensor.copy_(total.reshape(tensor.shape))
        return float(flags) > 0

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first process through, then the others: what it left on the disk they need not make again."""
        if self.count == 1:
            yield
            return
        from accelerate import PartialState

        with PartialState().main_process_first():
            yield

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()


ALONE = Processes()


def launched() -> Processes:
    """Return this process's place as its launcher (`accelerate launch`, `torchrun`) told it; alone without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    # Joins the others, and makes this process's GPU the current one.
    state = PartialState(cpu=not torch.cuda.is_available())
    return Processes(state.process_index, state.num_processes)
