"""What commands say that ask for what is not there: one sentence, last, with a status that is not 0."""

import subprocess
import sys
from pathlib import Path

import pytest

from ti_pipeline.command_line import asked, check_keys
from ti_pipeline_tests.graph import Graph

KEYS = {"train": ["a__v8", "a__v16", "b__v8"], "study": ["a", "b"], "many": [f"k{index}" for index in range(30)]}
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@pytest.mark.parametrize(
    ("arguments", "job", "tags"),
    [
        (["-m", "x", "-j", "train", "--tags", '{"dagster/partition": "a"}'], "train", {"dagster/partition": "a"}),
        (["--job=study", "--tags={}"], "study", {}),
        (["-j", "train", "--tags", "{nothing"], "train", {}),
        (["-m", "x"], None, {}),
    ],
)
def test_what_is_asked_is_read_from_the_arguments(arguments: list[str], job: str | None, tags: dict[str, str]) -> None:
    assert asked(arguments) == (job, tags)


@pytest.mark.parametrize(
    ("job", "tags", "words"),
    [
        ("train", {"dagster/partition": "a__v8"}, None),
        ("train", {START: "a__v8", END: "a__v16"}, None),
        ("catalog", {}, None),
        (
            "train",
            {"dagster/partition": "a__v9"},
            "no partition 'a__v9'; did you mean 'a__v8'? there are: a__v8, a__v16",
        ),
        ("train", {START: "a__v16", END: "a__v8"}, "the range from 'a__v16' to 'a__v8' selects nothing"),
        ("train", {START: "a__v16", END: "a__zz"}, "no partition 'a__zz'"),
        ("train", {START: "a__v16"}, "needs a partition"),
        ("study", {}, """needs a partition: --tags '{"dagster/partition": "a"}'; there are: a, b"""),
        ("study", {"dagster/partition": "c"}, "the study 'c' is left out for faults in its file:\nc.yaml:3: no"),
        ("train", {"dagster/partition": "c__v8"}, "the study 'c' is left out"),
        ("many", {"dagster/partition": "x"}, "k11 and 18 more"),
    ],
)
def test_wrong_partitions_are_told_with_those_that_there_are(job: str, tags: dict[str, str], words: str | None) -> None:
    said = check_keys(job, tags, KEYS, {"c": "c.yaml:3: no"})
    assert said is None if words is None else words in said


STUDY = """
name: {name}
source: {{kind: folder, path: {path}, assume_rating: s}}
base_models: {{demo: {{}}}}
common: {{base: demo, steps: 3}}
variants: {{x1: {{vectors: 4}}}}
"""
EXECUTE = [sys.executable, "-m", "dagster", "job", "execute", "-m", "ti_pipeline.definitions"]


@pytest.mark.slow
def test_the_reason_is_the_last_line_and_one_faulty_study_harms_only_itself(tmp_path: Path) -> None:
    texts = {name: STUDY.format(name=name, path=tmp_path / "nowhere") for name in ("fine", "broken")}
    graph = Graph.new(tmp_path, {"fine": texts["fine"], "broken": texts["broken"].replace("vectors", "vectrs")})

    def last_line(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [*EXECUTE, *arguments],
            cwd=graph.studies,
            env=graph.process_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert "studies left out" in done.stdout or done.returncode == 2
        return done.returncode, done.stdout.splitlines()[-1]

    status, words = last_line("-j", "prepare", "--tags", '{"dagster/partition": "fine"}')
    assert status == 1
    assert words.startswith("failed: prepare_study, posts: ")
    assert "nowhere" in words
    status, words = last_line("-j", "prepare", "--tags", '{"dagster/partition": "broken"}')
    assert (status, words.startswith(f"{graph.studies / 'broken.yaml'}:6: variants.x1.vectrs")) == (2, True)
    status, words = last_line("-j", "purge")
    assert status == 1
    assert words.startswith("failed: ")
    assert 'Missing required config entry "artist"' in words
