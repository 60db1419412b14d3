"""Latents: what the autoencoder says of the crops, cached by what decides it."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ti_pipeline.inversion import latents
from ti_pipeline.inversion.latents import encode_crops


@pytest.fixture
def crops(root) -> pd.DataFrame:
    paths = sorted(p.relative_to(root).as_posix() for p in (root / "crops").glob("*.png"))
    sums = [hashlib.sha256((root / p).read_bytes()).hexdigest() for p in paths]
    return pd.DataFrame({"path": paths, "sha256": sums})


def caches(root) -> list[str]:
    return sorted(path.name for path in (root / "latents").glob("*"))


def test_latents_are_the_autoencoders_own(base, root, crops):
    found = encode_crops(base, crops, root=root, resolution=64)
    assert found.mean.shape == (5, 4, 8, 8)
    pixels = np.asarray(Image.open(root / crops.path[3]), dtype=np.float32) / 255 * 2 - 1
    with torch.no_grad():
        expected = base.vae.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).latent_dist
    assert torch.allclose(found.mean[3], expected.mean[0], atol=1e-5)
    assert torch.allclose(found.deviation[3], expected.std[0], atol=1e-5)


def test_crops_of_another_size_are_resized_by_lanczos(base, root, crops):
    found = encode_crops(base, crops, root=root, resolution=32)
    small = Image.open(root / crops.path[0]).resize((32, 32), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        assert torch.allclose(found.mean[0], base.vae.encode(pixels).latent_dist.mean[0], atol=1e-5)


def test_the_cache_is_used_and_damage_repaired(base, root, crops, monkeypatch):
    first = encode_crops(base, crops, root=root, resolution=64)
    (name,) = caches(root)
    encodings = []
    plain = latents._encode
    monkeypatch.setattr(latents, "_encode", lambda *args: encodings.append(1) or plain(*args))
    assert torch.equal(encode_crops(base, crops, root=root, resolution=64).mean, first.mean)
    assert encodings == []
    for damage in (b"", b"junk", (root / "latents" / name).read_bytes()[:-50]):
        (root / "latents" / name).write_bytes(damage)
        assert torch.equal(encode_crops(base, crops, root=root, resolution=64).mean, first.mean)
    assert len(encodings) == 3
    assert caches(root) == [name]


def test_the_cache_knows_size_crops_and_base(base, base64, root, crops):
    encode_crops(base, crops, root=root, resolution=64)
    encode_crops(base, crops, root=root, resolution=32)
    encode_crops(base, crops[:4], root=root, resolution=64)
    encode_crops(base64, crops, root=root, resolution=64)
    assert len(caches(root)) == 4
