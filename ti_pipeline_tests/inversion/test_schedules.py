"""Learning rates in A1111's syntax."""

import pytest

from ti_pipeline.inversion.schedules import LearningRate, ScheduleError, parse_learning_rate


def test_a_rate_holds_while_fewer_updates_are_done_than_its_number():
    rate = parse_learning_rate("0.005:100, 1e-3:1000, 1e-5")
    found = {done: rate.at(done) for done in (0, 99, 100, 999, 1000, 10**6)}
    assert found == {0: 0.005, 99: 0.005, 100: 1e-3, 999: 1e-3, 1000: 1e-5, 10**6: 1e-5}


@pytest.mark.parametrize("written", [0.005, "0.005", "5e-3", " 0.005 "])
def test_a_single_number_holds_for_ever(written):
    assert {parse_learning_rate(written).at(done) for done in (0, 1, 10**9)} == {0.005}


@pytest.mark.parametrize(
    ("written", "position"),
    [
        ("fast", 1),
        ("0.005:100, quick:200", 11),
        ("0.005:ten", 7),
        ("0.005:100, 1e-3:50", 17),
        ("0.005, 1e-3", 1),
        ("0.005:100,", 11),
        ("-0.1", 1),
        ("nan", 1),
        ("0.005:1.5", 7),
        ("", 1),
    ],
)
def test_malformed_rates_name_the_position(written, position):
    with pytest.raises(ScheduleError, match=f"position {position}:"):
        parse_learning_rate(written)


@pytest.mark.parametrize("shape", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_warm_up_cosine_and_line_are_those_of_diffusers(warmup, shape):
    import torch
    from diffusers import optimization

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.02)
    end = {} if shape == "constant" else {"num_training_steps": 40}
    theirs = getattr(optimization, f"get_{shape}_schedule_with_warmup")(optimizer, warmup, **end)
    ours = LearningRate(((0.02, float("inf")),), warmup, **{f"{shape}_end": 40 for _ in end})
    for done in range(40):
        assert ours.at(done) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()
