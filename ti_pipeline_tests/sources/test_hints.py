import pytest

from ti_pipeline.sources.hints import hints

TAGS = ["wolf", "blue_eyes", "looking_at_viewer", "solo", "fluffy"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("wolf solo", []),
        ("wolff solo", ["the catalog has no tag wolff: is wolf meant?"]),
        ("wolf looking_at_veiwer", ["the catalog has no tag looking_at_veiwer: is looking_at_viewer meant?"]),
        ("wolf qqqqqqqqqq", ["the catalog has no tag qqqqqqqqqq"]),
        ("wolf -nothing_of_the_kind order:score fl*", []),
        ("wolf, solo", ["tags are divided by blanks, and the words of one tag by _, not by commas"]),
        ("https://e621.net/posts?tags=wolf+solo", ["an address is no search: write wolf solo"]),
    ],
)
def test_what_may_be_wrong_with_a_search(query, told):
    assert hints(query, TAGS) == told


def test_without_a_catalog_no_tag_is_said_to_be_unknown():
    assert hints("wolff, solo", []) == ["tags are divided by blanks, and the words of one tag by _, not by commas"]
