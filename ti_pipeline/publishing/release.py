"""The release: the best checkpoint as files for other programs, with card, attribution, evidence and checksums.

Built beside its place and renamed at the end, checked by loading it back. A finished release is never overwritten.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ti_pipeline.files import sha256_of
from ti_pipeline.publishing.attribution import attribution_of_variant
from ti_pipeline.publishing.card import release_card

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["ReleaseError", "ReleaseInfo", "write_release"]

_SUMS = "SHA256SUMS"


class ReleaseError(RuntimeError):
    """A release could not be made or does not load back as it was written."""


@dataclass(frozen=True)
class ReleaseInfo:
    """A finished release."""

    name: str
    folder: Path
    files: list[Path]
    best_checkpoint: str


def write_release(results: StudyResults, folder: Path) -> ReleaseInfo:
    """Write the release of the overall best checkpoint into `folder`/<token>-<step> and return it.

    The two embedding files lie in folders of their own, since programs that read both take one for the other. The
    same content again is left alone; other content under the same name gets `-2`, `-3`, …
    Raises `ReleaseError` when the checkpoint is gone or the written files do not load back the same.
    """
    overall = results.leaderboard[(results.leaderboard.axis == "overall") & results.leaderboard.best]
    best = overall.iloc[0]
    token = str(results.study.variant(str(best.variant)).token)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{uuid.uuid4().hex[:12]}-partial"
    try:
        _fill(results, best, token, aside)
        name = _free_name(folder, f"{token}-{best.step}", aside)
        if not (folder / name).exists():
            aside.rename(folder / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    place = folder / name
    files = sorted(path for path in place.rglob("*") if path.is_file())
    return ReleaseInfo(name, place, files, str(best.checkpoint))


def _free_name(folder: Path, name: str, aside: Path) -> str:
    """Return the name of the release with this content, or the first one that is free."""
    sums = (aside / _SUMS).read_text(encoding="utf-8")
    number = 1
    while True:
        candidate = name if number == 1 else f"{name}-{number}"
        there = folder / candidate / _SUMS
        if not (folder / candidate).exists() or (there.exists() and there.read_text(encoding="utf-8") == sums):
            return candidate
        number += 1


def _fill(results: StudyResults, best: pd.Series, token: str, folder: Path) -> None:
    from ti_pipeline.inversion.embedding_files import load_embedding, save_pt, save_safetensors

    table = results.embeddings[str(best.variant)]
    row = table[table.checkpoint == best.checkpoint].iloc[0]
    source = results.root / str(row.safetensors_path)
    if not source.exists() or sha256_of(source) != row.sha256:
        raise ReleaseError(f"{source} is gone or was changed since training; run the job train again")
    # The A1111 file also tells the base model; the name inside becomes the released one.
    embedding = replace(load_embedding(results.root / str(row.pt_path)), name=token)
    pt, safetensors = folder / "a1111" / f"{token}.pt", folder / "safetensors" / f"{token}.safetensors"
    save_pt(pt, embedding)
    save_safetensors(safetensors, embedding)
    for path in (pt, safetensors):
        if not bool((load_embedding(path).vectors == load_embedding(source).vectors).all()):
            raise ReleaseError(f"{path.name} does not load back as it was written")
    attribution = attribution_of_variant(results, str(best.variant))
    attribution.to_csv(folder / "attribution.csv", index=False, lineterminator="\n")
    card = release_card(results, best, attribution, sha256_of(safetensors))
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    (folder / "study.yaml").write_text(results.study_text, encoding="utf-8", newline="\n")
    if str(best.variant) in results.losses:
        results.losses[str(best.variant)].to_csv(folder / "losses.csv", index=False, lineterminator="\n")
    _copy_grid(results, str(best.variant), folder / "preview.png")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    (folder / _SUMS).write_text(sums, encoding="utf-8", newline="\n")


def _copy_grid(results: StudyResults, variant: str, target: Path) -> None:
    grids = results.evaluation_grids[results.evaluation_grids.variant == variant]
    if len(grids):
        shutil.copyfile(results.root / str(grids.path.iloc[0]), target)
