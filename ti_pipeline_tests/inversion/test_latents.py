"""Latents: what the autoencoder says of the crops, cached by what decides it."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ti_pipeline.inversion import latents
from ti_pipeline.inversion.latents import crop_sides, encode_crops, latent_masks


@pytest.fixture
def crops(root) -> pd.DataFrame:
    paths = sorted(p.relative_to(root).as_posix() for p in (root / "crops").glob("*.png"))
    sums = [hashlib.sha256((root / p).read_bytes()).hexdigest() for p in paths]
    return pd.DataFrame({"path": paths, "sha256": sums})


def caches(root) -> list[str]:
    return sorted(path.name for path in (root / "latents").glob("*"))


def test_latents_are_the_autoencoders_own(base, root, crops):
    found = encode_crops(base, crops, root=root, resolution=64)
    assert [tuple(mean.shape) for mean in found.mean] == [(4, 8, 8)] * 5
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
    assert torch.equal(torch.stack(encode_crops(base, crops, root=root, resolution=64).mean), torch.stack(first.mean))
    assert encodings == []
    for damage in (b"", b"junk", (root / "latents" / name).read_bytes()[:-50]):
        (root / "latents" / name).write_bytes(damage)
        assert torch.equal(
            torch.stack(encode_crops(base, crops, root=root, resolution=64).mean), torch.stack(first.mean)
        )
    assert len(encodings) == 3
    assert caches(root) == [name]


def test_the_cache_knows_size_crops_and_base(base, base64, root, crops):
    encode_crops(base, crops, root=root, resolution=64)
    encode_crops(base, crops, root=root, resolution=32)
    encode_crops(base, crops[:4], root=root, resolution=64)
    encode_crops(base64, crops, root=root, resolution=64)
    assert len(caches(root)) == 4


def mixture(root, sides: list[tuple[int, int]]) -> pd.DataFrame:
    """Crops of these (width, height), as aspect buckets around 64 × 64 pixels make them."""
    rows = []
    for number, (width, height) in enumerate(sides):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = f"crops/m{number}.png"
        Image.fromarray(pixels).save(root / path)
        sha256 = hashlib.sha256((root / path).read_bytes()).hexdigest()
        rows.append({"path": path, "sha256": sha256, "size": 64, "width": width, "height": height})
    return pd.DataFrame(rows)


def test_crops_of_aspect_buckets_keep_their_shape_and_order(base, root):
    sides = [(64, 128), (64, 64), (128, 64), (64, 128), (64, 64)] * 3
    crops = mixture(root, sides)
    for _ in range(2):  # made, then from the cache
        found = encode_crops(base, crops, root=root, resolution=64)
        assert [(m.shape[2] * 8, m.shape[1] * 8) for m in found.mean] == sides
        for row, mean, deviation in zip(crops.itertuples(), found.mean, found.deviation, strict=True):
            pixels = np.asarray(Image.open(root / row.path), dtype=np.float32) / 255 * 2 - 1
            with torch.no_grad():
                expected = base.vae.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None]).latent_dist
            assert torch.allclose(mean, expected.mean[0], atol=1e-5)
            assert torch.allclose(deviation, expected.std[0], atol=1e-5)
    assert len(caches(root)) == 1


def test_buckets_are_scaled_with_the_resolution_to_multiples_of_64():
    crops = pd.DataFrame({"size": 512, "width": [512, 384, 768], "height": [512, 640, 320]})
    assert crop_sides(crops, 512) == [(512, 512), (384, 640), (768, 320)]
    assert crop_sides(crops, 640) == [(640, 640), (512, 768), (960, 384)]  # from 480 × 800 and 960 × 400
    assert crop_sides(crops, 32) == [(32, 32), (64, 64), (64, 64)]


def test_masks_are_the_mean_alpha_of_each_latents_pixels(root, crops):
    alpha = np.random.default_rng(5).integers(0, 256, (64, 64), dtype=np.uint8)
    (root / "crops" / "alpha").mkdir()
    Image.fromarray(alpha).save(root / "crops" / "alpha" / f"{crops.path[1][6:-4]}.png")
    told = crops.assign(alpha_sha256=pd.array([None, "f" * 64, None, None, None], dtype="str"))
    found = latent_masks(told, root=root, resolution=64, latent_factor=8)
    assert [mask is None for mask in found] == [True, False, True, True, True]
    blocks = alpha.reshape(8, 8, 8, 8).mean(axis=(1, 3)) / 255
    assert found[1].dtype == torch.float32
    np.testing.assert_allclose(found[1][0], blocks, atol=1e-6)
