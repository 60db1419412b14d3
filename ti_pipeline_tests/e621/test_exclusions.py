import pandas as pd
import pytest

from ti_pipeline.e621.exclusions import ExclusionError, excluded_names, opted_out_names
from ti_pipeline.e621.policy import PolicyError, load_policy, read_names
from ti_pipeline.e621.taken import posts_taken
from ti_pipeline_tests.e621.recorded import post


def posts_with(*tags: str, **changes: object) -> dict[str, object]:
    return post(tags={"general": list(tags)}, **changes)


@pytest.mark.parametrize(
    ("entry", "taken", "left"),
    [
        ("sketch", ["sketch", "Sketch", "sketch_(artwork)"], ["sketchy", "pencil_sketch"]),
        ("blue eyes", ["blue_eyes"], ["blue"]),
        ("meta:sketch", ["sketch"], ["meta"]),
        ("artist: ink", ["ink"], ["artist"]),
        ("-sketch", ["sketch"], []),
        ("~sketch", ["sketch"], []),
        ("sketch, gore", ["sketch", "gore"], ["sketch,_gore"]),
        ("blue_*", ["blue_eyes", "blue_body", "Blue Eyes"], ["blue", "light_blue_eyes", "bluebird"]),
        ("*_(artwork)", ["sketch_(artwork)"], ["artwork"]),
        ("re:zero", ["re:zero"], ["zero"]),
        (":3", [":3"], ["3"]),
    ],
)
def test_entries_of_exclude_tags_mean_what_people_mean(entry, taken, left):
    policy = load_policy(exclude_tags=[entry])
    assert [tag for tag in taken if policy.refuses(posts_with(tag)) is None] == []
    assert [tag for tag in left if policy.refuses(posts_with(tag)) is not None] == []


@pytest.mark.parametrize("entry", ["", "  ", ",", "*", "**", "_*", "rating:e", "score:>5", "order:score", "-rating:s"])
def test_entries_that_mean_nothing_are_refused(entry):
    with pytest.raises(ExclusionError):
        excluded_names(entry)
    with pytest.raises(PolicyError, match="exclude_tags"):
        load_policy(exclude_tags=["wolf", entry])


def test_a_star_is_closed_over_the_catalog():
    implications = pd.DataFrame({"antecedent": ["azure_gaze"], "consequent": ["blue_eyes"]})
    policy = load_policy(exclude_tags=["blue_*"], implications=implications)
    assert policy.refuses(posts_with("azure_gaze")) is not None
    assert policy.refuses_text("a wolf with blue eyes") == "blue_eyes"
    assert policy.refuses_text("a wolf with blue fur") == "blue_*"


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Some One", ["Some One"]),
        ("artist:some_one", ["some_one"]),
        ("by some one", ["some one"]),
        ("@someone", ["someone"]),
        ("x, y", ["x", "y"]),
        ("https://e621.net/posts?tags=some_one", ["some_one"]),
        ("https://e621.net/artists/show_or_new?name=some_one", ["some_one"]),
        ("https://www.furaffinity.net/user/SomeOne/", ["SomeOne"]),
        ("https://twitter.com/someone", ["someone"]),
        ("x.com/someone", ["someone"]),
        ("https://someone.tumblr.com", ["someone"]),
        ("https://bsky.app/profile/someone.bsky.social", ["someone"]),
        ("www.weasyl.com/~someone", ["someone"]),
    ],
)
def test_lines_of_opt_outs_mean_artists(line, names):
    assert [name for name in names if name not in opted_out_names(line)] == []
    policy = load_policy(opt_out=[line])
    for name in names:
        assert policy.refuses(post(tags={"artist": [name.lower().replace(" ", "_")]})) == "artist opted out"
    assert policy.refuses(post(tags={"artist": ["somebody_else"]})) is None


@pytest.mark.parametrize(
    ("line", "source", "taken"),
    [
        ("https://www.pixiv.net/users/123", "https://www.pixiv.net/users/123", True),
        ("https://www.pixiv.net/users/123", "https://pixiv.net/users/1234", False),
        ("https://twitter.com/someone", "https://x.com/SomeOne/status/99", True),
        ("https://twitter.com/someone", "https://twitter.com/someone_else/status/99", False),
        ("https://someone.tumblr.com/", "https://someone.tumblr.com/post/5", True),
        ("https://e621.net/posts?tags=some_one", "https://e621.net/posts/5", False),
    ],
)
def test_pages_of_artists_are_looked_for_among_the_sources(line, source, taken):
    policy = load_policy(opt_out=[line])
    assert (policy.refuses(post(sources=[source], tags={"artist": ["x"]})) == "artist opted out") == taken


@pytest.mark.parametrize("line", ["*", "some*", "https://www.furaffinity.net", "https://e621.net/posts?page=2"])
def test_lines_that_mean_nobody_are_refused_by_line(tmp_path, line):
    path = tmp_path / "opt_out.txt"
    path.write_text(f"# asked by mail\nsomeone\n{line}\n", encoding="utf-8")
    with pytest.raises(PolicyError, match=r"opt_out\.txt:3: .*write the name"):
        read_names(path)


def test_what_each_exclusion_takes_is_counted():
    aliases = pd.DataFrame({"antecedent": ["old_ink"], "consequent": ["ink"]})
    implications = pd.DataFrame({"antecedent": ["rough_sketch"], "consequent": ["sketch"]})
    records = [
        posts_with("sketch", rating="e"),
        posts_with("rough_sketch"),
        post(tags={"artist": ["ink"]}),
        posts_with("young"),
    ]
    counted = posts_taken(
        records,
        exclude_tags=["sketch", "gore"],
        opt_out=["by old ink", "nobody"],
        aliases=aliases,
        implications=implications,
    )
    assert counted == {"sketch": 2, "gore": 0, "by old ink": 1, "nobody": 0}
