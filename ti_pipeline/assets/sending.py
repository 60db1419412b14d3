"""What assets publish: which study publishes where, and the content policy's gates before anything leaves.

Nothing is sent unless the study has `publish`. Not here: sending (`publishing.remote`, `publishing.checkpoints`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from upath import UPath

from ti_pipeline.assets.policy import policy_of, require_allowed_pictures, require_clean_texts
from ti_pipeline.io_managers import Tables
from ti_pipeline.partitions import STUDIES, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.progress import Progress
    from ti_pipeline.publishing.checkpoints import CheckpointSender, Outbox
    from ti_pipeline.publishing.inputs import StudyResults
    from ti_pipeline.resources import DataStore

__all__ = ["checkpoint_sender", "finish_checkpoints", "publish", "require_publishable", "send_checkpoints"]


def _outbox(key: Key, store: DataStore, root: Path) -> Outbox | None:
    """Return where a variant's checkpoints lie and go to; None where the study publishes none."""
    from ti_pipeline.publishing.attribution import attribution_csv, attribution_table, curations_of
    from ti_pipeline.publishing.checkpoints import Outbox

    study = STUDIES[key.study].study
    if study.publish is None or not study.publish.checkpoints:
        return None
    provenance, training_set = (_table(store, name, key.study) for name in ("provenance", "training_set"))
    table = attribution_table(provenance, training_set, curations_of(study, [key.part]))
    folder = root / "embeddings" / key.study / key.part
    return Outbox(key.study, key.part, folder, study.publish.url, attribution_csv(table))


def _table(store: DataStore, name: str, key: str) -> pd.DataFrame:
    table = Tables(UPath(store.url)).read(name, key)
    if table is None:
        raise FileNotFoundError(f"study {key}: no table {name}, and nothing is published without: run the job prepare")
    return table


def checkpoint_sender(
    keys: Iterable[Key], store: DataStore, root: Path, tell: Callable[[str], None]
) -> CheckpointSender:
    """Return what publishes checkpoints of these variants while they train: those whose studies want it."""
    from ti_pipeline.publishing.checkpoints import CheckpointSender

    boxes = [box for key in keys if (box := _outbox(key, store, root)) is not None]
    return CheckpointSender(boxes, tell)


def finish_checkpoints(
    tables: Mapping[Key, pd.DataFrame], store: DataStore, root: Path, tell: Callable[[str], None]
) -> dict[Key, dict[str, Any]]:
    """After a training, send what is missing; return what the UI shows of it.

    A training that is finished does not fail for a lost connection: that is told, and publishing the release, which
    sends checkpoints too, fails until all of them are there.
    """
    from ti_pipeline.publishing.remote import PublishError

    told: dict[Key, dict[str, Any]] = {}
    for key, table in tables.items():
        try:
            count = send_checkpoints(key, table, store, root)
        except PublishError as error:
            tell(f"{key}: checkpoints are not published, the job compare will try again: {error}")
            told[key] = {"published": f"not whole: {error}"}
        else:
            told[key] = {} if count is None else {"published": f"{len(table)} checkpoints"}
    return told


def send_checkpoints(key: Key, table: pd.DataFrame, store: DataStore, root: Path) -> int | None:
    """Send a variant's checkpoints as far as they are missing; return how many files were sent, None if unwanted."""
    from ti_pipeline.publishing.checkpoints import publish_checkpoints

    outbox = _outbox(key, store, root)
    return None if outbox is None else publish_checkpoints(outbox, table.checkpoint)


def publish(results: StudyResults, folder: Path, store: DataStore, progress: Progress) -> dict[str, Any]:
    """Send a release, and checkpoints that are missing, to where the study publishes, if it does.

    The policy is asked before anything leaves; what cannot be sent is an error. Returns what the UI shows.
    """
    from ti_pipeline.publishing.remote import publish_release

    study = results.study
    if study.publish is None:
        return {}
    trained = {Key(study.name, part): table for part, table in results.embeddings.items()}
    for key in trained:
        require_publishable(key, store)
    for key, table in trained.items():
        send_checkpoints(key, table, store, results.root)
    done = publish_release(folder, study.publish.url, progress=progress)
    return {"published": done.url, "files sent": len(done.sent), "files there already": len(done.there)}


def require_publishable(key: Key, store: DataStore) -> None:
    """Raise `PolicyError` unless today's policy allows what a variant was trained on and what it says.

    Asked anew before a release leaves, since artists may have opted out between training and now.
    """
    from ti_pipeline.e621.policy import PolicyError

    loaded = STUDIES[key.study]
    policy = policy_of(loaded, store)
    plan = str(loaded.study.variant(key.part).captions)
    require_clean_texts(loaded, key.part, _table(store, "captions", str(Key(key.study, plan))), policy)
    posts = _table(store, "posts", key.study)
    for crop in loaded.study.crops_of(key.part):
        require_allowed_pictures(loaded, _table(store, "crops", str(Key(key.study, crop))), posts, policy)
    if _purged_since(key, store):
        raise PolicyError(
            f"study {key.study}: {key.part} was trained on pictures of an artist who has been purged since; run the "
            "jobs train, evaluate and compare again"
        )


def _purged_since(key: Key, store: DataStore) -> bool:
    """Tell whether a purge listed the variant after its table was written (see `sources.purge`)."""
    purges = Tables(UPath(store.url)).read("purges", None)
    if purges is None:
        return False
    place = UPath(store.url) / "tables" / "embedding" / f"{key}.parquet"
    own = f"embeddings/{key.study}/{key.part}/"
    current = purges.item.str.startswith(own) & ~purges.item.str.startswith(f"{own}earlier/")
    listed = purges[(purges.kind == "embedding") & current]
    return bool((listed["at"] > place.fs.modified(place.path)).any())
