"""Scorers: a model that sees pictures and texts as judge. Does the asked value win, and how near is the concept?

Here: loading, preprocessing, metrics per picture. Not here: what follows from them (`statistics`).
Method: zero-shot classification and image similarity with CLIP (Radford et al. 2021) or SigLIP (Zhai et al. 2023).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.evaluation.batches import computed_batches
from ti_pipeline.evaluation.references import HELD_OUT
from ti_pipeline.evaluation.similarity import (
    copies,
    diversity,
    kid_parts,
    nearness,
    nearness_among,
    sameness,
    similarity_to,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    import torch
    from PIL import Image

    from ti_pipeline.evaluation.tagger_judge import TaggerJudge
    from ti_pipeline.studies import Axis, BaseModelSource

__all__ = ["Scorer", "ScorerError", "held_out_rows", "load_scorer", "place_of_model", "score_images", "scorer_identity"]

_BATCH = 32
_FLAT = 2.0  # of 255: less deviation in every channel is a picture of one colour
_KID_PICTURES = 10  # on each side: with fewer the distance is mostly noise
# CLIP's own, for folders that bring no preprocessor_config.json.
_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ScorerError(ValueError):
    """The scorer cannot be loaded, is of the wrong kind, or cannot judge a picture; the message says what to do."""


@dataclass(frozen=True)
class Scorer:
    """A CLIP or SigLIP model with its tokenizer, and how it wants its pictures and texts.

    CLIP was trained on the middle of pictures and texts as long as they are, SigLIP on whole pictures squeezed into a
    square and texts filled up to `context` tokens. A model that sees pictures only (`eyes`) has no tokenizer. Pictures
    are made so large that their shorter side has `edge` pixels (`size` if unset), then cut to `size`.
    """

    model: Any
    tokenizer: Any
    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    squeezes: bool = False
    fills_up: bool = False
    context: int = 77
    resample: int = 3  # Pillow's number; bicubic
    edge: int | None = None

    def image_features(
        self, pictures: Sequence[Path | Image.Image], progress: Callable[[int, int, str], None] | None = None
    ) -> torch.Tensor:
        """Return unit features, float32 [len(pictures), width]. Raises `ScorerError` for unreadable files."""
        import torch

        parts, done = [], 0
        for batch, features in computed_batches(pictures, _BATCH, self._features_of):
            parts.append(features)
            done += len(batch)
            if progress is not None:
                progress(done, len(pictures), "pictures scored")
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    def _features_of(self, pictures: Sequence[Path | Image.Image]) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            pixels = torch.stack([self._pixels(picture) for picture in pictures])
            found: torch.Tensor = _features(self.model.get_image_features(pixel_values=pixels.to(self.model.device)))
            return found.float().cpu()

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Return unit features, float32 [len(texts), width], of texts, each cut after `context` tokens."""
        import torch

        padding = "max_length" if self.fills_up else True
        limits = {"padding": padding, "truncation": True, "max_length": self.context}
        ids = self.tokenizer(list(texts), **limits, return_tensors="pt").input_ids
        with torch.inference_mode():
            features = _features(self.model.get_text_features(input_ids=ids.to(self.model.device)))
        return torch.nn.functional.normalize(features.float().cpu(), dim=-1)

    @property
    def scale(self) -> float:
        """Return the factor before the softmax that the model was trained with."""
        return float(self.model.logit_scale.detach().exp())

    def _pixels(self, picture: Path | Image.Image) -> torch.Tensor:
        """Return a picture, squeezed or its middle, normalised: float32 [3, size, size]."""
        import numpy as np
        import torch
        from PIL import Image

        rgb = _opened(picture) if isinstance(picture, Path) else picture.convert("RGB")
        factor = (self.edge or self.size) / min(rgb.size)
        wide, high = (self.size if self.squeezes else max(self.size, round(side * factor)) for side in rgb.size)
        rgb = rgb.resize((wide, high), Image.Resampling(self.resample))
        left, top = (wide - self.size) // 2, (high - self.size) // 2
        cut = np.asarray(rgb.crop((left, top, left + self.size, top + self.size)), dtype=np.float32) / 255
        scaled = (cut - np.asarray(self.mean, np.float32)) / np.asarray(self.deviation, np.float32)
        return torch.from_numpy(scaled).permute(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise ScorerError(f"{path} is gone or damaged ({error}); run the job that made it again") from error


def _features(output: Any) -> Any:
    """Return the projected features (transformers 5 wraps them)."""
    return output if hasattr(output, "ndim") else output.pooler_output


def load_scorer(source: BaseModelSource, *, folder: Path) -> Scorer:
    """Load the model of `evaluation.scorer`, onto CUDA where there is one; `folder` is that of the study file.

    Raises `ScorerError` when there is none, it is no whole CLIP or SigLIP model, or the hub cannot be reached.
    """
    import torch
    from transformers import PreTrainedConfig

    place = place_of_model(source, folder=folder, field="evaluation.scorer", kinds="CLIP or SigLIP")
    try:
        kind = PreTrainedConfig.get_config_dict(place, revision=source.revision)[0].get("model_type")
        if kind not in ("clip", "siglip"):
            raise ScorerError(
                f"evaluation.scorer: {place} cannot be loaded as a CLIP or SigLIP model: it is a model of type {kind}"
            )
        model, report, tokenizer, settings = _parts(kind, place, source.revision)
    except ScorerError:
        raise
    except Exception as error:
        hint = " (hub models need the network once)" if source.hub else ""
        hint = " (pip install 'ti_pipeline[siglip]')" if "sentencepiece" in str(error).lower() else hint
        cause = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        problem = f"{place} cannot be loaded as a CLIP or SigLIP model: {cause}{hint}"
        raise ScorerError(f"evaluation.scorer: {problem}") from error
    if report["missing_keys"]:  # transformers would go on with random numbers in their place
        lacking = f"{len(report['missing_keys'])} weights, e.g. {min(report['missing_keys'])}"
        raise ScorerError(f"evaluation.scorer: {place} is not a whole model of type {kind}: it lacks {lacking}")
    size = settings.get("crop_size" if kind == "clip" else "size", model.config.vision_config.image_size)
    own = (_MEAN, _DEVIATION) if kind == "clip" else ((0.5,) * 3, (0.5,) * 3)
    return Scorer(
        model=model.eval().to("cuda" if torch.cuda.is_available() else "cpu"),
        tokenizer=tokenizer,
        size=int(size["height"] if isinstance(size, dict) else size),
        mean=tuple(settings.get("image_mean", own[0])),
        deviation=tuple(settings.get("image_std", own[1])),
        squeezes=kind == "siglip",
        fills_up=kind == "siglip",
        context=int(model.config.text_config.max_position_embeddings),
        resample=int(settings.get("resample", 3)),
    )


def place_of_model(source: BaseModelSource, *, folder: Path, field: str, kinds: str) -> Path | str:
    """Return the folder or hub id of a model of transformers. Raises `ScorerError` where there can be none."""
    if source.file is not None or (source.folder is None and source.hub is None):
        raise ScorerError(f"{field} wants a `folder` with a {kinds} model, or a `hub` id")
    if source.folder is None:
        return str(source.hub)
    place = folder / Path(os.path.expandvars(source.folder)).expanduser()
    if not (place / "config.json").is_file():
        raise ScorerError(f"{field}: {place} holds no {kinds} model (no config.json)")
    return place


def _parts(kind: str, place: Path | str, revision: str | None) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Return the model, what its loading said, its tokenizer, and how it wants its pictures."""
    from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer, SiglipModel
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    options = {"revision": revision, "dtype": "float32", "output_loading_info": True}
    model, report = (CLIPModel if kind == "clip" else SiglipModel).from_pretrained(place, **options)
    if kind == "clip":
        tokenizer = CLIPTokenizer.from_pretrained(_tokenizer_place(place), revision=revision)
    else:
        tokenizer = AutoTokenizer.from_pretrained(place, revision=revision)
    return model, report, tokenizer, get_image_processor_config(place, revision=revision)


def _tokenizer_place(place: Path | str) -> Path | str:
    """Return where the tokenizer is: in the folder, or beside it as in a pipeline's folder."""
    if isinstance(place, Path) and not any((place / name).exists() for name in ("tokenizer.json", "vocab.json")):
        return place.parent / "tokenizer"
    return place


def scorer_identity(source: BaseModelSource, *, folder: Path) -> str:
    """Return what tells one scorer from another without loading it: its files' sha256, or its hub id and revision."""
    from ti_pipeline.files import fingerprint, sha256_of

    if source.folder is None:
        return fingerprint([source.hub, source.revision, source.file])
    place = folder / Path(os.path.expandvars(source.folder)).expanduser()
    files = {path.resolve() for path in place.glob("*") if path.is_file()}
    index = place / "model.safetensors.index.json"
    if index.is_file():  # its weights may lie in other folders
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        files |= {(place / name).resolve() for name in named}
    return fingerprint([(path.name, sha256_of(path)) for path in sorted(files)])


def score_images(
    images: pd.DataFrame,
    axes: Mapping[str, Axis],
    scorer: Scorer,
    *,
    root: Path,
    references: Sequence[Path],
    trained: Sequence[Path] = (),
    embeddings: Sequence[str] = (),
    likeness: Scorer | None = None,
    tagger: TaggerJudge | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Return the `evaluation_scores` table of rendered pictures.

    Metrics per picture: `match` (1 if the asked value wins among its axis' values, else 0) and `probability` (its
    softmax share), on axes with several values: with a single one there is nothing it could be mistaken for; on axes
    judged by `tags`, the share of the prompt's tags that show (see `_tag_rows`) but for names of further `embeddings`;
    on axes judged by the `tagger`, whether the value's tags show to it (`match`);
    where there are `references` (pictures of what was to be learned), `near` and `sameness` (see `similarity`), as the
    model `likeness` sees them, or the scorer itself; `broken`, 1 for a picture of one colour;
    `prompt`, the cosine similarity to the prompt without the embedding's name; `diversity` among the seeds of a prompt;
    and where there are pictures `trained` on, `training`, the mean cosine similarity to them, `copy` and, with enough
    of them, `kid` (see `similarity`).
    Raises `ScorerError` for unreadable pictures, and for those of values that `axes` does not have.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    if images.empty:
        return TABLES["evaluation_scores"].empty()
    _require_known_values(images, axes)
    images = images.reset_index(drop=True)
    seen = scorer.image_features([root / str(path) for path in images.path], progress)
    parts = [_rows(images, "broken", [_broken(root / str(path)) for path in images.path])]
    if references:
        eyes = likeness or scorer
        looked = seen if eyes is scorer else eyes.image_features([root / str(path) for path in images.path], progress)
        parts += _likeness_rows(images, looked, eyes.image_features(list(references)))
    for name, axis in axes.items():
        if not (images.axis == name).any():
            continue
        if axis.judge == "tagger" and tagger is not None:
            of_axis = images[images.axis == name]
            parts.append(tagger.rows(of_axis, [_opened(root / str(path)) for path in of_axis.path], name, axis))
        elif axis.judge == "tags":
            parts.append(_tag_rows(images, seen, name, axis, scorer, embeddings))
        elif len(axis.values) > 1:
            parts += _choices(images, seen, name, axis, scorer)
    parts += [_prompt_rows(images, seen, axes, scorer), _diversity_rows(images, seen)]
    if trained:
        parts += _training_rows(images, seen, scorer.image_features(list(trained)), [path.stem for path in trained])
    columns = [column.name for column in TABLES["evaluation_scores"].columns]
    return pd.concat(parts, ignore_index=True)[columns]


def _rows(
    images: pd.DataFrame, metric: str, scores: Sequence[float | None], read_as: Sequence[str | None] | None = None
) -> pd.DataFrame:
    """Return one metric's rows; pictures without a score have none."""
    import pandas as pd

    read = pd.array(list(read_as or [None] * len(images)), dtype="str")
    made = images.assign(metric=metric, score=pd.array(list(scores), dtype="Float64"), read_as=read)
    return made[made.score.notna()].astype({"score": "float64"})


def _likeness_rows(images: pd.DataFrame, seen: torch.Tensor, references: torch.Tensor) -> list[pd.DataFrame]:
    same = [name for name in ("checkpoint", "seed", "sampler", "steps", "cfg", "size", "clip_skip") if name in images]
    groups = list(images[same].itertuples(index=False, name=None))
    # Different prompts: the same one may be asked on two axes, and then draws the same picture.
    asked = images[["prompt", "negative"]] if "prompt" in images else images[["axis", "value"]]
    alike = sameness(seen, groups, list(asked.itertuples(index=False, name=None)))
    return [_rows(images, "near", nearness(seen, references).tolist()), _rows(images, "sameness", alike)]


def held_out_rows(pictures: Sequence[Path], names: Sequence[str], scorer: Scorer, *, what: str) -> pd.DataFrame:
    """Return what the concept's own `pictures` reach among themselves: `near` and `sameness`, as `score_images` does.

    `names` tell the pictures apart, `what` says which they are. Fewer than two are nothing to go by: no rows.
    """
    import pandas as pd

    from ti_pipeline.schemas import TABLES

    columns = [column.name for column in TABLES["evaluation_scores"].columns]
    if len(pictures) < 2:
        return TABLES["evaluation_scores"].empty()
    features = scorer.image_features(list(pictures))
    alike = (features.sum(dim=0) @ features.T - 1) / (len(features) - 1)
    rows = pd.DataFrame({"cell": list(names)}).assign(
        variant="", checkpoint=HELD_OUT, step=0, axis=HELD_OUT, value=what, seed=0
    )
    parts = [_rows(rows, "near", nearness_among(features).tolist()), _rows(rows, "sameness", alike.tolist())]
    return pd.concat(parts, ignore_index=True)[columns]


def _broken(path: Path) -> float:
    """Return 1 for a picture of (nearly) one colour, which is what failed numbers and black safety images are."""
    import numpy as np

    return float(np.asarray(_opened(path), dtype=np.float32).std(axis=(0, 1)).max() < _FLAT)


def _prompt_rows(images: pd.DataFrame, seen: torch.Tensor, axes: Mapping[str, Axis], scorer: Scorer) -> pd.DataFrame:
    """Return how near pictures are to what their prompts say beside the embedding (Hessel et al. 2021, CLIPScore)."""
    from ti_pipeline.evaluation.suites import replaced

    asked = list(zip(images.axis, images.value, strict=True))
    said = {pair: replaced(axes[pair[0]], pair[1], "")[0].strip(" ,") for pair in dict.fromkeys(asked)}
    texts = [text for text in dict.fromkeys(said.values()) if text]
    if not texts:
        return _rows(images, "prompt", [None] * len(images))
    features = dict(zip(texts, scorer.text_features(texts), strict=True))
    scores = [float(seen[i] @ features[said[pair]]) if said[pair] else None for i, pair in enumerate(asked)]
    return _rows(images, "prompt", scores)


def _diversity_rows(images: pd.DataFrame, seen: torch.Tensor) -> pd.DataFrame:
    same = [name for name in ("checkpoint", "axis", "value", "sampler", "steps", "cfg", "size") if name in images]
    groups = list(images[same].itertuples(index=False, name=None))
    return _rows(images, "diversity", diversity(seen, groups))


def _training_rows(
    images: pd.DataFrame, seen: torch.Tensor, trained: torch.Tensor, names: list[str]
) -> list[pd.DataFrame]:
    """Return `training`; `copy`, which names the training picture in `read_as` if it is one; `kid` of enough."""
    nearest, copied = copies(seen, trained)
    parts = [_rows(images, "training", similarity_to(seen, trained).tolist())]
    parts += [_rows(images, "copy", nearest, [None if place is None else names[place] for place in copied])]
    for _, of_checkpoint in images.groupby("checkpoint", sort=True):
        if min(len(of_checkpoint), len(trained)) >= _KID_PICTURES:
            parts.append(_rows(of_checkpoint, "kid", kid_parts(seen[of_checkpoint.index.tolist()], trained).tolist()))
    return parts


def _require_known_values(images: pd.DataFrame, axes: Mapping[str, Axis]) -> None:
    for axis, value in dict.fromkeys(zip(images.axis, images.value, strict=True)):
        if axis not in axes or value not in axes[axis].values:
            raise ScorerError(
                f"there are pictures of {value!r} on the axis {axis!r}, which the study does not have (any more):"
                " run the job evaluate again"
            )


def _choices(images: pd.DataFrame, seen: torch.Tensor, name: str, axis: Axis, scorer: Scorer) -> list[pd.DataFrame]:
    """Return the `match` and `probability` rows of one axis."""
    rows = images.index[images.axis == name].tolist()
    of_axis = images.loc[rows]
    shares = (scorer.scale * seen[rows] @ scorer.text_features(axis.values).T).softmax(dim=1)
    winners = [axis.values[index] for index in shares.argmax(dim=1).tolist()]
    asked = [axis.values.index(value) for value in of_axis.value]
    probability = shares[range(len(rows)), asked].double().numpy()
    match = [float(winner == value) for winner, value in zip(winners, of_axis.value, strict=True)]
    return [
        of_axis.assign(metric="match", score=match, read_as=winners),
        of_axis.assign(metric="probability", score=probability, read_as=winners),
    ]


def _tag_rows(
    images: pd.DataFrame, seen: torch.Tensor, name: str, axis: Axis, scorer: Scorer, embeddings: Sequence[str]
) -> pd.DataFrame:
    """Return the `tags` rows of one axis: the share of a prompt's tags that show; `read_as` has those that do not.

    A tag shows when its text is nearer to the picture than an empty text is: a question to each tag alone, with no
    threshold to tune. On the demo's world, where the truth is known, this beat leaving the tag out of the whole prompt
    (docs/decisions/0013).
    """
    from ti_pipeline.evaluation.suites import prompt_tags

    rows = images.index[images.axis == name].tolist()
    asked = {value: prompt_tags(axis, value, embeddings) for value in dict.fromkeys(images.value[rows])}
    known = list(dict.fromkeys(tag for tags in asked.values() for tag in tags))
    if not known:
        raise ScorerError(f"evaluation.axes.{name}: its prompts say nothing but embeddings, so no tags can be judged")
    texts = scorer.text_features(["", *known])
    shows = seen[rows] @ texts[1:].T > (seen[rows] @ texts[0])[:, None]
    shares, missed = [], []
    for place, value in enumerate(images.value[rows]):
        absent = [tag for tag in asked[value] if not shows[place, known.index(tag)]]
        shares.append(1 - len(absent) / len(asked[value]))
        missed.append(", ".join(absent) or None)
    return _rows(images.loc[rows], "tags", shares, missed)
