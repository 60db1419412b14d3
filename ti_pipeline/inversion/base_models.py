"""Base models: finding them, telling them apart, and loading their frozen parts.

Here: folders, files and hub ids. Not here: how a single file is read (`single_files`), or what is computed with base
models (`conditioning`, `trainer`, the sampler).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import fingerprint, sha256_of
from ti_pipeline.inversion.single_files import load_single_file, prediction_type_beside

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from ti_pipeline.studies import BaseModelSource

__all__ = ["Base", "BaseModelError", "base_identity", "load_base", "resolved_precision"]


PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_PREDICTS_NOISE = 0.5  # least cosine to noise of what a UNet that predicts noise answers; see `noise_predicted`
_KINDS = "only text-to-image models of Stable Diffusion 1.x and 2.x can be used"


class BaseModelError(ValueError):
    """A base model cannot be found, loaded or used; the message names it and what to set."""


@dataclass
class Base:
    """A frozen Stable Diffusion base: its parts in evaluation mode, none of them requiring gradients.

    UNet and text encoder are in `dtype`, the autoencoder in float32 at least: it runs once per picture, and its
    rounding would stay in every latent.
    """

    name: str
    identity: str
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler_config: dict[str, Any]
    prediction_type: str
    width: int
    device: torch.device
    dtype: torch.dtype

    @property
    def latent_factor(self) -> int:
        """Return how many pixels one latent position spans on each side (8 for Stable Diffusion)."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the CPU on the base's device; from pinned memory, so that the CPU waits for no GPU."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    @contextlib.contextmanager
    def encoding(self) -> Iterator[Any]:
        """Yield the autoencoder on the device; where that is a GPU, the UNet waits on the CPU meanwhile.

        Afterwards the autoencoder has left the GPU: training does not need it any more.
        """
        if self.device.type == "cpu":
            yield self.vae
            return
        self.unet.to("cpu")
        self._free()
        try:
            yield self.vae.to(self.device)
        finally:
            self.vae.to("cpu")
            self._free()
            self.unet.to(self.device)

    def _free(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def keeps_no_activations(self) -> bool:
        """Whether the UNet computes its activations again for a gradient, in place of keeping them."""
        return bool(getattr(self.unet, "is_gradient_checkpointing", False))

    def keep_no_activations(self) -> None:
        """Trade time for memory: the same gradients to the bit, with the activations of one block at a time."""
        self.unet.enable_gradient_checkpointing()

    def require_width(self, width: int, what: str) -> None:
        """Raise `BaseModelError` when `what` has vectors of another width than this base's text encoder."""
        if width != self.width:
            raise BaseModelError(
                f"{what} has vectors of width {width}, but the text encoder of base model {self.name!r} has width"
                f" {self.width} (768: Stable Diffusion 1.x, 1024: 2.x): it belongs to another kind of base model"
            )


def _place(name: str, source: BaseModelSource, folder: Path) -> Path:
    """Return the local path; hub ids become their snapshot. Raises `BaseModelError` where none is set or there."""
    field = f"base_models.{name}"
    if source.hub is not None:
        return _snapshot(name, source.hub, source.revision)
    given = source.folder if source.folder is not None else source.file
    if given is None:
        raise BaseModelError(
            f"{field} has no folder, file or hub: set one of them in the study to where the model lies"
        )
    path = folder / Path(os.path.expandvars(given)).expanduser()
    wanted = path / "model_index.json" if source.folder is not None else path
    if not wanted.is_file():
        raise BaseModelError(f"{field}: {path} is not there{' or no diffusers folder' if source.folder else ''}")
    return path


def _snapshot(name: str, hub: str, revision: str | None) -> Path:
    """Return the folder of a hub model's commit in the local cache, fetched if there is a network."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    files = ["model_index.json", *(f"{part}/*{end}" for part in PARTS for end in (".safetensors", ".json", ".txt"))]
    try:
        found = huggingface_hub.snapshot_download(
            hub, revision=revision, allow_patterns=files, ignore_patterns=["*.fp16.*", "*non_ema*"]
        )
    except HFValidationError as error:
        raise BaseModelError(f"base_models.{name}.hub: {hub!r} is no hub id (like `owner/name`)") from error
    except (OSError, RuntimeError) as error:  # what the hub's client and the network below it raise
        raise BaseModelError(
            f"base_models.{name}: {hub} is not in the Hugging Face cache and could not be fetched ({_line(error)}); hub"
            " models need the network once, or a copy on this machine named by `folder` or `file`"
        ) from error
    return Path(found)


def base_identity(name: str, source: BaseModelSource, *, folder: Path) -> str:
    """Return the hex sha256 that stands for a base's content, without loading it.

    A single file's own sha256 (web UIs show its first ten digits), or one over it and the configuration given beside
    it; for a folder one over its parts' files; for a hub model one over id and commit; what the study says of the
    prediction is part of it. `folder` is that of the study file. Raises `BaseModelError` when there is no model.
    """
    place = _place(name, source, folder)
    found = _identity_of_files(name, source, folder, place)
    return found if source.prediction is None else fingerprint({"base": found, "predicts": source.prediction})


def _identity_of_files(name: str, source: BaseModelSource, folder: Path, place: Path) -> str:
    if source.hub is not None:
        return hashlib.sha256(f"hub:{source.hub}@{place.name}".encode()).hexdigest()  # snapshots are named by commit
    if place.is_file():
        return _file_identity(name, place, _config(name, source, folder))
    return fingerprint(_sha256_of_parts(place))


def _file_identity(name: str, file: Path, config: Path | None) -> str:
    try:
        predicts = prediction_type_beside(file)
    except ValueError as error:
        raise BaseModelError(f"base_models.{name}: {error}") from error
    weights = _sha256_now(file)
    given = {} if config is None else _sha256_of_parts(config, ".json")
    if predicts not in {None, "epsilon"}:
        given["predicts"] = str(predicts)
    return fingerprint({"weights": weights} | given) if given else weights


def _sha256_of_parts(folder: Path, suffix: str = "") -> dict[str, str]:
    files = sorted(p for part in PARTS for p in (folder / part).rglob(f"*{suffix}") if p.is_file())
    return {path.relative_to(folder).as_posix(): _sha256_now(path) for path in files}


def _config(name: str, source: BaseModelSource, folder: Path) -> Path | None:
    """Return the diffusers folder that says what a single file's parts are, if the study names one."""
    if source.config is None:
        return None
    path = folder / Path(os.path.expandvars(source.config)).expanduser()
    if not (path / "model_index.json").is_file():
        raise BaseModelError(f"base_models.{name}.config: {path} is not there or no diffusers folder")
    return path


def _sha256_now(path: Path) -> str:
    """Return a file's sha256, computed once per process while its size and time stay the same."""
    state = path.stat()
    return _sha256(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, _size: int, _changed: int) -> str:
    return sha256_of(path)


def resolved_precision(precision: str) -> str:
    """Return what `auto` means on this machine: bf16 on a GPU that has it, fp32 elsewhere; others are themselves."""
    if precision != "auto":
        return precision
    import torch

    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def load_base(
    name: str, source: BaseModelSource, *, folder: Path, device: str = "auto", precision: str = "fp32"
) -> Base:
    """Load a base model for training or sampling.

    `device` is `auto` (CUDA or a Mac's GPU where there is one), or a torch device; `precision` is fp32, fp64, bf16,
    fp16 or `auto` (see `resolved_precision`).
    Raises `BaseModelError` when it is missing, its files cannot be read, or it is another kind of model.
    """
    import torch

    place = _place(name, source, folder)
    dtypes = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes[resolved_precision(precision)]
    on = torch.device(_best_device() if device == "auto" else device)
    config = _config(name, source, folder)
    try:
        pipeline = _pipeline(place, config)
    except Exception as error:
        # Loaders raise whatever their formats raise; the cause is kept.
        raise BaseModelError(f"base_models.{name}: {place} cannot be loaded: {_why(error, source)}") from error
    if source.prediction is not None:
        pipeline.scheduler.register_to_config(prediction_type=source.prediction)
    _require_kind(name, pipeline, place)
    if on.type == "cuda":  # tensor cores' convolutions want it, and would turn every tensor round; CPUs gain nothing
        pipeline.unet.to(memory_format=torch.channels_last)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        kept = torch.promote_types(dtype, torch.float32) if part is pipeline.vae else dtype
        part.to(on).eval().requires_grad_(False)
        if part.dtype != kept:
            part.to(kept)
    base = Base(
        name=name,
        identity=base_identity(name, source, folder=folder),
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        prediction_type=str(pipeline.scheduler.config.prediction_type),
        width=int(pipeline.text_encoder.config.hidden_size),
        device=on,
        dtype=dtype,
    )
    if place.is_file() and config is None and source.prediction is None and prediction_type_beside(place) is None:
        _require_noise(base)  # nothing says what it predicts: it is taken for what nearly all of its kind do
    return base


def _require_noise(base: Base) -> None:
    likeness = noise_predicted(base)
    if base.prediction_type == "epsilon" and likeness < _PREDICTS_NOISE:
        raise BaseModelError(
            f"base_models.{base.name}: nothing says what this file predicts, and asked about pure noise it does not "
            f"answer with that noise (cosine {likeness:.2f}), so it seems to predict velocity: set `prediction: "
            "v_prediction` (or `epsilon` if you know better), or put its .yaml beside it"
        )


def noise_predicted(base: Base) -> float:
    """Return the cosine of pure noise and what the UNet predicts of it at the last timestep.

    Near 1 where it predicts the noise: there is nothing else in it. Velocity would be minus the picture, and next to
    none of the noise.
    """
    import torch

    from ti_pipeline.inversion.conditioning import encode_prompts
    from ti_pipeline.inversion.draws import generator, normal

    side = int(base.unet.config.sample_size)
    noise = base.put(normal(generator(0, "noise"), 1, int(base.unet.config.in_channels), side, side))
    last = int(base.scheduler_config["num_train_timesteps"]) - 1
    with torch.inference_mode():
        states = encode_prompts(base, [""], {})
        answer = base.unet(noise.to(base.dtype), last, **states.options()).sample
    return float(torch.nn.functional.cosine_similarity(answer.flatten().float(), noise.flatten().float(), dim=0))


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _pipeline(place: Path, config: Path | None) -> Any:
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    if place.is_file():
        return load_single_file(place, config)
    return StableDiffusionPipeline.from_pretrained(
        place, local_files_only=True, safety_checker=None, requires_safety_checker=False
    )


def _require_kind(name: str, pipeline: Any, place: Path) -> None:
    """Raise `BaseModelError` for a model whose parts do not belong together or do another task."""
    field = f"base_models.{name}"
    if place.is_dir():
        kind = json.loads((place / "model_index.json").read_text(encoding="utf-8")).get("_class_name")
        if kind != "StableDiffusionPipeline":
            raise BaseModelError(f"{field}: {place} is a {kind}; {_KINDS}")
    width, attends = pipeline.text_encoder.config.hidden_size, pipeline.unet.config.cross_attention_dim
    if attends != width:
        raise BaseModelError(
            f"{field}: the text encoder has width {width}, but the UNet attends to {attends}; {_KINDS}"
        )
    takes, makes = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
    if takes != makes:
        raise BaseModelError(f"{field}: the UNet takes {takes} channels, but the autoencoder makes {makes}; {_KINDS}")
    predicts, noise = (pipeline.scheduler.config.get(key) for key in ("prediction_type", "beta_schedule"))
    if noise is None:
        raise BaseModelError(
            f"{field}: its {type(pipeline.scheduler).__name__} says nothing of the noise that the UNet was trained with"
            " (no `beta_schedule`): put the scheduler_config.json of the model it was made from into its place"
        )
    if predicts not in {"epsilon", "v_prediction"}:
        raise BaseModelError(f"{field}: the UNet predicts {predicts!r}, not epsilon or v_prediction; {_KINDS}")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:300]


def _why(error: Exception, source: BaseModelSource) -> str:
    """Return why loaders failed, and what to do; they read pickles with torch's weights-only unpickler alone."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, pickle.UnpicklingError) and "GLOBAL" in str(cause):
            return "its pickle asks for code; nothing was executed. Take its .safetensors instead"
        cause = cause.__cause__ or cause.__context__
    advice = " (a file of another kind than SD 1.x needs `config`, a diffusers folder of its kind, or the hub once)"
    return _line(error) + (advice if source.file is not None else "")
