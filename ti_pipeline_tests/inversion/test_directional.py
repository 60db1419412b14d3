"""Directional training: what an update does to each vector, what stays, and which starts are refused."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ti_pipeline.inversion.directional import CONCENTRATION, DirectionError, Turning, of_length
from ti_pipeline.inversion.embedding_files import Embedding, save_pt
from ti_pipeline.inversion.variant_state import Run, StartError
from ti_pipeline_tests.inversion.test_trainer import pictures, run_of, train_all, variant

pytestmark = pytest.mark.slow


def leaf(rows: np.ndarray) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).requires_grad_(True)


def test_an_update_turns_each_vector_by_the_rate_within_the_plane_of_its_gradient():
    rng = np.random.default_rng(1)
    before = rng.standard_normal((4, 6))
    before *= 0.3 / np.linalg.norm(before, axis=1, keepdims=True)
    gradient = rng.standard_normal((4, 6)) * np.array([[1e-9], [1.0], [1e6], [3.0]])
    vectors = leaf(before)
    optimizer = Turning(vectors, length=0.3)
    vectors.grad = torch.tensor(gradient)
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    after = vectors.detach().numpy()
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 0.3)
    cosines = (before * after).sum(axis=1) / 0.09
    np.testing.assert_allclose(np.arccos(cosines), math.atan(0.1))
    for row in range(4):
        plane = np.linalg.qr(np.stack([before[row], gradient[row]], axis=1))[0]
        np.testing.assert_allclose(plane @ (plane.T @ after[row]), after[row])
        assert (after[row] - before[row]) @ gradient[row] < 0


def test_a_vector_without_gradient_turns_back_to_its_start():
    start = np.array([[0.5, 0.0]])
    vectors = leaf(start)
    optimizer = Turning(vectors, length=0.5)
    optimizer.param_groups[0]["lr"] = 1.0
    with torch.no_grad():
        vectors.copy_(torch.tensor([[0.0, 0.5]]))
    optimizer.step()
    assert math.atan2(*vectors[0].tolist()) == pytest.approx(math.atan(CONCENTRATION))


def test_it_finds_the_nearest_direction_of_a_known_target():
    target = np.random.default_rng(2).standard_normal((3, 8))
    vectors = leaf(np.eye(3, 8) * 2)
    optimizer = Turning(vectors, length=2.0)
    for step in range(400):
        vectors.grad = None
        (vectors - torch.tensor(target)).square().sum().backward()
        optimizer.param_groups[0]["lr"] = 0.3 * 0.98**step
        optimizer.step()
    nearest = 2 * target / np.linalg.norm(target, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors.detach().numpy(), nearest, atol=2e-3)


def test_trained_vectors_keep_the_vocabularys_mean_length_alone_and_among_others(base):
    table = base.text_encoder.get_input_embeddings().weight.detach()
    length = float(table.norm(dim=1).mean())
    own = {"optimizer": "directional", "learning_rate": 0.05, "initializer": "cat", "steps": 6}
    kept = train_all(base, run_of(base, "a", **own), run_of(base, "b", vectors=5, ema_decay=0.9, **own))
    alone = train_all(base, run_of(base, "a", **own))
    together = {key: vectors for key, _, vectors in kept}
    for vectors in together.values():
        torch.testing.assert_close(vectors.norm(dim=1), torch.full((len(vectors),), length))
    torch.testing.assert_close(together["a"], alone[-1][2], rtol=1e-4, atol=1e-5)
    start = run_of(base, **own).initial
    turned = torch.nn.functional.cosine_similarity(together["a"], start)
    assert bool((turned < math.cos(0.04)).all())
    assert bool((turned > math.cos(6 * 0.05)).all())


def test_an_average_of_directions_has_the_vocabularys_length(base):
    run = run_of(base, optimizer="directional", learning_rate=0.3, initializer="cat", ema_decay=0.9, steps=4)
    train_all(base, run)
    assert not torch.allclose(run.average.norm(dim=1), run.vectors.norm(dim=1))
    torch.testing.assert_close(run.result.norm(dim=1), run.vectors.detach().norm(dim=1))


def test_starts_without_direction_or_of_another_length_are_refused(base, tmp_path):
    def start(**values):
        return Run.start("a", variant(optimizer="directional", **values), base, pictures(4), pictures(0))

    with pytest.raises(StartError, match="initializer: a vector of zeros has no direction"):
        start(initializer="")
    length = float(base.text_encoder.get_input_embeddings().weight.detach().norm(dim=1).mean())
    for factor, name in ((3.7, "long.pt"), (0.2, "short.pt"), (1.2, "near.pt")):
        rows = torch.nn.functional.normalize(torch.arange(1.0, 65).reshape(2, 32), dim=1) * length * factor
        save_pt(tmp_path / name, Embedding(name.removesuffix(".pt"), rows, 1, "tiny", "0"))
    for name, words in (("long.pt", "3.7 times as long"), ("short.pt", "0.2 times as long")):
        with pytest.raises(StartError, match=f"initializer_file: a vector of it is {words}"):
            start(start="file", initializer_file=str(tmp_path / name), vectors=2)
    near = start(start="file", initializer_file=str(tmp_path / "near.pt"), vectors=2)
    torch.testing.assert_close(near.vectors.detach().norm(dim=1), torch.full((2,), length))
    with pytest.raises(DirectionError):
        of_length(torch.zeros(1, 3), 1.0)


@pytest.mark.parametrize("also", [{"max_norm": 1.0}, {"gradient_clip": 1.0}])
def test_what_it_does_itself_is_not_asked_of_it_again(also):
    with pytest.raises(ValidationError, match="leave out max_norm and gradient_clip"):
        variant(optimizer="directional", **also)
