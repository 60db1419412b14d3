import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.evaluation.infotext import infotext, parse_infotext

SETTINGS = {"Steps": 20, "Sampler": "DDIM", "CFG scale": 7.0, "Seed": 6, "Size": "512x512"}


def independent(text: str) -> dict[str, str]:
    """The reader's expression, as the format's reference states it, applied to the last line."""
    import json

    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', text.rsplit("\n", maxsplit=1)[-1])
    return {key: json.loads(value) if value.startswith('"') else value for key, value in pairs}


def test_the_text_is_that_of_the_format() -> None:
    assert infotext("a wolf\nat sea", "blurry", SETTINGS) == (
        "a wolf\nat sea\nNegative prompt: blurry\nSteps: 20, Sampler: DDIM, CFG scale: 7.0, Seed: 6, Size: 512x512"
    )


def comfyui(text: str) -> tuple[str, str, dict[str, str]] | None:
    """What ComfyUI's import of such texts does, step by step: None where it gives up."""
    settings = text.rfind("\nSteps:")
    negative = text.rfind("\nNegative prompt:", 0, settings + 1)
    if settings < 0 or negative < 0:
        return None
    # JavaScript's substring changes places of its ends when the first is behind the second.
    start, end = sorted((negative + 18, settings))
    pairs = re.findall(r'\s*([^:]+:\s*(?:[^"{].*?|".*?"|\{.*?\}))\s*(?:,|$)', text[settings:].split("\n")[1])
    told = dict(pair.split(":", 1) for pair in pairs)
    return text[:negative].strip(), text[start:end].strip(), {key.lower(): value.strip() for key, value in told.items()}


@pytest.mark.parametrize("negative", ["", "blurry\ndark"])
def test_comfyui_imports_a_text_with_and_without_a_negative_prompt(negative: str) -> None:
    found = comfyui(infotext("a wolf\nat sea", negative, SETTINGS))
    assert found is not None
    assert found[:2] == ("a wolf\nat sea", negative)
    assert (found[2]["seed"], found[2]["sampler"], found[2]["cfg scale"]) == ("6", "DDIM", "7.0")


def test_hashes_are_quoted_so_that_readers_keep_them_whole() -> None:
    text = infotext("x", "", {**SETTINGS, "TI hashes": "ember: 0123456789ab"})
    assert text.endswith('TI hashes: "ember: 0123456789ab"')
    assert independent(text)["TI hashes"] == "ember: 0123456789ab"


values = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).map(str.strip).filter(bool)


@given(value=values, end=st.sampled_from(["", ",", '"', ":", " "]))
def test_any_value_is_read_back_by_the_reference_expression(value: str, end: str) -> None:
    text = infotext("p", "n", {**SETTINGS, "Study": value + end})
    assert independent(text)["Study"] == value + end
    assert parse_infotext(text)["Study"] == value + end


def test_quotes_of_other_programs_are_left_as_they_are() -> None:
    found = parse_infotext('p\nSteps: 20, Sampler: DDIM, Seed: 6, Hashes: "a" b')
    assert found["Hashes"] == '"a" b'


def test_the_mark_of_the_negative_prompt_counts_only_where_a_line_starts() -> None:
    prompt = "a sign with Negative prompt: on it"
    found = parse_infotext(infotext(prompt, "blurry\ndark", SETTINGS))
    assert (found["Prompt"], found["Negative prompt"]) == (prompt, "blurry\ndark")


def test_a_last_line_of_few_pairs_belongs_to_the_prompt() -> None:
    assert parse_infotext("a wolf\nat sea, mood: calm")["Prompt"] == "a wolf\nat sea, mood: calm"


@pytest.mark.parametrize("negative", ["", "low quality, text"])
def test_prompts_are_read_back(negative: str) -> None:
    found = parse_infotext(infotext("one\ntwo, three", negative, SETTINGS))
    assert (found["Prompt"], found["Negative prompt"], found["Seed"]) == ("one\ntwo, three", negative, "6")
