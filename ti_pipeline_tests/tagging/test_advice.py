import pytest

from ti_pipeline.studies import CaptionPlan, Variant
from ti_pipeline.tagging.advice import advise
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline_tests.tagging.test_captions import made

# Eleven pictures with a species each and seven other tags.
TAGS = {
    n: {"species": ["wolf" if n % 2 else "fox"], "general": ["hat", "tie", "coat", "belt", "boots", "scarf", "ring"]}
    for n in range(11)
}


def advice(vectors: int, plan: CaptionPlan, tags=TAGS, **settings):
    captions, vocabulary = made(tags, plan)
    variant = Variant(vectors=vectors, base="b", captions="p", steps=1, **settings)
    return advise("v", variant, vocabulary, captions, clip_tokenizer())


def test_the_numbers_are_those_of_the_captions():
    told = advice(16, CaptionPlan())
    assert (told.budget, told.captions, told.tags) == (59, 11, 9)
    assert told.tags_per_picture == 8
    assert told.tokens == 16  # eight tags of one token, seven commas, and the template's
    assert told.longer == 0
    assert told.pictures_per_tag == 11
    assert told.plan == "p"


@pytest.mark.parametrize(
    ("vectors", "plan", "words"),
    [
        (16, CaptionPlan(), ["too many vectors for few tags"]),
        (4, CaptionPlan(), []),
        (32, CaptionPlan(), ["push the rest of the prompt aside", "too many vectors for few tags"]),
        (1, CaptionPlan(), []),
        (4, CaptionPlan(source="none"), ["captions without tags"]),
        (64, CaptionPlan(), ["push the rest", "too many vectors", "longer than the 11 tokens that 64"]),
    ],
)
def test_warnings(vectors, plan, words):
    found = advice(vectors, plan).warnings
    assert len(found) == len(words), found
    for warning, part in zip(found, words, strict=True):
        assert part in warning


def test_many_tags_for_one_vector_and_rare_tags():
    many = {n: {"general": [f"tag{n}{letter}" for letter in "abcdefghij"]} for n in range(6)}
    found = advice(1, CaptionPlan(), many).warnings
    assert ["few vectors for many tags" in found[0], "half of the tags stand in 1 captions" in found[1]] == [True] * 2


@pytest.mark.parametrize(
    ("setting", "words"), [("fit", "lose tags"), ("cut", "lose their tail"), ("chunks", "encoded in chunks")]
)
def test_what_happens_to_long_prompts_is_said(setting, words):
    assert advice(64, CaptionPlan(), long_prompts=setting).warnings[-1].endswith(words)
