"""The 572 recorded posts through the tag half, by the real client from a local e621, for the seed log's budgets."""

import collections
import json

import pytest

from ti_pipeline.partitions import SEPARATOR
from ti_pipeline_tests.emulator import Emulator
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.shared_data import E621, needs_shared

PAGES = ("posts_fluffy_rating-s_limit320.json", "posts_fluffy_rating-s_limit320_page_b2269211.json")
BUDGETS = {"wide": (159, 41), "middle": (22, 95), "narrow": (5, 49)}
STUDY = """
name: fluffy
source: {kind: e621, query: fluffy, limit: 1000}
base_models: {later: {}}
captions:
  none: {source: none}
  species: {categories: [species]}
  wide: {categories: [species, general], budgets: {species: 159, general: 41}}
  middle: {categories: [species, general], budgets: {species: 22, general: 95}}
  narrow: {categories: [species, general], budgets: {species: 5, general: 49}}
variants: {x1: {vectors: 8, base: later, steps: 1, captions: wide}}
"""

pytestmark = [needs_shared, pytest.mark.slow]


def recorded() -> list[dict]:
    return [post for page in PAGES for post in json.loads((E621 / page).read_text(encoding="utf-8"))["posts"]]


def materialize(graph: Graph, **config: object) -> None:
    assets = "posts,post_tags,tag_frequencies"
    command = ("asset", "materialize", "-m", "ti_pipeline.definitions", "--select", assets, "--partition", "fluffy")
    done = graph.run(*command, "--config-json", json.dumps(config))
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    with Emulator(recorded(), {}) as site:
        graph = Graph.new(
            tmp_path_factory.mktemp("fluffy"), {"fluffy": STUDY}, TI_E621_URL=site.url, TI_E621_USERNAME="tester"
        )
        materialize(graph)
    graph.job("prepare_captions", "fluffy__none", "fluffy__narrow")
    return graph


@pytest.fixture(scope="module")
def tags_of(graph: Graph) -> dict[int, dict[str, list[str]]]:
    """The recorded tags of the posts that the study kept."""
    kept = set(graph.table("posts", "fluffy").query("status == 'kept'").post_id)
    return {post["id"]: post["tags"] for post in recorded() if post["id"] in kept}


def test_every_recorded_post_is_there_once_with_a_reason_if_dropped(graph: Graph) -> None:
    posts = graph.table("posts", "fluffy")
    assert sorted(posts.post_id) == sorted(post["id"] for post in recorded())
    assert (posts.query("status == 'dropped'").reason != "").all()
    assert len(posts.query("status == 'kept'")) > 400


def test_the_tables_are_made_again_from_kept_answers_alone(graph: Graph) -> None:
    """The site of the fixture is gone by now, and nobody says who asks."""
    alone = Graph(graph.data, graph.studies, {"TI_E621_URL": "http://127.0.0.1:9"})
    before = graph.table("posts", "fluffy")
    path = graph.data / "tables" / "posts" / "fluffy.parquet"
    path.unlink()
    materialize(alone, ops={"posts": {"config": {"ask_site": False}}})
    assert graph.table("posts", "fluffy").equals(before)


def test_frequencies_are_plain_counts(graph: Graph, tags_of: dict[int, dict[str, list[str]]]) -> None:
    counted = collections.Counter(tag for tags in tags_of.values() for tag in {t for g in tags.values() for t in g})
    table = graph.table("tag_frequencies", "fluffy")
    assert dict(zip(table.tag, table["count"], strict=True)) == dict(counted)


@pytest.mark.parametrize(("plan", "budgets"), BUDGETS.items())
def test_budgets_take_the_commonest(graph: Graph, tags_of: dict, plan: str, budgets: tuple[int, int]) -> None:
    kept = graph.table("vocabulary", f"fluffy{SEPARATOR}{plan}").query("kept")
    for category, budget in zip(("species", "general"), budgets, strict=True):
        counted = collections.Counter(tag for tags in tags_of.values() for tag in set(tags[category]))
        expected = sorted(counted, key=lambda tag: (-counted[tag], tag))[:budget]
        assert sorted(kept.tag[kept.category == category]) == sorted(expected)


def test_captions_say_what_the_posts_carry(graph: Graph, tags_of: dict) -> None:
    assert (graph.table("captions", "fluffy__none").caption == "").all()
    for plan in ("species", *BUDGETS):
        vocabulary = set(graph.table("vocabulary", f"fluffy__{plan}").query("kept").tag)
        captions = graph.table("captions", f"fluffy__{plan}")
        assert sorted(captions.post_id) == sorted(tags_of)
        for row in captions.itertuples():
            carried = {tag for group in tags_of[row.post_id].values() for tag in group}
            assert set(row.tags) == carried & vocabulary
            assert row.caption == ", ".join(tag.replace("_", " ").replace(",", " ") for tag in row.tags)
