"""What goes wrong in people's runs: each has a decided outcome, and the message says what to do."""

import json
import multiprocessing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from ti_pipeline.demo.posts import demo_posts
from ti_pipeline_tests.graph import Graph, job_tags
from ti_pipeline_tests.tiny_models import DEMO_BASE

pytestmark = pytest.mark.slow

STUDY = """
name: {name}
source: {{kind: folder, path: {pictures}, assume_rating: s}}
base_models: {{demo: {{folder: {base}}}, later: {{}}, gone: {{folder: nowhere}}}}
curation: {{min_side: 32, {curation}}}
crops: {{sizes: [64]}}
common: {{steps: {steps}, batch_size: 1, checkpoint_every: {steps}, base: demo}}
variants: {{x1: {{vectors: 4}}, x2: {{vectors: 4, base: later}}, x3: {{vectors: 4, base: gone}}}}
evaluation:
  seeds: [6]
  sizes: [64]
  samplers: [{{steps: 2}}]
  scorer: {{folder: {base}/scorer}}
  axes: {{species: {{prompt: "[name], wolf", values: [wolf, bear]}}}}
"""


def study(pictures: Path, name: str = "s", curation: str = "", steps: int = 3) -> dict[str, str]:
    quoted = json.dumps(str(pictures))
    return {name: STUDY.format(name=name, pictures=quoted, curation=curation, base=DEMO_BASE, steps=steps)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight good pictures with sidecars, and bad ones among them."""
    folder = tmp_path_factory.mktemp("pictures")
    flawless = [post for post in demo_posts(concept="ember", count=16, seed=1) if post.truth.flaw is None]
    for index, post in enumerate(flawless[:8]):
        (folder / f"good{index}.jpg").write_bytes(post.data())
        (folder / f"good{index}.txt").write_text("wolf, 'quoted', ../up, sl/ash, 🐺, \x07bell, \u202ertl", "utf-8")
    good = (folder / "good0.jpg").read_bytes()
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    (folder / "broken_sidecar.jpg").write_bytes(good)
    (folder / "broken_sidecar.jpg.json").write_bytes(b"{not json \xff")
    picture = Image.new("P", (90, 70))
    ImageDraw.Draw(picture).ellipse((10, 10, 60, 60), fill=7)
    picture.save(folder / "palette.png")
    return folder


@pytest.fixture(scope="module")
def graph(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    graph = Graph.new(tmp_path_factory.mktemp("bad"), study(pictures))
    graph.job("prepare", "s")
    return graph


def test_bad_pictures_become_rows_with_reasons_and_the_run_goes_on(graph: Graph) -> None:
    posts = graph.table("posts", "s")
    assert len(posts) == 14
    dropped = posts[posts.status == "dropped"]
    assert len(dropped) == 1
    assert "sidecar" in dropped.reason.iloc[0]
    audit = graph.table("image_audit", "s")
    assert (audit.status == "failed").sum() == 3
    assert (audit[audit.status == "failed"].reason != "").all()
    out = graph.table("training_set", "s").query("not kept")
    assert "shorter side below 32 px" in set(out.reason), "the picture of one pixel is named as too small"
    assert len(graph.table("crops", "s__64").query("status == 'ok'")) >= 8


def test_strange_tags_are_data(graph: Graph) -> None:
    tags = set(graph.table("post_tags", "s").tag)
    assert {"wolf", "'quoted'", "../up", "sl/ash", "🐺"} <= tags
    assert not (graph.data.parent / "up").exists()


@pytest.mark.parametrize(
    ("variant", "words"),
    [("x2", "base_models.later"), ("x3", "base_models.gone")],
)
def test_a_base_model_that_is_not_there_is_named(graph: Graph, variant: str, words: str) -> None:
    assert words in graph.job("train", f"s__{variant}", succeeds=False)


def test_no_pictures_left_says_why(pictures: Path, tmp_path: Path) -> None:
    graph = Graph.new(tmp_path, study(pictures, curation="require_tags: [unicorn]"))
    said = graph.job("prepare", "s", succeeds=False)
    assert "CurationError" in said
    assert "unicorn" in said


def test_an_unknown_partition_is_refused(graph: Graph) -> None:
    assert "s__nobody" in graph.job("train", "s__nobody", succeeds=False, fresh=True)


def test_a_broken_study_is_named_with_its_line(tmp_path: Path, pictures: Path) -> None:
    broken = study(pictures)["s"].replace("batch_size", "batch_sise")
    graph = Graph.new(tmp_path, {"s": broken})
    said = graph.job("prepare", "s", succeeds=False)
    assert "s.yaml:7:" in said
    assert "batch_size" in said


def killed_during(graph: Graph, job: str, key: str, sign: str) -> None:
    """Start a job and kill it, with everything it started, once its log shows `sign`."""
    with graph.started("job", "execute", "-m", "ti_pipeline.definitions", "-j", job, *job_tags(key)) as (_, lines):
        seen = []
        for line in lines:
            seen.append(line)
            if sign in line:
                return
    pytest.fail("the job ended before it could be killed:\n" + "".join(seen)[-3000:])


STEPS = [
    ("prepare", "s", "images - STEP_START"),
    ("prepare", "s", "image_audit - STEP_START"),
    ("prepare", "s", "vocabulary - STEP_START"),
    ("prepare", "s", "crops - STEP_START"),
    ("train", "s__x1", "training"),
    ("evaluate", "s__x1", "pictures: 0 of"),
    ("compare", "s", "evaluation_grids - STEP_START"),
    ("compare", "s", "release - STEP_START"),
]


def run_all(graph: Graph, jobs: list[tuple[str, str]]) -> None:
    for job, key in jobs:
        graph.job(job, key)


def test_a_run_killed_in_every_step_ends_as_if_it_had_not_been(pictures: Path, tmp_path: Path) -> None:
    calm = Graph.new(tmp_path / "calm", study(pictures, steps=60))
    rough = Graph.new(tmp_path / "rough", study(pictures, steps=60))
    jobs = list(dict.fromkeys((job, key) for job, key, _ in STEPS))
    elsewhere = multiprocessing.get_context("spawn").Process(target=run_all, args=(calm, jobs))
    elsewhere.start()  # with a hash seed of its own: nothing may depend on the order of a set
    for job, key in jobs:
        for other, _, sign in STEPS:
            if other == job:
                killed_during(rough, job, key, sign)
        rough.job(job, key)
    elsewhere.join()
    assert elsewhere.exitcode == 0
    for made in sorted((calm.data / "tables").rglob("*.parquet")):
        name = made.relative_to(calm.data)
        if made.parent.name == "provenance":  # it tells when each picture came, and that differs
            one, other = (pq.read_table(g.data / name).drop_columns("fetched_at") for g in (calm, rough))
            assert one.equals(other)
        else:
            assert made.read_bytes() == (rough.data / name).read_bytes(), name
    for folder in ("images", "crops", "embeddings", "evaluation", "releases"):
        files = [sorted(p.relative_to(g.data) for p in (g.data / folder).rglob("*.*")) for g in (calm, rough)]
        assert files[0] == files[1]
        assert not [p for p in files[1] if "partial" in p.name]
    time_free = [(g.data / "reports" / "s.html").read_text(encoding="utf-8") for g in (calm, rough)]
    assert time_free[0].replace(str(calm.studies), "") == time_free[1].replace(str(rough.studies), "")
