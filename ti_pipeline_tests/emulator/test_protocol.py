"""Endpoints, envelopes, paging, gates and links, line by line of the reference."""

import base64

import pytest
import requests

from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.emulator import Edge, Emulator
from ti_pipeline_tests.emulator.asking import NAMED, found, get, ids

LAST_WORDS = "You cannot go beyond page 750. Please narrow your search terms."


@pytest.fixture(scope="module")
def site():
    records = [post(i, rating="sqe"[i % 3], score={"total": i % 10}) for i in range(1, 401)]
    records[9]["flags"]["deleted"] = True
    records[14]["file"]["url"] = None
    tags = [
        {"id": 1, "name": "wolf", "post_count": 10, "category": 5},
        {"id": 2, "name": "wolfsbane", "post_count": 30, "category": 0},
        {"id": 3, "name": "fox", "post_count": 20, "category": 5},
        {"id": 4, "name": "unused_wolf", "post_count": 0, "category": 0},
        {"id": 5, "name": "\x0b", "post_count": 2_000_000, "category": 0},
    ]
    states = ("active", "pending", "deleted", "processing", "queued", "retired", "error: it broke")
    pairs = [
        {"id": i, "antecedent_name": f"a{i}", "consequent_name": "b", "status": s} for i, s in enumerate(states, 1)
    ]
    tables = {"tags": tags, "tag_aliases": pairs}
    with Emulator(records, {f"{3:032x}": b"data"}, hidden=[12], login=("tester", "key"), tables=tables) as running:
        yield running


def test_limit(site):
    assert len(ids(get(site, "/posts.json"))) == 75
    assert len(ids(get(site, "/posts.json", limit="320"))) == 320
    assert ids(get(site, "/posts.json", limit="0")) == []
    assert ids(get(site, "/posts.json", limit="0", page="a5")) == []
    for limit in ("321", "-1", "x", "1.5"):
        answer = get(site, "/posts.json", limit=limit)
        assert answer.status_code == 410
        assert answer.json() == {"success": False, "message": "Limit must be between 0 and 320.", "code": None}


def test_numbered_pages(site):
    assert ids(get(site, "/posts.json", limit="2")) == [400, 399]
    assert ids(get(site, "/posts.json", limit="2", page="2")) == [398, 397]
    assert ids(get(site, "/posts.json", limit="320", page="2")) == [i for i in range(80, 0, -1) if i != 10]
    assert ids(get(site, "/posts.json", limit="320", page="750")) == []
    beyond = get(site, "/posts.json", page="751")
    assert (beyond.status_code, beyond.json()["message"]) == (410, LAST_WORDS)
    for page in ("0", "x", "-1", "c5", "b", "b-5", "1.5", "²"):
        assert get(site, "/posts.json", page=page).status_code == 410


def test_pages_by_id_override_every_order(site):
    assert ids(get(site, "/posts.json", limit="2", page="b5")) == [4, 3]
    assert ids(get(site, "/posts.json", limit="2", page="a5")) == [7, 6]
    assert ids(get(site, "/posts.json", limit="3", page="a398")) == [400, 399]
    assert ids(get(site, "/posts.json", limit="2", page="b1")) == []
    for order in ("order:id", "order:score", "order:random"):
        assert ids(get(site, "/posts.json", limit="2", page="b5", tags=order)) == [4, 3]
        assert ids(get(site, "/posts.json", limit="2", page="a5", tags=order)) == [7, 6]


def test_one_post_and_the_count(site):
    assert get(site, "/posts/8.json").json()["post"]["id"] == 8
    assert get(site, "/posts/10.json").json()["post"]["flags"]["deleted"] is True
    assert get(site, "/posts.json", md5=f"{8:032x}").json()["post"]["id"] == 8
    for path, query in (("/posts/999.json", {}), ("/posts/x.json", {}), ("/posts.json", {"md5": "0" * 32})):
        answer = get(site, path, **query)
        assert (answer.status_code, answer.json()) == (404, {"success": False, "reason": "not found"})
    assert get(site, "/posts/count.json", tags="wolf").json() == {"count": 399, "capped": False}
    assert get(site, "/posts/count.json", tags="wolf status:any").json() == {"count": 400, "capped": False}


def test_what_the_site_does_not_have(site):
    assert get(site, "/nothing.json").status_code == 404


def test_the_table_of_tags(site):
    def names(**search):
        answer = get(site, "/tags.json", **{f"search[{key}]": value for key, value in search.items()})
        return [row["name"] for row in answer.json()]

    assert names() == ["\x0b", "fox", "wolfsbane", "wolf"]
    assert names(hide_empty="false") == ["\x0b", "unused_wolf", "fox", "wolfsbane", "wolf"]
    assert names(name="wolf,fox, unknown") == ["fox", "wolf"]
    assert names(name_matches="wolf*") == ["wolfsbane", "wolf"]
    assert names(name_matches="*w*f", hide_empty="false") == ["unused_wolf", "wolf"]
    assert names(category="5") == ["fox", "wolf"]
    assert names(order="count") == ["\x0b", "wolfsbane", "fox", "wolf"]
    assert names(order="name", category="0") == ["\x0b", "wolfsbane"]
    assert [row["id"] for row in get(site, "/tags.json", limit="2", page="b4").json()] == [3, 2]
    assert get(site, "/tags.json", limit="321").status_code == 410


def test_aliases_and_implications_in_every_state(site):
    def states(**search):
        rows = get(site, "/tag_aliases.json", **{f"search[{key}]": value for key, value in search.items()}).json()
        return [row["status"] for row in rows]

    assert len(states()) == 7
    assert states(status="active") == ["active"]
    assert states(antecedent_name="a7") == ["error: it broke"]


def test_empty_lists_come_in_two_forms(site):
    assert get(site, "/tags.json", **{"search[name]": "unknown"}).json() == {"tags": []}
    assert get(site, "/tag_implications.json").json() == []


def test_a_blank_search_parameter_is_cleaned_away(site):
    answer = get(site, "/tags.json", **{"search[name]": "", "search[category]": "5", "limit": "1"})
    assert answer.status_code == 302
    rows = get(site.url + answer.headers["Location"]).json()
    assert "search[name]" not in requests.utils.unquote(answer.headers["Location"])
    assert [row["name"] for row in rows] == ["fox"]


@pytest.mark.parametrize(
    ("agent", "welcome"),
    [
        ("SomeTool/1.0 (by tester on e621)", True),
        ("Some Tool/1.0.2-beta (by tester_2 on e621)", True),
        ("python-requests/2.32.3", False),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", False),
        ("Mozilla/5.0 (by tester on e621)", False),
        ("SomeTool/1.0", False),
        ("SomeTool (by tester on e621)", False),
        ("", False),
    ],
)
def test_who_does_not_say_who_asks_gets_a_web_page(site, agent, welcome):
    answer = get(site, "/posts.json", headers={"User-Agent": agent})
    assert answer.status_code == (200 if welcome else 403)
    assert answer.headers["Content-Type"].startswith("application/json" if welcome else "text/html")


def test_a_wrong_key_is_refused_even_where_none_is_needed(site):
    def answer(login: str, path: str = "/posts.json"):
        return get(site, path, headers={"Authorization": login})

    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert answer(basic("tester:key")).status_code == 200
    for login in (basic("tester:no"), basic("other:key"), basic("tester"), "Basic ?", "Bearer key"):
        assert answer(login).status_code == 401
    assert answer(basic("tester:no"), "/tags.json").status_code == 401
    assert set(answer(basic("tester:no")).json()) == {"success", "message", "code"}
    assert get(site, "/posts.json", login="tester", api_key="no").status_code == 401


def test_links_and_their_absence(site):
    def link(path: str, auth=None):
        return requests.get(site.url + path, headers=NAMED, auth=auth, timeout=10).json()["post"]["file"]

    shown = link("/posts/3.json")
    assert requests.get(shown["url"], timeout=10).content == b"data"
    for post_id in (10, 12, 15):  # deleted, hidden from strangers, never had one
        without = link(f"/posts/{post_id}.json")
        assert (without["url"], without["md5"], without["ext"]) == (None, f"{post_id:032x}", "png")
    assert link("/posts/12.json", ("tester", "key"))["url"] is not None
    assert link("/posts/10.json", ("tester", "key"))["url"] is None


def test_the_safe_host_finds_safe_posts_and_links_nothing_else(site):
    safe = requests.get(f"{site.safe_url}/posts.json", headers=NAMED, params={"limit": "320"}, timeout=10).json()
    assert {record["rating"] for record in safe["posts"]} == {"s"}
    direct = [get(site.safe_url, f"/posts/{i}.json").json()["post"] for i in (3, 4, 5)]
    assert [record["rating"] for record in direct] == ["s", "q", "e"]
    assert [record["file"]["url"] is None for record in direct] == [False, True, True]
    assert [entry.server for entry in site.log[-4:]] == ["safe"] * 4


def test_old_records_keep_their_shape(site):
    record = get(site, "/posts/8.json").json()["post"]
    assert set(record) == set(post(8))


def test_at_most_two_requests_a_second_whatever_form_the_refusal_takes():
    moment = [1000.0]
    with Emulator([post(1)], edge=Edge((2, 1.0)), clock=lambda: moment[0]) as site:

        def ask():
            answer = get(site, "/posts.json")
            return answer.status_code, answer.headers.get("Retry-After")

        assert [ask(), ask()] == [(200, None)] * 2
        refusals = [ask() for _ in range(4)]
        assert refusals == [(503, None), (429, None), (429, "1"), (429, "Thu, 01 Jan 1970 00:16:41 GMT")]
        moment[0] += 0.9
        assert ask() == (503, None)
        moment[0] += 0.1
        assert [ask()[0] for _ in range(3)] == [200, 200, 429]
        assert [entry.fault for entry in site.log].count("edge") == 6


def test_several_rates_at_once():
    moment = [0.0]
    edge = Edge((2, 1.0), (3, 10.0))

    def passes(after: float) -> bool:
        moment[0] += after
        return edge.check(moment[0], 0.0) is None

    assert [passes(after) for after in (0, 0, 0, 1, 1, 7.9, 0.2, 0)] == [
        True,
        True,
        False,
        True,
        False,
        False,
        True,
        True,
    ]


def test_nothing_is_answered_after_the_end():
    with requests.Session() as session:
        session.headers.update(NAMED)
        with Emulator([post(1)]) as site:
            assert session.get(f"{site.url}/posts.json", timeout=10).status_code == 200
        with pytest.raises(requests.ConnectionError):
            session.get(f"{site.url}/posts.json", timeout=10)
    with pytest.raises(RuntimeError, match="stranger"):
        _ = site.stranger_url


def test_answers_are_compressed_for_those_who_read_that(site):
    plain = get(site, "/posts.json", headers={"Accept-Encoding": "identity"})
    packed = get(site, "/posts.json", headers={"Accept-Encoding": "gzip"})
    assert plain.json() == packed.json()
    assert ("Content-Encoding" in plain.headers, packed.headers["Content-Encoding"]) == (False, "gzip")
    assert int(packed.headers["Content-Length"]) == site.log[-1].sent < len(plain.content)


def test_edits_are_seen_at_once():
    with Emulator([post(1), post(2)]) as site:
        del site.site.posts[1]
        site.site.posts[2]["tags"]["species"] = ["fox"]
        site.site.posts[3] = post(3)
        assert found(site, "wolf") == [3]
        assert found(site, "fox") == [2]
