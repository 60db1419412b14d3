"""Similarity: against loops written from the definitions."""

import itertools

import numpy as np
import pytest
import torch

from ti_pipeline.evaluation.similarity import (
    copies,
    diversity,
    kid_parts,
    nearness,
    nearness_among,
    sameness,
    similarity_to,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_diversity_is_the_mean_distance_to_the_others_of_a_group() -> None:
    seen, groups = unit(7, 16), ["a", "b", "a", "c", "a", "b", "d"]
    found = diversity(seen, groups)
    for place, group in enumerate(groups):
        others = [i for i, other in enumerate(groups) if other == group and i != place]
        expected = np.mean([1 - float(seen[place] @ seen[i]) for i in others]) if others else None
        assert found[place] == (pytest.approx(expected, abs=1e-6) if others else None)
    assert diversity(seen[[0, 0, 0]], ["a"] * 3) == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_copy_is_nearer_than_training_pictures_are_to_each_other() -> None:
    trained = unit(6, 16, seed=1)
    limit = max(float(a @ b) for a, b in itertools.combinations(trained, 2))
    near = torch.nn.functional.normalize(trained[4] + 0.05 * unit(16, seed=2), dim=-1)
    seen = torch.stack([unit(16, seed=3), near, trained[2]])
    nearest, copied = copies(seen, trained)
    assert nearest == pytest.approx([max(float(s @ t) for t in trained) for s in seen], abs=1e-6)
    assert nearest[0] < limit < nearest[1]
    assert copied == [None, 4, 2]
    twins = torch.cat([trained, trained[:1]])
    assert copies(seen, twins)[1] == [None, None, None], "among twins nothing can be told to be a copy"
    assert copies(seen, trained[:1])[1] == [None, None, None]


def test_the_mean_of_kid_parts_is_the_unbiased_discrepancy() -> None:
    ours, theirs, width = unit(5, 8, seed=1).double(), unit(4, 8, seed=2).double(), 8

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a * width**0.5) @ (b * width**0.5) / width + 1) ** 3)

    own = np.mean([k(a, b) for a, b in itertools.permutations(ours, 2)])
    other = np.mean([k(a, b) for a, b in itertools.permutations(theirs, 2)])
    across = np.mean([k(a, b) for a in ours for b in theirs])
    parts = kid_parts(ours.float(), theirs.float())
    assert parts.shape == (5,)
    assert float(parts.mean()) == pytest.approx(own + other - 2 * across, abs=1e-5)


def test_kid_is_small_among_alike_and_large_between_others() -> None:
    def around(centre: int, seed: int) -> torch.Tensor:
        return torch.nn.functional.normalize(unit(32, seed=centre) + 0.5 * unit(60, 32, seed=seed), dim=-1)

    alike, apart = kid_parts(around(1, 5), around(1, 6)).mean(), kid_parts(around(1, 5), around(2, 6)).mean()
    assert abs(float(alike)) < 0.1 * float(apart)


def test_similarity_is_the_mean_cosine() -> None:
    seen, references = unit(3, 8), unit(4, 8, seed=9)
    expected = [np.mean([float(s @ r) for r in references]) for s in seen]
    assert similarity_to(seen, references).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 8, 11])
def test_nearness_is_the_mean_over_leaving_each_reference_out(count: int) -> None:
    seen, references = unit(4, 8), unit(count, 8, seed=9)

    def nearer_half(picture: torch.Tensor, others: list[torch.Tensor]) -> float:
        alike = sorted((float(picture @ other) for other in others), reverse=True)
        return float(np.mean(alike[: max(1, -(-len(others) // 2))]))

    without = [[r for j, r in enumerate(references) if j != i] for i in range(count)]
    expected = [np.mean([nearer_half(s, others) for others in without]) for s in seen]
    assert nearness(seen, references).tolist() == pytest.approx(expected, abs=1e-5)
    among = [nearer_half(r, others) for r, others in zip(references, without, strict=True)]
    assert nearness_among(references).tolist() == pytest.approx(among, abs=1e-5)


def test_nearness_to_one_picture_is_the_cosine_and_to_none_an_error() -> None:
    seen, one = unit(3, 8), unit(1, 8, seed=4)
    assert nearness(seen, one).tolist() == pytest.approx((seen @ one.T).flatten().tolist(), abs=1e-6)
    with pytest.raises(ValueError, match="no nearness"):
        nearness(seen, one[:0])
    with pytest.raises(ValueError, match="fewer than two"):
        nearness_among(one)


def test_sameness_is_the_mean_cosine_to_other_prompts_of_the_group() -> None:
    seen, groups, prompts = unit(6, 8), list("aaabba"), ["x", "y", "x", "x", "x", "z"]
    found = sameness(seen, groups, prompts)
    for place, (group, prompt) in enumerate(zip(groups, prompts, strict=True)):
        others = [i for i in range(6) if groups[i] == group and prompts[i] != prompt]
        expected = np.mean([float(seen[place] @ seen[i]) for i in others]) if others else None
        assert found[place] == (pytest.approx(expected, abs=1e-6) if others else None)
    assert found[3] is None
