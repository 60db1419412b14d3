"""Where pixels and tags disagree: confusion tables that find mistagged pictures.

Here: what is compared, and at which line a measure counts as yes. Not here: the measures (`measures`), or what becomes
of a picture (`curation`).

Pixels alone say whether a picture has a simple background, whether it is a sketch (few grey levels), whether it shows
lettering, and whether it is an animation; the number of subjects needs a detector, so tags alone tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.imaging.told_by_tags import SIMPLE_BACKGROUND_TAGS, is_lettering

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

__all__ = ["QUESTIONS", "agreement", "as_markdown", "by_pixels"]


@dataclass(frozen=True)
class Question:
    """What is asked of both: the tags that say yes, and what pixels say of the rows of an audit."""

    name: str
    by_tag: Callable[[str], bool]
    by_pixels: Callable[[pd.DataFrame], pd.Series[bool]]


# Lines that split 150 drawn pictures best: of simple backgrounds 95 % have at least 0.52, of others 5 % have.
QUESTIONS = (
    Question("simple_background", SIMPLE_BACKGROUND_TAGS.__contains__, lambda audit: audit.simple_background >= 0.52),
    Question("sketch", {"sketch", "line_art", "lineart"}.__contains__, lambda audit: audit.detail < 2.1),
    Question("lettering", is_lettering, lambda audit: audit.lettering > 0),
    Question("animated", {"animated"}.__contains__, lambda audit: audit.frames > 1),
)
_EXAMPLES = 5


def by_pixels(name: str, audit: pd.DataFrame) -> pd.Series[bool]:
    """Return what pixels answer to a question of `QUESTIONS` for each audited picture; unmeasured: no."""
    (question,) = (question for question in QUESTIONS if question.name == name)
    return question.by_pixels(audit).fillna(value=False).astype(bool)


def agreement(audit: pd.DataFrame, post_tags: pd.DataFrame) -> pd.DataFrame:
    """Return one row per question: how many usable pictures pixels and tags both affirm, both deny, or only one does.

    `only_pixels_posts` and `only_tags_posts` list the first five such posts, in the order of the audit.
    """
    import pandas as pd

    usable = audit[audit.status == "ok"]
    known, rows = post_tags.tag.unique(), []
    for question in QUESTIONS:
        yes = [tag for tag in known if question.by_tag(tag)]
        tagged = usable.post_id.isin(post_tags.post_id[post_tags.tag.isin(yes)])
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


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table of `agreement` as a Markdown table for people."""
    head = ["question", "both", "only pixels", "only tags", "neither", "posts by pixels only", "posts by tags only"]
    rows = [[", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row] for row in table.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
