"""What all tests share."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Models in tests are tiny: on one thread they are faster than on several that wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when libraries are imported: no test takes a model from the network.
os.environ["HF_HUB_OFFLINE"] = "1"

# How long an example takes says nothing about whether it is right.
hypothesis.settings.register_profile("no deadline", deadline=None, derandomize=True)
hypothesis.settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: a long one that starts last leaves a core idle until it ends.

    The longest are those of the whole graph, which lie in no folder of their own.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, len(item.path.parts)))


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], Path]]:
    """Return a function that puts a small file system of its own at a folder: real limits, not pretended ones."""
    mounted: list[Path] = []

    def at(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("needs the command mount")
        if done.returncode:
            pytest.skip("needs the right to mount a tmpfs")
        mounted.append(folder)
        return folder

    yield at
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
