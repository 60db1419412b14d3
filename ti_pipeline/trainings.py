"""The trainings of a data folder, current and earlier ones: `python -m ti_pipeline.trainings`.

Without arguments it lists all. What changes a training's result begins another one, and the earlier one is kept:
`--take-back demo/v8@1f0c` makes it the current one again and says what the study must say for it to stay so;
`--remove demo/v8@1f0c` removes it and says how much that freed, `--remove demo/v8` every earlier one of the variant.
Not here: setting aside (`inversion.earlier`), or training.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.inversion.earlier import Training

__all__ = ["main"]


class NoTrainingError(ValueError):
    """There is no such training; the message lists those that there are."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from ti_pipeline.inversion.stopping import BusyError
    from ti_pipeline.resources import DataStore, data_url

    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.trainings", description=__doc__)
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--take-back", metavar="STUDY/VARIANT@FINGERPRINT", help="make an earlier training current")
    actions.add_argument("--remove", metavar="STUDY/VARIANT[@FINGERPRINT]", help="remove earlier trainings for good")
    options = parser.parse_args(arguments)
    store = DataStore(url=data_url())
    writes = ["embeddings"] if options.take_back or options.remove else []
    with store.work(reads=["embeddings"], writes=writes) as root:
        try:
            if options.take_back:
                lines = _taken_back(root, options.take_back)
            elif options.remove:
                lines = _removed(root, options.remove)
            else:
                lines = _listed(root)
        except (NoTrainingError, BusyError) as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
    print("\n".join(lines))  # noqa: T201
    return 0


def _variants(root: Path) -> dict[str, list[Training]]:
    from ti_pipeline.inversion.earlier import trainings_of

    folders = sorted(path for path in (root / "embeddings").glob("*/*") if path.is_dir())
    found = {f"{folder.parent.name}/{folder.name}": list(trainings_of(folder)) for folder in folders}
    return {name: trainings for name, trainings in found.items() if trainings}


def _listed(root: Path) -> list[str]:
    lines = []
    for name, trainings in _variants(root).items():
        newest = trainings[0]
        for training in trainings:
            differs = "" if training is newest else _differences(training, newest)
            lines.append(f"{name}@{training.fingerprint[:8]}  {_worded(training)}{differs}")
    return lines or ["there are no trainings yet: the job train makes them"]


def _worded(training: Training) -> str:
    at = datetime.fromtimestamp(training.changed, UTC).isoformat(timespec="minutes")
    came = "finished" if training.finished else "unfinished"
    which = "current" if training.current else "earlier"
    kept = f"{training.checkpoints} checkpoints, {_megabytes([training])}, {at}"
    return f"{which}, {came} at {training.done} updates, {kept}"


def _differences(training: Training, other: Training) -> str:
    """Return how an earlier recipe differs from the current one; empty where it is the pictures that do."""
    found = [
        f"{key}: {value}"
        for key, value in training.recipe.items()
        if key in other.recipe and other.recipe[key] != value
    ]
    return f", with {', '.join(found)}" if found else ""


def _megabytes(trainings: list[Training]) -> str:
    return f"{sum(training.bytes for training in trainings) / 1e6:.1f} MB"


def _found(root: Path, wanted: str) -> tuple[Path, list[Training]]:
    """Return a variant's folder and those of its earlier trainings that are meant."""
    name, _, digits = wanted.partition("@")
    trainings = _variants(root).get(name, [])
    meant = [one for one in trainings if not one.current and one.fingerprint.startswith(digits)]
    if not meant:
        there = ", ".join(f"{name}@{one.fingerprint[:8]}" for one in trainings if not one.current) or "none"
        raise NoTrainingError(f"there is no earlier training {wanted} (earlier ones of {name}: {there})")
    return root / "embeddings" / name, meant


def _removed(root: Path, wanted: str) -> list[str]:
    from ti_pipeline.inversion.earlier import remove

    _, meant = _found(root, wanted)
    for training in meant:
        remove(training)
    names = ", ".join(training.fingerprint[:8] for training in meant)
    return [f"removed {len(meant)} earlier trainings ({names}): {_megabytes(meant)} are free"]


def _taken_back(root: Path, wanted: str) -> list[str]:
    from ti_pipeline.inversion.earlier import set_aside, take_back
    from ti_pipeline.inversion.stopping import only_writer

    folder, meant = _found(root, wanted)
    if len(meant) > 1:
        raise NoTrainingError(f"{wanted} could be several: give more digits")
    (training,) = meant
    current = next((one for one in _variants(root)[wanted.partition("@")[0]] if one.current), training)
    with only_writer(folder):
        set_aside(folder, folder.name, keep=training.fingerprint)
        take_back(folder, training.fingerprint)
    differs = _differences(training, current).removeprefix(", with ")
    advice = f"write {differs} for variant {folder.name} into the study" if differs else "use the pictures it had"
    return [
        f"{wanted} is the current training again",
        f"{advice} and run the job train, which reuses it; else that sets it aside again",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
