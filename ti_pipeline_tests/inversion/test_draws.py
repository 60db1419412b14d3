"""Draws: each depends on seed, purpose and counters alone."""

from collections import Counter

import numpy as np
import torch

from ti_pipeline.inversion.draws import generator, normal, pictures_of, prompt_of, spread_timesteps, steps_per_epoch


def test_steps_per_epoch_as_a1111_counts_but_at_least_one():
    settings = [(562, 1, 1), (10, 4, 1), (10, 2, 2)]
    assert [steps_per_epoch((0,) * count, *rest) for count, *rest in settings] == [562, 2, 2]
    assert steps_per_epoch((0,) * 3, 4, 2) == 1


def test_a_pass_shows_every_picture_once_and_passes_differ():
    def shown(done: int, micro: int) -> list[int]:
        return pictures_of(7, done, micro, shapes=(0,) * 12, batch_size=2, accumulation=3)

    passes = [[i for done in (p * 2, p * 2 + 1) for micro in range(3) for i in shown(done, micro)] for p in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_few_pictures_repeat_evenly():
    shown = [i for m in range(2) for i in pictures_of(0, 4, m, shapes=(0,) * 3, batch_size=3, accumulation=2)]
    assert Counter(shown) == {0: 2, 1: 2, 2: 2}


SHAPES = (0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 0)  # seven of 0, three of 1, one of 2


def test_batches_have_one_shape_and_pictures_are_shown_in_proportion_at_every_batch_size():
    """Over many passes each picture has its share, whatever bucket it is in; the roundings never drift apart."""
    for shapes in (SHAPES, (0,) * 59 + (1,), (0,) * 20 + (1,) * 20 + (2, 3)):
        for batch_size, accumulation in ((1, 1), (2, 5), (4, 1), (8, 2)):
            settings = {"shapes": shapes, "batch_size": batch_size, "accumulation": accumulation}
            updates = steps_per_epoch(*settings.values())
            assert updates == max(1, len(shapes) // batch_size // accumulation)
            counted = Counter()
            for done in range(updates * 300):
                for micro in range(accumulation):
                    batch = pictures_of(3, done, micro, **settings)
                    assert len({shapes[picture] for picture in batch}) == 1
                    counted.update(batch)
            shown = sum(counted.values())
            for shape in set(shapes):
                share = sum(count for picture, count in counted.items() if shapes[picture] == shape) / shown
                assert abs(share - shapes.count(shape) / len(shapes)) < 0.005
            mean = shown / len(shapes)
            assert all(0.75 * mean < counted[picture] < 1.25 * mean for picture in range(len(shapes)))


def test_shapes_take_turns_in_another_order_in_each_pass():
    def order(done: int) -> tuple[int, ...]:
        settings = {"shapes": SHAPES, "batch_size": 1, "accumulation": 11}
        return tuple(SHAPES[pictures_of(3, done, micro, **settings)[0]] for micro in range(11))

    assert len({order(done) for done in range(20)}) > 10


def test_micro_steps_beyond_a_pass_go_on_in_order():
    found = [pictures_of(1, 0, micro, shapes=(0, 0, 1), batch_size=1, accumulation=6)[0] for micro in range(6)]
    assert Counter(found) == {0: 2, 1: 2, 2: 2}


def test_draws_depend_on_every_counter_and_on_nothing_else():
    def draw(*key: int) -> torch.Tensor:
        return normal(generator(key[0], "noise", *key[1:]), 4, 8)

    first = draw(3, 10, 0)
    np.random.default_rng(1).random(100)
    torch.rand(3)
    assert torch.equal(draw(3, 10, 0), first)
    for other in ((4, 10, 0), (3, 11, 0), (3, 10, 1)):
        assert not torch.equal(draw(*other), first)
    assert not torch.equal(normal(generator(3, "latent", 10, 0), 4, 8), first)
    many = normal(generator(0, "noise", 1), 100_000)
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 1) < 0.02


def test_prompts_are_filled_in():
    def make(template: str, caption: str, **options) -> str:
        settings = {"shuffle": False, "drop": 0.0} | options
        return prompt_of([template], "ember", caption, generator(0, "prompt", 1), **settings)

    assert make("a photo of [name], [filewords]", "wolf, red fur") == "a photo of ember, wolf, red fur"
    assert make("[name], [filewords]", "") == "ember"
    assert make("[filewords], [name]", "") == "ember"
    assert make("[name], [filewords]", "wolf", drop=1.0) == "ember"
    tags = [f"tag{i}" for i in range(30)]
    shuffled = make("[filewords]", ", ".join(tags), shuffle=True).split(", ")
    assert sorted(shuffled) == sorted(tags)
    assert shuffled != tags
    # A caption that spells out a placeholder's neighbour must not be filled in a second time.
    assert make("[name], [filewords]", "wolf (species)") == "ember, wolf (species)"


def test_the_first_tags_stay_where_they_are():
    caption = ", ".join(f"t{i}" for i in range(20))
    for i in range(5):
        rng = generator(0, "prompt", i)
        tags = prompt_of(["[filewords]"], "x", caption, rng, shuffle=True, drop=0.5, keep=2).split(", ")
        assert tags[:2] == ["t0", "t1"]
        assert tags[2:] != sorted(tags[2:], key=lambda tag: int(tag[1:]))
        assert 2 < len(tags) < 20


def test_tags_are_dropped_at_the_given_rate():
    caption = ", ".join(f"t{i}" for i in range(100))
    left = [
        len(prompt_of(["[filewords]"], "x", caption, generator(0, "prompt", i), shuffle=False, drop=0.3).split(", "))
        for i in range(50)
    ]
    assert abs(sum(left) / 5000 - 0.7) < 0.03


def test_whole_captions_are_left_out_at_the_given_rate():
    def made(i: int, **options) -> str:
        return prompt_of(
            ["[name], [filewords]"], "x", "a, b", generator(0, "prompt", i), shuffle=False, drop=0.0, **options
        )

    bare = sum(made(i, dropout=0.25) == "x" for i in range(2000))
    assert abs(bare / 2000 - 0.25) < 0.03
    assert all(made(i, dropout=0.25) in {"x", "x, a, b"} for i in range(50))
    assert made(1, dropout=1.0) == "x"
    assert made(1) == "x, a, b"


def test_every_template_is_used():
    drawn = {
        prompt_of(["a [name]", "b [name]"], "x", "", generator(1, "prompt", i), shuffle=False, drop=0.0)
        for i in range(20)
    }
    assert drawn == {"a x", "b x"}


def test_spread_timesteps_lie_evenly_in_every_window_and_follow_the_seed():
    whole = spread_timesteps(3, 0, 4000, 1000)
    assert np.array_equal(whole[100:108], spread_timesteps(3, 100, 8, 1000))
    assert not np.array_equal(whole, spread_timesteps(4, 0, 4000, 1000))
    counts = np.bincount(whole * 10 // 1000, minlength=10)
    assert counts.sum() == 4000
    assert counts.min() >= 398
    assert counts.max() <= 402
    # Of any eight in a row, every third of the timesteps gets two to four; independent draws miss that in a third.
    for start in range(500):
        thirds = np.bincount(whole[start : start + 8] * 3 // 1000, minlength=3)
        assert 2 <= thirds.min() <= thirds.max() <= 4
