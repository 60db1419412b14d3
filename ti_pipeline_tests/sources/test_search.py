"""A study's search: what is asked for, going on after a kill, asking again later, and making tables without asking."""

import copy
import os
import random
import time

import pytest
from pydantic import TypeAdapter

from ti_pipeline.e621.answers import AnswersError
from ti_pipeline.e621.client import E621Client, SiteError
from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources import SourceError, fetch_posts
from ti_pipeline.studies import Source
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.emulator import Emulator, Fault

EMPTY = Fault(200, b'{"posts":[]}')


class KilledError(BaseException):
    """Stands in for a signal: nothing in the product catches it."""


def client_of(site: Emulator, **settings):
    return lambda: E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0, **settings)


def fetch(
    folder, site: Emulator | None, *, progress=lambda *_: None, ask_site=True, redraw=False, settings=None, **source
):
    """Fetch a study's records, keeping answers in `folder`; without a site nobody may be asked."""
    read = TypeAdapter(Source).validate_python({"kind": "e621", "query": "wolf"} | source)
    client = client_of(site, **(settings or {})) if site is not None else None
    return fetch_posts(
        read, folder=folder, answers=folder, client=client, seed=3, ask_site=ask_site, redraw=redraw, progress=progress
    )


def ids(reading) -> list[int]:
    return [record["id"] for record in reading.records]


def table(reading):
    found = posts_table(reading.records, ContentPolicy())
    assert TABLES["posts"].problems(found) == []
    return found.set_index("post_id")


@pytest.mark.parametrize(
    ("source", "tags", "most"),
    [
        ({"query": "wolf limit:7"}, "wolf rating:s", 7),
        ({"query": "limit:7 wolf", "limit": 5}, "wolf rating:s", 5),
        ({"query": "wolf LIMIT:700", "limit": 600}, "wolf rating:s", 600),
        ({"query": "wolf limit:600"}, "wolf rating:s", 600),
        ({"query": "wolf limit:9 limit:8"}, "wolf rating:s", 8),
        ({"query": "wolf"}, "wolf rating:s", 500),
        ({"query": "wolf order:score limit:9"}, "wolf order:score rating:s", 9),
    ],
)
def test_the_limit_in_the_query_is_that_of_the_whole_search(tmp_path, source, tags, most):
    with Emulator([post(i) for i in range(1, 801)]) as site:
        assert len(fetch(tmp_path, site, **source).records) == most
        asked = [entry.query for entry in site.asked("/posts")]
    assert {query["tags"] for query in asked} == {tags}
    assert all(int(query.get("limit", 1)) <= 320 for query in asked)


def test_a_limit_of_none_is_refused_and_a_tag_that_looks_like_one_is_kept(tmp_path):
    with pytest.raises(SourceError, match=r"source\.query.*limit:0"):
        fetch(tmp_path, None, query="wolf limit:0")
    with pytest.raises(SourceError, match=r"source\.query is empty"):
        fetch(tmp_path, None, query="limit:5")
    with Emulator([post(1, tags={"general": ["off-limit:5"]})]) as site:
        assert ids(fetch(tmp_path, site, query="off-limit:5")) == [1]


def test_the_count_is_told_first_and_then_every_page(tmp_path):
    told = []
    with Emulator([post(i) for i in range(1, 701)]) as site:
        reading = fetch(tmp_path, site, limit=650, progress=lambda *step: told.append(step))
        assert site.log[0].path == "/posts/count.json"
    assert told[0] == (0, 650, "the search 'wolf rating:s': 700 posts on the site")
    assert told[1:] == [(320, 650, "posts"), (640, 650, "posts"), (650, 650, "posts")]
    assert reading.notes == ["the search 'wolf rating:s': 700 posts on the site"]


@pytest.mark.parametrize("query", ["wolf", "wolf order:score"])
def test_a_killed_fetch_goes_on_behind_its_last_complete_page(tmp_path, query):
    with Emulator([post(i) for i in range(1, 2001)]) as site:
        calm = fetch(tmp_path / "calm", site, query=query, limit=1900)
        asked = [entry.query for entry in site.asked("/posts.json")]
        site.log.clear()
        for kill_at in (320, 960, 1600):  # each run dies after a page more

            def dies(done, total, what, kill_at=kill_at):
                if done == kill_at:
                    raise KilledError

            with pytest.raises(KilledError):
                fetch(tmp_path / "killed", site, query=query, limit=1900, progress=dies)
        killed = fetch(tmp_path / "killed", site, query=query, limit=1900)
        assert [entry.query for entry in site.asked("/posts.json")] == asked
    assert killed.records == calm.records
    assert (tmp_path / "killed/posts.jsonl.gz").read_bytes() == (tmp_path / "calm/posts.jsonl.gz").read_bytes()
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["posts.jsonl.gz"]


def test_a_failed_fetch_goes_on_too_and_says_so(tmp_path):
    with Emulator([post(i) for i in range(1, 701)]) as site:
        site.fail("/posts.json", Fault(422, b'{"success":false,"message":"no"}'), times=1)
        pages = iter([320, 640])
        with pytest.raises(SiteError, match="422"):
            fetch(tmp_path, site)
        with pytest.raises(KilledError):
            fetch(tmp_path, site, limit=700, progress=lambda done, *_: _die(done == next(pages) if done else False))
        assert "going on behind 1 pages" in fetch(tmp_path, site, limit=700).notes[1]


def _die(now: bool) -> None:
    if now:
        raise KilledError


@pytest.mark.parametrize(
    "other",
    [
        {"query": "solo"},
        {"limit": 650},
        {"ratings": ["s", "q"]},
        {"settings": {"api_key": "key"}},
    ],
)
def test_pages_of_another_search_are_not_gone_on_with(tmp_path, other):
    with Emulator([post(i) for i in range(1, 701)], login=("tester", "key")) as site:
        with pytest.raises(KilledError):
            fetch(tmp_path, site, limit=700, progress=lambda done, *_: _die(done > 0))
        site.log.clear()
        fetch(tmp_path, site, **({"limit": 700} | other))
        assert "page" not in site.asked("/posts.json")[0].query


def test_pages_older_than_a_day_are_not_gone_on_with(tmp_path):
    with Emulator([post(i) for i in range(1, 701)]) as site:
        with pytest.raises(KilledError):
            fetch(tmp_path, site, limit=700, progress=lambda done, *_: _die(done > 0))
        (page,) = tmp_path.glob("pages-*/*")
        os.utime(page, (time.time() - 90_000,) * 2)
        site.log.clear()
        fetch(tmp_path, site, limit=700)
        assert "page" not in site.asked("/posts.json")[0].query


def test_fewer_posts_than_counted_are_told(tmp_path):
    with Emulator([post(i) for i in range(1, 11)]) as site:
        site.fail("/posts/count.json", Fault(200, b'{"count": 12, "capped": false}'))
        assert "10 of them came" in fetch(tmp_path, site).notes[1]
        site.fail("/posts/count.json", Fault(200, b"{}"))
        assert "an unknown number of posts" in fetch(tmp_path, site).notes[0]


def test_tables_are_made_again_without_asking(tmp_path):
    records = [post(i, rating="sq"[i % 2], unheard_of={"x": [1.5, None]}) for i in range(1, 51)]
    records[3]["description"] = "half a character \ud83d, an umlaut ö and\na line"
    with Emulator(records) as site:
        asked = fetch(tmp_path, site, query="wolf rating:s limit:40")
    again = fetch(tmp_path, None, query="limit:40 wolf rating:s", ask_site=False)
    assert again.records == asked.records
    assert again.answers == asked.answers
    assert table(again).equals(table(asked))
    assert {record["unheard_of"]["x"][0] for record in again.records} == {1.5}
    with pytest.raises(SourceError, match="another search"):
        fetch(tmp_path, None, query="fox limit:40", ask_site=False)
    with pytest.raises(SourceError, match="not asked yet"):
        fetch(tmp_path / "elsewhere", None, ask_site=False)


@pytest.mark.parametrize("broken", [b"", b"text", b"\x1f\x8b\x08\x00cut", None])
def test_answers_that_cannot_be_read_are_named(tmp_path, broken):
    with Emulator([post(1)]) as site:
        path = fetch(tmp_path, site).answers
        path.write_bytes(path.read_bytes()[:-12] if broken is None else broken)
        for ask_site in (True, False):
            with pytest.raises(AnswersError, match=r"posts\.jsonl\.gz.*delete it"):
                fetch(tmp_path, site, ask_site=ask_site)


# What people do to a post between two runs, and how the reason begins if it leaves the search by that.
EDITS = {
    "delete": (lambda record: record["flags"].update(deleted=True), "deleted"),
    "re-rate": (lambda record: record.update(rating="q"), "rating q"),
    "retag": (lambda record: record["tags"].update(species=["fox"]), "the study's search no longer finds"),
    "forget": (lambda record: None, "gone: the site no longer knows"),
    "exclude": (lambda record: record["tags"]["general"].append("young"), None),
    "forbid": (lambda record: record["tags"]["artist"].append("conditional_dnp"), None),
    "vote": (lambda record: record["score"].update(total=100), None),
    "replace": (lambda record: record["file"].update(md5="f" * 32), None),
    "edit": (lambda record: record["tags"]["general"].append("smile"), None),
    "hide": (lambda record: None, None),
}


def _edit(site: Emulator, seed: int) -> dict[int, str]:
    """Change the site, each kind for some posts; return the reasons of posts that leave the search."""
    draw, posts, reasons = random.Random(seed), site.site.posts, {}
    for number, post_id in enumerate(draw.sample(sorted(posts), 6 * len(EDITS))):
        kind = list(EDITS)[number % len(EDITS)]
        edit, reason = EDITS[kind]
        edit(posts[post_id])
        if kind != "vote":  # votes are no edits to the site
            posts[post_id]["change_seq"] += 10_000
        if kind == "forget":
            del posts[post_id]
        if kind == "hide":
            site.site.hidden.add(post_id)
        if reason is not None:
            reasons[post_id] = reason
    top = max(posts)
    back = draw.choice(range(20, top, 20))  # an older post comes to match in the middle
    for post_id in (*range(top + 1, top + 31), back):
        posts[post_id] = post(post_id, change_seq=20_000 + post_id)
    return reasons


def _many() -> list[dict]:
    return [post(i, change_seq=i) for i in range(1, 501) if i % 20]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [5000, 400])
def test_a_second_run_equals_a_full_one_and_remembers_what_has_gone(tmp_path, seed, limit):
    with Emulator(copy.deepcopy(_many())) as site:
        first = fetch(tmp_path / "second", site, limit=limit)
        reasons = _edit(site, seed)
        site.log.clear()
        second = table(fetch(tmp_path / "second", site, limit=limit))
        pages = -(-len(second) // 320)
        assert len(site.log) <= 1 + pages + 3 + 3  # count, pages, belief that the end is one, who has gone
        full = table(fetch(tmp_path / "full", site, limit=limit))
    assert second.loc[full.index].equals(full)
    gone = second.drop(full.index)
    pushed_out = min(full.index) if limit == 400 else 0
    assert set(gone.index) == {i for i in reasons if i in set(ids(first)) and i > pushed_out}
    assert (gone.status == "dropped").all()
    for post_id, reason in gone.reason.items():
        assert reason.startswith(reasons[post_id])
    excluded = full.reason[full.reason.str.contains("excluded tag young|do-not-post|no link")]
    assert len(excluded) >= 9


def test_what_is_new_is_told_in_numbers(tmp_path):
    with Emulator([post(i, change_seq=i) for i in range(1, 101)]) as site:
        fetch(tmp_path, site)
        site.site.posts[7]["change_seq"] = 200
        site.site.posts[8]["flags"]["deleted"] = True
        site.site.posts[101] = post(101, change_seq=201)
        assert fetch(tmp_path, site).notes[-1] == "since the last time: 1 posts new, 1 changed, 1 gone"
        site.log.clear()
        again = fetch(tmp_path, site)
        assert again.notes[-1] == "since the last time: 0 posts new, 0 changed, 0 gone"
        assert not [entry for entry in site.log if "id:" in entry.query.get("tags", "")]  # asked about once
        assert table(again).reason[8] == "deleted"
        site.site.posts[8]["flags"]["deleted"] = False
        assert table(fetch(tmp_path, site)).status[8] == "kept"


def test_another_search_knows_nothing_of_the_last_one(tmp_path):
    with Emulator([post(1), post(2, tags={"general": ["duo"]})]) as site:
        fetch(tmp_path, site, query="wolf")
        assert ids(fetch(tmp_path, site, query="duo")) == [2]


def test_a_site_that_suddenly_finds_nothing_changes_nothing(tmp_path):
    with Emulator([post(i) for i in range(1, 11)]) as site:
        kept = fetch(tmp_path, site).answers.read_bytes()
        site.fail("/posts.json", EMPTY, times=3)
        with pytest.raises(SourceError, match="no posts"):
            fetch(tmp_path, site)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [kept]


@pytest.mark.parametrize("query", ["wolf randseed:7", "wolf order:random", "wolf order:random randseed:7"])
def test_a_random_search_is_drawn_once_whole_and_without_doubles(tmp_path, query):
    with Emulator([post(i) for i in range(1, 1001)]) as site:
        first = fetch(tmp_path, site, query=query, limit=700)
        assert len(set(ids(first))) == len(first.records) == 700
        assert ids(first) != sorted(ids(first), reverse=True)
        again = fetch(tmp_path, site, query=query, limit=700)
        assert set(ids(again)) == set(ids(first))
        assert table(again).status.tolist() == ["kept"] * 700
        assert "is kept" in again.notes[0]
        assert set(ids(fetch(tmp_path, None, query=query, limit=700, ask_site=False))) == set(ids(first))


def test_a_drawn_post_that_goes_is_dropped_and_none_comes_in_its_place(tmp_path):
    posts = [post(i) for i in range(1, 101)]
    with Emulator(copy.deepcopy(posts)) as site:
        first = ids(fetch(tmp_path, site, query="wolf order:random", limit=20))
    gone, rated = first[0], first[1]
    changed = [record | {"rating": "e" if record["id"] == rated else "s"} for record in posts if record["id"] != gone]
    with Emulator(changed, port=int(site.url.rpartition(":")[2])) as later:
        found = table(fetch(tmp_path, later, query="wolf order:random", limit=20))
    assert set(found.index) == set(first)
    assert found.reason[gone].startswith("gone")
    assert found.reason[rated].startswith("rating e")
    assert (found.status == "kept").sum() == 18


def test_a_random_search_is_drawn_anew_when_that_is_asked_for(tmp_path):
    with Emulator([post(i) for i in range(1, 201)]) as site:
        first = set(ids(fetch(tmp_path, site, query="wolf order:random", limit=20)))
        second = fetch(tmp_path, site, query="wolf order:random", limit=20, redraw=True)
        assert set(ids(second)) != first
        assert len(second.records) == 20  # those of the first draw have not gone anywhere
        assert set(ids(fetch(tmp_path, site, query="wolf order:random", limit=20))) == set(ids(second))
        assert len(fetch(tmp_path, site, query="wolf order:random", limit=30).records) == 30
