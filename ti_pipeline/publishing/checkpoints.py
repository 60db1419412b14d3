"""Checkpoints on their way: each is published as soon as it lies on the disk, beside the training, never in its way.

A checkpoint goes to `<publish.url>/checkpoints/<study>/<variant>/<fingerprint>/` with the attribution of its pictures.
The fingerprint is that of everything that decided the vectors, so a variant that is trained anew with other settings
has a place of its own, and files of one place can only differ where one is damaged or out of date: they are sent again.
Here: which files belong together, watching folders, trying again. Not here: sending one file (`remote`), or whether a
study may publish (`assets.sending`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.files import write_atomically
from ti_pipeline.inversion.earlier import DIFFUSERS
from ti_pipeline.publishing.remote import PublishError, expanded, publish_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ["ATTRIBUTION", "CheckpointSender", "Outbox", "publish_checkpoints"]

ATTRIBUTION = "attribution.csv"
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds between looks; twice as long after each failure
_LAST_WAIT = 30.0  # seconds that a finished training waits for a file that is just being sent


@dataclass(frozen=True)
class Outbox:
    """A variant's folder of checkpoints, where its study publishes, and whose pictures it was trained on (CSV)."""

    study: str
    variant: str
    folder: Path
    url: str
    attribution: str


def publish_checkpoints(outbox: Outbox, checkpoints: Iterable[str]) -> int:
    """Send checkpoints by name, e.g. `v8-100`, with the attribution; return how many files were sent.

    Files that are there already are left alone, different ones are replaced, and each is read back. Raises
    `PublishError`, after which the same call goes on where it stopped.
    """
    sent = 0
    for name in checkpoints:
        url = f"{expanded(outbox.url)}/checkpoints/{outbox.study}/{outbox.variant}/{_fingerprint(outbox, name)[:16]}"
        _write_attribution(outbox)
        found = [path for place in (outbox.folder, outbox.folder / DIFFUSERS) for path in place.glob(f"{name}.*")]
        forms = sorted(path.relative_to(outbox.folder).as_posix() for path in found)
        names = [ATTRIBUTION, *forms]
        sent += len(publish_files(outbox.folder, names, url, replace=True).sent)
    return sent


def _fingerprint(outbox: Outbox, name: str) -> str:
    """Return what the checkpoint's own file says decided its vectors."""
    from safetensors import SafetensorError, safe_open

    path = outbox.folder / f"{name}.safetensors"
    try:
        with safe_open(path, "numpy") as opened:
            return str(opened.metadata()["fingerprint"])
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise PublishError(f"{path} is gone or was not written by a training: {error!r}; run the job train") from error


def _write_attribution(outbox: Outbox) -> None:
    path, content = outbox.folder / ATTRIBUTION, outbox.attribution.encode()
    if not path.is_file() or path.read_bytes() != content:
        with write_atomically(path) as aside:
            aside.write_bytes(content)


class CheckpointSender:
    """Publishes each checkpoint that appears in the outboxes while the body of a `with` runs, in a thread of its own.

    What lies there at the beginning may be of an earlier training and is not sent. A lost connection is told, tried
    again at the next look, and never raised: whoever trained calls `publish_checkpoints` at the end.
    """

    def __init__(self, outboxes: Sequence[Outbox], tell: Callable[[str], None]) -> None:
        """Watch nothing yet; `tell` takes sentences for the log."""
        self._outboxes = outboxes
        self._tell = tell
        self._done = {outbox.folder: _states(outbox) for outbox in outboxes}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint sender", daemon=True)

    def __enter__(self) -> CheckpointSender:
        """Begin to watch, if there is anything to."""
        if self._outboxes:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching; a file that is just being sent has some seconds left."""
        self._stop.set()
        if self._outboxes:
            self._thread.join(_LAST_WAIT)

    def _watch(self) -> None:
        wait = _FIRST_WAIT
        while not self._stop.wait(wait):
            wait = _FIRST_WAIT if self.send_new() else min(2 * wait, _LONGEST_WAIT)

    def send_new(self) -> bool:
        """Send what appeared since the last look; return False if some of it could not be sent."""
        went = [self._send_new_of(outbox) for outbox in self._outboxes]  # each has its turn, also after a failure
        return all(went)

    def _send_new_of(self, outbox: Outbox) -> bool:
        done = self._done[outbox.folder]
        for name, state in _states(outbox).items():
            if done.get(name) == state:
                continue
            try:
                publish_checkpoints(outbox, [name])
            except (PublishError, OSError) as error:
                self._tell(f"checkpoint {name} is not published yet, training goes on and it is tried again: {error}")
                return False
            done[name] = state
            self._tell(f"checkpoint {name} is published")
        return True


def _states(outbox: Outbox) -> dict[str, tuple[int, int]]:
    """Return every whole checkpoint of a folder, oldest first, with what changes when it is written anew.

    The `.safetensors` is written after the `.pt`, and files appear whole, so where it is, both are.
    """
    found = {}
    for path in outbox.folder.glob(f"{outbox.variant}-*.safetensors"):
        try:
            status = path.stat()
        except FileNotFoundError:  # a new training removes what an earlier one left
            continue
        found[path.stem] = (status.st_mtime_ns, status.st_ino)
    return dict(sorted(found.items(), key=lambda item: item[1]))
