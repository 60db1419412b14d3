"""The emulator against the reference, asked without the product's client."""

import pytest
import requests

from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.emulator import Emulator

NAMED = {"User-Agent": "SomeTool/1.0 (by tester on e621)"}


@pytest.fixture
def site():
    records = [post(i, rating="sq"[i % 2], tags={"general": ["even"] if i % 2 == 0 else []}) for i in range(1, 401)]
    records[9]["flags"]["deleted"] = True
    with Emulator(records, {"ab" * 16: b"data"}, hidden=[12], login=("tester", "key")) as running:
        yield running


def get(site, path, headers=NAMED, **query):
    return requests.get(site.url + path, params=query, headers=headers, timeout=5)


def ids(answer):
    return [record["id"] for record in answer.json()["posts"]]


def test_paging_rules(site):
    assert ids(get(site, "/posts.json", limit="2")) == [400, 399]
    assert ids(get(site, "/posts.json", limit="2", page="2")) == [398, 397]
    assert ids(get(site, "/posts.json", limit="2", page="b5")) == [4, 3]
    assert ids(get(site, "/posts.json", limit="2", page="a5")) == [7, 6]
    assert ids(get(site, "/posts.json", limit="2", page="b5", tags="order:id")) == [4, 3]
    assert ids(get(site, "/posts.json", limit="2", tags="order:id")) == [1, 2]
    assert len(ids(get(site, "/posts.json"))) == 75
    for query in ({"limit": "321"}, {"page": "0"}, {"page": "x"}, {"page": "751"}):
        answer = get(site, "/posts.json", **query)
        assert (answer.status_code, answer.json()["success"]) == (410, False)


def test_search_and_deleted_posts(site):
    assert ids(get(site, "/posts.json", tags="even -rating:q", limit="320", page="b14")) == [12, 8, 6, 4, 2]
    assert 10 in ids(get(site, "/posts.json", tags="even status:any", page="b14"))
    assert get(site, "/posts/count.json", tags="even").json() == {"count": 199, "capped": False}
    assert get(site, "/posts.json", tags=" ".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO")).status_code == 422
    for post_id in (10, 12):  # deleted, and hidden from anonymous viewers
        assert get(site, f"/posts/{post_id}.json").json()["post"]["file"]["url"] is None
    assert get(site, "/posts/8.json").json()["post"]["file"]["url"].startswith(site.url)
    assert get(site, "/posts/999.json").json() == {"success": False, "reason": "not found"}


def test_gates(site):
    generic = get(site, "/posts.json", headers={"User-Agent": "Mozilla/5.0"})
    assert (generic.status_code, generic.text[:6]) == (403, "<html>")
    assert requests.get(f"{site.url}/posts.json", headers=NAMED, auth=("tester", "no"), timeout=5).status_code == 401
    assert requests.get(f"{site.url}/posts.json", headers=NAMED, auth=("tester", "key"), timeout=5).status_code == 200
    cleaned = get(site, "/tags.json", **{"search[name]": "", "limit": "5"})
    assert cleaned.history[0].status_code == 302
    assert cleaned.url.endswith("/tags.json?limit=5")
    assert cleaned.json() == {"tags": []}


def test_pictures_and_the_log(site):
    assert get(site, f"/data/ab/ab/{'ab' * 16}.png").content == b"data"
    assert get(site, "/data/ab/ab/none.png").status_code == 404
    assert [entry.path for entry in site.asked("/data/ab/ab/none")] == ["/data/ab/ab/none.png"]
