"""Purge: an artist who asks to be left out, also of what is stored already.

Here: finding an artist's pictures in the data folder, removing them and all that was cut from them, and telling which
embeddings used them. Not here: leaving the artist out from now on, which the opt-out file does (`e621.policy`).
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy

__all__ = ["READS", "WRITES", "Purged", "purge_artist"]

# Folders of the data folder: those that a purge only reads, and those that it changes, in the order in which it does.
READS = ("raw", "releases")
WRITES = ("policy", "latents", "reports", "exports", "crops", "images", "tables")
_EVIDENCE = ("provenance", "posts")  # the tables that tell whose a picture is: the last to lose their rows
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass
class _Found:
    """What is known of the artist's posts: ids by study, md5s of their pictures, md5s that posts of others have too."""

    posts: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    pictures: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    of_others: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))


@dataclass(frozen=True)
class Purged:
    """Tells by its path below the data folder whether a file is one that purges removed, or was made of such a one."""

    items: frozenset[str]
    pictures: frozenset[str]
    posts: frozenset[tuple[str, int]]

    @classmethod
    def of(cls, purges: pd.DataFrame | None, but_not: pd.DataFrame | None = None) -> Purged:
        """Return what the table `purges` says, without what an earlier reading of it said."""
        if purges is None:
            return cls(frozenset(), frozenset(), frozenset())
        removed = purges[purges.done == "removed"]
        if but_not is not None:
            columns = ["artist", "item", "at"]
            known = set(but_not[columns].itertuples(index=False, name=None))
            removed = removed[[row not in known for row in removed[columns].itertuples(index=False, name=None)]]
        of_posts = removed.dropna(subset=["post_id"])
        return cls(
            frozenset(removed.item),
            frozenset(PurePosixPath(item).stem for item in removed.item[removed.kind == "picture"]),
            frozenset((study, int(post_id)) for study, post_id in zip(of_posts.study, of_posts.post_id, strict=True)),
        )

    def __call__(self, name: str) -> bool:
        """Tell whether the file of this name is unwanted."""
        path = PurePosixPath(name)
        if name in self.items or (path.parts[0] == "images" and path.stem in self.pictures):
            return True
        number = path.stem.partition("-")[0]
        of_post = path.parts[0] in ("crops", "exports") and len(path.parts) > 2 and number.isdigit()
        return of_post and (path.parts[1], int(number)) in self.posts


def purge_artist(artist: str, *, root: Path, crops_of: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Remove what is stored of an artist below `root`; return the artist's rows of the table `purges`.

    First the artist goes into the data folder's opt-out file, so that no later run uses the pictures, whatever happens
    to this one. Then what is found is written into `purges`, files are removed, and last the rows of tables. A purge
    that was killed is finished by another, and a second one changes nothing.

    A picture goes with the artist's posts, unless a post of somebody else has the same file: then it stays, and is
    listed as kept. `crops_of`: crop sets by the partition key of the variants that train on them; a variant that is not
    in it may have used any crop set of its study. Raises `PolicyError` for a name that is none.
    """
    from ti_pipeline.e621.policy import OPT_OUT_FILE, add_opt_out, load_policy

    add_opt_out(root / OPT_OUT_FILE, artist)
    aliases = root / "tables" / "tag_aliases.parquet"
    policy = load_policy(opt_out=[artist], aliases=_table(aliases) if aliases.exists() else None)
    found = _find(policy, root)
    files = list(_files(found, root))
    told = _remember(artist, [*files, *_kept(found, root), *_users(found, root, crops_of)], root)
    for row in files:
        (root / row["item"]).unlink(missing_ok=True)
    _remove_rows(found, root)
    return told


def _find(policy: ContentPolicy, root: Path) -> _Found:
    found = _Found()
    for study, post_id, md5, record in _records(root):
        if policy.is_opted_out(record):
            found.posts[study].add(post_id)
            if md5 is not None and _MD5.fullmatch(md5):
                found.pictures[md5].add((study, post_id))
    for table in ("images", "provenance"):  # of a post whose file was replaced, both files are the artist's
        for path in (root / "tables" / table).glob("*.parquet"):
            for row in _table(path).dropna(subset=["md5"]).itertuples():
                # What one study knows of a post and its file holds for the same ones in another study.
                known = row.post_id in {post_id for _, post_id in found.pictures.get(row.md5, ())}
                if known or row.post_id in found.posts[path.stem]:
                    found.posts[path.stem].add(row.post_id)
                    found.pictures[row.md5].add((path.stem, row.post_id))
                else:
                    found.of_others[row.md5].add((path.stem, row.post_id))
    return found


def _records(root: Path) -> Iterator[tuple[str, int, str | None, Mapping[str, Any]]]:
    """Yield study, post id, md5 and record of every post that anything in the data folder tells of."""
    from ti_pipeline.e621.answers import read_answers
    from ti_pipeline.e621.records import records_of

    for path in sorted((root / "tables" / "posts").glob("*.parquet")):
        posts = _table(path)
        for record in records_of(posts[posts.status == "kept"]):
            yield path.stem, record["id"], record["file"]["md5"], record
    for path in sorted((root / "tables" / "provenance").glob("*.parquet")):
        for row in _table(path).itertuples():
            tags = {"artist": list(row.artists), "contributor": list(row.contributors)}
            yield path.stem, row.post_id, row.md5, {"tags": tags}
    for path in sorted((root / "raw" / "e621").glob("*/posts.jsonl.gz")):
        kept = read_answers(path)
        for record in () if kept is None else kept.records:
            file = record.get("file")
            md5 = file.get("md5") if isinstance(file, dict) else None
            yield path.parent.name, record["id"], md5 if isinstance(md5, str) else None, record


def _files(found: _Found, root: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each file to remove: what was made of pictures before the pictures themselves."""
    of_studies = [study for study, posts in found.posts.items() if posts]
    if of_studies:  # a cache of many pictures, whose name does not tell which
        for path in sorted(path for path in (root / "latents").rglob("*") if path.is_file()):
            yield _row("latents", path, root, study="")
    for study in of_studies:
        for path in sorted((root / "reports").glob(f"{study}.html")):  # shows pictures
            yield _row("report", path, root, study=study)
        made = [("export", root / "exports" / study, "*/*.*"), ("crop", root / "crops" / study, "*/*.*")]
        made.append(("crop", root / "crops" / study, "*/alpha/*.png"))
        for kind, folder, pattern in made:
            for path in sorted(folder.glob(pattern)):
                number = path.stem.partition("-")[0]  # parts and mirror images have more behind it
                if number.isdigit() and int(number) in found.posts[study]:
                    yield _row(kind, path, root, study=study, post_id=int(number))
    for md5 in sorted(set(found.pictures) - set(found.of_others)):
        study, post_id = min(found.pictures[md5])
        for path in sorted([*(root / "images" / md5[:2]).glob(f"{md5}.*"), *(root / "images").glob(f".{md5}*")]):
            yield _row("picture", path, root, study=study, post_id=post_id)


def _kept(found: _Found, root: Path) -> Iterator[dict[str, Any]]:
    for md5 in sorted(set(found.pictures) & set(found.of_others)):
        study, post_id = min(found.of_others[md5])
        for path in sorted((root / "images" / md5[:2]).glob(f"{md5}.*")):
            yield _row("picture", path, root, study=study, post_id=post_id, done="kept")


def _users(found: _Found, root: Path, crops_of: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each checkpoint and release that was made with pictures of the artist."""
    for study, posts in found.posts.items():
        tables = {path.stem: path for path in (root / "tables" / "crops").glob(f"{study}__*.parquet")}
        touched = {key for key, path in tables.items() if _table(path).post_id.isin(posts).any()}
        for path in sorted((root / "tables" / "embedding").glob(f"{study}__*.parquet")):
            if touched & set(crops_of.get(path.stem, tables)):
                for name in _table(path).safetensors_path:
                    yield _row("embedding", root / name, root, study=study, done="listed")
        if posts:  # which pictures an earlier training had, no table tells any more
            for path in sorted((root / "embeddings" / study).glob("*/earlier/*/*.safetensors")):
                yield _row("embedding", path, root, study=study, done="listed")
        for path in sorted((root / "releases" / study).glob("*/attribution.csv")):
            with path.open(encoding="utf-8", newline="") as stream:
                if posts & {int(row["post_id"]) for row in csv.DictReader(stream)}:
                    yield _row("release", path.parent, root, study=study, done="listed")


def _row(
    kind: str, path: Path, root: Path, *, study: str, post_id: int | None = None, done: str = "removed"
) -> dict[str, Any]:
    item = path.relative_to(root).as_posix()
    return {"study": study, "kind": kind, "item": item, "post_id": post_id, "done": done}


def _remember(artist: str, rows: list[dict[str, Any]], root: Path) -> pd.DataFrame:
    """Add rows to the table `purges`, each once, and return all that it has of the artist."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ti_pipeline.e621.spelling import spelling
    from ti_pipeline.schemas import TABLES, from_arrow

    contract, path = TABLES["purges"], root / "tables" / "purges.parquet"
    known = contract.to_arrow(_table(path)).to_pylist() if path.exists() else []
    at, name = datetime.now(UTC), spelling(artist)
    all_rows = {tuple(row[column] for column in contract.key): row for row in known}
    for row in rows:
        whole = {"artist": name, **row, "at": at}
        all_rows.setdefault(tuple(whole[column] for column in contract.key), whole)
    table = pa.Table.from_pylist(list(all_rows.values()), contract.arrow_schema())
    with write_atomically(path) as aside:
        pq.write_table(table, aside, compression="zstd")
    frame = from_arrow(table)
    return frame[frame.artist == name].reset_index(drop=True)


def _remove_rows(found: _Found, root: Path) -> None:
    """Remove the artist's posts from every table of their studies that has a row per post."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    paths = sorted((root / "tables").glob("*/*.parquet"), key=lambda path: path.parent.name in _EVIDENCE)
    for path in paths:
        posts = found.posts.get(path.stem.split("__")[0])  # a key is a study, or a study, __ and a part
        if not posts or "post_id" not in pq.read_schema(path).names:
            continue
        table = pq.read_table(path)
        rest = table.filter(pc.invert(pc.is_in(table["post_id"], pa.array(sorted(posts), table["post_id"].type))))
        if len(rest) < len(table):
            with write_atomically(path) as aside:
                pq.write_table(rest, aside, compression="zstd")


def _table(path: Path) -> pd.DataFrame:
    import pyarrow.parquet as pq

    from ti_pipeline.schemas import from_arrow

    return from_arrow(pq.read_table(path))
