import pandas as pd
import pytest

from ti_pipeline.evaluation.suites import SuiteError, axes_of, cells_for, chosen_checkpoints, replaced
from ti_pipeline.studies import Axis, Study


def study(**evaluation: object) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo"},
            "base_models": {"b": {}},
            "variants": {"v": {"vectors": 8, "base": "b", "steps": 1, "token": "ember", "clip_skip": 2}},
            "evaluation": evaluation,
        }
    )


def checkpoints(*steps: int) -> pd.DataFrame:
    return pd.DataFrame({"checkpoint": [f"v-{s}" for s in steps], "step": steps, "sha256": ["a" * 64] * len(steps)})


def test_the_first_value_is_what_is_searched_for() -> None:
    axis = Axis(prompt="[name], a wolf at sea", values=["wolf", "lion"], negative="wolf eyes")
    assert replaced(axis, "lion", "ember") == ("ember, a lion at sea", "lion eyes")


def test_the_embeddings_name_is_no_place_to_search() -> None:
    assert replaced(Axis(prompt="[name], a", values=["a", "b"]), "b", "ab-a") == ("ab-a, b", "")


def test_the_name_itself_may_be_searched_to_compare_without_it() -> None:
    axis = Axis(prompt="[name], wolf", values=["[name], wolf", "wolf"])
    assert [replaced(axis, value, "ember")[0] for value in axis.values] == ["ember, wolf", "wolf"]


def test_a_search_text_only_inside_the_mark_is_an_error() -> None:
    with pytest.raises(SuiteError, match="'am' is nowhere"):
        replaced(Axis(prompt="[name], wolf", values=["am", "lion"]), "lion", "ember")


def test_without_checkpoints_there_is_nothing_to_evaluate() -> None:
    with pytest.raises(SuiteError, match="no checkpoints"):
        chosen_checkpoints(checkpoints(), 3)


def test_values_may_be_one_line_of_csv_with_quotes() -> None:
    axis = Axis.model_validate({"prompt": "[name], city", "values": 'city, "detailed background, sea", room'})
    assert axis.values == ["city", "detailed background, sea", "room"]


def test_a_search_text_that_is_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match="'wolf' is neither in the prompt"):
        Axis(prompt="[name], lion", values=["wolf", "tiger"])


@pytest.mark.parametrize(("count", "expected"), [(1, [6]), (2, [3, 6]), (3, [2, 4, 6]), (9, [1, 2, 3, 4, 5, 6])])
def test_checkpoints_are_spread_evenly_and_end_with_the_last(count: int, expected: list[int]) -> None:
    assert chosen_checkpoints(checkpoints(1, 2, 3, 4, 5, 6), count).step.tolist() == expected


def test_steps_without_checkpoint_are_named() -> None:
    with pytest.raises(SuiteError, match=r"no checkpoint at step 5 \(there are: 2, 4\)"):
        chosen_checkpoints(checkpoints(2, 4), [4, 5])


def test_cells_are_the_whole_product_and_all_different() -> None:
    axes = {"one": {"prompt": "[name], a", "values": ["a", "b"]}, "two": {"prompt": "[name], c", "values": ["c"]}}
    samplers = [{"name": "DDIM"}, {"name": "Euler a", "cfg": 9}]
    found = cells_for(
        study(axes=axes, seeds=[1, 2], samplers=samplers, sizes=[64, 128]), "v", checkpoints(1, 2), "base"
    )
    assert len(found) == 2 * 3 * 2 * 2 * 2
    assert len({cell.cell for cell in found}) == len(found)
    assert {cell.clip_skip for cell in found} == {2}
    assert {cell.prompt for cell in found} == {"ember, a", "ember, b", "ember, c"}


def test_the_identity_of_a_cell_changes_with_its_embedding_and_base() -> None:
    axes = {"one": {"prompt": "[name], a", "values": ["a"]}}
    one = cells_for(study(axes=axes), "v", checkpoints(1), "base")[0]
    other_base = cells_for(study(axes=axes), "v", checkpoints(1), "other")[0]
    other_file = cells_for(study(axes=axes), "v", checkpoints(1).assign(sha256="b" * 64), "base")[0]
    assert len({one.cell, other_base.cell, other_file.cell}) == 3


def test_a_study_without_axes_gets_the_comparison_protocol() -> None:
    assert list(axes_of(study())) == ["species", "body_type", "clothing", "background", "multiple", "detail"]
