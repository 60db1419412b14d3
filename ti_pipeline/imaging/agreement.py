"""Where pixels and tags disagree: confusion tables that find mistagged pictures.

Here: what is compared, and at which line a measure counts as yes. Not here: the measures (`measures`), or what becomes
of a picture (`curation`).

Pixels alone say whether a picture has a simple background, whether it is a sketch (few grey levels), and whether it is
an animation; lettering and the number of subjects need a detector, so they are judged by tags only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.imaging.curation import SIMPLE_BACKGROUND_TAGS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

__all__ = ["QUESTIONS", "agreement"]


@dataclass(frozen=True)
class Question:
    """What is asked of both: the tags that say yes, and what pixels say of the rows of an audit."""

    name: str
    tags: frozenset[str]
    by_pixels: Callable[[pd.DataFrame], pd.Series[bool]]


# Lines that split 150 drawn pictures best: of simple backgrounds 95 % have at least 0.52, of others 5 % have.
QUESTIONS = (
    Question("simple_background", SIMPLE_BACKGROUND_TAGS, lambda audit: audit.simple_background >= 0.52),
    Question("sketch", frozenset({"sketch", "line_art", "lineart"}), lambda audit: audit.detail < 2.1),
    Question("animated", frozenset({"animated"}), lambda audit: audit.frames > 1),
)
_EXAMPLES = 5


def agreement(audit: pd.DataFrame, post_tags: pd.DataFrame) -> pd.DataFrame:
    """Return one row per question: how many usable pictures pixels and tags both affirm, both deny, or only one does.

    `only_pixels_posts` and `only_tags_posts` list the first five such posts, in the order of the audit.
    """
    import pandas as pd

    usable = audit[audit.status == "ok"]
    rows = []
    for question in QUESTIONS:
        tagged = usable.post_id.isin(post_tags.post_id[post_tags.tag.isin(question.tags)])
        seen = question.by_pixels(usable).astype(bool)
        rows.append(
            {
                "question": question.name,
                "both": int((seen & tagged).sum()),
                "only_pixels": int((seen & ~tagged).sum()),
                "only_tags": int((~seen & tagged).sum()),
                "neither": int((~seen & ~tagged).sum()),
                "only_pixels_posts": usable.post_id[seen & ~tagged].head(_EXAMPLES).tolist(),
                "only_tags_posts": usable.post_id[~seen & tagged].head(_EXAMPLES).tolist(),
            }
        )
    return pd.DataFrame(rows)
