import base64
import hashlib
import logging
import re
import threading

import pytest

from ti_pipeline.e621.client import DownloadError, E621Client, SiteError
from ti_pipeline.e621.manners import polite_session
from ti_pipeline_tests.e621.recorded import post, recorded_posts
from ti_pipeline_tests.emulator import (
    BUSY,
    CUT,
    PAGE_INSTEAD,
    UNAVAILABLE,
    Emulator,
    Fault,
    redirect_to,
    same_again,
)
from ti_pipeline_tests.shared_data import needs_shared

KEY = "secret-key-123"


def client_of(site: Emulator, **settings) -> E621Client:
    return E621Client(site.url, username="tester", **{"per_second": 1000.0, "backoff": 0.0} | settings)


def ids(client: E621Client, query: str, limit: int) -> list[int]:
    return [record["id"] for page in client.search(query, limit) for record in page]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@needs_shared
def test_the_recorded_search_comes_whole_in_order_and_without_doubles():
    records = recorded_posts()
    with Emulator(records) as site:
        client = client_of(site)
        assert ids(client, "fluffy rating:s", 10_000) == [record["id"] for record in records]
        assert client.count("fluffy rating:s") == 572
        pages = [entry.query.get("page") for entry in site.asked("/posts.json")]
    assert pages == [None, f"b{records[319]['id']}", f"b{records[571]['id']}"]


@needs_shared
def test_negated_tags_and_limits():
    records = recorded_posts()
    wolves = [r["id"] for r in records if "wolf" in r["tags"]["species"] and "solo" not in r["tags"]["general"]]
    with Emulator(records) as site:
        assert ids(client_of(site), "wolf -solo", 1000) == wolves
        assert ids(client_of(site), "fluffy", 7) == [record["id"] for record in records[:7]]


def test_order_pages_by_number_and_drops_doubles():
    records = [post(i, score={"total": i % 7}) for i in range(1, 701)]
    expected = [r["id"] for r in sorted(records, key=lambda r: (-r["score"]["total"], -r["id"]))]
    with Emulator(records) as site:
        assert ids(client_of(site), "wolf order:score", 5000) == expected
        assert [entry.query.get("page") for entry in site.log] == ["1", "2", "3", "4"]
        pages = client_of(site).search("wolf Order:score", 5000)
        found = [record["id"] for record in next(pages)]
        site.site.posts[900] = post(900, score={"total": 99})  # moves the last of page 1 to page 2
        found += [record["id"] for page in pages for record in page]
    assert found == expected


def test_posts_that_come_and_go_are_neither_doubled_nor_skipped():
    with Emulator([post(i) for i in range(1, 701)]) as site:
        pages = client_of(site).search("wolf", 5000)
        found = [record["id"] for record in next(pages)]
        del site.site.posts[650], site.site.posts[300]
        site.site.posts[900] = post(900)
        found += [record["id"] for page in pages for record in page]
    assert found == [i for i in range(700, 0, -1) if i != 300]


def test_a_page_that_repeats_itself_is_an_error_not_a_loop():
    with Emulator([post(i) for i in range(1, 701)]) as site:
        pages = client_of(site).search("wolf", 5000)
        next(pages)
        site.fail("/posts.json", same_again(), times=9)
        with pytest.raises(SiteError, match="same page"):
            list(pages)


@pytest.mark.parametrize("fault", [BUSY, UNAVAILABLE, PAGE_INSTEAD, CUT, Fault(200, b'{"posts":[')])
def test_passing_trouble_is_waited_out(fault):
    with Emulator([post(i) for i in range(1, 5)]) as site:
        site.fail("/posts.json", fault, times=2)
        assert ids(client_of(site), "wolf", 100) == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(401, b'{"success":false,"message":"no","code":null}'), r"401 \(no\).*TI_E621_API_KEY"),
        (Fault(403, b'{"success":false,"reason":"Access Denied"}'), r"403 \(Access Denied\).*TI_E621_USERNAME"),
        (Fault(403, b"<html>"), "403 with a web page"),
        (Fault(422, b'{"success":false,"message":"too many tags"}'), "too many tags.*40 tags"),
        (UNAVAILABLE, "503"),
        (BUSY, "429.*wait"),
        (PAGE_INSTEAD, "web page instead of JSON.*run again later"),
        (Fault(200, b'{"posts":['), "broken data"),
        (Fault(200, b'{"other":[]}'), "did not answer with posts"),
        (Fault(200, b'{"posts":[1]}'), "did not answer with posts"),
        (Fault(200, b'{"posts":[{"id":null}]}'), "without an id"),
        (Fault(200, b'"posts"'), "did not answer with posts"),
    ],
)
def test_lasting_trouble_is_said_in_words(fault, words):
    with Emulator([post(1)]) as site:
        site.fail("/posts.json", fault, times=30)
        with pytest.raises(SiteError, match=words):
            ids(client_of(site), "wolf", 100)


def test_what_the_site_itself_refuses():
    with Emulator([post(1)]) as site:
        client = client_of(site)
        with pytest.raises(SiteError, match=r"422.*40 tags"):
            ids(client, " ".join(f"t{i}" for i in range(41)), 10)
        with pytest.raises(SiteError, match="404"):
            list(client.listing("nothing", {}))
        wrong = client_of(site, api_key="wrong")
        with pytest.raises(SiteError, match="401"):
            ids(wrong, "wolf", 10)


def test_beyond_the_last_page():
    with Emulator([post(1)]) as site:
        site.fail("/posts.json", Fault(410, b'{"success":false,"message":"You cannot go beyond page 750."}'))
        with pytest.raises(SiteError, match=r"410.*750.*narrow"):
            ids(client_of(site), "wolf order:score", 10)


def test_listings_in_both_empty_forms_and_over_a_redirect():
    rows = [{"id": i, "antecedent_name": f"a{i}", "consequent_name": "b", "status": "active"} for i in range(1, 400)]
    rows[3]["status"] = "error: something"
    with Emulator(tables={"tag_aliases": rows}) as site:
        client = client_of(site)
        found = list(client.listing("tag_aliases", {"search[status]": "active", "search[name]": ""}))
        assert [row["id"] for row in found] == [i for i in range(399, 0, -1) if i != 4]
        assert list(client.listing("tags", {})) == []
        site.fail("/tags.json", Fault(200, b"[]"))
        assert list(client.listing("tags", {})) == []


def test_who_asks_is_always_said():
    with Emulator([post(1)]) as site:
        ids(client_of(site), "wolf", 1)
        assert re.fullmatch(r"ti_pipeline/\d+\.\d+\.\d+ \(by tester on e621\)", site.log[0].headers["user-agent"])
        assert "authorization" not in site.log[0].headers
    for username in ("", "  ", "wölfe", "a\nb"):
        with pytest.raises(SiteError, match="TI_E621_USERNAME"):
            E621Client(username=username)


@pytest.mark.parametrize(
    ("url", "per_second"),
    [
        ("https://e621.net", 2.1),
        ("https://e621.net", 0.0),
        ("http://e621.net", 1.0),
        ("https://me:pw@e621.net", 1.0),
        ("e621.net", 1.0),
        ("ftp://e621.net", 1.0),
    ],
)
def test_unmannerly_settings_are_refused(url, per_second):
    with pytest.raises(SiteError) as caught:
        E621Client(url, username="tester", per_second=per_second)
    assert "pw" not in str(caught.value)


def test_all_clients_and_threads_share_one_evenly_spaced_rate(monkeypatch):
    """The limiter asks for turns; whoever asks, it is the same one, and retries ask as well."""
    with Emulator([post(1)]) as site:
        turns: list[str] = []
        first, second = client_of(site), client_of(site, api_key=None)
        limiter = first._session.get_adapter(site.url).limiter
        assert limiter is second._session.get_adapter(site.url).limiter
        assert limiter is not polite_session("x", per_second=1.0, backoff=0).get_adapter(site.url).limiter
        acquire = limiter.try_acquire
        monkeypatch.setattr(limiter, "try_acquire", lambda name, **kw: turns.append(name) or acquire(name, **kw))
        site.fail("/posts.json", UNAVAILABLE, times=3)
        threads = [threading.Thread(target=ids, args=(client, "wolf", 1)) for client in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(turns) == len(site.log) == 5
        rate = polite_session("x", per_second=1.0, backoff=0).get_adapter(site.url).limiter.buckets()[0].rates[0]
        assert (rate.limit, rate.interval) == (1, 1000)


def test_credentials_go_to_the_site_and_nowhere_else(tmp_path, caplog):
    picture = b"not really a picture"
    expected = "Basic " + base64.b64encode(f"tester:{KEY}".encode()).decode()
    files = {md5(picture): picture}
    path = f"/data/aa/bb/{md5(picture)}.png"
    with (
        caplog.at_level(logging.DEBUG),
        Emulator([post(1)], files, login=("tester", KEY)) as site,
        Emulator([post(2)], files) as stranger,
    ):
        client = client_of(site, api_key=KEY)
        assert ids(client, "wolf", 1) == [1]
        assert site.log[-1].headers["authorization"] == expected
        site.fail("/posts.json", redirect_to(f"{stranger.url}/posts.json"))
        with pytest.raises(SiteError, match="another host"):
            ids(client, "wolf", 1)
        client.download(f"{site.url}{path}", tmp_path / "own.png", md5(picture), len(picture))
        site.fail(path, redirect_to(f"{stranger.url}{path}"))
        client.download(f"{site.url}{path}", tmp_path / "moved.png", md5(picture), len(picture))
        client.download(f"{stranger.url}{path}", tmp_path / "theirs.png", md5(picture), len(picture))
    assert [entry.path for entry in stranger.log] == [path, path]
    for entry in stranger.log:
        said = " ".join(entry.headers.values())
        assert "authorization" not in entry.headers
        assert "tester" not in said
    assert all("authorization" not in entry.headers for entry in site.asked("/data/"))
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {picture}
    assert KEY not in caplog.text
    assert expected.split()[1] not in caplog.text


def test_a_netrc_is_not_consulted(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password other\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    with Emulator([post(1)]) as site:
        site.fail("/posts.json", redirect_to("/posts.json"))
        ids(client_of(site), "wolf", 1)
        assert all("authorization" not in entry.headers for entry in site.log)


@pytest.mark.parametrize(
    ("fault", "stated_md5", "stated_size", "words"),
    [
        (Fault(404, b""), None, None, "gone"),
        (Fault(403, b""), None, None, "gone"),
        (Fault(500, b""), None, None, "500"),
        (PAGE_INSTEAD, None, None, "web page"),
        (CUT, None, None, "broke off"),
        (None, "0" * 32, None, "md5"),
        (None, None, 9, "more than the 9 bytes"),
        (None, None, 11, "10 bytes arrived, 11 were stated"),
        (Fault(200, b""), None, 10, "0 bytes"),
    ],
)
def test_a_picture_that_is_not_whole_is_not_there(tmp_path, fault, stated_md5, stated_size, words):
    picture = b"0123456789"
    with Emulator(files={md5(picture): picture}) as site:
        if fault is not None:
            site.fail("/data/", fault, times=9)
        with pytest.raises(DownloadError, match=words):
            client_of(site).download(
                f"{site.url}/data/a/b/{md5(picture)}.png", tmp_path / "a.png", stated_md5, stated_size
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", [BUSY, CUT, UNAVAILABLE])
def test_a_picture_gets_a_second_chance(tmp_path, fault):
    picture = bytes(range(256)) * 1000
    with Emulator(files={md5(picture): picture}) as site:
        site.fail("/data/", fault, times=2)
        client_of(site).download(f"{site.url}/data/a/b/{md5(picture)}.png", tmp_path / "a.png", md5(picture), 256_000)
    assert (tmp_path / "a.png").read_bytes() == picture


def test_a_dead_site_is_named(tmp_path):
    with Emulator() as site:
        client = client_of(site, timeout=5.0)
    with pytest.raises(SiteError, match="no answer"):
        client.count("wolf")
    with pytest.raises(DownloadError, match="no connection"):
        client.download(f"{site.url}/data/a.png", tmp_path / "a.png")
