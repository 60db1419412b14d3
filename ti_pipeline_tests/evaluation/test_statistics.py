"""The leaderboard: its scores by plain counting, its verdicts by what must hold of them."""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.evaluation.statistics import judged, leaderboard, leaderboard_plot, meetings, steps_plot
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.evaluation.tables import BASES, noisy, references, rows, study

RULE = {"bases": BASES, "seed": 1}


def one_axis(right: dict[str, list[float]], near: dict[str, list[float]], *, bare=None, seeds: int = 1, **options):
    """The board of checkpoints on one axis, whose base gets everything right and is at likeness 0."""
    count = len(next(iter(right.values())))
    refs = references({"species": bare or [1.0] * count}, {"species": [0.0] * count}, seeds=seeds)
    return leaderboard(study(right, near, seeds=seeds), refs, **(RULE | options))


def board_of(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    return table[table.axis == axis].set_index("checkpoint")


def test_every_board_is_what_plain_counting_gives() -> None:
    right = {"species": {"v-100": [1, 1, 0, 1], "w-100": [1, 0, 0, 0]}, "pose": {"v-100": [1, 0], "w-100": [1, 1]}}
    near = {"species": {"v-100": [0.5] * 4, "w-100": [0.8] * 4}, "pose": {"v-100": [0.6] * 2, "w-100": [0.4] * 2}}
    table = pd.concat([study(right[axis], near[axis], axis=axis) for axis in right])
    refs = references(
        {"species": [1, 1, 1, 0], "pose": [1, 1]}, {"species": [0.2] * 4, "pose": [0.2] * 2}, held_out=1.0
    )
    found = leaderboard(table, refs, **RULE)
    assert TABLES["leaderboard"].problems(found) == []
    score = {axis: board_of(found, axis).score for axis in found.axis.unique()}
    assert score["species"].to_dict() == {"v-100": 0.75, "w-100": 0.25, "no embedding": 0.75}
    obedience = {"v-100": (0.75 + 0.5) / 2 / 0.875, "w-100": (0.25 + 1) / 2 / 0.875, "no embedding": 1.0}
    assert score["obedience"].to_dict() == pytest.approx(obedience)
    likeness = {
        "v-100": ((4 * 0.5 + 2 * 0.6) / 6 - 0.2) / 0.8,
        "w-100": ((4 * 0.8 + 2 * 0.4) / 6 - 0.2) / 0.8,
        "no embedding": 0.0,
    }
    assert score["likeness"].to_dict() == pytest.approx(likeness)
    overall = {name: 2 / (1 / obedience[name] + 1 / likeness[name]) for name in ("v-100", "w-100")}
    assert score["overall"].to_dict() == pytest.approx(overall | {"no embedding": 0.0})
    assert board_of(found, "species").mismatches.to_dict() == {"v-100": 1, "w-100": 3, "no embedding": 1}
    assert set(board_of(found, "overall").pictures) == {6}, "judged twice, drawn once"


@pytest.mark.parametrize("prefer", ["likeness", "obedience"])
def test_a_preference_is_an_f_score_with_beta_two(prefer: str) -> None:
    found = one_axis({"v-1": [1, 1, 1, 0]}, {"v-1": [0.4] * 4}, prefer=prefer)
    preferred, other = (0.4, 0.75) if prefer == "likeness" else (0.75, 0.4)
    # van Rijsbergen's F with recall what counts twice as much.
    assert board_of(found, "overall").score["v-1"] == pytest.approx(5 * preferred * other / (4 * other + preferred))


def test_nothing_is_best_that_has_not_learned() -> None:
    """An embedding that is the untrained word obeys as its base does; one that learned half obeys less, and is best."""
    rng = np.random.default_rng(3)
    right = {"v-1": [1.0] * 24, "w-1": [1.0] * 14 + [0.0] * 10}
    near = {"v-1": noisy(rng, 0.0, 24), "w-1": noisy(rng, 0.5, 24)}
    both = board_of(one_axis(right, near), "overall")
    assert both.index[both.best].tolist() == ["w-1"]
    assert both.learned.to_dict() == {"v-1": False, "w-1": True, "no embedding": False}
    obedience = board_of(one_axis(right, near), "obedience")
    assert obedience.score["v-1"] > obedience.score["w-1"]
    assert obedience.index[obedience.best].tolist() == ["w-1"]
    alone = one_axis({"v-1": right["v-1"]}, {"v-1": near["v-1"]})
    assert not alone.best.any()


def test_references_stand_on_every_board_and_are_never_ranked() -> None:
    found = one_axis({"v-1": [1, 0, 1], "v-2": [1, 1, 1]}, {"v-1": [0.1, 0.3, 0.2], "v-2": [0.3, 0.5, 0.3]})
    beside = found[found.checkpoint == "no embedding"]
    assert set(beside.axis) == {"species", "obedience", "likeness", "overall"}
    assert not (beside.candidate | beside.best | beside.tied).any()
    assert beside[["rank", "p", "behind"]].isna().all(axis=None)


def test_words_are_a_reference_too_and_several_bases_have_their_own() -> None:
    count = 6
    bare = {"species": [1.0] * count}
    refs = pd.concat(
        [
            references(bare, {"species": [0.0] * count}, held_out=0.5, base="one"),
            references(bare, {"species": [0.2] * count}, held_out=0.4, base="two"),
            rows("words", [1.0] * count).assign(base="one"),
            rows("words", [0.1] * count, metric="likeness").assign(base="one"),
        ]
    )
    table = study({name: [1.0] * count for name in ("v-1", "w-1")}, {name: [0.3] * count for name in ("v-1", "w-1")})
    found = leaderboard(table, refs, bases={"v": "one", "w": "two"}, seed=1)
    assert board_of(found, "likeness").score.to_dict() == pytest.approx(
        {"v-1": 0.6, "w-1": 0.5, "no embedding, one": 0.0, "no embedding, two": 0.0, "words, one": 0.2}
    )


def test_in_the_negative_prompt_nearer_is_worse() -> None:
    right, near = {"v-1": [1.0] * 8, "w-1": [1.0] * 8}, {"v-1": [0.3] * 8, "w-1": [-0.3] * 8}
    found = board_of(one_axis(right, near, negative=frozenset({"species"})), "likeness")
    assert found.score.to_dict() == pytest.approx({"w-1": 0.3, "v-1": -0.3, "no embedding": 0.0})


def test_an_axis_on_which_the_base_gets_nothing_right_does_not_count() -> None:
    near = {"v-1": [0.5] * 4, "w-1": [0.5] * 4}
    table = pd.concat(
        [
            study({"v-1": [1, 1, 1, 0], "w-1": [1, 1, 0, 0]}, near),
            study({"v-1": [0, 0, 0, 0], "w-1": [1, 1, 1, 1]}, near, axis="dragons"),
        ]
    )
    refs = references({"species": [1] * 4, "dragons": [0] * 4}, dict.fromkeys(("species", "dragons"), [0.0] * 4))
    found = leaderboard(table, refs, **RULE)
    assert board_of(found, "obedience").score[["v-1", "w-1"]].to_dict() == {"v-1": 0.75, "w-1": 0.5}
    assert not found.counted[found.axis == "dragons"].any()
    assert found.counted[found.axis != "dragons"].all()


def test_pictures_of_the_concept_that_are_no_nearer_to_each_other_leave_no_way_to_go() -> None:
    refs = references({"species": [1.0] * 4}, {"species": [0.5] * 4}, held_out=0.4)
    found = leaderboard(study({"v-1": [1.0] * 4}, {"v-1": [0.9] * 4}), refs, **RULE)
    assert not found.best.any()
    assert set(board_of(found, "overall").score) == {0.0}


def test_ties_go_to_the_earlier_step_and_the_winner_is_not_tied_with_itself() -> None:
    names = ("v-300", "v-100", "v-200")
    found = board_of(one_axis({name: [1, 0, 1] for name in names}, {name: [0.5] * 3 for name in names}), "overall")
    assert found.index.tolist() == ["v-100", "v-200", "v-300", "no embedding"]
    assert found.tied.tolist() == [False, True, True, False]
    assert (found.p[:3] == 1).all()


def test_two_checkpoints_are_compared_by_the_exact_test_where_trials_are_few() -> None:
    """Four wins of four are no certainty: one in eight coins does it. By hand, all sixteen exchanges."""
    found = board_of(
        one_axis({"v-1": [1, 1, 1, 1], "w-1": [0, 0, 0, 0]}, {n: [0.5] * 4 for n in ("v-1", "w-1")}), "species"
    )
    assert found.p["w-1"] == 2 / 16
    assert found.tied["w-1"]
    assert found.behind_low["w-1"] < 0 < found.behind_high["w-1"]


def test_verdicts_are_those_of_every_exchange_counted_by_hand() -> None:
    """Three checkpoints on four trials: 1,296 exchanges, the range of likeness over its largest standard error."""
    values = np.array([[0.9, 0.8, 0.7, 0.95], [0.2, 0.25, 0.1, 0.3], [0.3, 0.1, 0.2, 0.15]])
    near = {name: row.tolist() for name, row in zip(("v-1", "w-1", "x-1"), values, strict=True)}
    found = board_of(one_axis({name: [1.0] * 4 for name in near}, near), "likeness")

    def largest(table: np.ndarray) -> float:
        pairs = list(itertools.combinations(range(3), 2))
        variances = [np.var(table[i] - table[j], ddof=1) / 4 for i, j in pairs]
        drawn = (3 * np.array(variances) + 4 * np.mean(variances)) / 7
        return max(abs(np.mean(table[i] - table[j])) / math.sqrt(d) for (i, j), d in zip(pairs, drawn, strict=True))

    orders = list(itertools.permutations(range(3)))
    seen = [
        largest(np.stack([values[list(o), t] for t, o in enumerate(chosen)], axis=1))
        for chosen in itertools.product(orders, repeat=4)
    ]
    share = np.mean([one >= largest(values) - 1e-9 for one in seen])
    assert found.p.min() == pytest.approx(share)


def test_all_right_is_no_certainty() -> None:
    found = one_axis({"v-1": [1.0] * 22, "w-1": [1.0] * 22}, {n: [0.5] * 22 for n in ("v-1", "w-1")})
    for axis in ("species", "obedience", "overall"):
        row = board_of(found, axis).loc["w-1"]
        assert row.high - row.low > 0.03, axis
        assert row.behind_low < -0.02 < 0.02 < row.behind_high, axis


def test_a_small_lead_on_every_prompt_is_sure_and_the_same_lead_in_disorder_is_not() -> None:
    hard = np.random.default_rng(3).uniform(0, 0.9, size=30)
    right = {name: [1.0] * 30 for name in ("v-1", "w-1")}
    steady = hard + 0.02 + 0.005 * np.random.default_rng(5).standard_normal(30)
    sure = board_of(one_axis(right, {"v-1": hard.tolist(), "w-1": steady.tolist()}), "likeness")
    assert not sure.tied["v-1"]
    assert sure.high["v-1"] > sure.score["w-1"], "each for itself they overlap"
    mixed = np.random.default_rng(4).permutation(steady).tolist()
    assert board_of(one_axis(right, {"v-1": hard.tolist(), "w-1": mixed}), "likeness").tied.any()


def test_pairs_have_the_leaderboards_verdicts() -> None:
    rng = np.random.default_rng(6)
    names = ["v-1", "v-2", "w-1", "w-2"]
    table = study(
        {name: (rng.random(24) < 0.8).astype(float).tolist() for name in names},
        {name: noisy(rng, 0.2 * n, 24) for n, name in enumerate(names)},
        seeds=2,
    )
    refs = references({"species": [1.0] * 24}, {"species": [0.0] * 24}, seeds=2)
    found, met = leaderboard(table, refs, **RULE), meetings(judged(table, refs, **RULE), names)
    assert len(met) == 4 * 6
    for axis, rows_of in found[found["rank"] > 1].groupby("axis"):
        first = board_of(found, axis).index[0]
        pairs = {frozenset((row.first, row.second)): row for row in met[met.axis == axis].itertuples()}
        for row in rows_of.itertuples():
            pair = pairs[frozenset((first, row.checkpoint))]
            assert pair.p == row.p
            assert abs(pair.lead) == pytest.approx(abs(row.behind))
            assert (pair.p < 0.05) == (pair.low > 0 or pair.high < 0), "the interval says the same"


def test_the_front_is_the_best_and_what_beats_it_beyond_chance() -> None:
    rng = np.random.default_rng(1)
    right = {
        "v-1": [1.0] * 36 + [0.0] * 4,
        "w-1": [1.0] * 16 + [0.0] * 24,
        "x-1": [1.0] * 36 + [0.0] * 4,
        "u-1": [0.0] * 40,
    }
    near = {
        "v-1": noisy(rng, 0.5, 40),
        "w-1": noisy(rng, 0.9, 40),
        "x-1": noisy(rng, 0.48, 40),
        "u-1": noisy(rng, 0.7, 40),
    }
    found = one_axis(right, near, seeds=2)
    assert found.checkpoint[found.best & (found.axis == "overall")].tolist() == ["v-1"]
    assert set(found.checkpoint[found.pareto]) == {"v-1", "w-1"}, "x is no better than v; u is beaten by w"
    assert set(found.axis[found.pareto]) == {"overall"}


def test_overfitting_is_a_rise_and_a_fall_beyond_chance() -> None:
    rng = np.random.default_rng(2)
    right = {"v-1": [1.0] * 40, "v-2": [1.0] * 38 + [0.0] * 2, "v-3": [1.0] * 8 + [0.0] * 32, "w-9": [0.0] * 40}
    near = {
        "v-1": noisy(rng, 0.4, 40),
        "v-2": noisy(rng, 0.5, 40),
        "v-3": noisy(rng, 0.9, 40),
        "w-9": noisy(rng, 0.95, 40),
    }
    found = one_axis(right, near, seeds=2)
    assert found[found.overfit].checkpoint.tolist() == ["v-3"], "v-2 fell by chance, w-9 has no earlier checkpoint"


def test_who_copies_is_broken_or_lacks_trials_is_left_out_with_the_reason() -> None:
    names = ["v-1", "v-2", "v-3", "v-4", "w-1"]
    table = study({name: [1.0] * 20 for name in names}, {name: [0.1 * n + 0.5] * 20 for n, name in enumerate(names)})
    table = table[(table.checkpoint != "v-3") | (table.value != "value007")]
    copies = rows("v-4", [0.99] * 20, metric="copy")
    copies["read_as"] = ["crops/1.png"] * 6 + [None] * 14
    honest = rows("v-1", [0.99] * 20, metric="copy")
    honest["read_as"] = ["crops/1.png"] * 2 + [None] * 18
    broken = rows("v-2", [1.0] * 2 + [0.0] * 18, metric="broken")
    refs = references({"species": [1.0] * 20}, {"species": [0.0] * 20})
    found = board_of(leaderboard(pd.concat([table, copies, honest, broken]), refs, **RULE), "overall")
    assert found.excluded.dropna().to_dict() == {
        "v-2": "2 of 20 pictures are broken (of one colour, or no numbers)",
        "v-3": "1 of 20 trials are missing: run the job evaluate again",
        "v-4": "6 of 20 pictures look like copies of training pictures",
    }
    assert found["rank"].dropna().to_dict() == {"w-1": 1, "v-1": 2}
    assert found.score["v-4"] > 0.8, "what it reached is still shown"
    assert TABLES["leaderboard"].problems(found.reset_index()[[c.name for c in TABLES["leaderboard"].columns]]) == []


def test_the_same_seed_gives_the_same_table() -> None:
    rng = np.random.default_rng(0)
    table = study(
        {n: (rng.random(20) < 0.7).astype(float) for n in ("v-1", "w-1", "x-1")},
        {n: rng.random(20) for n in ("v-1", "w-1", "x-1")},
    )
    refs = references({"species": [1.0] * 20}, {"species": [0.0] * 20})
    pd.testing.assert_frame_equal(
        leaderboard(table, refs, **RULE), leaderboard(table.sample(frac=1, random_state=1), refs, **RULE)
    )


def test_several_samplers_of_a_trial_are_one_trial() -> None:
    """Copies of the same picture add no certainty: the interval must not shrink."""
    once = study({"v-1": [1, 0, 1, 0, 1, 1]}, {"v-1": [0.1, 0.2, 0.3, 0.1, 0.2, 0.3]})
    copies = pd.concat([once.assign(cell=once.cell + f"/{n}") for n in range(8)])
    refs = references({"species": [1.0] * 6}, {"species": [0.0] * 6})
    narrow, wide = (leaderboard(table, refs, **RULE) for table in (once, copies))
    pd.testing.assert_frame_equal(narrow[["low", "high", "p"]], wide[["low", "high", "p"]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, r: (s[:0], r), "no scores to rank"),
        (lambda s, r: (s, r[r.checkpoint != "held-out"]), "no likeness of the concept's own pictures"),
        (lambda s, r: (s, r[r.value != "value001"]), "1 of 4 trials have no picture without the embedding"),
        (lambda s, r: (s[s.metric != "likeness"], r), "no checkpoint to rank .*4 of 4 trials are missing"),
    ],
)
def test_what_cannot_be_ranked_is_said(change, words: str) -> None:
    refs = references({"species": [1.0] * 4}, {"species": [0.0] * 4})
    table, refs = change(study({"v-1": [1.0] * 4}, {"v-1": [0.5] * 4}), refs)
    with pytest.raises(ValueError, match=words):
        leaderboard(table, refs, **RULE)


@pytest.mark.parametrize("plot", [leaderboard_plot, steps_plot])
def test_plots_are_pictures_and_the_same_each_time(plot) -> None:
    found = one_axis(
        {"v-100": [1, 0], "v-200": [1, 1], "w-100": [0, 0]}, {n: [0.5, 0.4] for n in ("v-100", "v-200", "w-100")}
    )
    drawn = plot(found.replace("v", "v$a$"))
    with Image.open(io.BytesIO(drawn)) as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 4
    assert plot(found.replace("v", "v$a$")) == drawn
