"""What must be true of a study's stored tables and files together: each is whole, and says what its sources say.

Every function takes a table's key, its frame and what is stored, and yields a sentence per problem. Not here: columns,
types and bounds (`contracts`), rules of the content policy, or when the checks run (`checks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ti_pipeline.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.studies import Study

__all__ = ["PROBLEMS_OF_FILES", "PROBLEMS_OF_TABLES", "Stored", "problems_of_dataset", "problems_of_release"]

_SHOWN = 5
# Bounds of scores; `kid`, which has none, is only finite.
_SHARES = ("match", "probability", "tags", "broken")
_COSINES = ("near", "sameness", "training", "prompt", "copy")
# What every cell of an axis has, if one has it.
_OF_EVERY_CELL = ("match", "probability", "near", "training", "prompt", "broken")


@dataclass(frozen=True)
class Stored:
    """A data folder as the checks see it: its local root, how its tables are read, and the study."""

    root: Path
    read: Callable[[str, str | None], pd.DataFrame | None]
    study: Study

    def table(self, name: str, key: str) -> pd.DataFrame:
        """Return a table, without rows where it was never made."""
        from ti_pipeline.schemas import TABLES

        frame = self.read(name, key)
        return TABLES[name].empty() if frame is None else frame

    def variants_beside(self, key: str) -> list[str]:
        """Return the keys of the study's other variants."""
        study = self.of_study(key)
        return [other for name in self.study.variants if (other := f"{study}__{name}") != key]

    def of_study(self, key: str) -> str:
        """Return the study's key of a key of any partition."""
        return key.partition("__")[0]


def _differ(what: str, found: Any, wanted: Any) -> Iterator[str]:
    """Tell of two sets of keys what one lacks of the other."""
    lacks, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if lacks:
        yield f"{what}: {len(lacks)} are missing, e.g. {_some(lacks)}"
    if more:
        yield f"{what}: {len(more)} should not be there, e.g. {_some(more)}"


def _some(keys: list[Any]) -> str:
    return ", ".join(map(str, keys[:_SHOWN]))


def _files(rows: Any, root: Path, path: str, sha256: str) -> Iterator[str]:
    """Tell of files that are not there, or are not those that the table names."""
    for row in rows.itertuples():
        name, digest = getattr(row, path), getattr(row, sha256)
        if not (root / name).is_file():
            yield f"{name} is not there"
        elif sha256_of(root / name) != digest:
            yield f"{name} is not the file that the table names"


def posts_are_some(_key: str, frame: pd.DataFrame, _stored: Stored) -> Iterator[str]:
    """A study without a kept post has nothing to train on."""
    if not (frame.status == "kept").any():
        yield "no post was kept"


def post_tags_are_of_posts(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Tags are those of kept posts, all of them."""
    posts = stored.table("posts", key)
    kept = posts[posts.status == "kept"]
    tagged = kept.post_id[kept.filter(like="tags_").map(len).sum(axis=1) > 0]
    yield from _differ("posts with tags", frame.post_id, tagged)


def frequencies_are_counts(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each tag is counted once for each post that has it."""
    counted = stored.table("post_tags", key).astype({"tag": str}).groupby("tag").post_id.nunique()
    yield from _differ("tags", frame.tag, counted.index)
    shared = frame[frame.tag.isin(counted.index)]
    wrong = shared.tag[shared["count"].to_numpy() != counted.loc[shared.tag.astype(str)].to_numpy()].tolist()
    if wrong:
        yield f"the count of {len(wrong)} tags is wrong, e.g. {_some(wrong)}"


def images_are_whole(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """There is a row for each post, and each picture is the file that the row names."""
    yield from _differ("posts", frame.post_id, stored.table("posts", key).post_id)
    good = frame[frame.status == "ok"]
    if good.empty:
        yield "no picture is there"
    yield from _files(good, stored.root, "path", "sha256")


def provenance_is_of_every_picture(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each stored picture has a row that names the same file."""
    images = stored.table("images", key)
    good = images[images.status == "ok"]
    used = frame[frame.in_use]
    yield from _differ(
        "pictures with an origin",
        zip(used.post_id, used.sha256, strict=True),
        zip(good.post_id, good.sha256, strict=True),
    )


def audit_is_of_every_picture(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each stored picture was looked at."""
    images = stored.table("images", key)
    lacks = set(images.post_id[images.status == "ok"]) - set(frame.post_id)
    if lacks:
        yield f"{len(lacks)} pictures were not audited, e.g. {_some(sorted(lacks))}"


def training_set_is_of_every_post(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each curation decides on the same posts, and what it keeps is a stored picture."""
    decided = set(frame.post_id)
    for name in stored.study.named_curations():
        yield from _differ(f"posts of curation {name}", frame.post_id[frame.curation == name], decided)
    kept = frame[frame.kept]
    images = stored.table("images", key)
    there = set(images.path[images.status == "ok"])
    gone = sorted(set(kept.path.dropna()) - there)
    if kept.path.isna().any() or gone:
        yield f"{int(kept.path.isna().sum()) + len(gone)} kept pictures are not stored, e.g. {_some(gone)}"
    wrong = kept.post_id[kept.split == "out"].tolist()
    if wrong:
        yield f"{len(wrong)} posts are kept and out, e.g. {_some(wrong)}"


def captions_are_of_every_picture(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each picture of the plan that its tagger does not refuse has its caption, made of tags that the vocabulary keeps.

    What lies beside a picture may say anything.
    """
    from ti_pipeline.tagging.trained import pictures_of_plan

    study, _, part = key.partition("__")
    posts, source = stored.table("posts", study), stored.study.captions[part].source
    wanted = set(pictures_of_plan(stored.study, part, stored.table("training_set", study), posts).captioned.tolist())
    if source == "tagger":  # which of those on which it sees something are refused, is the policy's business
        wanted -= set(stored.table("tagger_tags", key).post_id) - set(frame.post_id)
    yield from _differ("captions of posts", frame.post_id, wanted)
    told = posts.post_id[posts.captions.map(len) > 0] if source == "sidecar" else []
    vocabulary = stored.table("vocabulary", key)
    made = frame.tags[~frame.post_id.isin(told)]
    unknown = {tag for tags in made for tag in tags} - set(vocabulary.tag[vocabulary.kept])
    if unknown:
        yield f"captions say tags that the vocabulary does not keep: {_some(sorted(unknown))}"
    wrong = frame.post_id[frame.tags.map(len) != frame.tag_count].tolist()
    if wrong:
        yield f"{len(wrong)} captions have another number of tags than the table says, e.g. of post {_some(wrong)}"


def vocabulary_decides_on_every_tag(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each tag of the study is decided on, once."""
    from ti_pipeline.tagging.trained import replaced

    plan = stored.study.captions[key.partition("__")[2]]
    if plan.source != "tagger":
        uses = replaced(stored.table("post_tags", stored.of_study(key)), plan.replace)
        yield from _differ("tags", frame.tag, uses.tag.astype("str").unique())


def crops_are_of_every_picture(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each picture of the set's curation was cut, and each crop is the file that the table names."""
    study, _, part = key.partition("__")
    curation = stored.study.crops.named()[part].curation
    chosen = stored.table("training_set", study)
    kept = chosen[(chosen.curation == curation) & chosen.kept]
    yield from _differ("pictures that were cut", frame.post_id, kept.post_id)
    good = frame[frame.status == "ok"]
    yield from _files(good, stored.root, "path", "sha256")
    split_of = dict(zip(kept.post_id, kept.split, strict=True))
    wrong = [row.post_id for row in good.itertuples() if split_of.get(row.post_id, row.split) != row.split]
    if wrong:
        yield f"{len(wrong)} crops are in another split than their pictures, e.g. of post {_some(wrong)}"


def embeddings_load(_key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each checkpoint is there as it was trained, in both of its files, and is no row of zeros."""
    from ti_pipeline.inversion.embedding_files import EmbeddingFileError, load_embedding

    if frame.empty:
        yield "there is no checkpoint"
    for row in frame.itertuples():
        before = list(_one_file(row.safetensors_path, row.sha256, stored))
        before += _one_file(row.pt_path, row.pt_sha256, stored)
        yield from before
        if before:
            continue
        try:
            one, other = (load_embedding(stored.root / path) for path in (row.safetensors_path, row.pt_path))
        except EmbeddingFileError as error:
            yield str(error)
            continue
        if tuple(one.vectors.shape) != (row.vectors, row.width):
            yield f"{row.checkpoint} is {tuple(one.vectors.shape)}, wants ({row.vectors}, {row.width})"
        if not bool(one.vectors.isfinite().all()) or not bool(one.vectors.abs().sum(dim=1).gt(0).all()):
            yield f"{row.checkpoint} has a vector of zeros, or one that is not finite"
        if not one.vectors.equal(other.vectors):
            yield f"{row.checkpoint}: its two files differ"


def _one_file(path: str, digest: str, stored: Stored) -> Iterator[str]:
    import pandas as pd

    yield from _files(pd.DataFrame({"path": [path], "sha256": [digest]}), stored.root, "path", "sha256")


def losses_are_whole(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Every update up to the last checkpoint has its loss, and every number of the course is one."""
    import numpy as np
    import pyarrow.parquet as pq

    study, _, part = key.partition("__")
    path = stored.root / "embeddings" / study / part / "losses.parquet"
    if not path.is_file():
        yield f"{path.relative_to(stored.root).as_posix()} is not there"
        return
    losses = pq.read_table(path).to_pandas()
    yield from _differ("updates with a loss", losses.step, range(1, int(frame.step.max() if len(frame) else 0) + 1))
    for column in ("loss", "gradient_norm", "vector_norm", "learning_rate"):
        bad = losses.step[~np.isfinite(losses[column])].tolist()
        if bad:
            yield f"{column} of {len(bad)} updates is no number, e.g. of update {_some(bad)}"
    bad = frame.checkpoint[(frame.step > 0) & ~np.isfinite(frame.mean_loss.astype("float64"))].tolist()
    if bad:
        yield f"the mean loss of {_some(bad)} is no number"


_CELL = ["axis", "value", "seed", "sampler", "steps", "cfg", "size"]


def cells_are_pictures(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each checkpoint has the same cells of its seeds; each is the file that the table names and shows something.

    In a race some have more seeds than others; all have the first ones.
    """
    from PIL import Image

    from ti_pipeline.evaluation.suites import first_seeds

    if frame.empty:
        yield "there is no cell"
    cells = {name: set(map(tuple, rows[_CELL].to_numpy())) for name, rows in frame.groupby("checkpoint")}
    others = (stored.table("evaluation_images", other)[_CELL] for other in stored.variants_beside(key))
    every = set().union(*cells.values(), *(map(tuple, other.to_numpy()) for other in others))
    place, first = _CELL.index("seed"), set(first_seeds(stored.study))
    for name, own in cells.items():
        drawn = {cell[place] for cell in own} | first
        wanted = {cell for cell in every if cell[place] in drawn}
        if own != wanted:
            yield f"{name} lacks {len(wanted - own)} of {len(wanted)} cells"
    yield from _files(frame, stored.root, "path", "sha256")
    known = set(stored.table("embedding", key).sha256)
    strange = sorted(set(frame.checkpoint[~frame.embedding_sha256.isin(known)]))
    if strange:
        yield f"cells are of other embeddings than those of the table: {_some(strange)}"
    for row in frame.itertuples():
        path = stored.root / row.path
        if not path.is_file():
            continue
        try:
            with Image.open(path) as picture:
                size, extrema = picture.size, picture.convert("L").getextrema()
        except OSError as error:
            yield f"{row.path} cannot be read: {error}"
            continue
        if size != (row.size, row.size):
            yield f"{row.path} is {size}, wants {row.size} × {row.size}"
        if extrema[0] == extrema[1]:
            yield f"{row.path} is of one colour"


def scores_are_of_every_cell(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each cell has its scores, the same metrics in every checkpoint, and every score is one that it can be."""
    import numpy as np

    beside = {m for other in stored.variants_beside(key) for m in stored.table("evaluation_scores", other).metric}
    lacks = sorted(beside - set(frame.metric))
    if lacks:
        yield f"metrics that other variants have are missing: {_some(lacks)}"
    of_axis = frame.groupby("axis").cell.nunique()
    for (metric, axis), rows in frame[frame.metric.isin(_OF_EVERY_CELL)].groupby(["metric", "axis"]):
        if len(rows) < of_axis[axis]:
            yield f"{of_axis[axis] - len(rows)} cells of {axis} have no {metric}"

    yield from _differ("cells with scores", frame.cell, stored.table("evaluation_images", key).cell)
    counts = frame.pivot_table(index=["metric", "axis"], columns="checkpoint", values="cell", aggfunc="count")
    counts = counts.fillna(0) / frame.groupby("checkpoint").seed.nunique()
    uneven = counts[counts.std(axis=1, ddof=0) > 1e-9]
    if len(uneven):
        yield f"checkpoints have different numbers of scores: {_some([' of '.join(place) for place in uneven.index])}"
    for names, low, high in ((_SHARES, 0.0, 1.0), (_COSINES, -1.0, 1.0)):
        of = frame[frame.metric.isin(names)]
        bad = of[(of.score < low - 1e-6) | (of.score > high + 1e-6)]
        if len(bad):
            example = f"{bad.metric.iloc[0]} {bad.score.iloc[0]}"
            yield f"{len(bad)} scores are outside {low:.0f} to {high:.0f}, e.g. {example}"
    if not np.isfinite(frame.score).all():
        yield "scores are no numbers"


def one_is_best(_key: str, frame: pd.DataFrame, _stored: Stored) -> Iterator[str]:
    """On each axis not two are named best, the best is of the first rank, and a score lies in its interval."""
    if frame.empty:
        yield "the leaderboard is empty"
    for axis, rows in frame.groupby("axis"):
        best = rows[rows.best]
        if len(best) > 1:
            yield f"{axis}: {len(best)} are named best: {_some(best.checkpoint.tolist())}"
        if (best["rank"] != 1).any():
            yield f"{axis}: {best.checkpoint.iloc[0]} is named best, and is of rank {best['rank'].iloc[0]}"
    out = frame[(frame.score < frame.low - 1e-9) | (frame.score > frame.high + 1e-9)]
    if len(out):
        yield f"{len(out)} scores lie outside their interval, e.g. {out.axis.iloc[0]} of {out.checkpoint.iloc[0]}"


def leaderboard_is_of_the_scores(key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Those that are ranked are those that were scored."""
    names = [f"{key}__{variant}" for variant in stored.study.variants]
    scored = {name for variant in names for name in stored.table("evaluation_scores", variant).checkpoint}
    yield from _differ("ranked checkpoints", frame.checkpoint[frame.candidate], scored)


def grids_are_there(_key: str, frame: pd.DataFrame, stored: Stored) -> Iterator[str]:
    """Each grid is a picture, as PNG and where told as WebP."""
    from PIL import Image

    if frame.empty:
        yield "there is no grid"
    for path in [*frame.path, *frame.webp_path.dropna()]:
        try:
            with Image.open(stored.root / path) as picture:
                picture.verify()
        except (OSError, SyntaxError) as error:
            yield f"{path} cannot be read: {error}"


def problems_of_report(key: str, stored: Stored) -> Iterator[str]:
    """The report is a whole page that names the best checkpoint."""
    path = stored.root / "reports" / f"{key}.html"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not text.rstrip().endswith("</html>"):
        yield f"reports/{key}.html is not there or not whole"
        return
    board = stored.table("leaderboard", key)
    for name in board.checkpoint[(board.axis == "overall") & board.best]:
        if name not in text:
            yield f"reports/{key}.html does not name the best checkpoint, {name}"


def problems_of_release(key: str, stored: Stored) -> Iterator[str]:
    """Every release has its files as written, both embeddings load, and every picture trained on is attributed."""
    from ti_pipeline.inversion.embedding_files import EmbeddingFileError, load_embedding
    from ti_pipeline.publishing.release import CHECKSUMS, ReleaseError, verify_release

    folder = stored.root / "releases" / key
    releases = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not releases:
        yield f"releases/{key} has no release"
    for release in releases:
        try:
            verify_release(release)
            listed = {line.partition("  ")[2] for line in (release / CHECKSUMS).read_text("utf-8").splitlines()}
            present = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
            yield from _differ(f"files of {release.name}", present - {CHECKSUMS}, listed)
            files = [path for path in release.rglob("*") if path.suffix in (".pt", ".safetensors")]
            if not {path.suffix for path in files} >= {".pt", ".safetensors"}:
                yield f"{release.name} lacks one of its embedding files"
            for path in files:
                load_embedding(path)
        except (ReleaseError, EmbeddingFileError, OSError) as error:
            yield str(error)
    if releases:
        yield from _attribution(key, max(releases, key=lambda path: path.stat().st_mtime_ns), stored)


def _attribution(key: str, release: Path, stored: Stored) -> Iterator[str]:
    """The newest release names the artist of every picture of the variant that it was made of."""
    import pandas as pd

    from ti_pipeline.publishing.attribution import curations_of

    board = stored.table("leaderboard", key)
    first = board[(board.axis == "overall") & (board["rank"] == 1)]  # released also where nothing was learned
    path = release / "attribution.csv"
    if first.empty or not path.is_file():
        yield f"{release.name} has no attribution"
        return
    chosen = stored.table("training_set", key)
    used = chosen[chosen.kept & chosen.curation.isin(curations_of(stored.study, [first.variant.iloc[0]]))]
    lacks = set(used.post_id) - set(pd.read_csv(path).post_id)
    if lacks:
        yield f"{release.name} does not attribute {len(lacks)} pictures, e.g. post {_some(sorted(lacks))}"


def problems_of_dataset(key: str, stored: Stored) -> Iterator[str]:
    """Each exported picture has its caption beside it, and the list names just these; what was not exported is fine."""
    import json

    folder = stored.root / "exports" / key.replace("__", "/")
    if not folder.exists():
        return
    listing = folder / "metadata.jsonl"
    if not listing.is_file():
        yield f"{listing.relative_to(stored.root).as_posix()} is not there"
        return
    entries = [json.loads(line) for line in listing.read_text(encoding="utf-8").splitlines()]
    if not entries:
        yield "no picture was exported"
    names = {entry["file_name"] for entry in entries}
    written = (
        p for p in folder.rglob("*") if p.suffix in (".png", ".webp")
    )  # a folder per stage, where there are some
    yield from _differ("pictures", (path.relative_to(folder).as_posix() for path in written), names)
    for entry in entries:
        caption = (folder / entry["file_name"]).with_suffix(".txt")
        if not caption.is_file() or caption.read_text(encoding="utf-8") != (entry["text"] or "\n"):
            yield f"{caption.name} does not say what the list says"


# By table: what is checked of it, by the name of the check.
PROBLEMS_OF_TABLES: Final[dict[str, tuple[Any, ...]]] = {
    "posts": (posts_are_some,),
    "post_tags": (post_tags_are_of_posts,),
    "tag_frequencies": (frequencies_are_counts,),
    "images": (images_are_whole,),
    "provenance": (provenance_is_of_every_picture,),
    "image_audit": (audit_is_of_every_picture,),
    "training_set": (training_set_is_of_every_post,),
    "vocabulary": (vocabulary_decides_on_every_tag,),
    "captions": (captions_are_of_every_picture,),
    "crops": (crops_are_of_every_picture,),
    "embedding": (embeddings_load, losses_are_whole),
    "evaluation_images": (cells_are_pictures,),
    "evaluation_scores": (scores_are_of_every_cell,),
    "evaluation_grids": (grids_are_there,),
    "leaderboard": (one_is_best, leaderboard_is_of_the_scores),
}
# By asset without a table.
PROBLEMS_OF_FILES: Final[dict[str, Any]] = {
    "report": problems_of_report,
    "release": problems_of_release,
    "dataset": problems_of_dataset,
}
