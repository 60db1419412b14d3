"""The releases of a data folder, listed and compared: `python -m ti_pipeline.releases`.

Without arguments it lists all, newest last; `--diff OLD NEW` says how scores, recipe and data of two versions differ,
e.g. `--diff demo/demo-v8-200 demo/demo-v8-200-2`. Not here: the index itself (`publishing.release_index`).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from ti_pipeline.publishing.release import ReleaseError
    from ti_pipeline.resources import DataStore, data_url

    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.releases", description=__doc__)
    parser.add_argument(
        "--diff", nargs=2, metavar=("OLD", "NEW"), help="two releases as STUDY/NAME or STUDY/NAME@SHA256"
    )
    options = parser.parse_args(arguments)
    store = DataStore(url=data_url())
    with store.work(reads=["releases"]) as root:
        try:
            lines = _compared(root, *options.diff) if options.diff else _listed(root)
        except ReleaseError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return 1
    print("\n".join(lines))  # noqa: T201
    return 0


def _listed(root: Path) -> list[str]:
    from ti_pipeline.publishing.release_index import INDEX, read_index

    entries = [entry for path in sorted((root / "releases").glob(f"*/{INDEX}")) for entry in read_index(path)]
    return [
        f"{entry['made']}  {entry['study']}/{entry['name']}@{entry['sha256'][:8]}  {_score(entry)}"
        for entry in sorted(entries, key=lambda entry: str(entry["made"]))
    ] or ["there are no releases yet: the job compare makes one"]


def _score(entry: dict[str, Any]) -> str:
    overall = entry["scores"].get("overall")
    return f"overall {overall['score']:.3f} ({overall['low']:.3f}-{overall['high']:.3f})" if overall else "not scored"


def _compared(root: Path, old: str, new: str) -> list[str]:
    from ti_pipeline.publishing.release_index import INDEX, differences, find_release, read_index

    first, second = (
        find_release(read_index(root / "releases" / study / INDEX), name)
        for study, _, name in (which.partition("/") for which in (old, new))
    )
    changes = [f"{path}: {_worded(before)} -> {_worded(after)}" for path, before, after in differences(first, second)]
    return [f"--- {old} ({first['made']})", f"+++ {new} ({second['made']})", *(changes or ["nothing differs"])]


def _worded(value: Any) -> str:
    return "absent" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    raise SystemExit(main())
