"""Embedding files: writing A1111's `.pt`, `.safetensors` and diffusers' form, and reading whatever the peers write.

Here: file layouts, safe reading, the short hash. Not here: what the vectors mean to a base model (`conditioning`), or
which checkpoints a study keeps (`training_runs`).

Layouts read: A1111's dict (`string_to_param`), kohya/Invoke (`emb_params`), OneTrainer (`emp_params`), diffusers (one
key named after the token) and a bare tensor. Pickles are read with torch's weights-only unpickler: nothing in them
is ever executed.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = [
    "DAMAGED",
    "Embedding",
    "EmbeddingFileError",
    "load_embedding",
    "save_diffusers",
    "save_pt",
    "save_safetensors",
    "short_hash",
]

MOST_VECTORS = 75  # CLIP's context between start and end
MOST_BYTES = 64 << 20  # far above any embedding, far below a base model given by mistake
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # zip's earliest: files must not differ by the clock
_CODE_OPERANDS = {0x69, 0x6F, 0x82, 0x83, 0x84, 0x92, 0x93}  # pickle's INST, OBJ, EXT1-4, NEWOBJ_EX, STACK_GLOBAL
# In any of these ways torch's weights-only unpickler fails on a damaged pickle or zip.
DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
_PLAIN_KEYS = ("emb_params", "emp_params")


class EmbeddingFileError(ValueError):
    """An embedding file cannot be read or does not fit; the message names the file and the reason."""


@dataclass(frozen=True)
class Embedding:
    """An embedding: float32 `vectors` [n, width], and where it comes from as far as its file tells."""

    name: str
    vectors: torch.Tensor
    step: int | None = None
    base_name: str | None = None
    base_hash: str | None = None


def short_hash(vectors: torch.Tensor) -> str:
    """Return A1111's four hex digits of `vectors` (any shape, row-major); weak, for compatibility only."""
    import torch

    value = 0
    for number in (vectors.detach().to("cpu", torch.float32).reshape(-1) * 100).tolist():
        value = ((value * 281) ^ (int(number) * 997)) & 0xFFFFFFFF
    return f"{value & 0xFFFF:04x}"


def save_pt(path: Path | str, embedding: Embedding) -> None:
    """Write A1111's dict. The same embedding gives the same bytes on every run.

    The zip holds only `version`, `data.pkl` and `data/0`: A1111's safe loader refuses what newer `torch.save` adds.
    Raises `EmbeddingFileError` for vectors that are no embedding.
    """
    import torch

    vectors = _checked(embedding.vectors, str(path)).clone()
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": _fresh(embedding.name),
        "step": embedding.step,
        "sd_checkpoint": _fresh(embedding.base_hash[:10]) if embedding.base_hash else None,
        "sd_checkpoint_name": _fresh(embedding.base_name) if embedding.base_name else None,
    }
    saved = io.BytesIO()
    torch.save(content, saved)
    with write_atomically(path) as aside:
        _rewrite_zip(saved, aside)


def _fresh(text: str) -> str:
    """Return a copy of `text`: pickle abbreviates repeated objects, so identity would show in the bytes."""
    return text.encode().decode()


def _rewrite_zip(saved: io.BytesIO, path: Path) -> None:
    """Copy only the entries A1111 allows, uncompressed, undated, each aligned to 64 bytes for memory mapping."""
    with zipfile.ZipFile(saved) as full, zipfile.ZipFile(path, "w") as slim:
        for kind in ("data.pkl", "data/0", "version"):
            (name,) = (entry for entry in full.namelist() if entry.split("/", 1)[1] == kind)
            entry = zipfile.ZipInfo(f"archive/{kind}", date_time=_FIXED_TIME)
            entry.create_system = 3  # else the byte tells which system wrote it
            assert slim.fp is not None
            gap = -(slim.fp.tell() + 30 + len(entry.filename) + 4) % 64
            entry.extra = struct.pack("<HH", 0x4246, gap) + b"\0" * gap  # the padding block torch itself uses
            slim.writestr(entry, full.read(name))


def save_safetensors(path: Path | str, embedding: Embedding, metadata: Mapping[str, str] | None = None) -> None:
    """Write `{emb_params: [n, width] float32}` with `metadata`, `name`, `step`, `base_name` and `base_hash`.

    This is what kohya's tools, InvokeAI, ComfyUI and A1111 take. Raises `EmbeddingFileError` like `save_pt`.
    """
    _write_safetensors(Path(path), "emb_params", embedding, metadata or {})


def save_diffusers(path: Path | str, embedding: Embedding, metadata: Mapping[str, str] | None = None) -> None:
    """Write the same with the embedding's name as the key: diffusers takes it for the token, no `token=` needed.

    In lower case, and so it has to stand in prompts there: of a token with a capital letter diffusers takes the first
    vector alone, without a word (CLIP's tokenizer lower-cases what it adds, diffusers looks for it as it was given).
    Raises `EmbeddingFileError` like `save_pt`.
    """
    _write_safetensors(Path(path), embedding.name.lower(), embedding, metadata or {})


def _write_safetensors(path: Path, key: str, embedding: Embedding, metadata: Mapping[str, str]) -> None:
    """Write one tensor.

    By hand after the format's specification, since the library orders metadata differently in each process:
    little-endian header length, JSON header padded to 8 bytes, data.
    """
    vectors = _checked(embedding.vectors, str(path))
    own = {
        "name": embedding.name,
        "step": embedding.step,
        "base_name": embedding.base_name,
        "base_hash": embedding.base_hash,
    }
    known = dict(metadata) | {name: str(value) for name, value in own.items() if value is not None}
    data = vectors.numpy().astype("<f4").tobytes()
    entry = {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": dict(sorted(known.items())), key: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with write_atomically(path) as aside:
        aside.write_bytes(struct.pack("<Q", len(header)) + header + data)


def load_embedding(path: Path | str) -> Embedding:
    """Read an embedding in any of the peers' layouts; half precision becomes float32, a single vector [1, width].

    The name is the one inside the file, else the file's stem. Raises `EmbeddingFileError` naming the file for
    anything that is not exactly one embedding of 1..75 finite vectors, and for pickles that ask for code.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise EmbeddingFileError(f"{file}: cannot be read ({error.strerror or error})") from error
    if size > MOST_BYTES:
        raise EmbeddingFileError(f"{file}: {size:,} bytes is too large for an embedding; is it a base model?")
    # A safetensors header's length may begin with pickle's 0x80, but behind the length there is always a brace.
    if start.startswith((b"PK", b"\x80")) and start[8:] != b"{":
        return _from_pickle(_unpickle(file), file)
    return _from_safetensors(file)


def _unpickle(file: Path) -> Any:
    import torch

    try:
        # The original textual-inversion code saved its vectors in a ParameterDict, which holds data only.
        with torch.serialization.safe_globals([torch.nn.ParameterDict]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a remark on old pickle protocols; what cannot be read is refused anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EmbeddingFileError(_refusal(file, str(error))) from error
    except DAMAGED as error:
        raise EmbeddingFileError(f"{file}: not an embedding file, or damaged ({_first_line(error)})") from error


def _refusal(file: Path, message: str) -> str:
    """Return the sentence for what torch's weights-only unpickler would not read."""
    words = message.replace("\n", " ").split("GLOBAL ")
    operand = re.search(r"Unsupported operand (\d+)", message)
    if len(words) > 1 or (operand and int(operand[1]) in _CODE_OPERANDS):
        asked = f" ({words[1].split(' ')[0]})" if len(words) > 1 else ""
        return (
            f"{file}: refused, because its pickle asks for code{asked}; nothing was executed. "
            "Ask its maker for a .safetensors file"
        )
    return f"{file}: not an embedding file, or damaged (its pickle cannot be read)"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _from_pickle(content: Any, file: Path) -> Embedding:
    import torch

    if isinstance(content, torch.Tensor):
        return Embedding(file.stem, _checked(content, str(file)))
    if not hasattr(content, "items"):
        raise EmbeddingFileError(f"{file}: holds a {type(content).__name__}, not an embedding")
    inside = dict(content.items())
    if "string_to_param" not in inside:
        return _from_tensors(inside, {}, file)
    params = inside["string_to_param"]
    if not hasattr(params, "items"):
        raise EmbeddingFileError(f"{file}: string_to_param is a {type(params).__name__}, not a dict")
    tensors = {str(key): value for key, value in params.items()}
    found = _from_tensors({f"string_to_param[{key}]": value for key, value in tensors.items()}, {}, file)
    step, texts = inside.get("step"), ("name", "sd_checkpoint_name", "sd_checkpoint")
    name, base_name, base_hash = (inside.get(key) if isinstance(inside.get(key), str) else None for key in texts)
    return Embedding(
        name or file.stem, found.vectors, step if isinstance(step, int) else None, base_name or None, base_hash or None
    )


def _from_safetensors(file: Path) -> Embedding:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as reader:
            tensors = {key: reader.get_tensor(key) for key in reader.keys()}  # noqa: SIM118 - not a mapping
            return _from_tensors(tensors, reader.metadata() or {}, file)
    except SafetensorError as error:
        raise EmbeddingFileError(f"{file}: not an embedding file, or damaged ({_first_line(error)})") from error


def _from_tensors(tensors: Mapping[str, Any], metadata: Mapping[str, str], file: Path) -> Embedding:
    """Return the embedding of a file that must hold exactly one tensor."""
    import torch

    found = {str(key): value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if {"clip_l", "clip_g"} & set(found):
        raise EmbeddingFileError(
            f"{file}: an embedding for Stable Diffusion XL (two text encoders), not for 1.x or 2.x"
        )
    if len(found) != 1:
        listed = ", ".join(sorted(found)[:4]) + (", …" if len(found) > 4 else "")
        what = f"{len(found)} tensors ({listed})" if found else "no tensor"
        raise EmbeddingFileError(f"{file}: holds {what}; an embedding file holds exactly one")
    ((key, tensor),) = found.items()
    from_key = None if key in _PLAIN_KEYS or key.startswith("string_to_param[") else key.strip("<>")
    step = metadata.get("step", "")
    return Embedding(
        metadata.get("name") or from_key or file.stem,
        _checked(tensor, str(file)),
        int(step) if step.isdecimal() else None,
        metadata.get("base_name"),
        metadata.get("base_hash"),
    )


def _checked(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """Return `tensor` as contiguous float32 [n, width] on the CPU, or raise `EmbeddingFileError` naming `where`."""
    import torch

    shape = list(tensor.shape)
    if not tensor.dtype.is_floating_point or tensor.dim() not in {1, 2} or 0 in shape[1:]:
        raise EmbeddingFileError(f"{where}: a {tensor.dtype} tensor of shape {shape} is no embedding [vectors, width]")
    vectors = tensor.detach().to("cpu", torch.float32).reshape(-1, shape[-1]).contiguous() if shape[0] else tensor
    if not 1 <= len(vectors) <= MOST_VECTORS:
        raise EmbeddingFileError(f"{where}: {len(vectors)} vectors; an embedding has 1 to {MOST_VECTORS}")
    if not bool(torch.isfinite(vectors).all()):
        raise EmbeddingFileError(f"{where}: some of its numbers are not finite (NaN or infinite)")
    return vectors
