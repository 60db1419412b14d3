import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.e621 import policy as policy_module
from ti_pipeline.e621.policy import ContentPolicy, PolicyError, fixed_exclusion, load_policy
from ti_pipeline_tests.e621.recorded import STATES, post, recorded_posts
from ti_pipeline_tests.shared_data import E621, needs_shared

FIXED = sorted(fixed_exclusion())
# How people and sites write one name: each must change nothing about what it means.
SPELLINGS = {
    "upper": str.upper,
    "title": str.title,
    "spaces": lambda tag: tag.replace("_", " "),
    "dashes": lambda tag: tag.replace("_", "-"),
    "long dashes": lambda tag: tag.replace("_", "—"),
    "double": lambda tag: tag.replace("_", "__"),
    "no-break spaces": lambda tag: tag.replace("_", "\u00a0"),
    "full-width": lambda tag: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and c != "_" else c for c in tag),
    "zero-width": "\u200b".join,
    "bidi": lambda tag: f"\u202e{tag}\u202c",
    "accent": lambda tag: tag[0] + "\u0301" + tag[1:],
    "padded": lambda tag: f"  {tag}\n",
    "qualified": lambda tag: f"{tag}_(lore)",
    "qualified with space": lambda tag: f"{tag} (lore)",
    "parentheses": lambda tag: f"({tag})",
    "weight": lambda tag: f"({tag}:1.2)",
    "whole weight": lambda tag: f"[{tag} : 2]",
    "bare weight": lambda tag: f"{tag}:0.8",
    "escaped parentheses": lambda tag: tag.replace("(", "\\(").replace(")", "\\)"),
    "escaped qualifier": lambda tag: f"{tag}_\\(lore\\)",
    "soft hyphens": "\u00ad".join,
    "isolates": lambda tag: f"\u2067{tag}\u2069",
    "fillers": lambda tag: tag[0] + "\u3164" + tag[1:],
    "control characters": "\x00".join,
    "a digit glued on": lambda tag: f"{tag}2",
    "a number before": lambda tag: f"12{tag}",
    "mathematical": lambda tag: "".join(chr(ord(c) - 97 + 0x1D41A) if "a" <= c <= "z" else c for c in tag),
}


@st.composite
def disguised(draw) -> str:
    tag = draw(st.sampled_from(FIXED))
    for name in draw(st.lists(st.sampled_from(sorted(SPELLINGS)), max_size=4)):
        tag = SPELLINGS[name](tag)
    return tag


@given(tag=disguised())
def test_no_spelling_lets_an_excluded_tag_through(tag):
    policy = ContentPolicy()
    assert policy.refuses_tags(["wolf", tag]) is not None
    assert policy.refuses(post(tags={"a_new_category": [tag]})) is not None
    assert policy.refuses(post(locked_tags=[tag])) is not None
    for text in (tag, f"wolf, {tag}, tail", f"a picture of {tag} by someone", f"[{tag}:1.2]", f"(wolf|{tag})"):
        with pytest.raises(PolicyError, match=r"variants\.a\.token"):
            policy.require_clean_text(text, "variants.a.token")


@given(
    ratings=st.sets(st.sampled_from("sqe"), min_size=1),
    added=st.lists(st.one_of(st.text(max_size=12), st.sampled_from(["-young", "!young", "*"])), max_size=4),
    kept=st.sampled_from(["drop", "keep"]),
)
def test_no_configuration_removes_from_the_fixed_list(ratings, added, kept):
    try:
        policy = load_policy(ratings=ratings, exclude_tags=added, do_not_post=kept)
    except PolicyError:  # an entry that means nothing; without them
        policy = load_policy(ratings=ratings, do_not_post=kept)
    assert fixed_exclusion() <= policy.excluded
    assert ContentPolicy(excluded=frozenset()).excluded == fixed_exclusion()
    for rating in ratings:
        assert policy.refuses(post(rating=rating, tags={"meta": ["young"]})) is not None


@pytest.mark.parametrize(
    "text",
    [
        "kidney beans",
        "17th century, 18 years old",
        "a 100 year old oak",
        "3 wolves, 2 kits",
        "a wolf, solo",
        "teeny",
        "babylon",
        "",
        ":3",
        "<3",
        "..",
        "🐺",
        "x\u000by",
        "puppyish",
    ],
)
def test_only_whole_words_count(text):
    ContentPolicy().require_clean_text(text, "caption")
    assert ContentPolicy().refuses_tags([text]) is None


def test_words_within_longer_tags_count_in_texts_only():
    policy = ContentPolicy()
    assert policy.refuses_tags(["pups_of_liberty"]) is None
    assert policy.refuses_text("pups of liberty") == "pups"


def test_symbols_are_excluded_as_they_are():
    policy = load_policy(exclude_tags=[":3"])
    assert policy.refuses_tags(["3"]) is None
    assert policy.refuses_tags([":3"]) == "excluded tag :3"
    assert policy.refuses_text("wolf, :3, 3") == ":3"
    assert policy.refuses_text("3 wolves") is None


@pytest.mark.parametrize(
    "text",
    ["adolescents", "hatchlings", "Toddlers", "infants", "lolis", "shotas", "preteens", "newborns", "minors", "pup",
     "youngster", "Juvenile", "kiddos", "schoolchildren", "prepubescent", "babyfur", "deaged", "little_girl", "cub3",
     "3cubs", "teen_1", "youngster_(pokemon)", "12 years old", "8yo", "14-year-old", "sixteen year old", "9 yrs old"],
)  # fmt: skip
def test_words_of_the_same_meaning_count_as_tags_and_in_texts(text):
    policy = ContentPolicy()
    assert policy.refuses_tags(["wolf", text]) == f"excluded tag {text}"
    for said in (f"a drawing, {text}, in snow", f"wolf;{text}|fox", f"wolf {text} fox", f"wolf\uff0c{text}"):
        assert policy.refuses_text(said) is not None, said


@needs_shared
def test_few_of_the_sites_real_tags_are_refused_for_their_meaning():
    """13 of 106,844, most of them characters named `pup`, `kiddy` or `youngster`; none is on the fixed list."""
    with (E621 / "e621_tags_2026-04-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        names = [row["name"] for row in csv.DictReader(stream)]
    assert sum(ContentPolicy().refuses_tags([name]) is not None for name in names) == 13


def clear_lists() -> None:
    """Forget what was read from the package, so that it is read again."""
    fixed_exclusion.cache_clear()
    policy_module._kin.cache_clear()


@pytest.mark.parametrize("name", ["always_excluded_tags.txt", "kin_of_excluded_tags.txt"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "more", "binary"])
def test_a_list_that_is_not_whole_stops_everything(tmp_path, monkeypatch, name, damage):
    package = Path(policy_module.__file__).parent
    whole = (package / name).read_bytes()
    for other in package.glob("*_of_excluded_tags.txt"), package.glob("always_*.txt"):
        shutil.copy(next(other), tmp_path)
    data = {
        "missing": None,
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "more": whole + b"wolf\n",
        "binary": b"\xff" + whole,
    }[damage]
    (tmp_path / name).unlink()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(policy_module.resources, "files", lambda _package: tmp_path)
    clear_lists()
    try:
        for construct in (load_policy, ContentPolicy):
            with pytest.raises(PolicyError, match=name):
                construct()
    finally:
        clear_lists()


def test_line_endings_of_another_system_are_no_damage(tmp_path, monkeypatch):
    whole = (Path(policy_module.__file__).parent / "always_excluded_tags.txt").read_bytes()
    (tmp_path / "always_excluded_tags.txt").write_bytes(whole.replace(b"\n", b"\r\n"))
    monkeypatch.setattr(policy_module.resources, "files", lambda _package: tmp_path)
    clear_lists()
    assert sorted(fixed_exclusion()) == FIXED
    clear_lists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"rating": "q"}, "rating q"),
        ({"rating": "e"}, "rating e"),
        ({"rating": None}, "no rating"),
        ({"rating": ["s"]}, "rating"),
        ({"flags": {"deleted": True}}, "deleted"),
        ({"flags": {"pending": True}}, "pending"),
        ({"flags": {"flagged": True}}, "flagged"),
        ({"flags": dict.fromkeys(STATES, False) | {"note_locked": True}}, None),
        ({"file": {"url": None, "md5": "0" * 32, "ext": "png"}}, "no link"),
        ({"locked_tags": ["conditional_dnp"]}, "do-not-post"),
        ({"locked_tags": ["-conditional_dnp"]}, None),
        ({"locked_tags": ["young"]}, "excluded tag young"),
        ({"locked_tags": ["-young"]}, None),
        ({"tags": {"artist": ["avoid_posting"]}}, "do-not-post"),
        ({"tags": {"general": "solo"}}, "tags.general is not a list"),
        ({"tags": {"general": ["solo", 5]}}, "tags.general is not a list"),
        ({"tags": {"general": {"young": 0.9}}}, "tags.general is not a list"),
        ({"tags": {"general": np.array(["solo", "young"], object)}}, "excluded tag young"),
        ({"tags": {"general": np.array(["solo"], object)}}, None),
        ({"tags": {"general": ("solo", "young")}}, "excluded tag young"),
        ({"tags": {"general": None}}, None),
        ({"locked_tags": "solo young"}, "excluded tag young"),
        ({"locked_tags": "solo -young"}, None),
        ({"locked_tags": 5}, "locked_tags is not a list"),
        ({"said": ["a wolf", "a wolf with its cub2"]}, "its own text says cub"),
        ({"said": ["a wolf"]}, None),
        ({"said": "a wolf"}, "said is not a list"),
        ({"tags": {}}, None),
        ({"tags": None}, "no tags are told"),
    ],
)
def test_each_rule_has_its_reason(changes, reason):
    found = ContentPolicy().refuses(post() | changes)
    assert (found is None) == (reason is None)
    assert reason is None or reason in found


def test_artists(tmp_path):
    names = tmp_path / "opt_out.txt"
    names.write_text("# asked by mail\nSome One\n\nsketcher_(artist)  # since 2026\n", encoding="utf-8")
    implications = pd.DataFrame({"antecedent": ["ink", "inky"], "consequent": ["avoid_posting", "ink"]})
    aliases = pd.DataFrame({"antecedent": ["some_one", "inc"], "consequent": ["someone_new", "ink"]})
    policy = load_policy(opt_out_files=[names], implications=implications, aliases=aliases)

    def reason(artist: str, policy: ContentPolicy = policy) -> str | None:
        return policy.refuses(post(tags={"artist": [artist]}))

    for artist in ("some_one", "someone_new", "sketcher", "sketcher_(artist)", "Some-One"):
        assert reason(artist) == "artist opted out", artist
    for artist in ("ink", "inky", "inc", "Ink"):
        assert reason(artist) == "do-not-post artist", artist
    for artist in ("someone", "ink_(other)"):
        assert reason(artist) is None
    assert policy.refuses(post(tags={"general": ["sketcher"]})) is None
    assert policy.refuses(post(tags={"general": ["some one"]})) == "artist opted out"  # flat tags have no categories
    assert reason("ink", load_policy(do_not_post="keep", implications=implications)) is None
    with pytest.raises(PolicyError, match="opt_out_file"):
        load_policy(opt_out_files=[tmp_path / "absent.txt"])


@pytest.mark.parametrize("setting", [{"ratings": ("s", "x")}, {"ratings": ()}, {"do_not_post": "maybe"}])
def test_unknown_settings_are_refused(setting):
    with pytest.raises(PolicyError):
        load_policy(**setting)


def test_closure_goes_through_chains_and_aliases_in_turn():
    chain = [f"t{i}" for i in range(12)]
    implications = pd.DataFrame({"antecedent": [*chain[1:], "x"], "consequent": [*chain[:-1], "unrelated"]})
    aliases = pd.DataFrame({"antecedent": ["old_t11", "T_zero"], "consequent": ["t11", "t0"]})
    more = pd.DataFrame({"antecedent": ["special"], "consequent": ["old_t11"]})
    policy = load_policy(exclude_tags=["T_zero"], aliases=aliases, implications=pd.concat([implications, more]))
    assert policy.excluded - fixed_exclusion() == {*chain, "old_t11", "special", "T_zero", "t_zero"}


@needs_shared
def test_the_published_list_is_the_shared_one():
    lines = (E621 / "always_excluded_tags.txt").read_text(encoding="utf-8").split("\n")
    assert fixed_exclusion() == {line for line in lines if line}


@needs_shared
def test_closure_over_the_sites_own_tables_is_that_of_a_walk():
    def links(name: str) -> list[tuple[str, str]]:
        with (E621 / name).open(encoding="utf-8", newline="") as stream:
            return [(row["antecedent_name"], row["consequent_name"]) for row in csv.DictReader(stream)]

    aliases, implications = links("tag_aliases_2025-05-01_strict.csv"), links("tag_implications_2025-05-01_strict.csv")
    down: dict[str, set[str]] = {}
    for special, general in [*implications, *aliases, *((new, old) for old, new in aliases)]:
        down.setdefault(general, set()).add(special)

    def walk(start: set[str]) -> set[str]:
        found, ahead = set(start), list(start)
        while ahead:
            new = down.get(ahead.pop(), set()) - found
            found |= new
            ahead += new
        return found

    frames = [pd.DataFrame(pairs, columns=["antecedent", "consequent"]) for pairs in (aliases, implications)]
    policy = load_policy(exclude_tags=["canine"], aliases=frames[0], implications=frames[1])
    assert policy.excluded == walk({*fixed_exclusion(), "canine"})
    assert policy.do_not_post_artists == walk({"avoid_posting", "conditional_dnp"}) - {
        "avoid_posting",
        "conditional_dnp",
    }
    assert len(policy.excluded) > 1000


@needs_shared
def test_recorded_posts_keep_their_fate():
    """26 of them carry conditional_dnp (counted in the file), 8 were pending when recorded."""
    reasons = [ContentPolicy().refuses(record) for record in recorded_posts()]
    assert (reasons.count("do-not-post artist"), reasons.count("pending"), reasons.count(None)) == (26, 8, 538)
