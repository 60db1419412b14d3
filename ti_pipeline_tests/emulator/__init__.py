"""A local e621 that speaks the real protocol over real HTTP, for tests: `with Emulator(records, files) as site`.

`fail` scripts a fault, a `Storm` lets many come, `after` edits the site between pages, `proofs` judges the log.
"""

from ti_pipeline_tests.emulator.faults import (
    BUSY,
    CUT,
    FAULTS,
    PAGE_INSTEAD,
    PASSING,
    STOPPING,
    UNAVAILABLE,
    Fault,
    redirect_to,
    same_again,
)
from ti_pipeline_tests.emulator.gates import Edge
from ti_pipeline_tests.emulator.log import Entry, read_log
from ti_pipeline_tests.emulator.server import Emulator
from ti_pipeline_tests.emulator.storm import Storm, evenly
from ti_pipeline_tests.emulator.world import plain_world

__all__ = [
    "BUSY",
    "CUT",
    "FAULTS",
    "PAGE_INSTEAD",
    "PASSING",
    "STOPPING",
    "UNAVAILABLE",
    "Edge",
    "Emulator",
    "Entry",
    "Fault",
    "Storm",
    "evenly",
    "plain_world",
    "read_log",
    "redirect_to",
    "same_again",
]
