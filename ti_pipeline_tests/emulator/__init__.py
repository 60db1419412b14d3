"""A local e621 that speaks the real protocol over real HTTP, for tests: `with Emulator(records, files) as site`."""

from ti_pipeline_tests.emulator.faults import (
    BUSY,
    CUT,
    PAGE_INSTEAD,
    UNAVAILABLE,
    Fault,
    redirect_to,
    same_again,
)
from ti_pipeline_tests.emulator.server import Asked, Emulator

__all__ = [
    "BUSY",
    "CUT",
    "PAGE_INSTEAD",
    "UNAVAILABLE",
    "Asked",
    "Emulator",
    "Fault",
    "redirect_to",
    "same_again",
]
