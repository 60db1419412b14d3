"""The drawn world behind the local e621: the demo's character, found and fetched by the real client."""

import pytest

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline_tests.emulator import Emulator
from ti_pipeline_tests.graph import Graph

COUNT = 24
STUDY = """
name: drawn
source: {kind: e621, query: "ember_(demo) solo", limit: 100}
base_models: {later: {}}
curation: {min_side: 64}
crops: {sizes: [512]}
captions: {species: {categories: [species]}}
common: {base: later, captions: species, crop: 512, steps: 1}
variants: {x1: {vectors: 8}}
"""


@pytest.mark.slow
def test_the_demos_posts_come_through_the_real_client(tmp_path) -> None:
    posts = demo_posts(concept="ember", count=COUNT, seed=3)
    records = [post.record for post in posts]
    with Emulator(records, {post.record["file"]["md5"]: post.data() for post in posts}) as site:
        graph = Graph.new(tmp_path, {"drawn": STUDY}, TI_E621_URL=site.url, TI_E621_USERNAME="tester")
        graph.job("prepare", "drawn")
    solo = {record["id"]: record for record in records if "solo" in record["tags"]["general"]}
    table = graph.table("posts", "drawn")
    assert set(table.post_id) == set(solo)
    assert len(solo) < COUNT, "the search left out posts of two"
    images = graph.table("images", "drawn").query("status == 'ok'")
    assert set(images.md5) == {record["file"]["md5"] for record in solo.values()}
    audit = graph.table("image_audit", "drawn").set_index("post_id")
    wrong = {post.record["id"] for post in posts if post.truth.flaw == "wrong_extension"} & set(solo)
    assert wrong
    assert set(audit.index[audit.status == "ok"]) >= wrong, "a wrong extension is noted, and the picture used"
    crops = graph.table("crops", "drawn__512").query("status == 'ok'")
    assert len(crops) >= 15
