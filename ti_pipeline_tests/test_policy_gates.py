"""The policy's gates: no field of a study, no caption and nothing put together of them lets an excluded tag through."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from ti_pipeline.assets.policy import policy_of, require_allowed_pictures, require_clean_texts
from ti_pipeline.e621.policy import OPT_OUT_FILE, ContentPolicy, PolicyError, load_policy
from ti_pipeline.e621.records import posts_table, refused
from ti_pipeline.io_managers import Tables
from ti_pipeline.resources import DataStore
from ti_pipeline.sources.search import Wanted
from ti_pipeline.studies import Study
from ti_pipeline.study_files import LoadedStudy, StudyError, load_study
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.e621.test_policy import FIXED, SPELLINGS, disguised

VALUES = {
    "name": "x",
    "title": "A study",
    "source": {"kind": "demo", "concept": "ember"},
    "base_models": {"b": {}},
    "captions": {"plan": {"keep": ["wolf"]}},
    "common": {"base": "b", "steps": 1},
    "variants": {"v8": {"vectors": 8, "token": "qx-v8", "initializer": "wolf", "templates": ["[name], wolf"]}},
    "evaluation": {"axes": {"a": {"prompt": "[name], wolf", "values": ["wolf", "fox"], "negative": "blurry"}}},
}
# Where a study says something that is learned, written into a caption, or asked for.
PLACES = {
    "title": ("title",),
    "concept": ("source", "concept"),
    "kept tag": ("captions", "plan", "keep", 0),
    "token": ("variants", "v8", "token"),
    "initializer": ("variants", "v8", "initializer"),
    "template": ("variants", "v8", "templates", 0),
    "prompt": ("evaluation", "axes", "a", "prompt"),
    "negative prompt": ("evaluation", "axes", "a", "negative"),
    "value": ("evaluation", "axes", "a", "values", 1),
}


def with_text(values: object, place: tuple[str | int, ...], text: str) -> object:
    if not place:
        return text
    copy = dict(values) if isinstance(values, dict) else list(values)
    copy[place[0]] = with_text(copy[place[0]], place[1:], text)
    return copy


def load(folder: Path, values: object) -> LoadedStudy:
    path = folder / "x.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=False), encoding="utf-8")
    return load_study(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studies")


def test_the_study_itself_is_fine(folder: Path) -> None:
    assert load(folder, VALUES).study.name == "x"


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=25)
@given(tag=disguised())
def test_no_text_of_a_study_says_an_excluded_tag(folder: Path, place: str, tag: str) -> None:
    text = f"[name], wolf, {tag}" if place in {"template", "prompt"} else tag
    with pytest.raises(StudyError, match=r"content policy|must be letters and digits|at most 64 characters"):
        load(folder, with_text(VALUES, PLACES[place], text))


def captions(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"post_id": range(1, len(texts) + 1), "caption": texts})


@given(tag=disguised())
def test_no_caption_says_one(tag: str) -> None:
    study = LoadedStudy(Study.model_validate(VALUES), Path("x.yaml"), "")
    with pytest.raises(PolicyError, match=r"caption of post 2 .* for variant v8"):
        require_clean_texts(study, "v8", captions("wolf", f"wolf, {tag}"), ContentPolicy())


def test_nor_do_a_template_and_a_caption_together() -> None:
    values = with_text(VALUES, PLACES["template"], "[name], under [filewords]")
    study = LoadedStudy(Study.model_validate(values), Path("x.yaml"), "")
    require_clean_texts(study, "v8", captions("the age of steam", "wolf"), ContentPolicy())
    with pytest.raises(PolicyError, match=r"caption of post 1 in '\[name\], under \[filewords\]'"):
        require_clean_texts(study, "v8", captions("age of steam"), ContentPolicy())


NAMES = [f"n{i}" for i in range(8)]
LINKS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([*NAMES, "young"])), max_size=14)


def table(links: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(links, columns=["antecedent", "consequent"], dtype=str)


@given(aliases=LINKS, implications=LINKS, spelled=st.sampled_from(sorted(SPELLINGS)))
def test_no_alias_and_no_implication_leads_around_it(
    aliases: list[tuple[str, str]], implications: list[tuple[str, str]], spelled: str
) -> None:
    """Against a closure written as a set of rules: x is out if it implies, or is another name of, what is out."""
    out = set(FIXED)
    for _ in NAMES:
        out |= {a for a, b in [*implications, *aliases] if b in out} | {b for a, b in aliases if a in out}
    policy = load_policy(aliases=table(aliases), implications=table(implications))
    for name in NAMES:
        said = SPELLINGS[spelled](name)
        assert (policy.refuses_tags([said]) is not None) == (name in out)
        assert (policy.refuses_text(f"wolf, {said}, fox") is not None) == (name in out)
        assert (policy.refuses(post(tags={"general": [said]})) is not None) == (name in out)


def store_of(folder: Path) -> DataStore:
    return DataStore(url=str(folder))


def loaded(folder: Path, **source: object) -> LoadedStudy:
    values = {**VALUES, "source": VALUES["source"] | source}
    return LoadedStudy(Study.model_validate(values), folder / "x.yaml", "")


def test_a_studys_policy_knows_the_catalog_and_both_opt_out_files(tmp_path: Path) -> None:
    tables, study = Tables(UPath(tmp_path)), loaded(tmp_path, exclude_tags=["gloom"], opt_out_file="own.txt")
    (tmp_path / "own.txt").write_text("ours\n")
    before = policy_of(study, store_of(tmp_path))
    tables.write("tag_aliases", None, table([("old_theirs", "theirs"), ("murk", "gloom")]))
    tables.write("tag_implications", None, table([("dusk", "murk"), ("pen", "avoid_posting")]))
    lists = pd.DataFrame({"artist": ["brush"], "list": ["conditional_dnp"]}, dtype=str)
    tables.write("do_not_post", None, lists)
    (tmp_path / OPT_OUT_FILE).parent.mkdir()
    (tmp_path / OPT_OUT_FILE).write_text("old_theirs\n")
    after = policy_of(study, store_of(tmp_path))
    cases = {
        "gloom": "excluded tag gloom",
        "murk": "excluded tag murk",
        "dusk": "excluded tag dusk",
        "ours": "artist opted out",
        "theirs": "artist opted out",
        "pen": "do-not-post artist",
        "brush": "do-not-post artist",
        "anyone": None,
    }
    assert {tag: after.refuses(post(tags={"artist": [tag]})) for tag in cases} == cases
    known = {"gloom", "ours"}
    assert {tag for tag in cases if before.refuses(post(tags={"artist": [tag]}))} == known
    (tmp_path / OPT_OUT_FILE).write_bytes(b"\xff")
    with pytest.raises(PolicyError, match=r"opt_out\.txt cannot be read"):
        policy_of(study, store_of(tmp_path))


def test_pictures_are_judged_by_todays_policy_before_training(tmp_path: Path) -> None:
    """Also by tags of categories that the table has no column for, and by tags that are locked."""
    records = [
        post(1, tags={"to_come": ["dusk"]}),
        post(2, locked_tags=["dusk", "-gloom"]),
        post(3, locked_tags=["-dusk"]),
        post(4, tags={"artist": ["theirs"]}),
        post(5, rating="e"),
    ]
    posts = posts_table(records, ContentPolicy())
    assert posts.status.tolist() == ["kept"] * 4 + ["dropped"]
    policy = load_policy(exclude_tags=["gloom"], opt_out=["theirs"], implications=table([("dusk", "gloom")]))
    assert refused(posts, ContentPolicy()) == {}
    assert refused(posts, policy) == {1: "excluded tag dusk", 2: "excluded tag dusk", 4: "artist opted out"}

    def crops(*post_ids: int) -> pd.DataFrame:
        return pd.DataFrame({"post_id": post_ids, "status": "ok"})

    require_allowed_pictures(loaded(tmp_path), crops(3), posts, policy)
    for post_id, reason in (
        (1, "excluded tag dusk"),
        (4, "artist opted out"),
        (5, "no kept post"),
        (6, "no kept post"),
    ):
        with pytest.raises(PolicyError, match=f"1 crops .* post {post_id}: {reason}.*run the job prepare again"):
            require_allowed_pictures(loaded(tmp_path), crops(3, post_id), posts, policy)


@pytest.mark.parametrize(
    ("query", "ratings", "asked"),
    [
        ("wolf", ["s"], "wolf rating:s"),
        ("wolf -rating:e", ["s"], "wolf -rating:e rating:s"),
        ("wolf -rating:e", ["s", "q"], "wolf -rating:e"),
        ("wolf", ["s", "q"], "wolf -rating:e"),
        ("wolf rating:Safe", ["s", "q"], "wolf rating:Safe"),
        ("wolf ( rating:e ~fox )", ["s"], "wolf ( rating:e ~fox ) rating:s"),
        ("wolf ~rating:s ~rating:e", ["s"], "wolf ~rating:s ~rating:e rating:s"),
        (" ".join(f"t{i}" for i in range(40)), ["s"], " ".join(f"t{i}" for i in range(40)) + " rating:s"),
        (" ".join(f"t{i}" for i in range(40)), ["s", "q"], " ".join(f"t{i}" for i in range(40))),
        ("wolf rating:e", ["s"], None),
        ("wolf rating:s rating:q", ["s", "q"], None),
        ("wolf -rating:s", ["s"], None),
    ],
)
def test_the_ratings_of_a_study_are_always_asked_for(
    tmp_path: Path, query: str, ratings: list[str], asked: str
) -> None:
    values = VALUES | {"source": {"kind": "e621", "query": query, "ratings": ratings}}
    if asked is None:
        with pytest.raises(StudyError, match=r"x\.yaml:\d+.*leaves no rating that a post could have"):
            load(tmp_path, values)
    else:
        assert Wanted.of(load(tmp_path, values).study.source).query == asked


@pytest.mark.parametrize("entry", ["*", "rating:e", ""])
def test_exclusions_that_mean_nothing_are_faults_of_the_study(tmp_path: Path, entry: str) -> None:
    with pytest.raises(StudyError, match=r"x\.yaml:\d+"):
        load(tmp_path, VALUES | {"source": {"kind": "demo", "exclude_tags": ["wolf", entry]}})
