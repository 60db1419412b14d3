"""Earlier trainings of a variant: set aside when another one begins, listed, taken back, and removed when asked to.

A variant's folder shows the current training. Each earlier one lies in `earlier/<first 16 digits of its fingerprint>/`
below it, with the same files in the same order. The files that tell a training (`training.json`, `state.pt`) are moved
last: a process that is killed while it moves leaves what the next one finishes.
Here: whose file is whose, moving and removing. Not here: what a fingerprint is made of (`training_plans`), or the
command (`trainings`).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.embedding_files import DAMAGED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "DIFFUSERS",
    "EARLIER",
    "RECORD",
    "STATES",
    "Training",
    "checkpoint_files",
    "has_earlier",
    "read_record",
    "read_state",
    "remove",
    "set_aside",
    "set_aside_strays",
    "take_back",
    "trainings_of",
]

EARLIER, DIFFUSERS, UNKNOWN = "earlier", "diffusers", "unknown"
RECORD = "training.json"  # of a finished training
STATES = ("state.pt", "state-before.pt")  # the newest first: one that a failing disk damaged is not the only one
_OTHERS = ("losses.parquet", "tensorboard")
_DIGITS = 16


@dataclass(frozen=True)
class Training:
    """A training that lies on the disk: its folder, fingerprint, recipe, and how far it came."""

    folder: Path
    fingerprint: str
    recipe: dict[str, Any]
    done: int
    finished: bool
    checkpoints: int
    bytes: int
    changed: float  # when its newest file was written, seconds since 1970

    @property
    def current(self) -> bool:
        """Whether this is the training that the variant's folder shows."""
        return self.folder.parent.name != EARLIER


def read_record(folder: Path) -> dict[str, Any]:
    """Return what a finished training left told; nothing where there is none or it is damaged."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_state(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Return a saved state; nothing where there is none or it is damaged."""
    import torch

    # A damaged one is as good as none: the same draws give the same vectors from an earlier one or the beginning.
    with contextlib.suppress(*DAMAGED):
        found = torch.load(path, map_location=device, weights_only=True)
        if isinstance(found, dict):
            return found
    return {}


def checkpoint_files(folder: Path, name: str) -> list[Path]:
    """Return all files of a variant's checkpoints in a training's folder."""
    ours = re.compile(rf"{re.escape(name)}-\d+\.(?:pt|safetensors)")
    return [path for path in (*folder.glob("*"), *folder.glob(f"{DIFFUSERS}/*")) if ours.fullmatch(path.name)]


def _told_by(folder: Path, keep: str) -> dict[str, str]:
    """Return the fingerprint that a folder's record and each of its states tell of, by the file's name.

    What cannot be read, and what does not tell, counts to the training `keep` if another file tells of it.
    """
    told = {RECORD: read_record(folder), **{name: read_state(folder / name) for name in STATES}}
    known = {name: str(content["fingerprint"]) for name, content in told.items() if "fingerprint" in content}
    own = keep if keep in known.values() else next(iter(known.values()), UNKNOWN)
    return dict.fromkeys((*_OTHERS, *reversed(STATES), RECORD), own) | known


def _of_checkpoint(path: Path) -> str | None:
    """Return the fingerprint in a checkpoint's own file, or in that of the same name beside a `.pt`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path.with_suffix(".safetensors"), "numpy") as opened:
            found = (opened.metadata() or {}).get("fingerprint")
    except (OSError, SafetensorError):
        return None
    return None if found is None else str(found)


def set_aside(folder: Path, name: str, *, keep: str) -> set[str]:
    """Move what is of other trainings than the fingerprint `keep` to `earlier/`; return the others' fingerprints."""
    told, moved = _told_by(folder, keep), set()
    whose = {path: _of_checkpoint(path) or told[RECORD] for path in checkpoint_files(folder, name)}
    whose |= {folder / file: own for file, own in told.items() if (folder / file).exists()}
    for path, own in whose.items():  # checkpoints first, the record last
        if own != keep:
            _move(path, folder, folder / EARLIER / own[:_DIGITS])
            moved.add(own)
    return moved


def set_aside_strays(folder: Path, name: str, known: set[str]) -> None:
    """Move checkpoints' files that a finished training does not know: they are of no use beside it."""
    for path in checkpoint_files(folder, name):
        if path.relative_to(folder).as_posix() not in known:
            _move(path, folder, folder / EARLIER / UNKNOWN)


def has_earlier(folder: Path, fingerprint: str) -> bool:
    """Tell whether a training was set aside (or is half taken back)."""
    return (folder / EARLIER / fingerprint[:_DIGITS]).is_dir()


def take_back(folder: Path, fingerprint: str) -> None:
    """Make an earlier training the current one; the current one must have been set aside."""
    place = folder / EARLIER / fingerprint[:_DIGITS]
    last = {*STATES, RECORD}
    for path in sorted((p for p in place.rglob("*") if p.is_file()), key=lambda p: (p.name in last, p.name == RECORD)):
        _move(path, place, folder)
    shutil.rmtree(place)


def _move(path: Path, start: Path, target: Path) -> None:
    """Move a file or folder below `start` to the same place below `target`, in place of what is there."""
    to = target / path.relative_to(start)
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and to.exists():
        shutil.rmtree(to)
    path.replace(to)


def trainings_of(folder: Path) -> Iterator[Training]:
    """Yield a variant's trainings: the current one, then earlier ones, oldest first."""
    earlier = [path for path in (folder / EARLIER).glob("*") if path.is_dir()]
    found = [training for path in earlier if (training := _training(path)) is not None]
    if (current := _training(folder)) is not None:
        yield current
    yield from sorted(found, key=lambda training: (training.changed, training.fingerprint))


def _training(folder: Path) -> Training | None:
    files = [path for path in folder.rglob("*") if path.is_file() and EARLIER not in path.relative_to(folder).parts]
    if not files:
        return None
    record, states = read_record(folder), [read_state(folder / name) for name in STATES]
    told = record or next((state for state in states if state), {})
    if not told and folder.parent.name != EARLIER:
        return None
    recipe = told.get("recipe", {})
    done = max([0, *(int(state["run"]["done"]) for state in states if state)])
    return Training(
        folder=folder,
        fingerprint=str(told.get("fingerprint", folder.name)),
        recipe=dict(recipe if isinstance(recipe, dict) else json.loads(recipe)),
        done=max([done, *(int(row["step"]) for row in record.get("checkpoints", []))]),
        finished=bool(record),
        checkpoints=len([path for path in files if path.suffix == ".pt" and path.name not in STATES]),
        bytes=sum(path.stat().st_size for path in files),
        changed=max(path.stat().st_mtime for path in files),
    )


def remove(training: Training) -> None:
    """Remove an earlier training for good. Raises `ValueError` for the current one."""
    if training.current:
        raise ValueError(f"{training.folder} is the current training, not an earlier one")
    shutil.rmtree(training.folder)
