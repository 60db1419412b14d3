import hashlib
import threading

import pandas as pd
import pytest

from ti_pipeline.e621.client import E621Client, SiteError
from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources import fetch_images
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.e621.scripted import Answer, Scripted
from ti_pipeline_tests.emulator import CUT, Emulator, Fault

CONTRACT = TABLES["images"]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def record(post_id: int, data: bytes, url: str, **file) -> dict:
    return post(post_id, file={"url": url, "ext": "png", "md5": md5(data), "size": len(data)} | file)


def no_client() -> E621Client:
    raise AssertionError("nobody asked for the web")


def fetched(records: list[dict], root, client=no_client, **more) -> pd.DataFrame:
    table = fetch_images(posts_table(records, ContentPolicy()), root=root, client=client, **more)
    assert CONTRACT.problems(table) == []
    assert not [path for path in root.rglob(".*") if not path.name.endswith(".partial")]
    return table.set_index("post_id", drop=False)


def on(site: Emulator | Scripted):
    return lambda: E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0)


def test_pictures_of_a_folder_are_stored_by_content(tmp_path):
    data = b"wolf \xff"
    odd = tmp_path / "ö %20#?.png"
    odd.write_bytes(data)
    seen = []
    records = [record(1, data, odd.as_uri()), record(2, data, odd.as_uri(), md5=None, size=None), post(3, rating="e")]
    table = fetched(records, tmp_path / "store", progress=lambda *step: seen.append(step))
    row = table.loc[1]
    assert list(table.post_id) == [1, 2, 3]
    assert row.path == f"images/{md5(data)[:2]}/{md5(data)}.png"
    assert (tmp_path / "store" / row.path).read_bytes() == data
    assert (row.status, row.reason, row.md5, row.file_size) == ("ok", "", md5(data), 6)
    assert row.sha256 == hashlib.sha256(data).hexdigest()
    assert table.loc[2].path == row.path
    assert (table.loc[3].status, table.loc[3].reason) == ("dropped", "rating e is not among s")
    assert seen == [(0, 2, "pictures"), (1, 2, "pictures (0.0 MB)"), (2, 2, "pictures (0.0 MB)")]


def test_one_bad_picture_never_stops_the_others(tmp_path):
    good = tmp_path / "good.png"
    good.write_bytes(b"good")
    four = tmp_path / "four.png"
    four.write_bytes(b"four")
    records = [
        record(1, b"good", good.as_uri()),
        record(2, b"gone", (tmp_path / "gone.png").as_uri()),
        record(3, b"gooD", good.as_uri()),
        record(4, b"four", four.as_uri(), size=5),
        record(5, b"good", good.as_uri(), ext="webm", md5=md5(b"5")),
        record(6, b"x", "gopher://example.org/a.png"),
        record(7, b"x", tmp_path.as_uri(), md5=md5(b"7")),
    ]
    table = fetched(records, tmp_path / "store")
    assert list(table.status) == ["ok", "failed", "failed", "failed", "skipped", "failed", "failed"]
    reasons = ["", "cannot be read", "md5 mismatch", "4 bytes arrived, 5", "webm", "gopher", "cannot be read"]
    assert all(words in reason for words, reason in zip(reasons, table.reason, strict=True))


def test_pictures_from_the_web(tmp_path):
    bodies = [f"picture {i}".encode() * 50 for i in range(30)]
    with Emulator(files={md5(body): body for body in bodies}) as site:
        records = [record(i, body, f"{site.url}/data/x/y/{md5(body)}.png") for i, body in enumerate(bodies)]
        records[3]["file"]["url"] = f"{site.url}/data/x/y/absent.png"
        records[4]["file"]["md5"] = "0" * 32
        site.fail(f"/data/x/y/{md5(bodies[5])}", CUT, times=3)
        site.fail(f"/data/x/y/{md5(bodies[6])}", Fault(200, bodies[6][::-1]), times=3)
        site.fail(f"/data/x/y/{md5(bodies[7])}", CUT)
        site.fail(f"/data/x/y/{md5(bodies[9])}", Fault(200, bodies[9][::-1]))
        table = fetched(records, tmp_path, on(site))
        assert list(table.index[table.status == "failed"]) == [3, 4, 5, 6]
        assert [table.reason[i].split()[0] for i in (3, 4, 5, 6)] == ["gone:", "md5", "the", "md5"]
        for row in table[table.status == "ok"].itertuples():
            assert (tmp_path / row.path).read_bytes() == bodies[row.post_id]
        asked = len(site.asked("/data/"))
        (tmp_path / table.path[8]).write_bytes(b"damaged since")
        records[4]["file"]["md5"] = md5(bodies[4])
        again = fetched(records, tmp_path, on(site))
        assert list(again.index[again.status == "failed"]) == [3]
        assert len(site.asked("/data/")) == asked + 5  # the four failed ones and the damaged one, no other
        assert (tmp_path / again.path[8]).read_bytes() == bodies[8]


def test_every_post_has_a_row_with_its_reason(tmp_path):
    body = b"picture"
    with Emulator(files={md5(body): body}) as site:
        address = f"{site.url}/data/x/y/{md5(body)}.png"
        records = [
            record(1, body, address),
            record(2, body, None),
            record(3, body, address, ext="webm"),
            record(4, body, address) | {"flags": {"deleted": True}},
            record(5, b"another", address),
            record(6, b"gone", f"{site.url}/data/x/y/gone.png"),
            record(7, body, address) | {"tags": {"general": ["young"]}},
        ]
        table = fetched(records, tmp_path, on(site))
    assert list(table.status) == ["ok", "dropped", "skipped", "dropped", "failed", "failed", "dropped"]
    reasons = ["", "no link", "not a still", "deleted", "md5 mismatch", "gone: ", "excluded tag young"]
    assert all(words in reason for words, reason in zip(reasons, table.reason, strict=True))
    assert table.path.notna().sum() == 1


def test_one_file_of_many_posts_is_asked_for_once_and_by_all_studies(tmp_path):
    bodies = [bytes([i]) * 1000 for i in range(5)]
    with Emulator(files={md5(body): body for body in bodies}) as site:
        records = [record(i, bodies[i % 5], f"{site.url}/data/x/y/{md5(bodies[i % 5])}.png") for i in range(1, 41)]
        assert (fetched(records, tmp_path, on(site)).status == "ok").all()
        assert (fetched(records[:9], tmp_path, on(site)).status == "ok").all()
        assert sorted(entry.path for entry in site.log) == sorted(f"/data/x/y/{md5(body)}.png" for body in bodies)


def test_several_pictures_are_on_their_way_at_a_time(tmp_path):
    four = threading.Barrier(4, timeout=60)

    def all_four(request, _number):
        four.wait()  # breaks, and with it the download, unless three others are asked for meanwhile
        return Answer(body=request.path.encode())

    with Scripted(all_four) as site:
        paths = [f"/data/{number}.png" for number in range(4)]
        records = [record(i, path.encode(), site.url + path) for i, path in enumerate(paths)]
        assert (fetched(records, tmp_path, on(site)).status == "ok").all()


def test_the_web_is_not_needed_for_what_is_not_on_it(tmp_path):
    from ti_pipeline.demo.posts import demo_posts

    posts = demo_posts(concept="ember", count=2, seed=3)
    table = fetched([item.record for item in posts], tmp_path)
    assert [(tmp_path / path).read_bytes() for path in table.path] == [item.data() for item in posts]


def test_no_user_name_stops_the_run(tmp_path):
    with pytest.raises(SiteError, match="TI_E621_USERNAME"):
        fetched([post(1)], tmp_path, lambda: E621Client(username=""))


def test_no_posts_no_pictures(tmp_path):
    assert fetched([], tmp_path).empty
