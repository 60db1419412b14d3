"""The release index: what each release of a study was, as lines that can be compared, kept for good.

`releases/<study>/index.jsonl` has one line of JSON per version, oldest first: scores with their intervals, the whole
recipe, counts of the data, versions of packages, and the sha256 of the release's checksums. Lines are only added; one
that is there is never changed, also when its release is removed.
Here: the lines, adding one, comparing two. Not here: the files of a release (`release`), or printing (`releases`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import sha256_of, write_atomically
from ti_pipeline.publishing.attribution import artists_counted, attribution_table, curations_of
from ti_pipeline.publishing.release import CHECKSUMS, ReleaseError
from ti_pipeline.publishing.verdict import boards

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.publishing.release import ReleaseInfo

__all__ = ["INDEX", "add_to_index", "differences", "find_release", "read_index"]

INDEX = "index.jsonl"
COMPARED = ("scores", "recipe", "data", "versions")


def add_to_index(results: StudyResults, made: ReleaseInfo) -> bool:
    """Add a finished release to the index beside its folder, unless this very version is in it; tell whether it was."""
    from filelock import FileLock

    path = made.folder.parent / INDEX
    entry = _entry(results, made)
    with FileLock(path.with_name(f".{INDEX}.lock")):
        known = read_index(path)
        if any((old["name"], old["sha256"]) == (entry["name"], entry["sha256"]) for old in known):
            return False
        before = path.read_bytes() if path.exists() else b""
        line = json.dumps(entry, sort_keys=True, ensure_ascii=False, default=str) + "\n"
        with write_atomically(path) as aside:
            aside.write_bytes(before + line.encode("utf-8"))
    return True


def _entry(results: StudyResults, made: ReleaseInfo) -> dict[str, Any]:
    standings = {
        axis: row for axis, rows in boards(results).items() for row in rows if row.checkpoint == made.best_checkpoint
    }
    variant = next(iter(standings.values())).variant
    scores = {
        axis: {"score": row.score, "low": row.low, "high": row.high, "pictures": row.pictures, "rank": row.rank}
        for axis, row in standings.items()
    }
    return {
        "study": results.study.name,
        "name": made.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": made.best_checkpoint,
        "sha256": sha256_of(made.folder / CHECKSUMS),
        "scores": scores,
        "recipe": {"name": variant} | results.study.variant(variant).model_dump(mode="json"),
        "data": _counts(results, variant),
        "versions": results.versions,
    }


def _counts(results: StudyResults, variant: str) -> dict[str, int]:
    study = results.study
    used = attribution_table(results.provenance, results.training_set, curations_of(study, [variant]))
    plan = str(study.variant(variant).captions)
    vocabulary = results.vocabularies.get(plan)
    return {
        "posts found": len(results.posts),
        "posts kept": int((results.posts.status == "kept").sum()),
        "pictures trained on": int((used.split == "train").sum()),
        "pictures held out": int((used.split == "validation").sum()),
        "artists": len(artists_counted(used)),
        "tags kept": 0 if vocabulary is None else int(vocabulary.kept.sum()),
    }


def read_index(path: Path) -> list[dict[str, Any]]:
    """Return a study's releases, oldest first; none where there is no index. Raises `ReleaseError` for a bad line."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            entry["name"], entry["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"{path}:{number}: not a line of a release index ({error}); remove or repair it"
            ) from error
        found.append(entry)
    return found


def find_release(entries: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the newest entry of a name, or of a name and the start of its sha256: `ember-v8-300@1f0c`.

    Raises `ReleaseError` with the names that there are.
    """
    wanted, _, sha256 = name.partition("@")
    found = [entry for entry in entries if entry["name"] == wanted and str(entry["sha256"]).startswith(sha256)]
    if found:
        return found[-1]
    there = ", ".join(f"{entry['name']}@{entry['sha256'][:8]}" for entry in entries) or "none"
    raise ReleaseError(f"there is no release {name}; known: {there}")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return what differs between two entries as `(path, old, new)`, paths such as `recipe.vectors`; None is absent."""
    before, after = (dict(_leaves({part: entry.get(part, {}) for part in COMPARED})) for entry in (old, new))
    return [
        (path, before.get(path), after.get(path))
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
