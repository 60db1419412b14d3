"""What a tagger's findings mean for the content policy: excluded words and its rating take a picture out.

Not here: running a tagger (`tagger`), or the policy (`e621.policy`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ti_pipeline.e621.policy import ContentPolicy

__all__ = ["RATING", "refused_by_tagger", "seen_tags", "with_sidecars"]

RATING = "rating"  # the category of rows that tell a picture's rating, as `rating:` and the tagger's word
# As danbooru rates, whose posts these models were trained on; words that nobody knows count as the strictest.
_SCALE = {"general": "s", "safe": "s", "g": "s", "sensitive": "q", "s": "q", "questionable": "q", "q": "q"}


def seen_tags(tagger_tags: pd.DataFrame) -> pd.DataFrame:
    """Return the `tagger_tags` that are tags: without the rows that tell ratings."""
    return tagger_tags[tagger_tags.category != RATING]


def refused_by_tagger(tagger_tags: pd.DataFrame, policy: ContentPolicy) -> dict[int, str]:
    """Return why pictures must not be used for what a tagger sees on them, by post id.

    Whole words of a tag count: a list for a tagger has `female_child` where the site has `child`.
    """
    words = {tag: found for tag in tagger_tags.tag.unique() if (found := policy.refuses_text(str(tag))) is not None}
    reasons: dict[int, str] = {}
    for row in tagger_tags.itertuples():
        letter = _SCALE.get(str(row.tag).removeprefix(f"{RATING}:").lower(), "e")
        if row.category == RATING and letter not in policy.ratings:
            reasons.setdefault(int(row.post_id), f"the tagger says {row.tag}, which counts as {letter}")
        elif row.category != RATING and row.tag in words:
            reasons[int(row.post_id)] = f"the tagger sees {row.tag}, which the content policy excludes"
    return reasons


def with_sidecars(captions: pd.DataFrame, posts: pd.DataFrame) -> pd.DataFrame:
    """Return the `captions` table with the captions that lie beside the pictures of `posts`, as they stand there.

    Of several captions of a picture the first counts. Its pieces between commas are its tags, so that `fit` can leave
    some out. A picture without one keeps the caption made of its tags.
    """
    import pandas as pd

    told = {
        int(post_id): found[0]
        for post_id, found in zip(posts.post_id, posts.get("captions", [[]] * len(posts)), strict=True)
        if len(found)
    }
    pieces = {post_id: [piece for piece in text.split(", ") if piece] for post_id, text in told.items()}
    table = captions.copy()
    table["caption"] = pd.Series(
        [", ".join(pieces[i]) if i in told else text for i, text in zip(table.post_id, table.caption, strict=True)],
        index=table.index,
        dtype="str",
    )
    for column in table.columns.intersection(["tags", "priority"]):
        tags = [pieces.get(i, own) for i, own in zip(table.post_id, table[column], strict=True)]
        table[column] = pd.Series(tags, index=table.index, dtype=object)
    table["tag_count"] = pd.Series([len(tags) for tags in table.tags], index=table.index, dtype="int64")
    table.loc[table.post_id.isin(list(told)), "dropped_tags"] = 0
    return table
