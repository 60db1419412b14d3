"""The six shipped studies say what the experiment log says: all twenty variants, every number."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from ti_pipeline.studies import Study
from ti_pipeline.study_files import load_studies, load_study
from ti_pipeline.tagging.frequencies import tag_frequencies
from ti_pipeline.tagging.vocabulary import reduce_vocabulary
from ti_pipeline_tests.shared_data import SHARED, needs_shared

STUDIES = Path(__file__).resolve().parents[1] / "data" / "studies"
_LOG_FILE = (SHARED or Path()) / "reference" / "seed-experiments.yaml"
LOG = yaml.safe_load(_LOG_FILE.read_text(encoding="utf-8")) if SHARED and _LOG_FILE.exists() else None
pytestmark = [needs_shared, pytest.mark.skipif(LOG is None, reason=f"the experiment log is absent ({_LOG_FILE})")]

# (study, variant, its facts with those of the family)
FACTS = [
    (study, name, {**family.get("common", {}), **own})
    for study, family in (LOG or {"studies": {}})["studies"].items()
    for name, own in family["variants"].items()
]
IDS = [f"{study}-{name}" for study, name, _ in FACTS]


@pytest.fixture(scope="module")
def studies() -> dict[str, Study]:
    return {name: loaded.study for name, loaded in load_studies([STUDIES]).items()}


@pytest.fixture
def declared(studies, request):
    study, name, facts = request.param
    return studies[study], studies[study].variant(name), facts


each_variant = pytest.mark.parametrize("declared", FACTS, ids=IDS, indirect=True)


def test_all_twenty_variants_are_there_in_order(studies):
    assert len(FACTS) == 20
    for name, family in LOG["studies"].items():
        assert list(studies[name].variants) == list(family["variants"])


@each_variant
def test_what_is_trained(declared):
    study, variant, facts = declared
    assert variant.vectors == facts["vectors"]
    assert variant.base == facts["base"].replace(" ", "-")
    assert variant.base in study.base_models
    assert variant.clip_skip == facts.get("clip_skip", 1)
    defaults = LOG["defaults"]
    assert (variant.learning_rate, variant.batch_size, variant.optimizer) == (
        defaults["learning_rate"],
        defaults["batch_size"],
        defaults["optimizer"],
    )


@each_variant
def test_how_long_it_trains(declared):
    study, variant, facts = declared
    assert variant.steps == facts.get("steps")
    epochs, pictures = facts.get("epochs"), facts["images"]
    if epochs and epochs * pictures < facts["steps"]:
        # The log contradicts itself: the step its losses reach is the one that counts.
        assert facts["mean_loss"]["to_step"] == facts["steps"]
        epochs = None
    assert variant.epochs == epochs
    curation = study.named_curations()[study.crops.named()[variant.crop].curation]
    trained = pictures - int(pictures * curation.validation_share)
    ends = [variant.steps, *([variant.epochs * trained] if variant.epochs else [])]
    assert min(ends) == facts["steps"]


@each_variant
def test_pictures_and_crops(declared):
    study, variant, facts = declared
    crop = study.crops.named()[variant.crop]
    curation = study.named_curations()[crop.curation]
    assert curation.images == facts["images"]
    assert curation.shares.text == facts.get("text_share")
    assert curation.shares.solo == facts["solo_share"]
    assert curation.shares.simple_background == facts["simple_background_share"]
    assert crop.size == variant.resolution == facts.get("image_size", 512)
    weight = facts.get("focal_face_weight")
    assert crop.focal.face == (0.9 if weight is None else weight)  # blank in the log: the default


@each_variant
def test_captions(declared):
    study, variant, facts = declared
    plan = study.captions[variant.captions]
    assert plan.source == facts.get("caption", "e621")
    tags = facts.get("tags")
    if tags and plan.source != "none":
        kept = plan.kept_categories()
        for category in ("species", "general"):
            assert (plan.budgets[category] if category in kept else 0) == tags[category]
        assert set(kept) <= {"species", "general"}
    for field in ("drop_categories", "order", "tagger", "tagger_threshold", "underscores"):
        if field in facts:
            assert getattr(plan, field) == facts[field]
    detail = facts.get("caption_detail", "")
    if detail.startswith("species tags only"):
        assert plan.kept_categories() == ["species"]
    if detail.startswith("species and general"):
        assert plan.kept_categories() == ["species", "general"]
        assert plan.per_image


@each_variant
def test_findings_stand_in_the_notes(declared):
    _, variant, facts = declared
    for field in ("mean_loss", "epoch_mean_loss", "max_epoch_loss", "min_epoch_loss"):
        for number in (facts.get(field) or {}).values():
            text = f"{number:.3f}" if isinstance(number, float) else str(number)
            assert re.search(rf"\b{re.escape(text)}\b", variant.note), (field, text)
    if facts.get("stopped_early"):
        assert "stopped early" in variant.note


def test_the_log_with_its_contradiction_is_commented():
    text = (STUDIES / "mixTag.yaml").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "species: 5, general: 49" in line]
    assert "56" in line.split("#")[1]


@pytest.mark.parametrize("name", (LOG or {"studies": []})["studies"])
def test_sources_and_base_models_are_left_to_their_owner(studies, name):
    study = studies[name]
    assert study.source.kind == "e621"
    assert study.source.query is None
    places = {base: (source.folder, source.file, source.hub) for base, source in study.base_models.items()}
    assert places.pop("SD-1.4", (None, None, "CompVis/stable-diffusion-v1-4"))[2] == "CompVis/stable-diffusion-v1-4"
    assert set(places.values()) == {(None, None, None)}
    assert study.source.ratings == ["s"]


@pytest.mark.parametrize("name", (LOG or {"studies": []})["studies"])
def test_evaluation_follows_the_protocol(studies, name):
    protocol, suite = LOG["comparison_protocol"], studies[name].evaluation
    assert {s.name: {"steps": s.steps, "cfg": s.cfg} for s in suite.samplers} == protocol["samplers"]
    assert suite.sizes == protocol["sizes"]
    assert set(suite.axes) == set(protocol["axes"]) - {"rating", "combination"}
    for axis, asked in protocol["axes"].items():
        if axis in suite.axes and "values" in asked:
            wanted = [value.replace(" + ", ", ") for value in asked["values"]]
            assert suite.axes[axis].values[: len(wanted)] == wanted
    assert len(suite.axes["detail"].prompt.split(",")) > 8  # one long prompt, many tags


def test_checkpoints_that_the_log_compares_exist(studies):
    example = LOG["comparison_protocol"]["checkpoints_compared_example"]
    variant = studies["top"].variant(example["embedding"])
    assert all(step % variant.checkpoint_every == 0 for step in example["steps"])
    for name, step in (("animeV1", 3372), ("animeV2", 5620)):
        assert step % studies["anime"].variant(name).checkpoint_every == 0


def test_the_word_cloud_is_not_taken_over():
    assert load_study(STUDIES / "cloud.yaml").study.variant("cloud").token != "cloud"


# Posts with as many tags as any budget asks for: tag n of a category stands on the first n + 1 posts.
_MANY = 200


WITH_TOTALS = [fact for fact in FACTS if "tags" in fact[2]]


def test_the_log_states_totals_of_twelve_variants():
    assert len(WITH_TOTALS) == 12


@pytest.mark.parametrize("declared", WITH_TOTALS, ids=[f"{s}-{n}" for s, n, _ in WITH_TOTALS], indirect=True)
def test_budgets_reproduce_the_stated_totals(declared):
    study, variant, facts = declared
    tags = facts["tags"]
    uses = [
        (post, f"{category}_{number}", category)
        for category in ("species", "general", "artist", "meta")
        for number in range(_MANY)
        for post in range(number + 1)
    ]
    post_tags = pd.DataFrame(uses, columns=["post_id", "tag", "category"])
    frequencies = tag_frequencies(post_tags, posts_count=_MANY)
    table = reduce_vocabulary(frequencies, post_tags, study.captions[variant.captions])
    kept = table.category[table.kept].value_counts()
    assert {name: int(kept.get(name, 0)) for name in ("species", "general")} == {
        "species": tags["species"],
        "general": tags["general"],
    }
    contradiction = facts.get("note", "").startswith("5 + 49 is 54, the log says 56")
    assert int(table.kept.sum()) == (54 if contradiction else tags["total"])
