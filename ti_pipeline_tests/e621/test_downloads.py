"""Downloads that break off, go on, and meet files that have changed, by the real client over real HTTP."""

import hashlib
import os
import random
import re
import subprocess
import sys
import threading

import pytest

from ti_pipeline.e621.client import DownloadError, E621Client
from ti_pipeline.e621.site_exports import SiteExport, SiteExportError, fetch_file
from ti_pipeline_tests.e621.scripted import Answer, Request, Scripted

PICTURE = random.Random(5).randbytes(300_000)
MD5 = hashlib.md5(PICTURE).hexdigest()
OTHER = PICTURE[:1000] + PICTURE[1001:] + b"x"


def download(site: Scripted, target, md5=MD5) -> None:
    client = E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0)
    client.download(f"{site.url}/data/a.png", target, md5, len(PICTURE))


def ranged(request: Request, file: bytes) -> Answer:
    """Answer as a host that honours `Range` does."""
    told = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    if told is None:
        return Answer(body=file)
    start = int(told[1])
    if start >= len(file):
        return Answer(416, headers={"Content-Range": f"bytes */{len(file)}"})
    return Answer(206, file[start:], {"Content-Range": f"bytes {start}-{len(file) - 1}/{len(file)}"})


def cut(answer: Answer, sent: int) -> Answer:
    return Answer(answer.status, answer.body, answer.headers, sent)


def side_files(folder) -> list:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_broken_off_download_asks_only_for_the_rest(tmp_path):
    def twice_cut(request: Request, number: int) -> Answer:
        answer = ranged(request, PICTURE)
        return cut(answer, 131_072) if number < 2 else answer

    with Scripted(twice_cut) as site:
        download(site, tmp_path / "a.png")
        starts = [request.headers.get("range") for request in site.log]
    assert (tmp_path / "a.png").read_bytes() == PICTURE
    assert side_files(tmp_path) == []
    assert starts == [None, "bytes=131072-", "bytes=262144-"]
    assert {request.headers["accept-encoding"] for request in site.log} == {"identity"}


def test_a_later_run_goes_on_where_the_last_gave_up(tmp_path):
    with (
        Scripted(lambda request, number: cut(ranged(request, PICTURE), 65_536 if number < 3 else 0)) as site,
        pytest.raises(DownloadError, match="broke off"),
    ):
        download(site, tmp_path / "a.png")
    (part,) = side_files(tmp_path)
    assert part.read_bytes() == PICTURE[: 3 * 65_536]
    with Scripted(lambda request, _: ranged(request, PICTURE)) as site:
        download(site, tmp_path / "a.png")
        assert [request.headers["range"] for request in site.log] == [f"bytes={3 * 65_536}-"]
    assert (tmp_path / "a.png").read_bytes() == PICTURE


def test_a_picture_that_had_arrived_whole_is_not_asked_for(tmp_path):
    (tmp_path / f".{MD5}.partial").write_bytes(PICTURE)
    with Scripted(lambda *_: Answer(500)) as site:
        download(site, tmp_path / "a.png")
        assert site.log == []
    assert (tmp_path / "a.png").read_bytes() == PICTURE


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda request: Answer(body=PICTURE), id="range ignored"),
        pytest.param(lambda request: ranged(request, OTHER), id="another file of the same size"),
        pytest.param(lambda request: ranged(request, OTHER[:-9]), id="another file, shorter"),
        pytest.param(lambda request: ranged(request, b"short"), id="range not satisfiable"),
        pytest.param(
            lambda request: Answer(206, PICTURE[5:], {"Content-Range": f"bytes 5-299999/{len(PICTURE)}"}),
            id="another part than the one asked for",
        ),
        pytest.param(lambda request: Answer(206, PICTURE[100_000:]), id="a part of nobody knows what"),
        pytest.param(lambda request: ranged(request, PICTURE + b"more"), id="longer than stated"),
    ],
)
def test_halves_that_do_not_belong_together_are_never_joined(tmp_path, odd):
    (tmp_path / f".{MD5}.partial").write_bytes(PICTURE[:100_000])
    with Scripted(lambda request, number: odd(request) if number == 0 else ranged(request, PICTURE)) as site:
        download(site, tmp_path / "a.png")
        assert site.log[0].headers["range"] == "bytes=100000-"
        assert all("range" not in request.headers for request in site.log[1:])
    assert (tmp_path / "a.png").read_bytes() == PICTURE
    assert side_files(tmp_path) == []


@pytest.mark.parametrize("left", [b"", PICTURE[::-1], PICTURE + b"more", PICTURE[:-1] + b"x"])
def test_a_side_file_of_something_else_does_no_harm(tmp_path, left):
    (tmp_path / f".{MD5}.partial").write_bytes(left)
    with Scripted(lambda request, _: ranged(request, PICTURE)) as site:
        download(site, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == PICTURE


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(Answer(body=PICTURE[::-1]), id="same size, other bytes"),
        pytest.param(Answer(body=PICTURE[:1000]), id="short"),
        pytest.param(Answer(body=b""), id="zero bytes"),
        pytest.param(Answer(body=b"<html>wait", headers={"Content-Type": "text/html"}), id="web page"),
        pytest.param(Answer(body=PICTURE, sent=70_000), id="cut"),
        pytest.param(Answer(body=PICTURE, sent=70_000, stall=True), id="stalled"),
        pytest.param(Answer(503, b"<html>"), id="busy"),
    ],
)
def test_trouble_that_passes_costs_no_picture(tmp_path, wrong):
    with Scripted(lambda request, number: wrong if number < 2 else ranged(request, PICTURE)) as site:
        client = E621Client(
            site.url, username="tester", per_second=1000.0, backoff=0.0, timeout=1.0 if wrong.stall else 60.0
        )
        client.download(f"{site.url}/data/a.png", tmp_path / "a.png", MD5, len(PICTURE))
        # On a busy machine, an answer that does not stall may come later than one waits for one that does.
        assert len(site.log) == 3 or (wrong.stall and len(site.log) > 3)
    assert (tmp_path / "a.png").read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(body=OTHER), f"md5 mismatch: {hashlib.md5(OTHER).hexdigest()} arrived, {MD5} was stated"),
        (Answer(404, b"<html>"), "gone: the site answered 404"),
        (Answer(403, b"<html>"), "gone: the site answered 403"),
        (Answer(418, b""), "answered 418"),
        (Answer(body=PICTURE + b"x"), "more than the 300000 bytes"),
    ],
)
def test_trouble_that_stays_is_the_reason_and_leaves_nothing_behind(tmp_path, answer, words):
    with Scripted(lambda *_: answer) as site, pytest.raises(DownloadError, match=re.escape(words)):
        download(site, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_a_stated_md5_nothing_is_continued(tmp_path):
    (tmp_path / f".{MD5}.partial").write_bytes(PICTURE[:100_000])
    with Scripted(lambda request, _: ranged(request, PICTURE)) as site:
        download(site, tmp_path / "a.png", md5=None)
        assert "range" not in site.log[0].headers
    assert (tmp_path / "a.png").read_bytes() == PICTURE


SHA256 = hashlib.sha256(PICTURE).hexdigest()


def fetch_export(site: Scripted, target, told=None) -> None:
    client = E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0)
    export = SiteExport("posts", f"{site.url}/posts.csv.gz", SHA256, len(PICTURE))
    fetch_file(client, export, target, told)


def test_a_dump_goes_on_for_as_long_as_each_try_brings_more_of_it_and_says_how_far_it_is(tmp_path):
    told = []
    with Scripted(lambda request, _: cut(ranged(request, PICTURE), 32_768)) as site:
        fetch_export(site, tmp_path / "posts.csv.gz", lambda done, total, what: told.append((done, total, what)))
        assert len(site.log) == 10
    assert (tmp_path / "posts.csv.gz").read_bytes() == PICTURE
    assert [done for done, _, _ in told] == sorted({done for done, _, _ in told})
    assert told[-1] == (len(PICTURE), len(PICTURE), "bytes of posts.csv.gz")


def test_a_dump_that_broke_off_is_gone_on_with_in_the_next_run(tmp_path):
    with (
        Scripted(lambda request, number: Answer(503) if number else cut(ranged(request, PICTURE), 65_536)) as site,
        pytest.raises(SiteExportError, match=r"run again( later)?, and it goes on from there"),
    ):
        fetch_export(site, tmp_path / "posts.csv.gz")
    (part,) = side_files(tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    part.rename(part.with_name(part.name.replace(f"-{os.getpid()}.", f"-{ended.pid}.")))
    (tmp_path / f".posts.csv.gz.{'0' * 8}{part.name[len('.posts.csv.gz.') + 8 :]}").write_bytes(b"yesterday's")
    with Scripted(lambda request, _: ranged(request, PICTURE)) as site:
        fetch_export(site, tmp_path / "posts.csv.gz")
        assert [request.headers["range"] for request in site.log] == ["bytes=65536-"]
    assert [path.name for path in tmp_path.iterdir()] == ["posts.csv.gz"]


def test_a_dump_with_another_sha256_is_none(tmp_path):
    with Scripted(lambda request, _: ranged(request, OTHER)) as site, pytest.raises(SiteExportError, match="sha256"):
        fetch_export(site, tmp_path / "posts.csv.gz")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_that_fetch_one_picture_both_end_right(tmp_path):
    code = (
        "import sys; from pathlib import Path; from ti_pipeline.e621.client import E621Client\n"
        "client = E621Client(sys.argv[1], username='tester', per_second=1000.0, backoff=0.0)\n"
        "client.download(sys.argv[1] + '/a.png', Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))"
    )
    both = threading.Barrier(2, timeout=60)

    def together(request: Request, number: int) -> Answer:
        if number < 2:
            both.wait()  # neither is done before the other has begun
        return ranged(request, PICTURE)

    with Scripted(together) as site:
        asked = [sys.executable, "-c", code, site.url, str(tmp_path / "a.png"), MD5, str(len(PICTURE))]
        runs = [subprocess.Popen(asked) for _ in range(2)]
        assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert (tmp_path / "a.png").read_bytes() == PICTURE
    assert side_files(tmp_path) == []
