"""A tagger as judge of a suite's axes: do the tags of the asked value show?

Booru words are outside what a CLIP text tower knows; a tagger was trained on nothing else. Here: from pictures and an
axis to its score rows. Not here: taggers themselves (`tagging.tagger`), or other judges (`scorers`).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ti_pipeline.evaluation.scorers import ScorerError
from ti_pipeline.tagging.seen import RATING
from ti_pipeline.tagging.tagger import confidences

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from PIL import Image

    from ti_pipeline.studies import Axis
    from ti_pipeline.tagging.tagger import Tagger

__all__ = ["TaggerJudge"]


class TaggerJudge:
    """A loaded tagger, and how sure it must be of a tag whose list says no threshold of its own."""

    def __init__(self, tagger: Tagger, threshold: float) -> None:
        """Take a tagger of `load_tagger`; `threshold` is between 0 and 1."""
        self.tagger, self.threshold = tagger, threshold
        self._place = {_plain(tag): at for at, (tag, kind) in enumerate(tagger.labels) if kind != RATING}

    def rows(self, images: pd.DataFrame, pictures: Sequence[Image.Image], name: str, axis: Axis) -> pd.DataFrame:
        """Return the `match` rows of an axis' pictures: 1 where every tag of the asked value is above its threshold.

        `read_as` is the value that the tagger is surest of. Raises `ScorerError` for a tag that the list does not have.
        """
        asked = {value: self._columns(name, value) for value in axis.values}
        sure = confidences(self.tagger, pictures)
        limits = self._limits()
        shown = [bool((sure[at, asked[v]] >= limits[asked[v]]).all()) for at, v in enumerate(images.value)]
        values = list(asked)
        means = [sure[:, columns].mean(axis=1) for columns in asked.values()]
        surest = [values[max(range(len(values)), key=lambda of: means[of][at])] for at in range(len(images))]
        return images.assign(metric="match", score=[float(one) for one in shown], read_as=surest)

    def _limits(self) -> NDArray[np.float64]:
        import numpy as np

        own = self.tagger.thresholds
        return np.array([own.get(tag, self.threshold) for tag, _ in self.tagger.labels])

    def _columns(self, name: str, value: str) -> list[int]:
        tags = [_plain(tag) for tag in value.split(",") if tag.strip()]
        for tag in tags:
            if tag not in self._place:
                near = difflib.get_close_matches(tag, self._place, n=3)
                hint = f"; it has {', '.join(near)}" if near else ""
                raise ScorerError(f"evaluation.axes.{name}: the tagger's list has no tag {tag!r}{hint}")
        return [self._place[tag] for tag in tags]


def _plain(tag: str) -> str:
    """Return a tag without what differs between lists and prompts: underscores, case, escaped brackets."""
    return " ".join(tag.replace("_", " ").replace("\\", "").split()).casefold()
