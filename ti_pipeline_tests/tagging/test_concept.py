"""Which tags are the concept's: against the drawn world's truth, by hand, by contrast, and what cannot be told."""

import random

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from upath import UPath

from ti_pipeline.demo.posts import demo_catalog
from ti_pipeline.demo.world import CONCEPTS, random_attributes
from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.io_managers import Tables
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import CaptionPlan, Study, Variant
from ti_pipeline.study_files import StudyError, load_studies
from ti_pipeline.tagging.concept import concept_words, lift_over, lift_over_site, started
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.tokens import clip_tokenizer
from ti_pipeline.tagging.trained import counted_tags, renamed, replaced
from ti_pipeline.tagging.vocabulary import VocabularyError, reduce_vocabulary
from ti_pipeline_tests.e621.recorded import post
from ti_pipeline_tests.graph import Graph
from ti_pipeline_tests.tagging.test_reduction import CHAIN, kept, uses_of, why

AUTO = CaptionPlan(concept="auto")


def drawn(concept: str | None, count: int = 80) -> pd.DataFrame:
    """Tags of drawings, a tag in twenty forgotten; two in three dragons are left out, whose fur is scales."""
    rng = random.Random(f"{concept} {count}")
    posts = {}
    while len(posts) < count:
        shown = random_attributes(rng, concept)
        if shown.species != "dragon" or rng.random() < 0.33:
            tags = [(tag, category) for category, found in shown.tags().items() for tag in found]
            posts[len(posts) + 1] = [tag for tag in tags if rng.random() > 0.05]
    rows = [(post, *tag) for post, tags in posts.items() for tag in tags]
    return pd.DataFrame(rows, columns=["post_id", "tag", "category"])


@pytest.mark.parametrize("concept", CONCEPTS)
@pytest.mark.parametrize("against", ["the site", "a study"])
def test_the_looks_of_a_drawn_character_are_found(concept, against):
    looks = CONCEPTS[concept]
    true = {f"{looks.colour}_fur", f"{looks.eyes}_eyes"}
    true |= {"star": {"facial_markings"}, "spots": {"spots"}, "none": set()}[looks.marking]
    true |= {looks.accessory} if looks.accessory else set()
    uses = drawn(concept)
    frequencies = tag_frequencies(uses, demo_catalog(600) if against == "the site" else None)
    if against == "a study":
        frequencies = lift_over(frequencies, tag_frequencies(drawn(None, 300)))
    table = reduce_vocabulary(frequencies, uses, AUTO)
    assert set(table.tag[table.rule == "concept"][~table.kept]) == true
    assert why(table, "anthro")[1].startswith("not the concept's: on 9")
    assert "tiger" in kept(table)


def test_shares_and_lifts_decide_and_are_told():
    posts = {post: ["scarf", "anthro", *(["hat"] if post <= 6 else [])] for post in range(1, 11)}
    uses = uses_of(posts, "general")
    catalog = pd.DataFrame({"tag": ["anthro", "scarf", "hat"], "post_count": [1000, 300, 1]})
    frequencies = tag_frequencies(uses, catalog, posts_count=10)
    table = reduce_vocabulary(frequencies, uses, AUTO)
    assert why(table, "scarf") == ("concept", "concept: on 100% of the pictures, 3.33 times as often as elsewhere")
    assert kept(table) == {"anthro", "hat"}  # a hat on six of ten is no concept, however rare hats are
    less = reduce_vocabulary(frequencies.assign(lift=frequencies.lift * 0.8), uses, AUTO)
    assert kept(less) == {"anthro", "hat", "scarf"}


def test_shares_and_lifts_are_of_the_pictures_that_are_trained():
    posts = {post: ["anthro", *(["scarf"] if post <= 4 else ["hat"])] for post in range(1, 11)}
    uses, trained = uses_of(posts, "general"), np.arange(1, 5)
    catalog = pd.DataFrame({"tag": ["anthro", "scarf", "hat"], "post_count": [1000, 300, 1]})
    of_study = tag_frequencies(uses, catalog)
    everything = lift_over_site(counted_tags(uses, np.arange(1, 11)), of_study).set_index("tag")
    assert everything.lift.to_dict() == pytest.approx(of_study.set_index("tag").lift.to_dict())
    lifted = lift_over_site(counted_tags(uses, trained), of_study)
    assert lifted.set_index("tag").lift.to_dict() == pytest.approx({"anthro": 1, "scarf": 1 / 0.3, "hat": 0})
    # What is the concept's goes as that, also where it is constant: `start: concept` asks for it.
    plan = CaptionPlan(concept="auto", constant="drop", keep=["anthro"])
    table = reduce_vocabulary(lifted, uses[uses.post_id.isin(trained)], plan)
    assert why(table, "scarf") == ("concept", "concept: on 100% of the pictures, 3.33 times as often as elsewhere")
    assert kept(table) == {"anthro"}


def test_a_replaced_tag_is_as_common_elsewhere_as_what_it_stands_for():
    words = {"Anthro": "furry", "hat": "cap"}
    uses = uses_of({post: ["anthro", "scarf", "hat" if post % 2 else "cap"] for post in range(1, 11)}, "general")
    catalog = pd.DataFrame({"tag": ["anthro", "scarf", "hat", "cap"], "post_count": [1000, 100, 700, 200]})
    of_study = tag_frequencies(uses, catalog)
    known = renamed(of_study, words, by="site_count")
    assert known.set_index("tag").site_count.to_dict() == {"furry": 1000, "cap": 700, "scarf": 100}
    new = replaced(uses, words)
    table = reduce_vocabulary(lift_over_site(counted_tags(new, np.arange(1, 11)), known), new, AUTO)
    assert kept(table) == {"furry", "cap"}
    contrast = renamed(of_study, words, by="count")
    lifts = lift_over(counted_tags(new, np.arange(1, 11)), contrast).set_index("tag").lift.to_dict()
    assert lifts == pytest.approx({"furry": 1, "scarf": 1, "cap": 11 / 6})


def test_a_list_takes_what_it_names_and_what_implies_it():
    uses = uses_of({1: ["mammal", "canine", "wolf", "hat"], 2: ["mammal", "canine", "fox"], 3: ["mammal", "lion"]})
    plan = CaptionPlan(concept=["Can*"], keep=["fox"])
    table = reduce_vocabulary(tag_frequencies(uses), uses, plan, implications=CHAIN)
    assert kept(table) == {"mammal", "lion", "hat", "fox"}
    assert why(table, "canine") == ("concept", "concept list: Can*")
    assert why(table, "wolf") == ("concept", "concept: implies canine, which is the concept's")
    assert why(table, "fox")[0] == "keep"


def test_what_cannot_be_told_or_leaves_nothing_to_say_is_an_error():
    uses = uses_of({1: ["wolf", "hat"], 2: ["wolf", "hat"]})
    with pytest.raises(VocabularyError, match=r"run the job catalog first.*, name a study of"):
        reduce_vocabulary(tag_frequencies(uses), uses, AUTO)
    with pytest.raises(VocabularyError, match=r"takes every tag that the plan has left \(hat, wolf\)"):
        reduce_vocabulary(tag_frequencies(uses), uses, CaptionPlan(concept=["*"]))
    with pytest.raises(ValidationError, match="leave contrast out"):
        CaptionPlan(contrast="others")


def of_concept(*tags: str) -> pd.DataFrame:
    """A vocabulary in which these are the concept's, the first on fewest pictures."""
    own = [{"tag": tag, "count": count, "kept": False, "rule": "concept"} for count, tag in enumerate(tags, 1)]
    other = {"tag": "wolf", "count": 1, "kept": True, "rule": "concept"}
    return pd.DataFrame([*own, other, {"tag": "solo", "count": 0, "kept": False, "rule": "drop"}])


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (1, "purple fur"),
        (5, "purple fur red eyes"),
        (8, "purple fur red eyes facial markings purple fur"),
        (16, "purple fur red eyes facial markings purple fur red eyes facial markings purple fur red eyes"),
    ],
)
def test_a_start_says_the_concepts_tags_as_often_as_there_is_room(vectors, words):
    table = of_concept("purple_fur", "red_eyes", "facial_markings", "markings")
    assert concept_words(table, clip_tokenizer(), vectors) == words
    chosen = started(Variant(base="tiny", vectors=vectors, steps=1, start="concept"), table)
    assert (chosen.start, chosen.initializer) == ("text", words)


def test_a_start_from_the_concept_needs_its_tags():
    plain = Variant(base="tiny", vectors=2, steps=1)
    assert started(plain, of_concept()) is plain
    with pytest.raises(ValueError, match="no tag of the vocabulary is the concept's"):
        concept_words(of_concept(), clip_tokenizer(), 8)
    study = {"name": "s", "source": {"kind": "demo"}, "base_models": {"tiny": {}}}
    variants = {"v8": {"base": "tiny", "vectors": 8, "steps": 1, "start": "concept"}}
    Study.model_validate(study | {"variants": variants, "captions": {"own": {"concept": "auto"}}})
    with pytest.raises(ValidationError, match="its caption plan has no `concept`"):
        Study.model_validate(study | {"variants": variants, "captions": {"own": {}}})


STUDY = """
name: {name}
source: {{kind: demo, concept: {concept}, pictures: 14}}
base_models: {{later: {{}}}}
captions:
  own: {plan}
variants: {{x1: {{vectors: 8, base: later, steps: 1}}}}
"""


def test_a_contrast_must_be_another_study(tmp_path):
    plan = "{concept: auto, contrast: twon}"
    for name, own in (("one", plan), ("two", "{}")):
        (tmp_path / f"{name}.yaml").write_text(STUDY.format(name=name, concept="ember", plan=own), encoding="utf-8")
    with pytest.raises(StudyError, match=r"one\.yaml:6: captions\.own\.contrast: there is no other study 'twon'"):
        load_studies([tmp_path])


@pytest.mark.slow
def test_a_plan_reads_the_tags_of_its_contrast_in_the_graph(tmp_path):
    plans = {"one": "{concept: auto, contrast: two}", "two": "{concept: [yellow_eyes]}"}
    concepts = {"one": "ember", "two": "frost"}
    studies = {name: STUDY.format(name=name, concept=concepts[name], plan=plan) for name, plan in plans.items()}
    graph = Graph.new(tmp_path, studies)
    tables = Tables(UPath(graph.data))

    def count(study: str) -> None:
        uses = drawn(concepts[study])
        tables.write("post_tags", study, uses)
        tables.write("tag_frequencies", study, tag_frequencies(uses))
        tables.write(
            "posts", study, posts_table([post(number) for number in sorted(set(uses.post_id))], ContentPolicy())
        )

    def materialize() -> str:
        chosen = ("--select", "vocabulary", "--partition", "one__own")
        return graph.run("asset", "materialize", "-m", "ti_pipeline.definitions", *chosen).stdout

    count("one")
    tables.write("tagger_tags", "one__own", TABLES["tagger_tags"].empty())
    assert "materialize tag_frequencies for two first" in materialize()
    count("two")
    materialize()
    table = graph.table("vocabulary", "one__own")
    taken = set(table.tag[table.reason.str.startswith("concept:")])
    assert taken == {"purple_fur", "red_eyes", "facial_markings"}
