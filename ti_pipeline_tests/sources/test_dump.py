"""The source `e621_export`, end to end: a dump as the site writes it, and a site that gives the hits' records."""

import gzip
import hashlib
import json
import re

import pytest
from pydantic import TypeAdapter

from ti_pipeline.e621.client import E621Client, SiteError
from ti_pipeline.e621.export import ExportError
from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.sources import SourceError, fetch_posts
from ti_pipeline.sources.dump import Dumps
from ti_pipeline.studies import Source
from ti_pipeline_tests.e621 import dumps
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.e621.scripted import Answer, Request, Scripted
from ti_pipeline_tests.graph import Graph

pytestmark = pytest.mark.slow

IDS = range(1, 261)
ROWS = [dumps.post(i, score=i % 7, rating="sq"[i % 10 == 0], is_deleted=i % 13 == 0) for i in IDS]
# What the study's search finds, reckoned here: the best first, of equals the newest.
FOUND = sorted((i for i in IDS if i % 10 and i % 13), key=lambda i: (-(i % 7), -i))


class KilledError(BaseException):
    """Stands in for a signal: nothing in the product catches it."""


class Site(Scripted):
    """Knows records by id, and lists and serves one posts dump."""

    def __init__(self, ids=IDS, dump: bytes = b"", checksum: str | None = None) -> None:
        super().__init__(self._answer)
        self.records = {i: post(i) for i in ids}
        self.dump, self.checksum = dump, checksum or hashlib.sha256(dump).hexdigest()

    def _answer(self, request: Request, number: int) -> Answer:
        if request.path == "/posts.json":
            (ids,) = re.findall(r"^id:([\d,]+) status:any$", request.query["tags"])
            found = [self.records[i] for i in map(int, ids.split(",")) if i in self.records]
            return Answer(body=json.dumps({"posts": found}).encode())
        if request.path == "/db_exports.json":
            row = {"file_name": "posts.csv.gz", "file_size": len(self.dump), "checksum": self.checksum}
            rows = [row | {"name": "tags", "url": "/tags"}, row | {"name": "posts", "url": "/made-today/posts"}]
            return Answer(body=json.dumps(rows).encode())
        return Answer(body=self.dump) if request.path == "/made-today/posts" else Answer(404)

    def asked(self) -> list[list[int]]:
        """Return the ids of each request for posts."""
        queries = [request.query["tags"] for request in self.log if request.path == "/posts.json"]
        return [list(map(int, re.findall(r"\d+", query))) for query in queries]


def fetch(folder, site, *, place=None, ask_site=True, aliases=None, progress=lambda *_: None, **source):
    """Fetch a study's records; the study file, the dump, what is made of it and the answers lie in `folder`."""
    given = {"kind": "e621_export", "query": "wolf order:score", "dump": "posts.csv.gz"} | source
    return fetch_posts(
        TypeAdapter(Source).validate_python(given),
        folder=folder,
        answers=folder / "answers",
        client=lambda: E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0),
        dumps=Dumps(folder / "made", place, aliases or {}),
        seed=3,
        ask_site=ask_site,
        progress=progress,
    )


def ids(reading):
    return [record["id"] for record in reading.records]


@pytest.fixture
def folder(tmp_path):
    dumps.write_dump(tmp_path / "posts.csv.gz", ROWS)
    return tmp_path


def test_the_dump_is_searched_and_the_site_gives_the_records(folder):
    told = []
    with Site() as site:
        reading = fetch(folder, site, limit=150, progress=lambda *step: told.append(step))
        asked = site.asked()
    assert ids(reading) == FOUND[:150]
    assert reading.records == [post(i) for i in FOUND[:150]]
    assert [sorted(batch) for batch in asked] == [sorted(FOUND[:100]), sorted(FOUND[100:150])]
    assert reading.notes == [f"the search 'wolf order:score rating:s': {len(FOUND)} posts in posts.csv.gz"]
    assert told[-3:] == [(0, 150, reading.notes[0]), (100, 150, "posts"), (150, 150, "posts")]
    table = posts_table(reading.records, ContentPolicy()).set_index("post_id")
    assert (table["status"] == "kept").all()
    assert table.loc[FOUND[0], "file_url"] == f"https://static1.e621.net/data/00/00/{FOUND[0]:032x}.png"
    kept = fetch(folder, None, limit=150, ask_site=False)
    assert sorted(ids(kept)) == sorted(FOUND[:150])


def test_a_killed_fetch_goes_on_behind_its_last_page(folder):
    def dies(done, total, what):
        if (done, what) == (100, "posts"):
            raise KilledError

    with Site() as site:
        with pytest.raises(KilledError):
            fetch(folder, site, progress=dies)
        reading = fetch(folder, site)
        asked = [i for batch in site.asked() for i in batch]
    assert ids(reading) == FOUND
    assert sorted(asked) == sorted(FOUND)  # nothing twice
    assert [path.name for path in (folder / "answers").iterdir()] == ["posts.jsonl.gz"]


def test_posts_that_have_left_the_site_or_the_search_are_told(folder):
    lost, edited = FOUND[0], FOUND[1]
    with Site([i for i in IDS if i != FOUND[-1]]) as site:
        first = fetch(folder, site)
        assert ids(first) == FOUND[:-1]
        assert "1 of them are no longer on the site" in first.notes
        del site.records[lost]
        dumps.write_dump(folder / "posts.csv.gz", [row for row in ROWS if row["id"] != edited])
        second = fetch(folder, site)
    table = posts_table(second.records, ContentPolicy()).set_index("post_id")
    assert set(ids(second)) == set(FOUND[:-1])
    assert set(table.index[table["status"] == "dropped"]) == {lost, edited}
    assert "no longer knows" in table.loc[lost, "reason"]
    assert "no longer finds" in table.loc[edited, "reason"]
    assert "since the last time: 0 posts new, 0 changed, 2 gone" in second.notes


def test_posts_that_newer_ones_push_out_of_the_limit_are_not_gone(folder):
    with Site(range(1, 400)) as site:
        fetch(folder, site, query="wolf", limit=3)
        newer = [*ROWS, dumps.post(301), dumps.post(302)]
        dumps.write_dump(folder / "posts.csv.gz", newer)
        assert ids(fetch(folder, site, query="wolf", limit=3)) == [302, 301, 259]


def test_old_names_of_tags_find_the_posts_of_the_new(folder):
    with Site() as site:
        assert len(fetch(folder, site, query="lupine", limit=2, aliases={"lupine": "wolf"}).records) == 2


def test_the_dump_lies_where_the_study_or_the_environment_says(folder, monkeypatch):
    study, elsewhere = folder / "studies", folder / "elsewhere"
    study.mkdir()
    elsewhere.mkdir()
    (folder / "posts.csv.gz").rename(elsewhere / "posts-2026-11-01.csv.gz")
    monkeypatch.setenv("TI_TEST_DUMPS", str(elsewhere))
    with Site() as site:
        for dump in ("../elsewhere", "$TI_TEST_DUMPS", "../elsewhere/posts-2026-11-01.csv.gz"):
            assert len(fetch(study, site, dump=dump, limit=2).records) == 2
        assert len(fetch(study, site, dump=None, place=str(elsewhere), limit=2).records) == 2
        with pytest.raises(ExportError, match="no posts dump at"):
            fetch(study, site, dump="nowhere")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", r"source\.query is empty"),
        ("fox", r"source\.query: posts\.csv\.gz has no posts for 'fox rating:s'"),
        ("wolf fav:someone", r"source\.query: fav: the posts dump does not tell this"),
        ("wolf date:soon", r"source\.query: .*'soon' cannot be read"),
    ],
)
def test_a_query_that_gives_nothing_is_told(folder, query, words):
    with Site() as site, pytest.raises(SourceError, match=words):
        fetch(folder, site, query=query)
    assert site.log == []


def test_who_asks_is_wanted_before_the_dump_is_converted(folder):
    given = TypeAdapter(Source).validate_python({"kind": "e621_export", "query": "wolf", "dump": "posts.csv.gz"})
    with pytest.raises(SiteError, match="TI_E621_USERNAME"):
        fetch_posts(given, folder=folder, answers=folder, client=lambda: E621Client(username=""), seed=3)
    assert [path.name for path in folder.iterdir()] == ["posts.csv.gz"]


def test_a_dump_that_nobody_names_is_downloaded_once_and_checked(tmp_path):
    data = gzip.compress(dumps.dump_text(ROWS).encode(), mtime=0)
    with Site(dump=data) as site:
        for _ in range(2):
            assert ids(fetch(tmp_path, site, dump=None)) == FOUND
        paths = [request.path for request in site.log]
    assert paths[:2] == ["/db_exports.json", "/made-today/posts"]
    assert paths.count("/db_exports.json") == paths.count("/made-today/posts") == 1
    assert (tmp_path / "made/posts.csv.gz").read_bytes() == data
    (tmp_path / "made/posts.csv.gz").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # spoiled on the disk later
    with pytest.raises(ExportError), Site(dump=data) as site:
        fetch(tmp_path, site, dump=None)


def test_another_file_than_the_list_tells_is_refused_and_not_kept(tmp_path):
    data = gzip.compress(dumps.dump_text(ROWS).encode(), mtime=0)
    with Site(dump=data, checksum="ab" * 32) as site, pytest.raises(ExportError, match="sha256"):
        fetch(tmp_path, site, dump=None)
    assert not list((tmp_path / "made").glob("*posts.csv*"))


@pytest.mark.parametrize("answer", [Answer(404), Answer(body=b'[{"name": "tags"}]'), Answer(body=b"[]")])
def test_a_site_without_a_posts_dump_is_told(tmp_path, answer):
    with Scripted(lambda request, number: answer) as site, pytest.raises(ExportError, match="TI_POSTS_DUMP"):
        fetch(tmp_path, site, dump=None)


def test_the_asset_posts_is_made_from_the_dump_that_the_environment_names(folder):
    study = """
name: best
source: {kind: e621_export, query: "wolf order:score", limit: 20}
base_models: {later: {}}
variants: {x1: {vectors: 8, base: later, steps: 1}}
"""
    with Site() as site:
        environment = {"TI_POSTS_DUMP": str(folder), "TI_E621_URL": site.url, "TI_E621_USERNAME": "tester"}
        graph = Graph.new(folder, {"best": study}, **environment)
        asked = "asset materialize -m ti_pipeline.definitions --select posts --partition best"
        done = graph.run(*asked.split())
    assert done.returncode == 0, done.stdout[-4000:]
    table = graph.table("posts", "best")
    assert set(table.loc[table["status"] == "kept", "post_id"]) == set(FOUND[:20])
    assert list((graph.data / "e621_export").glob("*/manifest.json"))
    assert (graph.data / "raw/e621/best/posts.jsonl.gz").exists()


def test_days_of_a_search_are_the_asked_zones_and_its_ratings_the_studys(tmp_path):
    rows = [
        dumps.post(1, created_at="2026-03-02 04:30:00"),  # still the 1st in New York
        dumps.post(2, created_at="2026-03-02 12:00:00"),
        dumps.post(3, created_at="2026-03-02 12:00:00", rating="e"),
    ]
    dumps.write_dump(tmp_path / "posts.csv.gz", rows)
    forty = " ".join(["date:2026-03-02", *(f"-t{i}" for i in range(39))])
    with Site(ids=range(1, 4)) as site:
        assert ids(fetch(tmp_path, site, query=forty, ratings=["s", "q"])) == [2]
        assert ids(fetch(tmp_path, site, query=forty, ratings=["s", "q"], time_zone="UTC")) == [2, 1]
