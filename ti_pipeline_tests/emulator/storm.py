"""A storm of faults that a seed decides, whatever the order of requests. Not here: the faults (`faults`)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ti_pipeline_tests.emulator.faults import FAULTS, PASSING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ti_pipeline_tests.emulator.answers import Request


def evenly(rate: float, names: Iterable[str] = PASSING) -> dict[str, float]:
    """Return probabilities for a request of any kind to meet some fault that suits it, all equally likely."""
    names = list(names)
    return {name: rate / len(names) for name in names}


@dataclass(frozen=True)
class Storm:
    """Draws a fault or nothing for the n-th time that an address is asked for; after `most` faults it has peace.

    The draw depends on the seed, the address (server, path, query) and n alone: threads, ranges and the order of
    different addresses change nothing. `probabilities` by name of `FAULTS`; what does not suit a request is left out
    and its share given to the others, so that each kind of request meets faults at the same rate.
    """

    seed: int
    probabilities: Mapping[str, float] = field(default_factory=lambda: evenly(0.3))
    most: int = 2

    def draw(self, request: Request, attempt: int) -> str | None:
        """Return the name of the fault that attempt number `attempt` (from 0) at this address meets."""
        faults = 0
        for number in range(attempt + 1):
            name = self._drawn(request, number) if faults < self.most else None
            faults += name is not None
        return name

    def _drawn(self, request: Request, number: int) -> str | None:
        suiting = [name for name in self.probabilities if request.kind in FAULTS[name].kinds]
        if not suiting:
            return None
        chance = random.Random(f"{self.seed} {address_of(request)} {number}")
        if chance.random() >= sum(self.probabilities.values()):
            return None
        return chance.choices(suiting, [self.probabilities[name] for name in suiting])[0]


def address_of(request: Request) -> str:
    """Return what makes two requests the same: server, path and query."""
    return f"{request.server} {request.path}?{urlencode(sorted(request.query.items()))}"
