"""Small readers of embedding files, each doing what a peer does with a file, written from how their formats are told.

They share no code with ours. Not here: diffusers, which is installed and reads for itself.
"""

import collections
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

_A1111_ENTRIES = re.compile(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$")
_A1111_STORAGES = {"FloatStorage", "HalfStorage", "IntStorage", "LongStorage", "DoubleStorage", "ByteStorage"}


class _A1111Unpickler(pickle.Unpickler):
    """Its safe mode: these globals, storages as persistent objects, and nothing else."""

    def persistent_load(self, saved: Any) -> Any:
        assert saved[0] == "storage"
        return torch.storage.TypedStorage(_internal=True)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in {"_rebuild_tensor_v2", "_rebuild_parameter"}:
            return getattr(torch._utils, name)
        if module == "torch" and name in _A1111_STORAGES:
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"global '{module}/{name}' is forbidden")


def a1111(path: Path) -> torch.Tensor:
    """A1111: a strict check of the zip and of what its pickle asks for, then torch; one tensor and no more."""
    if path.suffix == ".safetensors":
        data: Any = load_file(path)
    else:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            assert all(_A1111_ENTRIES.match(name) for name in names), "bad file inside"
            (pickled,) = (name for name in names if name.endswith("/data.pkl"))
            with archive.open(pickled) as stream:
                _A1111Unpickler(stream).load()
        data = torch.load(path, map_location="cpu", weights_only=True)
    params = data.get("string_to_param", data)
    assert len(params) == 1
    (vectors,) = params.values()
    return _rows(vectors)


def comfyui(folder: Path, name: str) -> torch.Tensor:
    """ComfyUI: by stem, safetensors before pt; the first tensor of `string_to_param`, else of the file."""
    for suffix in (".safetensors", ".pt", ".bin"):
        path = folder / f"{name}{suffix}"
        if path.is_file():
            data = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
            return _rows(next(iter(data.get("string_to_param", data).values())))
    raise FileNotFoundError(name)


def kohya(path: Path) -> torch.Tensor:
    """kohya's scripts: a plain dict, A1111's `string_to_param` or the first tensor."""
    data = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert type(data) is dict
    vectors = next(iter(data.get("string_to_param", data).values()))
    assert type(vectors) is torch.Tensor
    return _rows(vectors)


def invokeai(path: Path) -> torch.Tensor:
    """InvokeAI: `string_to_param`, else `emb_params`, else diffusers' one key."""
    data = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    if "string_to_param" in data:
        vectors = next(iter(data["string_to_param"].values()))
    else:
        vectors = data["emb_params"] if "emb_params" in data else next(iter(data.values()))
    assert isinstance(vectors, torch.Tensor)
    return _rows(vectors)


def _rows(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.detach().float() if vectors.dim() == 2 else vectors.detach().float()[None]
