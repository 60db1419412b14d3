"""Small posts tables, the recorded posts, and tags as people really name them. Not here: what is done with them."""

import functools
from collections.abc import Mapping, Sequence

import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st

from ti_pipeline.studies import CATEGORIES
from ti_pipeline_tests.e621.recorded import recorded_posts

Tags = Mapping[str, Sequence[str]]

# The same examples in every run, however busy the machine.
steady = settings(derandomize=True, deadline=None, max_examples=60)

STRANGE = [
    "\x01",
    "\x1c",
    "fox\x02tail",
    '"quoted"',
    "a/b\\c",
    "..",
    "🦊",
    "👩\u200d🚀",
    "\u202egnitirw\u202c",
    "comma,inside",
    ",",
    "___",
    "[name]",
    "[[filewords]]",
    "$x^2$",
    ":3",
    "日本語",
]


def posts_of(tags: Mapping[int, Tags], dropped: Sequence[int] = ()) -> pd.DataFrame:
    """Return the columns of `posts` that tagging reads; `tags` maps post ids to tags by category."""
    frame = pd.DataFrame({"post_id": pd.Series(list(tags), dtype="int64")})
    frame["status"] = ["dropped" if post_id in dropped else "kept" for post_id in tags]
    for category in CATEGORIES:
        found = [list(of_post.get(category, [])) for of_post in tags.values()]
        frame[f"tags_{category}"] = pd.Series(found, dtype=object)
    return frame


@functools.cache
def recorded_tags() -> dict[int, Tags]:
    """Return the tags by category of each of the 572 recorded posts."""
    return {post["id"]: post["tags"] for post in recorded_posts()}


# Few names and all categories, so that tags meet, tie and contradict each other.
names = st.sampled_from(["wolf", "fox", "red_fox", "blue eyes", "solo", "hat", "a", "b", "B", *STRANGE, "", "  ", "\t"])
tags_of_post = st.dictionaries(st.sampled_from(CATEGORIES), st.lists(names, max_size=6), max_size=4)
studies = st.dictionaries(st.integers(0, 2**40), tags_of_post, max_size=12)
