"""Folders as people have them, through the whole of `prepare`: sentences beside pictures become their captions."""

import json
from pathlib import Path

import pytest

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.tiny_models import DEMO_BASE

pytestmark = pytest.mark.slow

STUDY = """
name: s
source: {{kind: folder, path: {pictures}, assume_rating: s, exclude_tags: [no_such_tag]}}
base_models: {{demo: {{folder: {base}}}}}
curation: {{min_images: 1}}
crops: {{sizes: [64]}}
captions: {{told: {{source: sidecar}}, tags: {{categories: [species, general]}}}}
common: {{base: demo, crop: 64, steps: 1}}
variants: {{x1: {{vectors: 1}}}}
"""


def test_sentences_beside_pictures_are_their_captions(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    flawless = [post for post in demo_posts(concept="ember", count=8, seed=1) if post.truth.flaw is None]
    for index, post in enumerate(flawless[:4]):
        (pictures / f"p{index}.jpg").write_bytes(post.data())
    (pictures / "p0.caption").write_text("A wolf stands in the snow, looking up.")
    (pictures / "p1.TXT").write_text("wolf; fox; blue eyes")
    (pictures / "p2.txt").write_text("A wolf with its cub.")
    (pictures / "p3.jpg.json").write_text('{"tags": {"species": ["fox"]}, "rating": "s"}')
    text = STUDY.format(pictures=json.dumps(str(pictures)), base=json.dumps(str(DEMO_BASE)))
    graph = Graph.new(tmp_path, {"s": text})
    said = graph.job("prepare", "s")
    assert "3 of 4 posts kept; 1 dropped: its own text says cub" in said
    assert "'no_such_tag' takes no post" in said
    assert "job catalog" in said  # without one, do-not-post artists are not known
    posts = graph.table("posts", "s").set_index("post_id")
    names = posts.file_url.map(lambda url: Path(url).name)
    captions = graph.table("captions", "s__told").set_index("post_id").caption
    by_name = {names[post_id]: caption for post_id, caption in captions.items()}
    assert by_name == {
        "p0.jpg": "A wolf stands in the snow, looking up.",
        "p1.jpg": "wolf; fox; blue eyes",
        "p3.jpg": "fox",
    }
