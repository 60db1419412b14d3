"""Embedding files: what other programs can read of ours, and what we read of theirs."""

import pickle
import pickletools
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ti_pipeline.inversion.embedding_files import (
    Embedding,
    EmbeddingFileError,
    load_embedding,
    save_pt,
    save_safetensors,
    short_hash,
)

VECTORS = torch.arange(8.0).reshape(2, 4) / 7


def sine() -> torch.Tensor:
    return torch.from_numpy((np.sin(np.arange(1536, dtype=np.float64)) * 0.05).astype(np.float32)).reshape(2, 768)


def last_one() -> torch.Tensor:
    vectors = torch.zeros(1, 768)
    vectors[0, -1] = 1
    return vectors


@pytest.mark.parametrize(
    ("vectors", "digits"),
    [
        (torch.zeros(1, 768), "0000"),
        (last_one(), "8574"),
        (torch.full((1, 768), 0.011), "d400"),
        (torch.full((1, 768), -0.011), "d400"),
        (sine(), "4b62"),
    ],
)
def test_short_hash_gives_the_published_values(vectors, digits):
    assert short_hash(vectors) == digits


def test_pt_holds_only_what_a1111s_strict_loader_allows(tmp_path):
    path = tmp_path / "ember-500.pt"
    save_pt(path, Embedding("ember-500", VECTORS, 500, "my base", "0123456789abcdef"))
    allowed = re.compile(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$")
    with zipfile.ZipFile(path) as archive:
        assert all(allowed.match(name) for name in archive.namelist())
        assert archive.testzip() is None
        pickled = archive.read("archive/data.pkl")
    asked = {str(arg) for op, arg, _ in pickletools.genops(pickled) if op.name == "GLOBAL"}
    assert asked <= {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}
    content = torch.load(path, weights_only=True)
    assert content["string_to_token"] == {"*": 265}
    assert torch.equal(content["string_to_param"]["*"], VECTORS)
    assert (content["name"], content["step"], content["sd_checkpoint"]) == ("ember-500", 500, "0123456789")
    assert content["sd_checkpoint_name"] == "my base"
    assert torch.equal(torch.load(path, weights_only=True, mmap=True)["string_to_param"]["*"], VECTORS)


def test_safetensors_is_read_by_the_library(tmp_path):
    path = tmp_path / "e.safetensors"
    save_safetensors(path, Embedding("ember", VECTORS, 7, "b", "f" * 64), {"study": "größer", "variant": "v8"})
    with safe_open(path, framework="pt") as reader:
        assert list(reader.keys()) == ["emb_params"]
        assert torch.equal(reader.get_tensor("emb_params"), VECTORS)
        assert reader.metadata() == {
            "study": "größer",
            "variant": "v8",
            "name": "ember",
            "step": "7",
            "base_name": "b",
            "base_hash": "f" * 64,
        }


def test_both_kinds_read_back_as_written(tmp_path):
    written = Embedding("ember", VECTORS, 7, "b", "f" * 64)
    save_pt(tmp_path / "e.pt", written)
    save_safetensors(tmp_path / "e.safetensors", written)
    for name, base_hash in (("e.pt", "f" * 10), ("e.safetensors", "f" * 64)):
        read = load_embedding(tmp_path / name)
        assert torch.equal(read.vectors, VECTORS)
        assert (read.name, read.step, read.base_name, read.base_hash) == ("ember", 7, "b", base_hash)


def test_bytes_are_the_same_in_another_process(tmp_path):
    script = (
        "import sys, torch\n"
        "from ti_pipeline.inversion.embedding_files import *\n"
        "e = Embedding('same', torch.arange(8.).reshape(2, 4) / 7, 3, 'same', 'same')\n"
        "save_pt(sys.argv[1] + '/e.pt', e)\n"
        "save_safetensors(sys.argv[1] + '/e.safetensors', e, {k: k for k in 'zyxabc'})\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    here = Embedding("same", VECTORS, 3, "sa" + "me"[:], "".join(["sa", "me"]))
    save_pt(tmp_path / "here.pt", here)
    save_safetensors(tmp_path / "here.safetensors", here, {k: k for k in "abcxyz"})
    for kind in ("pt", "safetensors"):
        assert (tmp_path / f"e.{kind}").read_bytes() == (tmp_path / f"here.{kind}").read_bytes()


def test_peers_layouts_are_read(tmp_path):
    save_file({"emb_params": VECTORS}, tmp_path / "kohya.safetensors")
    save_file({"emp_params": VECTORS.half()}, tmp_path / "onetrainer.safetensors")
    save_file({"<cat-toy>": VECTORS[0]}, tmp_path / "diffusers.safetensors")
    torch.save({"<cat-toy>": VECTORS[0].bfloat16()}, tmp_path / "learned_embeds.bin")
    torch.save(VECTORS, tmp_path / "bare.pt")
    params = torch.nn.ParameterDict({"*": torch.nn.Parameter(VECTORS)})
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "string_to_param": params}, tmp_path / "original.pt")
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}, "name": "inside", "step": 99}
    torch.save(a1111, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    read = {path.name: load_embedding(path) for path in tmp_path.iterdir()}
    assert {name: (e.name, tuple(e.vectors.shape), e.step) for name, e in read.items()} == {
        "kohya.safetensors": ("kohya", (2, 4), None),
        "onetrainer.safetensors": ("onetrainer", (2, 4), None),
        "diffusers.safetensors": ("cat-toy", (1, 4), None),
        "learned_embeds.bin": ("cat-toy", (1, 4), None),
        "bare.pt": ("bare", (2, 4), None),
        "original.pt": ("original", (2, 4), None),
        "old.pt": ("inside", (2, 4), 99),
    }
    assert all(e.vectors.dtype == torch.float32 for e in read.values())
    assert torch.equal(read["onetrainer.safetensors"].vectors, VECTORS.half().float())


class Exploit:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        import pathlib

        return (pathlib.Path.touch, (pathlib.Path(self.target),))


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle", "pickle protocol 2"])
def test_pickles_that_ask_for_code_are_refused_and_not_executed(tmp_path, how):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    content = {"string_to_param": {"*": Exploit(str(target))}}
    if how == "zip":
        torch.save(content, path)
    elif how == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2 if "2" in how else 4))
    with pytest.raises(EmbeddingFileError, match=r"evil\.pt: (refused|not an embedding)"):
        load_embedding(path)
    assert not target.exists()


def write_tensors(**tensors):
    return lambda path: save_file(tensors, path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_tensors(a=VECTORS, b=VECTORS + 1), r"holds 2 tensors \(a, b\)"),
        (write_tensors(clip_l=VECTORS, clip_g=VECTORS + 1), "Stable Diffusion XL"),
        (write_tensors(emb_params=torch.zeros(0, 4)), "0 vectors"),
        (write_tensors(emb_params=torch.zeros(76, 4)), "76 vectors"),
        (write_tensors(emb_params=torch.zeros(1, 2, 4)), r"shape \[1, 2, 4\]"),
        (write_tensors(emb_params=torch.zeros(3, 0)), "no embedding"),
        (write_tensors(emb_params=torch.ones(2, 4, dtype=torch.int32)), "int32"),
        (write_tensors(emb_params=torch.tensor([[1.0, torch.nan]])), "not finite"),
        (lambda path: torch.save({"string_to_param": {"*": VECTORS, "+": VECTORS}}, path), "2 tensors"),
        (lambda path: torch.save({"string_to_param": [VECTORS]}, path), "not a dict"),
        (lambda path: torch.save({"note": "nothing"}, path), "no tensor"),
        (lambda path: torch.save([1, 2], path), "holds a list"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"PK\x03\x04 not a zip"), "damaged"),
        (lambda path: path.write_bytes(b"\x80\x02 not a pickle"), "damaged"),
        (lambda path: path.write_text("a text"), "damaged"),
    ],
)
def test_what_is_no_embedding_is_refused_with_the_reason(tmp_path, write, reason):
    path = tmp_path / "given.file"
    write(path)
    with pytest.raises(EmbeddingFileError, match=rf"given\.file: .*{reason}"):
        load_embedding(path)


def test_truncated_files_are_refused_at_every_length(tmp_path):
    save_pt(tmp_path / "e.pt", Embedding("e", VECTORS))
    save_safetensors(tmp_path / "e.safetensors", Embedding("e", VECTORS))
    for whole in (tmp_path / "e.pt", tmp_path / "e.safetensors"):
        data = whole.read_bytes()
        for length in range(0, len(data), 37):
            cut = tmp_path / "cut"
            cut.write_bytes(data[:length])
            with pytest.raises(EmbeddingFileError):
                load_embedding(cut)


def test_missing_and_huge_files(tmp_path):
    with pytest.raises(EmbeddingFileError, match="cannot be read"):
        load_embedding(tmp_path / "none.pt")
    with (tmp_path / "huge.pt").open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(EmbeddingFileError, match="too large for an embedding"):
        load_embedding(tmp_path / "huge.pt")


def test_bad_vectors_are_not_written(tmp_path):
    for save in (save_pt, save_safetensors):
        with pytest.raises(EmbeddingFileError):
            save(tmp_path / "x.pt", Embedding("x", torch.full((1, 4), torch.inf)))
    assert list(tmp_path.iterdir()) == []
