"""Provenance: every stored picture has its row, and keeps it as long as it is stored."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources import fetch_images
from ti_pipeline.sources.provenance import provenance_table
from ti_pipeline.studies import Source
from ti_pipeline_tests.e621.recorded import post

SITE = TypeAdapter(Source).validate_python({"kind": "e621", "query": "wolf", "licence": "CC BY 4.0"})


def stored(root: Path, *records: dict) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of posts whose files lie in a folder, fetched."""

    def local(record: dict) -> dict:
        path = root / "from" / f"{record['id']}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record["bytes"])
        return record | {"file": {"ext": "png", "url": path.as_uri()}}

    posts = posts_table([local(record) for record in records], ContentPolicy())
    return posts, fetch_images(posts, root=root, client=pytest.fail)


def a_post(post_id: int, data: bytes = b"x", **changes: object) -> dict:
    return post(post_id, **changes) | {"bytes": data}


def test_every_stored_picture_has_whose_it_is_and_where_it_came_from(tmp_path):
    tags = {"artist": ["someone", "sound_warning"], "contributor": ["helper"]}
    posts, images = stored(tmp_path, a_post(1, b"one", tags=tags), a_post(3, rating="e"))
    for row in images[images.status == "ok"].itertuples():
        os.utime(tmp_path / row.path, (1_700_000_000 + row.post_id,) * 2)
    table = provenance_table(posts, images, root=tmp_path, source=SITE)
    assert TABLES["provenance"].problems(table) == []
    assert table.post_id.tolist() == [1]  # 3 is not safe
    row = table.iloc[0]
    assert (row.artists, row.contributors) == (["someone"], ["helper"])  # a warning is no artist
    assert (row.rating, row.source, row.licence) == ("s", "e621", "CC BY 4.0")
    assert row.sources == ["https://example.org/a"]
    assert (row.md5, row.sha256, row.path) == tuple(images.loc[0, ["md5", "sha256", "path"]])
    assert row.file_url == (tmp_path / "from" / "1.png").as_uri()
    assert row.fetched_at == datetime.fromtimestamp(1_700_000_001, UTC)
    assert row.in_use


def test_pages_only_for_posts_of_the_site(tmp_path):
    posts, images = stored(tmp_path, *(a_post(n, bytes([n])) for n in (1, 2, 3, 4)))
    urls = ["file:///pictures/1.png", "demo://ember/2", "https://e621.net.evil.example/3.png", "https://e926.net/4.png"]
    table = provenance_table(posts.assign(file_url=urls), images, root=tmp_path, source=SITE)
    assert table.page.isna().tolist() == [True, True, True, False]
    assert table.page[3] == "https://e621.net/posts/4"


def test_what_is_stored_keeps_its_row_and_its_time(tmp_path):
    before = provenance_table(*stored(tmp_path, a_post(1, b"one"), a_post(2, b"two")), root=tmp_path, source=SITE)
    for path in before.path:
        os.utime(tmp_path / path, (5, 5))  # as a copy to another machine would
    later = stored(tmp_path, a_post(2, b"two"), a_post(3, b"three"))
    after = provenance_table(*later, root=tmp_path, source=SITE, earlier=before)
    assert dict(zip(after.post_id, after.in_use, strict=True)) == {1: False, 2: True, 3: True}
    times = after.set_index("post_id").fetched_at
    assert times[[1, 2]].tolist() == before.set_index("post_id").fetched_at[[1, 2]].tolist()
    (tmp_path / before.path[0]).unlink()
    again = provenance_table(*later, root=tmp_path, source=SITE, earlier=after)
    assert again.post_id.tolist() == [2, 3]
    replaced = stored(tmp_path, a_post(2, b"other"))
    both = provenance_table(*replaced, root=tmp_path, source=SITE, earlier=again)
    assert both[both.post_id == 2].in_use.tolist().count(True) == 1
    assert len(both) == 3
