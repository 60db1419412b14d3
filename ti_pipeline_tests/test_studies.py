"""The study format itself: inheritance, references, names."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ti_pipeline.studies import Axis, Study, Variant
from ti_pipeline.study_fields import BaseName, Name, Token


def study(**parts) -> Study:
    values = {
        "name": "x",
        "source": {"kind": "demo"},
        "base_models": {"b": {}},
        "common": {"base": "b", "steps": 100},
        "variants": {"v8": {"vectors": 8}},
    }
    return Study.model_validate(values | parts)


def test_common_gives_values_and_variants_override_them():
    loaded = study(
        common={"base": "b", "steps": 100, "epochs": 3, "vectors": 4},
        variants={"a": None, "c": {"vectors": 9, "epochs": None}},
    )
    assert [(v.vectors, v.steps, v.epochs) for v in loaded.variants.values()] == [(4, 100, 3), (9, 100, None)]


def test_named_curations_and_crop_sets_inherit():
    loaded = study(
        curation={"images": 9, "min_side": 70, "shares": {"solo": 0.5}},
        curations={"few": {"images": 3}},
        crops={"sizes": [64], "focal": {"face": 1.0}, "sets": {"a": {"size": 128, "curation": "few"}}},
    )
    few = loaded.named_curations()["few"]
    assert (few.images, few.min_side, few.shares.solo) == (3, 70, 0.5)
    crops = loaded.crops.named()
    assert list(crops) == ["64", "a"]
    assert {c.focal.face for c in crops.values()} == {1.0}
    assert (crops["64"].curation, crops["a"].curation) == ("default", "few")


def test_a_variant_resolves_to_the_first_plan_and_crop_and_the_studys_seed():
    loaded = study(seed=5, crops={"sizes": [192, 64]}, captions={"p": {}, "q": {}})
    variant = loaded.variant("v8")
    assert (variant.captions, variant.crop, variant.resolution, variant.seed) == ("p", "192", 192, 5)
    assert variant.token == "v8"


def test_a_name_of_its_own_is_in_lower_case():
    """diffusers takes one vector alone of an embedding whose name has a capital letter."""
    loaded = study(variants={"wideV1": {"vectors": 8}})
    assert loaded.variant("wideV1").token == "widev1"


@pytest.mark.parametrize(
    ("token", "resolved"),
    [("{study}-{variant}", "x-v8"), ("{variant}_by.me", "v8_by.me"), ("own", "own")],
)
def test_tokens_may_name_study_and_variant(token, resolved):
    assert study(common={"base": "b", "steps": 1, "token": token}).variant("v8").token == resolved


def test_a_crop_set_may_be_named_by_a_number():
    assert study(common={"base": "b", "steps": 1, "crop": 768}).variant("v8").resolution == 768


def test_axis_values_read_as_csv_like_a_web_ui():
    axis = Axis(prompt='[name], "wolf, big"', search="wolf", values='wolf, "wolf, big",tiger')
    assert axis.values == ["wolf", "wolf, big", "tiger"]


@pytest.mark.parametrize("rate", [0.005, "5e-3", "0.005:100, 1e-3:1000, 1e-5"])
def test_learning_rates_are_numbers_or_schedules(rate):
    assert study(common={"base": "b", "steps": 1, "learning_rate": rate}).variant("v8").learning_rate == rate


@pytest.mark.parametrize(
    "parts",
    [
        {"common": {"base": "b", "steps": 1, "learning_rate": "0.1:5, 0.2:5"}},
        {"common": {"base": "b", "steps": 1, "vectors": 76}},
        {"common": {"base": "b", "steps": 1, "templates": ["a picture"]}},
        {"common": {"base": "b"}},
        {"crops": {"sizes": []}},
        {"crops": {"sizes": [100]}},
        {"evaluation": {"seeds": [6, 6]}},
        {"evaluation": {"checkpoints": 0}},
        {"evaluation": {"axes": {"a": {"prompt": "[name]", "values": [""]}}}},
        {"evaluation": {"axes": {"a": {"prompt": "wolf", "values": ["wolf"]}}}},
        {"base_models": {}},
        {"variants": {}},
        {"base_models": {"b": {"file": "a.ckpt", "hub": "c"}}},
    ],
)
def test_what_could_not_run_is_refused(parts):
    values = {"variants": {"v8": {} if "vectors" in parts.get("common", {}) else {"vectors": 8}}} | parts
    with pytest.raises(ValidationError):
        study(**values)


def _accepted(kind, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


# What Windows, POSIX and A1111's prompt syntax give a meaning to.
_DANGEROUS = set("<>:\"/\\|?*\0()[]{},;#%&$!`'~^= ") | {chr(code) for code in range(32)}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from([*string.ascii_letters, *string.digits, *"-_. /\\:{}é\n"]), max_size=70))
def test_accepted_names_are_safe_file_names_and_partition_keys(text):
    for kind in (Name, BaseName, Token):
        if _accepted(kind, text):
            plain = re.sub(r"\{(study|variant)\}", "v", text) if kind is Token else text
            assert plain.isascii()
            assert not _DANGEROUS & set(plain)
            assert plain[0].isalnum()
            assert plain[-1].isalnum()  # Windows drops dots at the end
            assert len(text) <= 64
    if _accepted(Name, text):
        assert "__" not in text  # the separator of partition keys
        assert "." not in text


@pytest.mark.parametrize("name", ["v8", "reowoofTagV2", "a-b_c", "8", "Y" * 64])
def test_ordinary_names_are_accepted(name):
    assert _accepted(Name, name)
    assert _accepted(Token, name)
    assert _accepted(BaseName, name)


@pytest.mark.parametrize("name", ["", "a__b", "-a", "a-", "a b", "a.b", "a/b", "../a", "a\n", "é", "Y" * 65, "a--b"])
def test_dangerous_names_are_refused(name):
    assert not _accepted(Name, name)


def test_base_models_may_carry_versions():
    assert _accepted(BaseName, "SD-1.4")
    assert not _accepted(BaseName, "SD 1.4")


def test_prodigy_has_the_rate_it_is_made_for_and_no_smaller_one():
    given = {"vectors": 4, "base": "b", "steps": 9, "optimizer": "prodigy"}
    assert Variant(**given).learning_rate == 1
    assert Variant(**given, learning_rate="0.5:3, 0.1").learning_rate == "0.5:3, 0.1"
    with pytest.raises(ValidationError, match=r"learning_rate 0\.005 would train nothing: prodigy finds its own rate"):
        Variant(**given, learning_rate=0.005)


def test_patience_without_held_out_pictures_is_refused():
    study = {
        "name": "s",
        "source": {"kind": "demo"},
        "base_models": {"b": {}},
        "curation": {"validation_share": 0},
        "curations": {"held": {"validation_share": 0.2}},
        "crops": {"sets": {"all": {"size": 64}, "some": {"size": 64, "curation": "held"}}},
        "variants": {"v": {"vectors": 4, "base": "b", "steps": 9, "patience": 2, "crop": "all"}},
    }
    with pytest.raises(ValidationError, match=r"variants\.v\.patience.*waits for the loss on held-out pictures"):
        Study.model_validate(study)
    study["variants"]["v"]["crop"] = "some"
    Study.model_validate(study)
