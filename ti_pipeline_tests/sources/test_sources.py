import pytest
from pydantic import TypeAdapter

from ti_pipeline.e621.client import E621Client, SiteError
from ti_pipeline.sources import SourceError, fetch_posts
from ti_pipeline.studies import Source
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.emulator import Emulator


def source(**values):
    return TypeAdapter(Source).validate_python(values)


def fetch(folder, client=None, **values):
    return fetch_posts(source(**values), folder=folder, answers=folder / "answers", client=client, seed=3)


def test_demo(tmp_path):
    from ti_pipeline.demo.posts import demo_posts

    reading = fetch(tmp_path, kind="demo", concept="frost", pictures=3)
    assert reading.records == [item.record for item in demo_posts(concept="frost", count=3, seed=3)]
    with pytest.raises(ValueError, match="nobody"):
        fetch(tmp_path, kind="demo", concept="nobody")


def test_folder_paths_start_at_the_study_and_expand(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    monkeypatch.setenv("TI_TEST_PICTURES", str(tmp_path / "pictures"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("pictures", f"../{tmp_path.name}/pictures", "$TI_TEST_PICTURES", "~/pictures"):
        reading = fetch(tmp_path, kind="folder", path=path, assume_rating="s")
        assert [record["file"]["size"] for record in reading.records] == [1]
    for path in (None, "", "  "):
        with pytest.raises(SourceError, match=r"source\.path"):
            fetch(tmp_path, kind="folder", path=path)


def test_e621(tmp_path):
    records = [post(i, rating="sqe"[i % 3]) for i in range(1, 31)]
    with Emulator(records) as site:

        def client():
            return E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0)

        def found(**values):
            return [r["id"] for r in fetch(tmp_path, client, kind="e621", **values).records]

        assert found(query="wolf", limit=4) == [30, 27, 24, 21]
        assert found(query="wolf", limit=3, ratings=["s", "q"]) == [30, 28, 27]
        assert found(query="wolf", limit=3, ratings=["s", "q", "e"]) == [30, 29, 28]
        with pytest.raises(SourceError, match=r"source\.query leaves no rating"):  # the study allows s alone
            found(query="wolf rating:q", limit=2)
        assert found(query="wolf rating:q", limit=2, ratings=["s", "q"]) == [28, 25]
        with pytest.raises(SourceError, match=r"source\.query.*no posts"):
            found(query="fox")


@pytest.mark.parametrize("query", [None, "", "   "])
def test_an_empty_query_names_its_field_before_anything_else(tmp_path, query):
    def client():
        raise AssertionError("asked too early")

    with pytest.raises(SourceError, match=r"source\.query"):
        fetch(tmp_path, client, kind="e621", query=query)
    with pytest.raises(SiteError, match="TI_E621_USERNAME"):
        fetch(tmp_path, lambda: E621Client(username=""), kind="e621", query="wolf")
