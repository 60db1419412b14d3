"""Taggers: tags that a picture classifier sees, from any local ONNX file with its list of tags.

Known kinds: WD taggers (their `selected_tags.csv` has a column `name`, and says 9 for ratings; input squares of 448 px,
BGR, 0 to 255) and deepbooru style (one tag a line, `rating:safe` for a rating; 512 px, RGB, 0 to 1). Categories are
e621's numbers or names; in a list with rating heads they are Danbooru's, which differ in 5. A column `threshold` or
`best_threshold` is each tag's own. Size, layout and range are read from the file where it says them. Not here: what
becomes of the tags (`vocabulary`, `captions`, `evaluation.tagger_judge`).
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, NamedTuple

from ti_pipeline.tagging.seen import RATING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan

__all__ = ["Tagger", "TaggerError", "confidences", "load_tagger", "tag_pictures"]

_LISTS = ("selected_tags.csv", "tags.csv", "tags.txt")
# The numbers of e621's categories, and Danbooru's where they differ.
_CATEGORIES = dict(
    enumerate(("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore"))
)
_DANBOORU = {5: "meta"}
_RATING = "9"  # a head that says a rating is no tag
_THRESHOLDS = ("threshold", "best_threshold")
_AT_ONCE = 8


class TaggerError(ValueError):
    """A tagger cannot be used; the message names the file and what to do."""


class Tagger(NamedTuple):
    """A loaded model: its session, its input's name, side and layout, and what its outputs mean: tag and category.

    `thresholds` are the list's own, by tag, where it has some.
    """

    session: Any
    input_name: str
    side: int
    channels_first: bool
    bgr: bool
    labels: list[tuple[str, str]]
    thresholds: dict[str, float]


def tag_pictures(
    images: pd.DataFrame, root: Path, plan: CaptionPlan, *, folder: Path, progress: Callable[[int, int, str], None]
) -> pd.DataFrame:
    """Return the `tagger_tags` table of the `images` that are there; paths in it start at `root`.

    The plan's paths start at `folder`. Raises `TaggerError` if the model, its list of tags or onnxruntime is missing,
    or they do not fit each other. A picture that cannot be opened has no tags: `image_audit` says why.
    """
    import numpy as np
    import pandas as pd

    from ti_pipeline.imaging.decode import PictureError, open_picture
    from ti_pipeline.schemas import TABLES

    if plan.tagger_model is None:
        raise TaggerError(
            f"the tagger {plan.tagger or 'unnamed'} has no model: set `tagger_model` of the plan to its .onnx file"
        )
    tags = folder / plan.tagger_tags if plan.tagger_tags else None
    tagger = load_tagger(folder / plan.tagger_model, tags, name=plan.tagger or "unnamed")
    found = images[images.status == "ok"]
    total, parts = len(found), []
    progress(0, total, "tagging")
    for start in range(0, total, _AT_ONCE):
        posts, inputs = [], []
        for row in found.iloc[start : start + _AT_ONCE].itertuples():
            try:
                inputs.append(_prepared(open_picture(root / row.path).rgb, tagger))
            except PictureError:
                continue
            posts.append(row.post_id)
        if inputs:
            parts.append(_above(tagger, posts, np.stack(inputs), plan.tagger_threshold))
        progress(min(start + _AT_ONCE, total), total, "tagging")
    if not parts:
        return TABLES["tagger_tags"].empty()
    table = pd.concat(parts).sort_values(["post_id", "tag"], ignore_index=True)
    return table.astype({"tag": "category", "category": "category"})


def load_tagger(path: Path, tags: Path | None = None, *, name: str = "unnamed") -> Tagger:
    """Load an ONNX file with its list of `tags`; without one, a list beside the model under one of the usual names.

    Raises `TaggerError` if a file or onnxruntime is missing, or they do not fit each other.
    """
    if not path.is_file():
        raise TaggerError(f"the tagger {name}: there is no file {path}")
    list_path = _list_of(name, path, tags)
    labels, thresholds, from_csv = _labels(list_path)
    try:
        import onnxruntime
    except ImportError as error:
        raise TaggerError(
            f"the tagger {name} needs onnxruntime: install it with `pip install 'ti_pipeline[tagger]'`"
        ) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else None for size in given.shape]
    channels_first = shape[1] == 3
    side = shape[2] or (448 if from_csv else 512)
    outputs = session.get_outputs()[0].shape[-1]
    if isinstance(outputs, int) and outputs != len(labels):
        raise TaggerError(f"the tagger {name}: {path} has {outputs} outputs, {list_path} {len(labels)} tags")
    return Tagger(session, given.name, side, channels_first, from_csv, labels, thresholds)


def _list_of(name: str, model: Path, tags: Path | None) -> Path:
    """Return the file with the model's tags."""
    candidates = [tags] if tags is not None else [model.parent / usual for usual in _LISTS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise TaggerError(f"the tagger {name} has no list of tags: put it at {' or '.join(map(str, candidates))}")
    return found


def _labels(path: Path) -> tuple[list[tuple[str, str]], dict[str, float], bool]:
    """Return (tag, category) of each output in order, the list's own thresholds, and whether it is a WD list."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix != ".csv":
        listed = [line for line in text.splitlines() if line]
        return [(line, RATING if line.startswith(f"{RATING}:") else "general") for line in listed], {}, False
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or "name" not in rows[0]:
        raise TaggerError(f"{path} has no column `name`")
    danbooru = any(row.get("category") == _RATING for row in rows)
    own = next((column for column in _THRESHOLDS if column in rows[0]), None)
    thresholds = {row["name"]: float(row[own]) for row in rows if own is not None and row[own]}
    return [_label(row, path, danbooru=danbooru) for row in rows], thresholds, True


def _label(row: dict[str, str], path: Path, *, danbooru: bool) -> tuple[str, str]:
    said = (row.get("category") or "0").strip()
    if said == _RATING:
        return f"{RATING}:{row['name']}", RATING
    if not said.isdigit():
        if said not in _CATEGORIES.values():
            raise TaggerError(f"{path}: {row['name']} has the category {said!r}, which is none of e621's")
        return row["name"], said
    known = _CATEGORIES | (_DANBOORU if danbooru else {})
    return row["name"], known.get(int(said), "general")


def _prepared(picture: Any, tagger: Tagger) -> NDArray[np.float32]:
    """Return a picture as the model wants it: whole, padded with white to a square, scaled."""
    import numpy as np
    from PIL import Image

    side = max(picture.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    scaled = square.resize((tagger.side, tagger.side), Image.Resampling.BICUBIC)
    rgb = np.asarray(scaled, dtype=np.float32)
    pixels = rgb[:, :, ::-1] if tagger.bgr else rgb / np.float32(255)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if tagger.channels_first else pixels)


def confidences(tagger: Tagger, pictures: Sequence[Any]) -> NDArray[np.float32]:
    """Return how sure the model is of each output for each RGB picture: float32 [len(pictures), outputs]."""
    import numpy as np

    parts = []
    for start in range(0, len(pictures), _AT_ONCE):
        inputs = np.stack([_prepared(picture, tagger) for picture in pictures[start : start + _AT_ONCE]])
        (found,) = tagger.session.run([tagger.session.get_outputs()[0].name], {tagger.input_name: inputs})
        parts.append(np.asarray(found, dtype=np.float32))
    return np.concatenate(parts)


def _above(tagger: Tagger, posts: Sequence[int], inputs: NDArray[np.float32], threshold: float) -> pd.DataFrame:
    """Run the model and return the tags that it is sure enough of, each once, and each picture's likeliest rating."""
    import numpy as np
    import pandas as pd

    (confidence,) = tagger.session.run([tagger.session.get_outputs()[0].name], {tagger.input_name: inputs})
    labels = tagger.labels
    of_rating = np.array([category == RATING for _, category in labels])
    wanted = (confidence >= threshold) & ~of_rating
    if of_rating.any():  # one of them is always true, however unsure the model is
        likeliest = np.where(of_rating, confidence, -np.inf).argmax(axis=1)
        wanted[np.arange(len(posts)), likeliest] = True
    rows, columns = np.nonzero(wanted)
    table = pd.DataFrame(
        {
            "post_id": np.asarray(posts, dtype=np.int64)[rows],
            "tag": [labels[column][0] for column in columns],
            "category": [labels[column][1] for column in columns],
            "confidence": np.clip(confidence[rows, columns].astype(np.float64), 0, 1),
        }
    )
    return table.drop_duplicates(["post_id", "tag"])
