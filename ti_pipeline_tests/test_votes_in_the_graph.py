"""Votes on their way through the graph: from the sittings' files to the table and the leaderboard."""

from pathlib import Path

import dagster as dg
import pytest
from upath import UPath

from ti_pipeline.definitions import build_defs
from ti_pipeline.evaluation.votes import Vote, VoteBook, VoteError
from ti_pipeline.io_managers import ParquetTables, Tables
from ti_pipeline.resources import DataStore
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.publishing.conftest import frame

VARIANTS = {"v8": [1, 1, 1, 0], "v16": [1, 0, 0, 0]}
VALUES = ("wolf", "lion", "bear", "fox")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    """A data folder in which two variants of the study `demo` have been trained, drawn and scored."""
    tables = Tables(UPath(tmp_path))
    for variant, right in VARIANTS.items():
        about = {"variant": variant, "checkpoint": f"{variant}-9", "step": 9}
        rows = [
            about | {"cell": f"{variant}/{value}", "axis": "species", "value": value, "seed": 6} for value in VALUES
        ]
        settings = {"sampler": "DDIM", "steps": 20, "cfg": 7.0, "size": 64, "clip_skip": 1, "base": "b", "token": "t"}
        settings |= {"embedding_sha256": "0", "prompt": "p", "negative": "", "path": "x.png", "sha256": "0"}
        scores = [row | {"metric": "match", "score": float(won)} for row, won in zip(rows, right, strict=True)]
        scores += [row | {"metric": "likeness", "score": 0.5} for row in rows]
        tables.write("evaluation_images", f"demo__{variant}", frame("evaluation_images", [r | settings for r in rows]))
        tables.write("evaluation_scores", f"demo__{variant}", frame("evaluation_scores", scores))
        tables.write("embedding", f"demo__{variant}", _embedding(about))
    tables.write("reference_scores", "demo", frame("reference_scores", _references()))
    return tables


def _references():
    """Without an embedding every value shows, and nothing of the concept."""
    bare = {"base": "demo", "variant": "", "checkpoint": "no embedding", "step": 0, "axis": "species", "seed": 6}
    told = {"match": 1.0, "likeness": 0.1}
    rows = [
        bare | {"cell": f"bare/{value}", "value": value, "metric": metric, "score": score}
        for value in VALUES
        for metric, score in told.items()
    ]
    own = {"checkpoint": "held-out", "axis": "held-out", "value": "own", "cell": "own", "metric": "likeness"}
    return [*rows, bare | own | {"score": 1.0}]


def _embedding(about):
    blank = {"int64": 1, "float64": 1.0, "string": "x", "bool": True, "strings": ["x"]}
    return frame("embedding", [{c.name: blank[c.kind] for c in TABLES["embedding"].columns} | about])


def materialize(tables: Tables, *assets: str, **options):
    url = str(tables.root)
    defs = build_defs({"io_manager": ParquetTables(url=url), "store": DataStore(url=url)})
    with dg.DagsterInstance.ephemeral() as instance:
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(name) for name in assets], partition_key="demo", instance=instance, **options
        )


def vote(value: str, choice: str) -> Vote:
    return Vote("pair", "species", value, 6, "v8-9", f"v8/{value}", choice, "v16-9", f"v16/{value}")


def test_without_votes_the_leaderboard_says_nothing_of_people(tables: Tables) -> None:
    assert materialize(tables, "votes", "leaderboard").success
    assert tables.read("votes", "demo").empty
    board = tables.read("leaderboard", "demo")
    assert board.people.isna().all()
    assert set(board.people_votes) == {0}


def test_votes_of_raters_reach_the_leaderboard_and_do_not_change_its_ranking(tables: Tables) -> None:
    materialize(tables, "votes", "leaderboard")
    before = tables.read("leaderboard", "demo")
    folder = tables.root / "votes" / "demo"
    kim, sam = VoteBook(folder, "kim"), VoteBook(folder, "sam")
    kim.append(vote("wolf", "second"))
    kim.append(vote("lion", "second"))
    sam.append(vote("wolf", "second"))
    sam.append(vote("gone", "first"))  # a picture that has been drawn anew since
    result = materialize(tables, "votes", "leaderboard")
    assert result.asset_materializations_for_node("votes")[0].metadata["of pictures that are gone"].value == 1
    checks = {e.asset_key.to_user_string(): e.passed for e in result.get_asset_check_evaluations()}
    assert checks == {"votes": True, "leaderboard": True}
    assert tables.read("votes", "demo").rater.tolist() == ["kim", "kim", "sam"]
    board = tables.read("leaderboard", "demo")
    people = board[(board.axis == "overall") & board.candidate].set_index("checkpoint")
    assert people.people_votes.to_dict() == {"v8-9": 3, "v16-9": 3}
    assert people.people["v16-9"] > 0.5 > people.people["v8-9"]
    ranking = ["axis", "checkpoint", "rank", "best", "score"]
    assert board[ranking].equals(before[ranking])


def test_a_half_written_file_stops_the_run_and_is_named(tables: Tables) -> None:
    folder = tables.root / "votes" / "demo"
    VoteBook(folder, "kim").append(vote("wolf", "first"))
    (folder / "sam.20261123T000000.1.parquet").write_bytes(next(folder.glob("kim*")).read_bytes()[:200])
    with pytest.raises(VoteError, match=r"sam\.20261123T000000\.1\.parquet is no whole file of votes"):
        materialize(tables, "votes")
