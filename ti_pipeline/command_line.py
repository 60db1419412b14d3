"""`dagster job execute` as people type it: asked for what is not there, it says so before a run is made, in one
sentence; and when a run fails, the reason is the last thing that is printed.

Not here: what jobs do (`jobs`), or where Dagster's home is (`home`).
"""

from __future__ import annotations

import atexit
import difflib
import json
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

__all__ = ["asked", "check_keys", "dagster_command", "remember_failure", "speak_last"]

_START, _END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_KEY: Final = "dagster/partition"
_SHOWN = 12
_failures: list[str] = []


def dagster_command() -> list[str]:
    """Return the words of the `dagster` command that this process executes, e.g. `job execute`; none in others."""
    program = Path(sys.argv[0])
    ours = program.stem == "dagster" or program.parts[-2:] == ("dagster", "__main__.py")
    return sys.argv[1:3] if ours else []


def asked(arguments: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """Return the job and the tags that the arguments of `dagster job execute` name."""
    found: dict[str, str] = {}
    for index, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option in ("-j", "--job", "--tags"):
            found[option] = value if equals else next(iter(arguments[index + 1 :]), "")
    try:
        tags = json.loads(found.get("--tags", "{}"))
    except ValueError:  # Dagster says so itself
        tags = {}
    return found.get("-j", found.get("--job")), tags if isinstance(tags, dict) else {}


def check_keys(
    job: str, tags: Mapping[str, str], keys_of_jobs: Mapping[str, Sequence[str]], faulty: Mapping[str, str]
) -> str | None:
    """Return what is wrong with the partitions that a job is asked for, in a sentence; None if nothing is.

    `keys_of_jobs`: the partition keys of jobs that have any. `faulty`: studies that are left out, and their faults.
    """
    if job not in keys_of_jobs:
        return None
    keys = keys_of_jobs[job]
    wanted = [tags[tag] for tag in (_KEY, _START, _END) if tag in tags]
    if not wanted or (_START in tags) != (_END in tags):
        example = json.dumps({_KEY: keys[0] if keys else "..."})
        return f"the job {job} needs a partition: --tags '{example}'; there are: {_list(keys)}"
    for key in wanted:
        if key not in keys:
            study = key.partition("__")[0]
            if study in faulty:
                return f"the study {study!r} is left out for faults in its file:\n{faulty[study]}"
            return f"the job {job} has no partition {key!r}; {_nearest(key, keys)}there are: {_list(keys)}"
    if _START in tags and keys.index(tags[_START]) > keys.index(tags[_END]):
        first, last = tags[_END], tags[_START]
        return (
            f"the range from {last!r} to {first!r} selects nothing: the order is that of the study file, {_list(keys)}"
        )
    return None


def _nearest(key: str, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, keys, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _list(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def remember_failure(words: str) -> None:
    """Take the reason of a failure; the first is what all later ones come from."""
    _failures.append(" ".join(words.split()))


def speak_last(keys_of_jobs: Mapping[str, Sequence[str]], faulty: Mapping[str, str]) -> None:
    """In a process of `dagster job execute`, refuse wrong partitions now, and print the reason of a failure last."""
    if dagster_command() != ["job", "execute"]:
        return
    job, tags = asked(sys.argv[3:])
    wrong = check_keys(job, tags, keys_of_jobs, faulty) if job else None
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2)
    atexit.register(_tell)
    sys.excepthook = _excepthook


def _tell() -> None:
    if _failures:
        sys.stdout.flush()
        print(f"failed: {_failures[0]}", file=sys.stderr, flush=True)  # noqa: T201


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """Print an error that no run has told of: its own frames only, then itself as the reason."""
    traceback.print_exception(kind, error, trace, limit=-3, chain=False)
    remember_failure(str(error) or kind.__name__)
