"""Asset checks: what must be true of stored tables and files before the next step spends time on them.

Here: the checks and their wording. Not here: the contracts (`schemas`) and the measurements (domain packages).
"""

from ti_pipeline.checks.contents import CONTENT_CHECKS
from ti_pipeline.checks.contracts import CONTRACT_CHECKS
from ti_pipeline.checks.stored import STORED_CHECKS

__all__ = ["CHECKS"]

CHECKS = (*CONTRACT_CHECKS, *CONTENT_CHECKS, *STORED_CHECKS)
