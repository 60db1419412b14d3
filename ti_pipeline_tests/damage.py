"""Damage to what is stored of a study, of every kind that the checks must see: one function each.

Each takes the data folder as `Data` and damages it; the asset whose checks must see it comes first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from upath import UPath

from ti_pipeline.io_managers import Tables
from ti_pipeline.schemas import TABLES, from_arrow
from ti_pipeline.verification import PROBLEMS_OF_FILES, PROBLEMS_OF_TABLES, Stored


@dataclass(frozen=True)
class Data:
    """A data folder, its study, and a plan, a crop set and a variant of it by their keys."""

    root: Path
    study: str
    plan: str
    crops: str
    variant: str

    def key(self, table: str) -> str:
        if table in ("tagger_tags", "vocabulary", "captions"):
            return self.plan
        if table in ("embedding", "evaluation_images", "evaluation_scores", "dataset"):
            return self.variant
        return self.crops if table == "crops" else self.study

    def place(self, table: str) -> Path:
        return self.root / "tables" / table / f"{self.key(table)}.parquet"

    def read(self, table: str) -> pd.DataFrame:
        return from_arrow(pq.read_table(self.place(table)))

    def write(self, table: str, frame: pd.DataFrame) -> None:
        """Store a frame as it is: nobody asks its contract."""
        names = {column.name: column.arrow_type() for column in TABLES[table].columns}
        arrays = {name: pa.Array.from_pandas(frame[name], type=names.get(name)) for name in frame}
        pq.write_table(pa.table(arrays), self.place(table))

    def file(self, table: str, column: str = "path") -> Path:
        frame = self.read(table)
        good = frame[frame.status == "ok"] if "status" in frame else frame
        return self.root / good[column].iloc[0]


def problems_of(asset: str, data: Data, study: Any) -> list[str]:
    """Return what the checks of one asset find in a data folder."""
    key, tables = data.key(asset), Tables(UPath(data.root))
    stored = Stored(data.root, tables.read, study)
    if asset in PROBLEMS_OF_FILES:
        return list(PROBLEMS_OF_FILES[asset](key, stored))
    frame = stored.table(asset, key)
    found = TABLES[asset].problems(frame)
    return found + [problem for look in PROBLEMS_OF_TABLES[asset] for problem in look(key, frame, stored)]


Damage = Callable[[Data], None]
DAMAGE: dict[str, tuple[str, Damage]] = {}


def damage(table: str) -> Callable[[Damage], Damage]:
    def take(function: Damage) -> Damage:
        DAMAGE[f"{table}: {function.__name__}"] = (table, function)
        return function

    return take


def _rows(table: str, name: str, keep: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    def change(data: Data) -> None:
        data.write(table, keep(data.read(table)))

    DAMAGE[f"{table}: {name}"] = (table, change)


def _value(table: str, column: str, name: str, value: object) -> None:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object})
        frame.loc[frame.index[0], column] = value
        return frame

    _rows(table, name, change)


def _gone(table: str, name: str, column: str = "path") -> None:
    DAMAGE[f"{table}: {name}"] = (table, lambda data: data.file(table, column).unlink())


def _half(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[: len(frame) // 2]


for _table in ("posts", "images", "provenance", "captions", "crops", "embedding", "evaluation_images", "leaderboard"):
    _rows(_table, "no row", lambda frame: frame.iloc[:0])
for _table in ("evaluation_grids", "evaluation_scores", "post_tags", "tag_frequencies"):
    _rows(_table, "no row", lambda frame: frame.iloc[:0])
for _table in ("captions", "evaluation_scores", "images", "provenance", "image_audit", "crops", "vocabulary"):
    _rows(_table, "half of the rows", _half)
_rows("training_set", "a post decided on by one curation less", lambda frame: frame.assign(path=None))
_rows("post_tags", "half of the posts", lambda frame: frame[frame.post_id < frame.post_id.median()])
_rows("tag_frequencies", "another count", lambda frame: frame.assign(count=frame["count"] + 1))
_rows("evaluation_images", "a cell of one checkpoint missing", lambda frame: frame.iloc[1:])
_rows("evaluation_scores", "a score missing", lambda frame: frame.drop(frame.index[frame.metric == "near"][0]))
_rows("evaluation_scores", "shares of 7", lambda frame: frame.assign(score=7.0))
_rows("evaluation_scores", "a score that is none", lambda frame: frame.assign(score=float("nan")))
_rows("leaderboard", "all best", lambda frame: frame.assign(best=True))
_rows("leaderboard", "the last is best", lambda frame: frame.assign(best=frame["rank"] == frame["rank"].max()))
_rows("leaderboard", "scores outside of their intervals", lambda frame: frame.assign(score=frame.high + 0.1))
_rows("leaderboard", "a checkpoint that nobody scored", lambda frame: frame.assign(checkpoint="x-1"))
_rows("embedding", "a mean loss that is none", lambda frame: frame.assign(mean_loss=float("nan")))
_rows("embedding", "vectors that did not move", lambda frame: frame.assign(moved=-1.0))
_rows("captions", "another number of tags", lambda frame: frame.assign(tag_count=frame.tag_count + 1))
_value("captions", "tags", "a tag that is not kept", ["no_such_tag"])
_value("crops", "sha256", "another sha256", "0" * 64)
_value("images", "sha256", "another sha256", "0" * 64)
_value("provenance", "sha256", "another sha256", "0" * 64)
_value("embedding", "sha256", "another sha256", "0" * 64)
_value("evaluation_images", "sha256", "another sha256", "0" * 64)
_value("evaluation_images", "embedding_sha256", "of another embedding", "0" * 64)
_value("training_set", "path", "a picture that is not stored", "images/no/such.png")
_gone("images", "a picture gone")
_gone("crops", "a crop gone")
_gone("embedding", "a checkpoint gone", "safetensors_path")
_gone("embedding", "its other file gone", "pt_path")
_gone("evaluation_images", "a cell gone")
_gone("evaluation_grids", "a grid gone")
_gone("evaluation_grids", "its other file gone", "webp_path")


@damage("crops")
def another_picture(data: Data) -> None:
    with Image.open(data.file("crops")) as picture:
        size = picture.size
    Image.new("RGB", size, "red").save(data.file("crops"))


@damage("evaluation_images")
def a_black_cell(data: Data) -> None:
    path = data.file("evaluation_images")
    with Image.open(path) as picture:
        size = picture.size
    Image.new("RGB", size).save(path)


@damage("evaluation_grids")
def a_grid_cut_short(data: Data) -> None:
    path = data.file("evaluation_grids")
    path.write_bytes(path.read_bytes()[:200])


@damage("embedding")
def zeros_with_the_right_hash(data: Data) -> None:
    from safetensors.numpy import load_file, save_file

    from ti_pipeline.files import sha256_of

    path = data.file("embedding", "safetensors_path")
    save_file({name: values * 0 for name, values in load_file(path).items()}, path)
    frame = data.read("embedding")
    frame.loc[frame.index[0], "sha256"] = sha256_of(path)
    data.write("embedding", frame)


@damage("embedding")
def losses_gone(data: Data) -> None:
    (data.root / "embeddings" / data.variant.replace("__", "/") / "losses.parquet").unlink()


@damage("embedding")
def a_loss_that_is_none(data: Data) -> None:
    path = data.root / "embeddings" / data.variant.replace("__", "/") / "losses.parquet"
    losses = pq.read_table(path).to_pandas()
    losses.loc[0, "loss"] = float("nan")
    losses.to_parquet(path)


@damage("report")
def report_gone(data: Data) -> None:
    (data.root / "reports" / f"{data.study}.html").unlink()


@damage("report")
def report_cut_short(data: Data) -> None:
    path = data.root / "reports" / f"{data.study}.html"
    path.write_bytes(path.read_bytes()[:-100])


def _release(data: Data) -> Path:
    return next(path for path in (data.root / "releases" / data.study).iterdir() if path.is_dir())


@damage("release")
def release_gone(data: Data) -> None:
    _release(data).rename(data.root / "elsewhere")


@damage("release")
def its_embedding_gone(data: Data) -> None:
    next(_release(data).rglob("*.pt")).unlink()


@damage("release")
def its_card_changed(data: Data) -> None:
    (_release(data) / "README.md").write_text("mine")


@damage("release")
def a_file_more(data: Data) -> None:
    (_release(data) / "more.pt").write_text("x")


@damage("release")
def an_artist_left_out(data: Data) -> None:
    from ti_pipeline.files import sha256_of

    path = _release(data) / "attribution.csv"
    lines = path.read_text().splitlines(keepends=True)
    sums = _release(data) / "SHA256SUMS"
    before = sha256_of(path)
    path.write_text("".join(lines[:-1]))
    sums.write_text(sums.read_text().replace(before, sha256_of(path)))
