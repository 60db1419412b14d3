"""The release: a folder for others with the best checkpoint, its card, attribution, evidence and checksums.

Here: which files it has, building it aside, verifying it. Not here: the card's words (`card`), file layouts of
embeddings (`inversion.embedding_files`), uploading.

Every program of today takes the one file in `safetensors/`. The `.pt` for those of before 2023 has the same name, so
it lies in a folder that begins with a dot: InvokeAI's scan of a whole folder passes such by, and would else list two
models of one name.
"""

from __future__ import annotations

import dataclasses
import shutil
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import sha256_of
from ti_pipeline.publishing.attribution import attribution_csv, attribution_table, curations_of
from ti_pipeline.publishing.card import Released, render_card
from ti_pipeline.publishing.examples import PICTURES, examples_of, write_linked
from ti_pipeline.publishing.recipe import cleaned_recipe
from ti_pipeline.publishing.verdict import verdict

if TYPE_CHECKING:
    from pathlib import Path

    from ti_pipeline.inversion.embedding_files import Embedding
    from ti_pipeline.publishing.inputs import StudyResults

__all__ = ["CHECKSUMS", "ReleaseError", "ReleaseInfo", "verify_release", "write_release"]

CHECKSUMS = "SHA256SUMS"
_ASIDE = "-partial"


class ReleaseError(ValueError):
    """There is nothing fit to release, or what was written does not read back; the message says what to do."""


@dataclass(frozen=True)
class ReleaseInfo:
    """A finished release: its folder `folder` / `name` of the study's releases, and every file in it."""

    name: str
    folder: Path
    files: list[Path]
    best_checkpoint: str


def write_release(results: StudyResults, folder: Path) -> ReleaseInfo:
    """Write the best checkpoint's release to `folder`/<token>-<step> and return it.

    It is built aside, verified by reading it back, and renamed. A release of this name with the same files is left
    alone; one that differs is kept, and the new one is named <token>-<step>-2, -3 and so on. Raises `ReleaseError`
    when nothing was measured, a file is gone or was changed, or what was written does not read back.
    """
    released, embedding = _chosen(results)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f".*{_ASIDE}"):  # of a run that was killed
        shutil.rmtree(leftover)
    aside = folder / f".{uuid.uuid4().hex[:12]}{_ASIDE}"
    try:
        _fill(aside, results, released, embedding)
        verify_release(aside)
        _require_same_vectors(aside, released, embedding)
        final = _settle(aside, folder, f"{released.token}-{released.checkpoint.step}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return ReleaseInfo(final.name, final, _files_in(final), str(released.checkpoint.checkpoint))


def _chosen(results: StudyResults) -> tuple[Released, Embedding]:
    """Return what is to be released; its file must still be the one that was measured."""
    from ti_pipeline.inversion.embedding_files import load_embedding

    decision = verdict(results)
    if decision is None:
        raise ReleaseError(f"study {results.study.name}: nothing was measured; run the jobs evaluate and compare first")
    best, study = decision.first, results.study
    table = results.embeddings.get(best.variant)
    rows = [] if table is None else [row for row in table.itertuples() if row.checkpoint == best.checkpoint]
    if not rows:
        raise ReleaseError(f"checkpoint {best.checkpoint} is first but no longer in the embedding table; run evaluate")
    path = results.root / str(rows[0].safetensors_path)
    if not path.is_file() or sha256_of(path) != rows[0].sha256:
        raise ReleaseError(f"{path} is gone or was changed since training; run the job train again")
    variant = study.variant(best.variant)
    token = str(variant.token)
    released = Released(
        token=token,
        variant_name=best.variant,
        variant=variant,
        checkpoint=rows[0],
        attribution=attribution_table(results.provenance, results.training_set, curations_of(study, [best.variant])),
        pt_path=f".a1111/{token}.pt",
        safetensors_path=f"safetensors/{token}.safetensors",
        examples=examples_of(results, best.variant, best.checkpoint),
        has_preview=_preview(results, best.variant) is not None,
        has_losses=best.variant in results.losses,
    )
    return released, dataclasses.replace(load_embedding(path), name=token)


def _preview(results: StudyResults, variant: str) -> tuple[Path, str] | None:
    """Return the first grid of the variant's checkpoints with its axis, or None when there is none."""
    grids = results.evaluation_grids[results.evaluation_grids.variant == variant]
    found = ((results.root / str(row.path), str(row.axis)) for row in grids.itertuples())
    return next(((path, axis) for path, axis in found if path.is_file()), None)


def _fill(folder: Path, results: StudyResults, released: Released, embedding: Embedding) -> None:
    from ti_pipeline.inversion.embedding_files import save_pt, save_safetensors

    folder.mkdir()
    save_pt(folder / released.pt_path, embedding)
    save_safetensors(folder / released.safetensors_path, embedding, _origin(results, released))
    texts = {
        "README.md": render_card(results, released),
        "attribution.csv": attribution_csv(released.attribution),
        "study.yaml": results.study_text if results.study.release.recipe == "full" else cleaned_recipe(results.study),
    }
    losses = results.losses.get(released.variant_name)
    if losses is not None:
        texts["losses.csv"] = losses.to_csv(index=False, lineterminator="\n")
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("utf-8"))
    _add_pictures(folder, results, released)
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in _files_in(folder)]
    (folder / CHECKSUMS).write_bytes("".join(lines).encode("utf-8"))


def _add_pictures(folder: Path, results: StudyResults, released: Released) -> None:
    """Add one picture an axis and the first grid; their texts name the released file, so that programs find it."""
    sha256 = sha256_of(folder / released.safetensors_path)
    for axis, row in released.examples.items():
        write_linked(results.root / str(row.path), folder / PICTURES / f"{axis}.png", row, sha256)
    preview = _preview(results, released.variant_name)
    if preview is None:
        return
    path, axis = preview
    row = released.examples.get(axis)
    if row is None:
        shutil.copyfile(path, folder / "preview.png")
    else:
        write_linked(path, folder / "preview.png", row, sha256)


def _origin(results: StudyResults, released: Released) -> dict[str, str]:
    """Return where the vectors come from, for the safetensors file's own metadata."""
    facts: dict[str, Any] = {
        "study": results.study.name,
        "variant": released.variant_name,
        "checkpoint": released.checkpoint.checkpoint,
        "clip_skip": released.variant.clip_skip,
        "training_pictures": int((released.attribution.split == "train").sum()),
    }
    return {key: str(value) for key, value in facts.items()}


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def verify_release(folder: Path) -> None:
    """Raise `ReleaseError` unless every file of the release's checksums is there with that sha256."""
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or sha256_of(path) != expected:
            raise ReleaseError(f"{path} is gone or is not the file that {CHECKSUMS} names")


def _require_same_vectors(folder: Path, released: Released, embedding: Embedding) -> None:
    """Load both files back: their vectors and names must be those that were measured."""
    from ti_pipeline.inversion.embedding_files import load_embedding

    for name in (released.pt_path, released.safetensors_path):
        found = load_embedding(folder / name)
        if found.name != released.token or not found.vectors.equal(embedding.vectors):
            raise ReleaseError(f"{name} does not read back as it was written; is the disk full?")


def _settle(aside: Path, folder: Path, name: str) -> Path:
    """Give the finished folder its name, or return the release that has the same files already."""
    number = 1
    while True:
        final = folder / (name if number == 1 else f"{name}-{number}")
        if not final.exists():
            aside.rename(final)
            return final
        if _same_release(aside, final):
            return final
        number += 1


def _same_release(new: Path, old: Path) -> bool:
    """Tell whether `old` has every file of `new` with the same content; files that people added do not count."""
    names = [path.relative_to(new) for path in _files_in(new)]
    return all((old / name).is_file() and sha256_of(old / name) == sha256_of(new / name) for name in names)
