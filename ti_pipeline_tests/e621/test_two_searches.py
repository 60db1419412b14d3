"""The local search of the dump and the emulator's search, written apart from each other, over one world.

Left out is what the reference leaves open and the local search takes from the site's own server: a `*` or a status
behind `~`, several statuses or presences in one query (the last counts there), lists of types, the last day of a range
of dates, and how finely orders by shape and megapixels are rounded.
"""

import datetime

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from ti_pipeline.e621.export import convert_dump
from ti_pipeline.e621.local_search import LocalSearch
from ti_pipeline.e621.search_language import parse_search
from ti_pipeline_tests.emulator import Emulator, plain_world
from ti_pipeline_tests.emulator.asking import NAMED, found, get

NOW = datetime.datetime(2026, 8, 1, tzinfo=datetime.UTC)
POSTS = 300  # on one page: what is compared is the search, not the paging

TERMS = (
    *(
        "wolf",
        "fox",
        "mammal",
        "tag_1",
        "tag_2",
        "tag_3",
        "pokémon",
        ":3",
        "16:9",
        "blep_(gesture)",
        "artist_1",
        "nobody",
    ),
    *("rating:s", "rating:questionable", "rating:e", "type:png", "type:webm", "status:pending", "status:flagged"),
    *(
        "score:>100",
        "score:0..50",
        "score:<=20",
        "favcount:>=400",
        "tagcount:>20",
        "tagcount:9",
        "id:50..200",
        "id:7,9",
    ),
    *("width:>30", "height:<12", "ratio:>1.5", "mpixels:<0.01", "filesize:>900", "filesize:500", "parent:any"),
    *("source:none", "source:any", "date:<2024-01-02", "date:>=2024-01-02", "age:>2y"),
)
COMBINED = tuple(term for term in TERMS if not term.startswith(("status:", "parent:", "source:")))
ORDERS = ("", "order:id", "order:id_desc", "order:score", "order:score_asc", "order:favcount", "order:filesize")
ORDERS += ("order:tagcount", "order:tagcount_asc", "order:unheard_of")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory):
    """The running emulator, and the converted dump that it serves."""
    folder = tmp_path_factory.mktemp("dump")
    records, files = plain_world(POSTS, seed=8)
    with Emulator(records, files, now=NOW) as site:
        index = {row["name"]: row for row in get(site, "/db_exports.json").json()}
        dump = requests.get(index["posts"]["url"], headers=NAMED, timeout=10)
        (folder / "posts.csv.gz").write_bytes(dump.content)
        yield site, LocalSearch(convert_dump(folder / "posts.csv.gz", folder / "converted"))


def agree(both, query: str) -> None:
    site, local = both
    assert local.find(parse_search(query, now=NOW)).tolist() == found(site, query), query


@pytest.mark.parametrize(
    "query", [*TERMS, "", "wol*", "*ox", "-wol*", "tag_1* -tag_2", "wol* fo*", "status:any", "status:deleted"]
)
def test_every_term_means_the_same_to_both(both, query: str) -> None:
    agree(both, query)
    agree(both, f"-{query}" if query and not query.startswith(("-", "status:")) and " " not in query else query)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_means_the_same_to_both(both, order: str) -> None:
    agree(both, f"mammal {order}")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(("", "-", "~")), st.sampled_from(COMBINED)), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(("", "-", "~")), st.sampled_from(COMBINED)), max_size=3),
    st.sampled_from(("", "-", "~")),
    st.sampled_from(ORDERS),
)
def test_they_find_the_same_posts_in_the_same_order(both, outer, inner, sign, order) -> None:
    words = [f"{mark}{term}" for mark, term in outer]
    group = f"{sign}( {' '.join(f'{mark}{term}' for mark, term in inner)} )" if inner else ""
    agree(both, " ".join([*words, group, order]))
