import base64
import email.utils
import functools
import hashlib
import json
import logging
import re
import subprocess
import sys
import threading
import time
import traceback

import pytest
import urllib3

from ti_pipeline.e621 import manners
from ti_pipeline.e621.client import DownloadError, E621Client, SiteError
from ti_pipeline.e621.manners import polite_session
from ti_pipeline_tests.e621.recorded import post, recorded_posts
from ti_pipeline_tests.e621.scripted import Answer, Request, Scripted
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
EMPTY = Fault(200, b'{"posts":[]}')


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
    last = f"b{records[571]['id']}"  # the empty page that ends a search is asked for until it is believed
    assert pages == [None, f"b{records[319]['id']}", last, last, last]


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
        assert [entry.query.get("page") for entry in site.log] == ["1", "2", "3", "4", "4", "4"]
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


@pytest.mark.parametrize("query", ["wolf", "wolf order:score"])
@pytest.mark.parametrize("fault", [EMPTY, same_again()])
def test_an_empty_page_or_a_repeated_one_in_the_middle_loses_nothing(query, fault):
    with Emulator([post(i) for i in range(1, 1001)]) as site:
        pages = client_of(site).search(query, 5000)
        found = [record["id"] for record in next(pages)]
        for page in pages:
            found += [record["id"] for record in page]
            site.fail("/posts.json", fault, times=2)
    assert found == list(range(1000, 0, -1))


def test_numbered_pages_that_repeat_themselves_are_an_error_not_a_loop():
    with Emulator([post(i) for i in range(1, 701)]) as site:
        pages = client_of(site).search("wolf order:score", 5000)
        next(pages)
        site.fail("/posts.json", same_again(), times=99)
        with pytest.raises(SiteError, match="same page"):
            list(pages)
        assert len(site.log) < 20


def test_numbered_pages_end_with_the_750th():
    def one_post_a_page(request: Request, number: int) -> Answer:
        return Answer(body=json.dumps({"posts": [post(10_000 - number)]}).encode())

    with Scripted(one_post_a_page) as site:
        assert len(ids(client_of(site), "wolf order:score", 5000)) == 750
        assert [request.query["page"] for request in site.log] == [str(page) for page in range(1, 751)]


@pytest.mark.parametrize("query", ["wolf", "wolf order:id"])
@pytest.mark.parametrize("limit", [5000, 700])
def test_a_search_goes_on_behind_the_pages_that_are_there(query, limit):
    with Emulator([post(i) for i in range(1, 1001)]) as site:
        whole = list(client_of(site).search(query, limit))
        asked = [entry.query for entry in site.log]
        for cut in range(1, len(whole) + 1):
            site.log.clear()
            assert [*whole[:cut], *client_of(site).search(query, limit, after=whole[:cut])] == whole
            assert [entry.query for entry in site.log] == asked[cut:]


def test_a_site_without_counts_has_none():
    with Scripted(lambda *_: Answer(404, b'{"success":false,"reason":"not found"}')) as site:
        assert client_of(site).count("wolf") is None
    with Scripted(lambda *_: Answer(401, b"{}")) as site, pytest.raises(SiteError, match="401"):
        client_of(site).count("wolf")


def test_posts_by_their_ids_deleted_ones_too():
    records = {i: post(i) for i in range(1, 251)}

    def by_id(request: Request, number: int) -> Answer:
        wanted = re.fullmatch(r"id:([\d,]+) status:any", request.query["tags"])
        found = [records[int(i)] for i in wanted[1].split(",") if int(i) in records]
        return Answer(body=json.dumps({"posts": found[:10] if number == 0 else found}).encode())

    with Scripted(by_id) as site:
        client = client_of(site)
        assert list(client.posts([])) == []
        assert sorted(r["id"] for r in client.posts(range(1, 251))) == list(range(1, 251))
        assert len(site.log) == 4  # three batches, and one once more for what it had left out
        assert [r["id"] for r in client.posts([999, 7, 7])] == [7]
        assert len(site.log) == 4 + 3


@pytest.mark.parametrize("sent", [0, 20])
def test_an_answer_that_stalls_is_asked_for_again(sent):
    body = json.dumps({"posts": [post(4)]}).encode()

    def slow(request: Request, number: int) -> Answer:
        return Answer(body=body, sent=sent, stall=True) if number < 2 else Answer(body=body)

    with Scripted(slow) as site:
        assert ids(client_of(site, timeout=1.0), "wolf", 1) == [4]
        assert len(site.log) >= 3  # on a busy machine, an answer that does not stall may come too late as well


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_site_is_given_the_time_it_asks_for(status, form):
    asked_for = []

    def busy(request: Request, number: int) -> Answer:
        if number:
            return Answer(body=b'{"count": 3}')
        asked_for.append(int(time.time()) + 2)
        told = "1" if form == "seconds" else email.utils.formatdate(asked_for[0], usegmt=True)
        return Answer(status, b"<html>", {"Retry-After": told})

    with Scripted(busy) as site:
        assert client_of(site).count("wolf") == 3
        assert time.time() >= (asked_for[0] if form == "date" else asked_for[0] - 1)
        if form == "seconds":
            assert site.log[1].moment - site.log[0].moment >= 1


def test_a_time_to_wait_that_is_none_is_the_usual_backoff():
    def busy(request: Request, number: int) -> Answer:
        return Answer(body=b'{"count": 3}') if number else Answer(429, b"", {"Retry-After": "soon"})

    with Scripted(busy) as site:
        assert client_of(site).count("wolf") == 3


def test_what_the_site_asks_of_one_thread_all_wait_for(monkeypatch):
    held = []

    def busy(request: Request, number: int) -> Answer:
        return Answer(body=b'{"count": 3}') if number else Answer(429, b"", {"Retry-After": "600"})

    with Scripted(busy) as site:
        client = client_of(site)
        queue = client._session.get_adapter(site.url).limiter.queue
        waits = urllib3.util.retry.time
        monkeypatch.setattr(waits, "sleep", lambda seconds: held.append((seconds, queue.locked())))
        assert client.count("wolf") == 3
    assert (600, True) in held


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
        assert (
            limiter is not polite_session("x", site=site.url, per_second=1.0, backoff=0).get_adapter(site.url).limiter
        )
        acquire = limiter.try_acquire
        monkeypatch.setattr(limiter, "try_acquire", lambda name, **kw: turns.append(name) or acquire(name, **kw))
        site.fail("/posts.json", UNAVAILABLE, times=3)
        threads = [threading.Thread(target=ids, args=(client, "wolf", 1)) for client in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(turns) == len(site.log) == 5
        rate = (
            polite_session("x", site=site.url, per_second=1.0, backoff=0)
            .get_adapter(site.url)
            .limiter.buckets()[0]
            .rates[0]
        )
        assert (rate.limit, rate.interval) == (1, 1000)


_ASKS_AGAIN_AND_AGAIN = """
import sys
from ti_pipeline.e621.client import E621Client
client = E621Client(sys.argv[1], username="tester", per_second=2.0, backoff=0.0)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3):
    client.count("wolf")
"""


def test_all_processes_of_a_machine_share_one_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Scripted(lambda *_: Answer(body=b'{"count": 3}')) as site:
        command = [sys.executable, "-c", _ASKS_AGAIN_AND_AGAIN, site.url]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        askers = [subprocess.Popen(command, **pipes) for _ in range(3)]
        for asker in askers:
            assert asker.stdout.readline() == "ready\n"
        for asker in askers:
            asker.stdin.write("go\n")
            asker.stdin.flush()
        assert [asker.communicate(timeout=60) and asker.returncode for asker in askers] == [0, 0, 0]
    moments = sorted(request.moment for request in site.log)
    assert len(moments) == 9
    assert moments[-1] - moments[0] >= 8 * 0.5 - 0.1  # alone, each of the three would need one second


def test_rates_that_the_site_would_bear_are_kept_in_a_file_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(manners, "_shared_turns", functools.cache(manners._shared_turns.__wrapped__))
    adapter = polite_session("x", site="https://e621.net", per_second=1.0, backoff=0).get_adapter("https://e621.net")
    other = polite_session("x", site="https://e926.net", per_second=1.0, backoff=0).get_adapter("https://e926.net")
    assert adapter.limiter is other.limiter  # one operator, one patience
    assert [(rate.limit, rate.interval) for rate in adapter.limiter.buckets()[0].rates] == [(1, 1000)]
    assert list(tmp_path.glob("*.sqlite"))


def test_credentials_are_not_in_what_a_failure_says(tmp_path):
    with Emulator([post(1)], login=("tester", "another-key")) as site:
        client = client_of(site, api_key=KEY)
        said = [repr(client), str(client)]
        for ask in (lambda: client.count("wolf"), lambda: client.download(f"{site.url}/data/a.png", tmp_path / "a")):
            try:
                ask()
            except (SiteError, DownloadError):
                said.append(traceback.format_exc())
    try:
        client.count("wolf")  # the site is gone by now
    except SiteError:
        said.append(traceback.format_exc())
    encoded = base64.b64encode(f"tester:{KEY}".encode()).decode()
    assert len(said) == 5
    assert not any(KEY in text or encoded in text for text in said)


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
