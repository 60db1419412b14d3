import collections
import json

import pandas as pd
import pytest

from ti_pipeline.evaluation.suites import (
    Cell,
    SuiteError,
    axes_of,
    cells_for,
    chosen_checkpoints,
    commonest_tags,
    prompt_tags,
    replaced,
)
from ti_pipeline.studies import Axis, Study
from ti_pipeline_tests.shared_data import E621, needs_shared


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


def cells(of: Study, table: pd.DataFrame | None = None, base: str = "base", **options: object) -> list[Cell]:
    return cells_for(of, "v", checkpoints(1) if table is None else table, base, axes=axes_of(of), **options)


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
    found = cells(study(axes=axes, seeds=[1, 2], samplers=samplers, sizes=[64, 128]), checkpoints(1, 2))
    assert len(found) == 2 * 3 * 2 * 2 * 2
    assert len({cell.cell for cell in found}) == len(found)
    assert {cell.clip_skip for cell in found} == {2}
    assert {cell.prompt for cell in found} == {"ember, a", "ember, b", "ember, c"}


def test_the_identity_of_a_cell_changes_with_its_embedding_and_base() -> None:
    axes = {"one": {"prompt": "[name], a", "values": ["a"]}}
    one = cells(study(axes=axes))[0]
    other_base = cells(study(axes=axes), base="other")[0]
    other_file = cells(study(axes=axes), checkpoints(1).assign(sha256="b" * 64))[0]
    assert len({one.cell, other_base.cell, other_file.cell}) == 3


def test_a_study_without_axes_gets_the_comparison_protocol() -> None:
    assert list(axes_of(study())) == ["species", "body_type", "clothing", "background", "multiple", "detail"]


def ranking(**counts: int) -> pd.DataFrame:
    ordered = sorted(counts, key=lambda tag: -counts[tag])
    places = range(1, len(ordered) + 1)
    rows = {"tag": ordered, "category": "species", "count": [counts[tag] for tag in ordered], "category_rank": places}
    return pd.DataFrame(rows)


IMPLIED = [("wolf", "canine"), ("fox", "canine"), ("canine", "mammal"), ("lion", "mammal"), ("fennec", "fox")]


def test_the_commonest_species_are_those_of_the_studys_own_ranking_without_names_of_groups() -> None:
    counts = ranking(mammal=100, canine=72, wolf=50, fox=20, lion=25, dragon=9, canis=3, fennec=4)
    implications = pd.DataFrame(IMPLIED, columns=["antecedent", "consequent"])
    # 97 of 100 mammals and 70 of 72 canines are something more special; 4 of 20 foxes are.
    assert commonest_tags(counts, implications, "species", 5) == ["wolf", "lion", "fox", "dragon", "fennec"]
    assert commonest_tags(counts, implications, "character", 5) == []


def test_without_a_catalog_the_axis_asks_for_species_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    counts = ranking(mammal=100, canid=75, canine=72, canis=55, wolf=50, fox=20, lion=25, felid=25, otter=3)
    for without in (None, pd.DataFrame({"antecedent": [], "consequent": []})):
        assert axes_of(study(), counts, without)["species"].values == ["wolf", "lion", "fox", "otter", "domestic dog"]
    assert "evaluation.axes.species: there is no catalog" in caplog.text
    assert "it asks for wolf, lion, fox, otter" in caplog.text


@needs_shared
def test_without_a_catalog_recorded_posts_give_what_the_sites_implications_give() -> None:
    """The 572 recorded posts; the implications are the site's export."""
    pages = (json.loads(path.read_text(encoding="utf-8"))["posts"] for path in sorted(E621.glob("posts_*.json")))
    counted = collections.Counter(tag for posts in pages for post in posts for tag in post["tags"]["species"])
    export = pd.read_csv(E621 / "tag_implications_2025-05-01_strict.csv").query("status == 'active'")
    edges = export.rename(columns={"antecedent_name": "antecedent", "consequent_name": "consequent"})
    with_catalog = commonest_tags(ranking(**counted), edges, "species", 10)
    without = commonest_tags(ranking(**counted), None, "species", 10)
    assert len(set(with_catalog) & set(without)) >= 9
    assert with_catalog[:4] == without[:4]


def test_the_species_axis_asks_for_the_five_commonest() -> None:
    counts = ranking(canine=71, wolf=50, fox=20, arctic_fox=19, lion=15, tiger=14, dragon=9)
    axis = axes_of(study(), counts, pd.DataFrame(IMPLIED, columns=["antecedent", "consequent"]))["species"]
    assert axis.values == ["wolf", "fox", "arctic fox", "lion", "tiger"]
    assert replaced(axis, "arctic fox", "ember")[0] == "ember, arctic fox, solo, anthro"


def test_a_ranking_that_is_too_short_is_filled_up_with_popular_species() -> None:
    assert axes_of(study(), ranking(otter=3))["species"].values == ["otter", "domestic dog", "wolf", "tiger", "lion"]


def test_an_axis_of_tags_that_the_study_does_not_have_is_an_error() -> None:
    axis = {"prompt": "[name], WHO", "search": "WHO", "commonest": {"category": "character"}}
    with pytest.raises(SuiteError, match=r"evaluation\.axes\.who: the study has 0 character tags"):
        axes_of(study(axes={"who": axis}), ranking(wolf=3))


def test_clip_skips_are_the_variants_own_unless_the_study_says_which() -> None:
    axes = {"one": {"prompt": "[name], a", "values": ["a"]}}
    assert {cell.clip_skip for cell in cells(study(axes=axes, seeds=[1]))} == {2}
    assert [cell.clip_skip for cell in cells(study(axes=axes, seeds=[1], clip_skips=[1, 3]))] == [1, 3]


def test_only_an_embedding_that_is_named_decides_a_cell() -> None:
    axes = {"two": {"prompt": "[name], a", "search": "a", "values": ["a", "a, Style-Of"]}}
    of = study(axes=axes, seeds=[1], embeddings={"style-of": "x.pt", "else": "y.pt"})
    plain, both = cells(of, others={"style-of": "c" * 64, "else": "d" * 64})
    changed_plain, changed_both = cells(of, others={"style-of": "e" * 64, "else": "f" * 64})
    assert plain.others == ()
    assert both.others == (("style-of", "c" * 64),)
    assert plain.cell == changed_plain.cell
    assert both.cell != changed_both.cell


def test_the_shipped_combination_puts_each_embedding_beside_the_own() -> None:
    axis = axes_of(study(embeddings={"other": "other.pt"}))["combination"]
    assert [replaced(axis, value, "ember")[0] for value in axis.values] == [
        "ember, wolf, solo, anthro, detailed background, city",
        "ember, other, wolf, solo, anthro, detailed background, city",
    ]
    assert prompt_tags(axis, axis.values[1], ["other"]) == ["wolf", "solo", "anthro", "detailed background", "city"]


def test_the_tags_of_a_prompt_are_what_it_says_beside_embeddings() -> None:
    axis = Axis(prompt="[name], wolf,  shirt, other, shirt", values=["wolf", "sea, lion"])
    assert prompt_tags(axis, "sea, lion", ["Other"]) == ["sea", "lion", "shirt"]
