"""A local copy of parts of a remote data folder, that several machines may work on at the same time.

A ledger beside the copy tells which version of each file was last the same here and there. So only what a run made or
changed is sent, only what it removed is removed there, and what somebody else removed goes here, too: it is not sent
back. Not here: which folders a run needs (the assets), or what a data folder holds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from upath import UPath

__all__ = ["Mirror"]

# What stores tell of an object's version, the most telling first.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "created")


class Mirror:
    """The copy at `root` of the data folder at `remote`."""

    def __init__(self, remote: UPath, root: Path) -> None:
        """Take the remote data folder and the local folder of its copy."""
        self.remote, self.root = remote, root

    def pull(self, folder: str, unwanted: Callable[[str], bool]) -> None:
        """Make the copy of `folder` like the remote one; what was made here and not sent yet stays.

        Of that, what is `unwanted` (by its path below the data folder) goes.
        """
        there, known = self._there(folder), self._known(folder)
        for name in self._here(folder):
            gone = name in known and name not in there
            if gone or (name not in known and unwanted(name)):
                (self.root / name).unlink()
        for name, version in there.items():
            if known.get(name, {}).get("there") != version or not (self.root / name).exists():
                self._fetch(name)
                known[name] = {"there": version, "here": self._stamp(name)}
        self._remember(folder, {name: entry for name, entry in known.items() if name in there})

    def push(self, folder: str, unwanted: Callable[[str], bool]) -> None:
        """Send what was made or changed in `folder` since it was pulled; remove there what was removed here.

        What is `unwanted` is neither sent nor kept.
        """
        here, known = self._here(folder), self._known(folder)
        for name in here:
            if unwanted(name):
                (self.root / name).unlink()
            elif known.get(name, {}).get("here") != self._stamp(name):
                self._send(name)
                known[name] = {"there": None, "here": self._stamp(name)}
        there = self._there(folder)
        for name in known.keys() - set(self._here(folder)):
            if name in there:
                self.remote.fs.rm_file(self._far(name))
        versions = {name: {**known[name], "there": there.get(name)} for name in known if name in there}
        self._remember(folder, {name: entry for name, entry in versions.items() if (self.root / name).exists()})

    def _far(self, name: str) -> str:
        return f"{self.remote.path.rstrip('/')}/{name}"

    def _fetch(self, name: str) -> None:
        from ti_pipeline.files import write_atomically

        with write_atomically(self.root / name) as aside:
            self.remote.fs.get_file(self._far(name), str(aside))

    def _send(self, name: str) -> None:
        far = self._far(name)
        self.remote.fs.makedirs(far.rpartition("/")[0], exist_ok=True)
        self.remote.fs.put_file(str(self.root / name), far)

    def _there(self, folder: str) -> dict[str, str]:
        """Return the version of each remote file of a folder: one listing, however many they are."""
        self.remote.fs.invalidate_cache()  # other machines write, too
        try:
            found: Mapping[str, Mapping[str, Any]] = self.remote.fs.find(self._far(folder), detail=True)
        except FileNotFoundError:
            return {}
        start = len(self._far("").lstrip("/"))
        versions = {path.lstrip("/")[start:]: _version(info) for path, info in found.items()}
        return {name: version for name, version in versions.items() if name.startswith(f"{folder}/")}

    def _here(self, folder: str) -> list[str]:
        found = (path for path in (self.root / folder).rglob("*") if path.is_file() and path.name[0] != ".")
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def _stamp(self, name: str) -> list[int]:
        stat = (self.root / name).stat()
        return [stat.st_size, stat.st_mtime_ns]

    @property
    def _ledger(self) -> Path:
        return self.root / ".mirror.json"

    def _entries(self) -> dict[str, Any]:
        return json.loads(self._ledger.read_text(encoding="utf-8")) if self._ledger.exists() else {}

    def _known(self, folder: str) -> dict[str, dict[str, Any]]:
        return {name: entry for name, entry in self._entries().items() if name.startswith(f"{folder}/")}

    def _remember(self, folder: str, entries: dict[str, dict[str, Any]]) -> None:
        """Put the entries of a folder in place of those that the ledger has; other runs write theirs."""
        from filelock import FileLock

        from ti_pipeline.files import write_json

        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".mirror.lock"):
            others = {name: entry for name, entry in self._entries().items() if not name.startswith(f"{folder}/")}
            write_json(self._ledger, others | entries)


def _version(info: Mapping[str, Any]) -> str:
    return f"{info.get('size')} " + next((str(info[field]) for field in _VERSIONS if info.get(field)), "")
