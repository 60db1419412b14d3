"""From counting to captions, tokens and files and back, no tag turns into another."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.inversion.conditioning import prompt_tokens
from ti_pipeline.sources.sidecars import read_sidecars
from ti_pipeline.studies import CaptionPlan, Variant
from ti_pipeline.tagging.budget import trained_captions
from ti_pipeline.tagging.exports import write_dataset
from ti_pipeline.tagging.pieces import for_web_uis, piece, readable
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline_tests.tagging.frames import STRANGE, steady
from ti_pipeline_tests.tagging.test_captions import made
from ti_pipeline_tests.tagging.test_exports import kohya_reads, pictures

EMOTICONS = [">_<", "^_^", "o_o", ">:(", ">:)", ":(", ":)", "(o)_(o)", "||_||", "=_=", ":3", "<3", "\\o/"]
# Words, emoticons, what attention syntax looks like, and letters that only differ in case.
names = st.sampled_from(
    [
        *EMOTICONS,
        *STRANGE,
        *("wolf_(species)", "wolf_species", "Wolf_(Species)", "(wolf:1.2)", "[hat]", "((big))", "a:b", "solo"),
        *("blue_eyes", "blue__eyes", "Blue Eyes", "<|endoftext|>", "<|startoftext|>fox", "weight:1.5", "{hat|tie}"),
    ]
)
plans = st.builds(
    CaptionPlan,
    categories=st.just("all"),
    underscores=st.sampled_from(["spaces", "kept"]),
    parentheses=st.sampled_from(["kept", "escaped", "stripped"]),
    per_image=st.sampled_from([None, 3]),
)


@pytest.mark.parametrize("tag", EMOTICONS)
@pytest.mark.parametrize("parentheses", ["kept", "stripped"])
def test_emoticons_stay_as_they_are(tag, parentheses):
    assert piece(tag, CaptionPlan(parentheses=parentheses)) == tag


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("digital_media_(artwork)", "digital media artwork"),
        ("a_(b_(word))", "a b word"),
        ("(wolf:1.2)", "wolf:1.2"),
        ("4_arms", "4 arms"),
    ],
)
def test_brackets_around_words_are_stripped(tag, expected):
    assert piece(tag, CaptionPlan(parentheses="stripped")) == expected


def spaceless(text: str) -> str:
    return re.sub(r"\s", "", text).casefold()


@steady
@given(st.dictionaries(st.integers(1, 9), st.lists(names, max_size=8), max_size=5), plans)
def test_counting_captions_tokens_export_and_back_change_nothing(tmp_path_factory, tags, plan):
    captions, vocabulary = made({post: {"general": of_post} for post, of_post in tags.items()}, plan)
    kept = vocabulary.tag[vocabulary.kept].tolist()
    tag_of = {piece(tag, plan).casefold(): tag for tag in kept}
    assert len(tag_of) == len(kept)  # no two tags are written the same
    tokenizer, root = clip_tokenizer(), tmp_path_factory.mktemp("there")
    wording = for_web_uis if plan.parentheses == "escaped" else str
    write_dataset(captions, pictures(root, *captions.post_id), root, root / "out", wording=wording)
    for row in captions.itertuples():
        pieces = row.caption.split(", ") if row.caption else []
        assert [tag_of[words.casefold()] for words in pieces] == row.tags
        ids = tokenizer(row.caption, add_special_tokens=False).input_ids
        assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(ids)
        assert spaceless(tokenizer.decode(ids)) == spaceless(row.caption)
        written = kohya_reads(root / "out" / f"{row.post_id}.txt")
        plain = re.sub(r"\\([()\[\]])", r"\1", written) if plan.parentheses == "escaped" else written
        assert plain == row.caption


def test_the_projects_own_folder_source_reads_an_export_back(tmp_path):
    tags = ["wolf_(species)", "blue_eyes", "solo", "^_^", ":)", ">:(", "(o)_(o)"]
    captions, _ = made({7: {"general": tags}}, CaptionPlan(parentheses="escaped"))
    write_dataset(captions, pictures(tmp_path, 7), tmp_path, tmp_path / "out", wording=for_web_uis)
    read, _ = read_sidecars([tmp_path / "out/7.txt"])
    assert sorted(read["tags"]["general"]) == sorted(tags)


@steady
@given(st.text())
def test_what_was_made_readable_stays_so(tag):
    assert readable(readable(tag)) == readable(tag)


@pytest.mark.parametrize("long_prompts", ["fit", "chunks"])
def test_a_tag_of_the_embeddings_name_does_not_insert_it_twice(long_prompts):
    captions, _ = made(
        {1: {"species": ["Ember", "wolf"], "general": ["burning_ember", "december", "embers"]}}, CaptionPlan()
    )
    variant = Variant(vectors=8, base="b", steps=1, token="ember", long_prompts=long_prompts)
    told = trained_captions(captions, variant)
    assert set(told.tags.iloc[0]) == {"wolf", "december", "embers"}
    assert told.tag_count.tolist() == [3]
    tokens = prompt_tokens(clip_tokenizer(), f"ember, {told.caption.iloc[0]}", {"ember": 8})
    assert sum(isinstance(token, tuple) for token in tokens) == 8
