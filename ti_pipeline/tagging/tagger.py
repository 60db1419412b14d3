"""Taggers: tags that a picture classifier sees, from any local ONNX file with its list of tags.

Known kinds: WD taggers (their `selected_tags.csv` has a column `name`, and says 9 for ratings, 4 for characters; input
squares of 448 px, BGR, 0 to 255) and deepbooru style (one tag a line; 512 px, RGB, 0 to 1). Size, layout and range are
read from the file where it says them. Not here: what becomes of the tags (`vocabulary`, `captions`).
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan

__all__ = ["TaggerError", "tag_pictures"]

_LISTS = ("selected_tags.csv", "tags.csv", "tags.txt")
# The WD taggers' category numbers; ratings are no tags.
_CATEGORIES = {"0": "general", "4": "character", "9": None}
_AT_ONCE = 8


class TaggerError(ValueError):
    """A tagger cannot be used; the message names the file and what to do."""


class _Tagger(NamedTuple):
    """A loaded model: its session, its input's name, side and layout, and what its outputs mean (None: no tag)."""

    session: Any
    input_name: str
    side: int
    channels_first: bool
    bgr: bool
    labels: list[tuple[str, str] | None]


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

    tagger = _load(plan, folder)
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


def _load(plan: CaptionPlan, folder: Path) -> _Tagger:
    name = plan.tagger or "unnamed"
    if plan.tagger_model is None:
        raise TaggerError(f"the tagger {name} has no model: set `tagger_model` of the plan to its .onnx file")
    path = folder / plan.tagger_model
    if not path.is_file():
        raise TaggerError(f"the tagger {name}: there is no file {path}")
    list_path = _list_of(plan, folder, path)
    labels, from_csv = _labels(list_path)
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
    return _Tagger(session, given.name, side, channels_first, from_csv, labels)


def _list_of(plan: CaptionPlan, folder: Path, model: Path) -> Path:
    """Return the file with the model's tags."""
    if plan.tagger_tags is not None:
        candidates = [folder / plan.tagger_tags]
    else:
        candidates = [model.parent / name for name in _LISTS]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        wanted = " or ".join(map(str, candidates))
        raise TaggerError(f"the tagger {plan.tagger or 'unnamed'} has no list of tags: put it at {wanted}")
    return found


def _labels(path: Path) -> tuple[list[tuple[str, str] | None], bool]:
    """Return (tag, category) of each output in order, None for what is no tag; and whether it is WD's kind of list."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix != ".csv":
        return [None if line.startswith("rating:") else (line, "general") for line in text.splitlines() if line], False
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or "name" not in rows[0]:
        raise TaggerError(f"{path} has no column `name`")
    labels: list[tuple[str, str] | None] = []
    for row in rows:
        category = _CATEGORIES.get(row.get("category") or "0", "general")
        labels.append(None if category is None else (row["name"], category))
    return labels, True


def _prepared(picture: Any, tagger: _Tagger) -> NDArray[np.float32]:
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


def _above(tagger: _Tagger, posts: Sequence[int], inputs: NDArray[np.float32], threshold: float) -> pd.DataFrame:
    """Run the model and return the tags that it is sure enough of; the same tag listed twice counts once."""
    import numpy as np
    import pandas as pd

    (confidence,) = tagger.session.run([tagger.session.get_outputs()[0].name], {tagger.input_name: inputs})
    wanted = np.array([label is not None for label in tagger.labels])
    rows, columns = np.nonzero((confidence >= threshold) & wanted)
    labels = [label or ("", "") for label in tagger.labels]
    table = pd.DataFrame(
        {
            "post_id": np.asarray(posts, dtype=np.int64)[rows],
            "tag": [labels[column][0] for column in columns],
            "category": [labels[column][1] for column in columns],
            "confidence": np.clip(confidence[rows, columns].astype(np.float64), 0, 1),
        }
    )
    return table.drop_duplicates(["post_id", "tag"])
