import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.inversion.conditioning import prompt_length
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.budget import captions_over_budget, fit_captions, token_budget
from ti_pipeline.tagging.captions import write_captions
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.pieces import readable
from ti_pipeline.tagging.tags import post_tags_table
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.shared_data import needs_shared
from ti_pipeline_tests.tagging.frames import STRANGE, posts_of, recorded_tags, steady, studies
from ti_pipeline_tests.tagging.test_vocabulary import plans
from ti_pipeline_tests.tiny_models import DEMO_BASE

TAGS = {
    1: {"species": ["fox", "mammal"], "general": ["blue_eyes", "hat"], "artist": ["someone"]},
    2: {"species": ["mammal", "wolf"], "general": ["blue_eyes"]},
    3: {},
    4: {"species": ["mammal"], "general": ["sitting", "blue_eyes"]},
}


def made(tags, plan: CaptionPlan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return captions and vocabulary of posts under a plan."""
    post_tags = post_tags_table(posts_of(tags))
    vocabulary = reduce_vocabulary(tag_frequencies(post_tags, posts_count=len(tags)), post_tags, plan)
    table = write_captions(list(tags), post_tags, vocabulary, plan)
    assert TABLES["captions"].problems(table) == []
    return table, vocabulary


def texts(tags, plan: CaptionPlan) -> dict[int, str]:
    table, _ = made(tags, plan)
    return dict(zip(table.post_id, table.caption, strict=True))


def test_order_is_category_then_share_then_name():
    assert texts(TAGS, CaptionPlan()) == {
        1: "mammal, fox, blue eyes, hat",
        2: "mammal, wolf, blue eyes",
        3: "",
        4: "mammal, blue eyes, sitting",
    }
    assert (
        texts(TAGS, CaptionPlan(categories="all", order=["general", "artist"]))[1]
        == "blue eyes, hat, someone, mammal, fox"
    )


def test_tags_that_only_the_keep_list_lets_in_come_last():
    assert texts(TAGS, CaptionPlan(categories=["species"], keep=["some*"]))[1] == "mammal, fox, someone"


def test_order_by_name():
    assert texts(TAGS, CaptionPlan(categories="all", order_by="name"))[1] == "fox, mammal, blue eyes, hat, someone"


@pytest.mark.parametrize(
    ("parentheses", "expected"),
    [("kept", "wolf (species), :)"), ("escaped", "wolf (species), :)"), ("stripped", "wolf species, :)")],
)
def test_parentheses(parentheses, expected):
    tags = {1: {"species": ["wolf_(species)"], "general": [":)"]}}
    assert texts(tags, CaptionPlan(parentheses=parentheses))[1] == expected


def test_underscores_kept():
    assert texts(TAGS, CaptionPlan(underscores="kept"))[4] == "mammal, blue_eyes, sitting"


def test_the_limit_keeps_the_rarest_in_the_plans_order():
    table, _ = made(TAGS, CaptionPlan(per_image=2, per_image_by="rarity", at_least={}))
    assert table.tags.tolist() == [["fox", "hat"], ["mammal", "wolf"], [], ["mammal", "sitting"]]
    assert table.priority.tolist() == [["fox", "hat"], ["wolf", "mammal"], [], ["sitting", "mammal"]]
    assert table.tag_count.tolist() == [2, 2, 0, 2]
    assert table.dropped_tags.tolist() == [2, 1, 0, 1]


def test_plan_none():
    table, _ = made(TAGS, CaptionPlan(source="none"))
    assert table.caption.tolist() == [""] * 4
    assert table.dropped_tags.sum() == 0


@pytest.mark.parametrize("tags", [{}, {5: {}}])
def test_studies_without_tags(tags):
    table, _ = made(tags, CaptionPlan(per_image=3))
    assert table.caption.tolist() == [""] * len(tags)


def test_a_tag_stays_one_piece_whatever_its_name():
    table, vocabulary = made({1: {"general": STRANGE}}, CaptionPlan())
    (caption,) = table.caption
    pieces = caption.split(", ")
    assert len(pieces) == table.tag_count.iloc[0] == vocabulary.kept.sum()
    assert set(vocabulary.tag[~vocabulary.kept]) == {"\x01", "\x1c", ",", "___"}
    assert {"comma inside", "fox tail", "gnitirw", "name", "filewords", "👩\u200d🚀", "..", ":3"} <= set(pieces)
    assert caption.replace("\u200d", "").isprintable()


@steady
@given(st.text())
def test_readable_text_has_no_comma_no_control_and_no_placeholder(tag):
    text = readable(tag)
    assert readable(text) == text
    assert not {",", "\n", "\x00", "\u202e"} & set(text)
    assert "[name]" not in text
    assert text == text.strip()


@steady
@given(studies, plans, st.none() | st.integers(1, 4))
def test_captions_say_vocabulary_tags_of_their_post(tags, plan, per_image):
    plan = plan.model_copy(update={"per_image": per_image, "per_image_by": "rarity", "at_least": {}})
    table, vocabulary = made(tags, plan)
    allowed = set(vocabulary.tag[vocabulary.kept])
    count = dict(zip(vocabulary.tag, vocabulary["count"], strict=True))
    assert table.post_id.tolist() == sorted(tags)
    for row in table.itertuples():
        available = {tag for names in tags[row.post_id].values() for tag in names} & allowed
        assert set(row.tags) <= available
        assert row.tag_count == len(row.tags) == min(len(available), per_image or len(available))
        assert row.dropped_tags == len(available) - row.tag_count
        left_out = available - set(row.tags)
        assert max((count[t] for t in row.tags), default=0) <= min((count[t] for t in left_out), default=10**9)
    assert table.equals(made(dict(reversed(tags.items())), plan)[0])


@needs_shared
@pytest.mark.parametrize(
    "plan",
    [
        CaptionPlan(source="none"),
        CaptionPlan(categories=["species"]),
        *(
            CaptionPlan(categories=["species", "general"], budgets={"species": species, "general": general})
            for species, general in [(159, 41), (22, 95), (5, 49)]
        ),
    ],
)
def test_recorded_posts_equal_brute_force(plan):
    tags = recorded_tags()
    table, vocabulary = made(tags, plan)
    rows = {row.tag: row for row in vocabulary[vocabulary.kept].itertuples()}

    def caption(of_post) -> str:
        known = {tag for names in of_post.values() for tag in names} & set(rows)
        ordered = sorted(known, key=lambda t: (rows[t].category != "species", -rows[t].share, t))
        return ", ".join(tag.replace("_", " ") for tag in ordered)

    assert table.caption.tolist() == [caption(tags[post_id]) for post_id in sorted(tags)]


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer(DEMO_BASE / "tokenizer")


def captions(*lines: str) -> pd.DataFrame:
    return pd.DataFrame({"post_id": range(1, len(lines) + 1), "caption": list(lines)})


def test_64_vectors_leave_11_tokens(tokenizer):
    assert [token_budget(vectors) for vectors in (1, 64, 75)] == [74, 11, 0]
    fits, cut = "red wolf" + ", wolf" * 4, "wolf" + ", wolf" * 5  # 11 and 12: a word and a comma are a token each
    table = captions_over_budget(captions(fits, cut), vectors=64, tokenizer=tokenizer, template="[name], [filewords]")
    assert table.to_dict("records") == [{"post_id": 2, "tokens": 12, "budget": 11}]


@pytest.mark.parametrize("template", ["[name], [filewords]", "[filewords], by [name]", "a,[name],b, [filewords]"])
def test_counts_as_the_trainer_does(tokenizer, template):
    lines = [", ".join(["red fox", "sharp teeth", "digital media (artwork)"][: n % 4] * n) for n in range(12)]
    table = captions_over_budget(captions(*lines), vectors=40, tokenizer=tokenizer, template=template)
    lengths = {
        place: prompt_length(
            tokenizer,
            template.replace("[filewords]", line).replace("[name]", "wolfembedding").strip(" ,"),
            {"wolfembedding": 40},
        )
        for place, line in enumerate(lines, 1)
    }
    over = {place: length - 40 for place, length in lengths.items() if length > 75}
    assert dict(zip(table.post_id, table.tokens, strict=True)) == over
    assert over


def test_each_name_in_a_template_takes_its_vectors(tokenizer):
    found = captions_over_budget(captions("fox"), vectors=40, tokenizer=tokenizer, template="[name] [name] [filewords]")
    assert found.to_dict("records") == [{"post_id": 1, "tokens": 1, "budget": 0}]
    none = captions_over_budget(captions("fox"), vectors=75, tokenizer=tokenizer, template="[filewords]")
    assert len(none) == 0


def test_no_captions(tokenizer):
    table = captions_over_budget(captions(), vectors=8, tokenizer=tokenizer, template="[name], [filewords]")
    assert list(table) == ["post_id", "tokens", "budget"]
    assert len(table) == 0


def table_of(*captions_: str) -> pd.DataFrame:
    tags = [caption.split(", ") if caption else [] for caption in captions_]
    return pd.DataFrame(
        {
            "post_id": range(1, len(tags) + 1),
            "caption": pd.Series(captions_, dtype="str"),
            "tags": pd.Series(tags, dtype=object),
            "priority": pd.Series([found[::-1] for found in tags], dtype=object),
            "tag_count": [len(found) for found in tags],
            "dropped_tags": 0,
        }
    )


def test_the_least_informative_tags_make_room(tokenizer):
    """64 vectors leave 11 tokens, of which the template's comma takes one: five tags of a token with their commas."""
    table = table_of("mammal, wolf, hat, tie, cat, dog", "mammal, wolf", "mammal", "")
    fitted = fit_captions(table, vectors=64, tokenizer=tokenizer, templates=["[name], [filewords]"])
    assert fitted.caption.tolist() == ["wolf, hat, tie, cat, dog", "mammal, wolf", "mammal", ""]
    assert fitted.tag_count.tolist() == [5, 2, 1, 0]
    assert fitted.dropped_tags.tolist() == [1, 0, 0, 0]
    assert TABLES["captions"].problems(fitted) == []
    roomy = fit_captions(table, vectors=8, tokenizer=tokenizer, templates=["[name], [filewords]"])
    assert roomy.equals(table)


def test_a_tag_that_no_prompt_has_room_for_goes_before_all_others(tokenizer):
    endless = "supercalifragilisticexpialidocious floccinaucinihilipilification llanfair"
    assert len(tokenizer(endless, add_special_tokens=False).input_ids) >= 20
    table = table_of(f"mammal, {endless}, wolf", "mammal", endless)
    fitted = fit_captions(table, vectors=64, tokenizer=tokenizer, templates=["[name], [filewords]"])
    assert fitted.caption.tolist() == ["mammal, wolf", "mammal", ""]


@steady
@given(
    st.lists(
        st.lists(st.sampled_from(["wolf", "red fox", "(:3)", "digital media (artwork)", "8o"]), unique=True), min_size=1
    ),
    st.integers(1, 75),
    st.lists(
        st.sampled_from(["[name], [filewords]", "a picture of [name] [name], [filewords]"]), min_size=1, max_size=2
    ),
)
def test_fitted_captions_keep_to_the_budget_of_the_trainer(tokenizer, tags, vectors, templates):
    table = table_of(*(", ".join(found) for found in tags))
    fitted = fit_captions(table, vectors=vectors, tokenizer=tokenizer, templates=templates)
    for template in templates:
        alone = prompt_length(
            tokenizer,
            template.replace("[filewords]", "").replace("[name]", "zzember").strip(" ,"),
            {"zzember": vectors},
        )
        for row in fitted.itertuples():
            prompt = template.replace("[filewords]", row.caption).replace("[name]", "zzember").strip(" ,")
            assert prompt_length(tokenizer, prompt, {"zzember": vectors}) <= max(75, alone)
            assert row.caption == ", ".join(row.tags)
    for before, after in zip(table.tags, fitted.tags, strict=True):
        assert [tag for tag in before if tag in after] == after
