"""Reading study files: every fault names file, line and field, says what is allowed, and offers the nearest name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ti_pipeline.inversion.clip_vocabulary import clip_words
from ti_pipeline.study_files import StudyError, load_studies, load_study, study_folders

REPO = Path(__file__).resolve().parents[1]
SHIPPED = sorted((REPO / "data" / "studies").glob("*.yaml"))
HERE = "# <-"

GOOD = """\
name: x
source: {kind: demo}
base_models:
  demo: {}
common:
  base: demo
  steps: 10
variants:
  v8:
    vectors: 8
"""


STAGED = GOOD.replace("steps: 10", "seed: 1").replace(
    "vectors: 8", "{vectors: 8, stages: [{crop: 64, steps: 5}, {crop: 128, steps: 5}]}"
)
STAGED += "crops: {sizes: [64, 128]}\n"


def write(folder: Path, text: str, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def fault_of(path: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load_study(path)
    return str(caught.value)


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file_loads_with_its_text(tmp_path):
    path = write(tmp_path, GOOD)
    loaded = load_study(path)
    assert (loaded.study.name, loaded.path, loaded.text) == ("x", path, GOOD)


def test_a_byte_order_mark_and_crlf_do_no_harm(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_study(path).study.variants["v8"].vectors == 8


# Each text has `# <-` on the line that must be named; then come the field, and parts of the sentence.
FAULTS = {
    "unknown field": (GOOD + f"    vectrs: 9 {HERE}\n", "variants.v8.vectrs", ["'vectors'", "learning_rate"]),
    "unknown field of common": (
        replaced("steps: 10\n", f"steps: 10\n  stpes: 9 {HERE}\n"),
        "common.stpes",
        ["did you mean 'steps'"],
    ),
    "unknown field of a source": (
        replaced("{kind: demo}", f"{{kind: demo, picturs: 3}} {HERE}"),
        "source.picturs",
        ["did you mean 'pictures'"],
    ),
    "unknown kind of source": (replaced("{kind: demo}", f"{{kind: e612}} {HERE}"), "source.kind", ["'e621'", "folder"]),
    "no kind of source": (replaced("{kind: demo}", f"{{limit: 3}} {HERE}"), "source.kind", ["demo", "folder", "e621"]),
    "unknown literal": (
        GOOD + f"evaluation:\n  samplers:\n    - {{name: DDIM}}\n    - {{name: euler A}} {HERE}\n",
        "evaluation.samplers.1.name",
        ["'euler A'", "did you mean 'Euler a'", "DDIM"],
    ),
    "unknown base": (replaced("base: demo", f"base: dmeo {HERE}"), "common.base", ["'dmeo'", "did you mean 'demo'"]),
    "unknown plan": (GOOD + f"    captions: nnoe {HERE}\n", "variants.v8.captions", ["did you mean 'none'"]),
    "unknown crop set": (GOOD + f"    crop: 513 {HERE}\n", "variants.v8.crop", ["did you mean '512'", "768"]),
    "unknown curation": (
        GOOD + f"crops:\n  sets:\n    a:\n      size: 64\n      curation: defualt {HERE}\n",
        "crops.sets.a.curation",
        ["did you mean 'default'"],
    ),
    "out of bounds": (replaced("vectors: 8", f"vectors: 76 {HERE}"), "variants.v8.vectors", ["75", "76"]),
    "inherited value": (
        replaced("steps: 10", f"steps: 0 {HERE}") + "  v9: {vectors: 9}\n",
        "common.steps",
        ["greater than or equal to 1"],
    ),
    "missing field": (
        replaced("  v8:\n    vectors: 8", f"  v8: {{clip_skip: 2}} {HERE}"),
        "variants.v8.vectors",
        ["missing"],
    ),
    "no end": (replaced("  steps: 10\n", "").replace("v8:", f"v8: {HERE}"), "variants.v8", ["steps, epochs or both"]),
    "bad schedule": (
        GOOD + f"    learning_rate: 0.1:5, x {HERE}\n",
        "variants.v8.learning_rate",
        ["position 7", "'x'"],
    ),
    "both members of a union": (
        GOOD + f"    learning_rate: [1] {HERE}\n",
        "variants.v8.learning_rate",
        ["number", "string"],
    ),
    "entry of a list": (
        GOOD + f"evaluation:\n  checkpoints:\n    - 100\n    - 0 {HERE}\n",
        "evaluation.checkpoints.1",
        ["greater than or equal to 1"],
    ),
    "search text absent": (
        GOOD + f'evaluation:\n  axes:\n    a: {{prompt: "[name] cat", values: [dog]}} {HERE}\n',
        "evaluation.axes.a",
        ["'dog'"],
    ),
    "a detector whose finds nothing reads": (
        GOOD + f"audit: {HERE}\n  text_detector: det.onnx\n",
        "audit",
        ["text_recognizer", "finds text in nearly every drawing"],
    ),
    "stages of several sizes": (
        STAGED.replace("v8:", f"v8: {HERE}"),
        "variants.v8.resolution",
        ["sizes [64, 128]", "say at which it trains"],
    ),
    "not a mapping": (replaced("  v8:\n    vectors: 8", f"  v8: 8 {HERE}"), "variants.v8", ["mapping of fields"]),
    "bad name": (replaced("v8:", f'"v 8": {HERE}'), "variants.v 8", ["letters and digits"]),
    "separator in a name": (replaced("v8:", f"v__8: {HERE}"), "variants.v__8", ["single - or _"]),
    "number as a name": (replaced("v8:", f"8: {HERE}"), "variants.8", ["quotes"]),
    "names differing in case": (
        GOOD + f"  V8: {{vectors: 8}} {HERE}\n",
        "variants.V8",
        ["'v8'", "upper and lower case"],
    ),
    "device name": (GOOD + f"  nul: {{vectors: 8, token: q-q}} {HERE}\n", "variants.nul", ["Windows"]),
    "device name as token": (GOOD + f"    token: con.x {HERE}\n", "variants.v8.token", ["Windows"]),
    "variant named like the grids' folder": (
        GOOD + f"  Grids: {{vectors: 8, token: q-q}} {HERE}\n",
        "variants.Grids",
        ["'Grids'", "folder of the grids"],
    ),
    "variant named like a grid": (
        GOOD + f"  best: {{vectors: 8, token: q-q}} {HERE}\n",
        "variants.best",
        ["grid that compares variants"],
    ),
    "axis named like the leaderboard's mean": (
        GOOD + f'evaluation:\n  axes:\n    overall: {{prompt: "[name], cat", values: [cat]}} {HERE}\n',
        "evaluation.axes.overall",
        ["leaderboard"],
    ),
    "axis named like the leaderboard's likeness": (
        GOOD + f'evaluation:\n  axes:\n    likeness: {{prompt: "[name], cat", values: [cat]}} {HERE}\n',
        "evaluation.axes.likeness",
        ["leaderboard"],
    ),
    "axis without values": (
        GOOD + f'evaluation:\n  axes:\n    a: {{prompt: "[name], cat", values: []}} {HERE}\n',
        "evaluation.axes.a",
        ["at least one"],
    ),
    "quote that is never closed": (
        GOOD + f"evaluation:\n  axes:\n    a:\n      prompt: '[name], cat'\n      values: 'cat, \"dog, fox' {HERE}\n",
        "evaluation.axes.a.values",
        ["close every quote"],
    ),
    "shipped axis of no such name": (
        GOOD + f"evaluation:\n  axes:\n    specis: {HERE}\n",
        "evaluation.axes.specis",
        ["no axis of this name is shipped", "species"],
    ),
    "rating axis without prompts of its own": (
        replaced("{kind: demo}", "{kind: demo, ratings: [s, q]}") + f"evaluation:\n  axes:\n    rating: {HERE}\n",
        "evaluation.axes.rating",
        ["no prompts beyond rating s are shipped"],
    ),
    "rating axis that the study does not allow": (
        GOOD + f'evaluation:\n  axes:\n    rating: {{prompt: "[name], cat", values: [cat], rating: q}} {HERE}\n',
        "evaluation.axes.rating",
        ["asks for rating 'q'", "allows only s"],
    ),
    "rating that hides under another name": (
        GOOD + f'evaluation:\n  axes:\n    mood: {{prompt: "[name], cat", values: [cat], rating: e}} {HERE}\n',
        "evaluation.axes.mood",
        ["asks for rating 'e'"],
    ),
    "rating axis that names no rating": (
        GOOD + f'evaluation:\n  axes:\n    rating: {{prompt: "[name], cat", values: [cat]}} {HERE}\n',
        "evaluation.axes.rating",
        ["say which in `rating`"],
    ),
    "combination with nothing": (
        GOOD + f"evaluation:\n  axes:\n    combination: {HERE}\n",
        "evaluation.axes.combination",
        ["evaluation.embeddings"],
    ),
    "grid of one dimension": (
        GOOD + f"evaluation:\n  grids:\n    - {{x: seed, y: checkpoint}}\n    - {{x: cfg, y: cfg}} {HERE}\n",
        "evaluation.grids.1",
        ["both 'cfg'"],
    ),
    "grid of an unknown dimension": (
        GOOD + f"evaluation:\n  grids: [{{y: chekpoint}}] {HERE}\n",
        "evaluation.grids.0.y",
        ["did you mean 'checkpoint'"],
    ),
    "grid of an unknown axis": (
        GOOD + f"evaluation:\n  grids:\n    - {{}}\n    - {{axes: [specis]}} {HERE}\n",
        "evaluation.grids.1.axes",
        ["no axis 'specis'", "species"],
    ),
    "other embedding with a variant's name": (
        GOOD + f"evaluation:\n  embeddings:\n    V8: other.pt {HERE}\n",
        "evaluation.embeddings.V8",
        ["the name of the variant v8"],
    ),
    "other embedding with a word's name": (
        GOOD + f"evaluation:\n  embeddings:\n    wolf: other.pt {HERE}\n",
        "evaluation.embeddings.wolf",
        ["take over that word"],
    ),
    "other embedding of an excluded name": (
        GOOD + f"evaluation:\n  embeddings:\n    my-own: ../minor/cub-style.pt {HERE}\n",
        "evaluation.embeddings.my-own",
        ["content policy"],
    ),
    "no such date in the title": (
        GOOD + f"date: 23.11.2026 {HERE}\n",
        "date",
        ["date"],
    ),
    "word as variant": (
        GOOD + f"  wolf: {{vectors: 8}} {HERE}\n",
        "variants.wolf",
        ["take over that word", "set token:", "x-wolf"],
    ),
    "word as token": (GOOD + f"    token: Cat {HERE}\n", "variants.v8.token", ["take over that word"]),
    "another name": (replaced("name: x", f"name: y {HERE}"), "name", ["'y'", "x.yaml"]),
    "excluded initializer": (
        GOOD + f"    initializer: young wolf {HERE}\n",
        "variants.v8.initializer",
        ["content policy"],
    ),
    "excluded initializer's file": (
        GOOD + f"    start: file\n    initializer_file: ../minor/cub-style.pt {HERE}\n",
        "variants.v8.initializer_file",
        ["'cub-style' says 'cub'", "content policy"],
    ),
    "excluded template": (
        replaced("steps: 10", f'steps: 10\n  templates: ["[name], toddler"] {HERE}'),
        "common.templates",
        ["content policy"],
    ),
    "excluded token": (GOOD + f"    token: cub-style {HERE}\n", "variants.v8.token", ["content policy"]),
    "excluded variant with a token": (
        GOOD + f"  my-cub: {{vectors: 8, token: q-q}} {HERE}\n",
        "variants.my-cub",
        ["content policy"],
    ),
    "excluded keep": (
        GOOD + f"captions:\n  a:\n    keep:\n      - wolf\n      - teen {HERE}\n",
        "captions.a.keep.1",
        ["content policy"],
    ),
    "excluded value": (
        GOOD + f'evaluation:\n  axes:\n    a:\n      prompt: "[name], wolf"\n      values: [wolf, child] {HERE}\n',
        "evaluation.axes.a.values",
        ["'child'"],
    ),
    "excluded prompt": (
        GOOD + f'evaluation:\n  axes:\n    a:\n      values: [wolf]\n      prompt: "[name], kid, wolf" {HERE}\n',
        "evaluation.axes.a.prompt",
        ["'kid'"],
    ),
    "excluded query": (
        replaced("{kind: demo}", f'{{kind: e621, query: "wolf ~cub"}} {HERE}'),
        "source.query",
        ["cub", "content policy"],
    ),
    "own exclusion in a prompt": (
        replaced("{kind: demo}", "{kind: demo, exclude_tags: [dragon]}")
        + f'evaluation:\n  axes:\n    a:\n      values: [wolf]\n      prompt: "[name], wolf, dragon" {HERE}\n',
        "evaluation.axes.a.prompt",
        ["'dragon'"],
    ),
    "key twice": (GOOD + f"    vectors: 9 {HERE}\n", "", ["'vectors' is written twice"]),
    "bad YAML": (GOOD + f"  - a {HERE}\n", "", ["not valid YAML"]),
    "two documents": (GOOD + f"--- {HERE}\na: 1\n", "", ["single document"]),
    "no such date": (GOOD + f"title: 2026-13-45 {HERE}\n", "", ["quotes"]),
    "foreign tag": (GOOD + f"title: !!python/name:os.system x {HERE}\n", "", ["not valid YAML"]),
    "control character": (GOOD + f'title: "a\x07" {HERE}\n', "", ["characters are not allowed"]),
    "recursive anchor": (GOOD + f"title: &a [*a] {HERE}\n", "title", ["string"]),
    "list as key": (GOOD + f"? [a, b] {HERE}\n: 1\n", "", ["not valid YAML"]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_names_file_line_field_and_what_is_allowed(case, tmp_path):
    text, field, parts = FAULTS[case]
    path = write(tmp_path, text)
    (line,) = [number for number, content in enumerate(text.splitlines(), 1) if HERE in content]
    faults = fault_of(path).splitlines()
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}:{line}: {f'{field}: ' if field else ''}")
    assert all(part in faults[0] for part in parts), faults[0]


def test_a_negative_search_term_may_name_what_is_excluded(tmp_path):
    text = replaced("{kind: demo}", '{kind: e621, query: "wolf -young rating:s"}')
    assert load_study(write(tmp_path, text)).study.source.query == "wolf -young rating:s"


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        (b"", 1, "is empty"),
        (b"# only a comment\n", 1, "is empty"),
        (b"- a\n- b\n", 1, "not a mapping"),
        (b"name: x\ntitle: caf\xe9\n", 2, "not UTF-8"),
    ],
)
def test_what_is_no_study_at_all(content, line, part, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    fault = fault_of(path)
    assert fault.startswith(f"{path}:{line}: ")
    assert part in fault


def test_a_folder_named_like_a_file_is_named(tmp_path):
    (tmp_path / "x.yaml").mkdir()
    assert "cannot be read" in fault_of(tmp_path / "x.yaml")


@pytest.mark.parametrize("depth", [900, 5000])
def test_a_deeply_nested_value_is_refused_not_a_crash(depth, tmp_path):
    fault = fault_of(write(tmp_path, GOOD + "title: " + "[" * depth + "]" * depth + "\n"))
    assert fault.startswith(f"{tmp_path / 'x.yaml'}:")


def test_all_faults_of_all_files_come_together(tmp_path):
    text = (
        replaced("{kind: demo}", "{kind: demo, picturs: 1}")
        + "    captions: nnoe\n    token: dog\n  nul: {vectors: 99}\n"
    )
    write(tmp_path, text)
    write(tmp_path, GOOD.replace("name: x", "name: z"), "y.yaml")
    write(tmp_path, GOOD.replace("name: x", "name: fine"), "fine.yaml")
    with pytest.raises(StudyError) as caught:
        load_studies([tmp_path])
    places = [re.findall(r"(\w+\.yaml:\d+: [\w.]+): ", fault)[0] for fault in str(caught.value).splitlines()]
    assert sorted(places) == [
        "x.yaml:11: variants.v8.captions",
        "x.yaml:12: variants.v8.token",
        "x.yaml:13: variants.nul",
        "x.yaml:13: variants.nul.vectors",
        "x.yaml:2: source.picturs",
        "y.yaml:1: name",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        # Each of these would also break what depends on it; only the cause is reported.
        ("steps: 10", "steps: ten", "x.yaml:7: common.steps: "),
        ("demo: {}", "demo: {file: a, hub: b}", "x.yaml:4: base_models.demo: "),
        ("{kind: demo}", "{kind: domo}", "x.yaml:2: source.kind: "),
        ("base: demo", "base: [demo]", "x.yaml:6: common.base: "),
    ],
)
def test_consequences_of_a_fault_are_not_faults(old, new, fault, tmp_path):
    (only,) = fault_of(write(tmp_path, replaced(old, new) + "  v9: {vectors: 9}\n")).splitlines()
    assert fault in only


def test_a_size_that_cannot_be_read_is_not_missed_as_well(tmp_path):
    (only,) = fault_of(write(tmp_path, STAGED.replace("seed: 1", "resolution: wide"))).splitlines()
    assert "x.yaml:7: common.resolution: " in only


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("{study: y, variant: v8}", None),
        ("{study: y, variant: v8, step: 20}", None),
        ("{study: x, variant: v8, step: 5}", None),
        ("{study: why, variant: v8}", "there is no study 'why' (known: x, y)"),
        ("{study: y, variant: v9}", "there is no variant of y 'v9' (known: v8)"),
    ],
)
def test_versions_of_other_studies_must_be_there(version, problem, tmp_path):
    write(tmp_path, GOOD + f"evaluation:\n  seeds: [1]\n  versions:\n    - {version}\n")
    write(tmp_path, GOOD.replace("name: x", "name: y"), "y.yaml")
    if problem is None:
        assert list(load_studies([tmp_path])) == ["x", "y"]
    else:
        with pytest.raises(StudyError) as caught:
            load_studies([tmp_path])
        assert str(caught.value) == f"{tmp_path / 'x.yaml'}:{GOOD.count(chr(10)) + 4}: evaluation.versions.0: {problem}"


@pytest.mark.parametrize("other", ["x", "X"])
def test_two_studies_of_one_name_name_both_files(other, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one = write(first, GOOD)
    two = write(second, replaced("name: x", f"# a comment\nname: {other}"), f"{other}.yaml")
    with pytest.raises(StudyError) as caught:
        load_studies([first, second])
    assert str(caught.value).startswith(f"{two}:2: name: ")
    assert str(one) in str(caught.value)


def test_a_yml_file_is_not_overlooked(tmp_path):
    write(tmp_path, GOOD, "x.yml")
    with pytest.raises(StudyError, match=r"rename it to x\.yaml"):
        load_studies([tmp_path])


def test_hidden_files_and_other_files_are_left_alone(tmp_path):
    write(tmp_path, "broken: [", "._x.yaml")
    write(tmp_path, "notes", "notes.txt")
    write(tmp_path, GOOD)
    assert list(load_studies([tmp_path])) == ["x"]


def test_study_folders_come_from_the_environment(tmp_path, monkeypatch):
    own = REPO / "data" / "studies"
    monkeypatch.setenv("TI_STUDIES", os.pathsep.join([str(tmp_path), str(own), ""]))
    assert study_folders() == [own, tmp_path]
    monkeypatch.setenv("TI_STUDIES", str(tmp_path / "absent"))
    with pytest.raises(StudyError, match="absent"):
        study_folders()


def test_clip_words_are_exactly_the_words_of_the_vocabulary():
    tokenizer = json.loads((REPO / "data/base_models/demo/tokenizer/tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = {token.removesuffix("</w>") for token in tokenizer["model"]["vocab"] if token.endswith("</w>")}
    assert clip_words() == {word for word in vocabulary if re.fullmatch("[a-z0-9]+", word)}


def test_loading_the_shipped_studies_is_little_work():
    """Every command begins with it. Calls are counted, not seconds: those depend on what else the machine does."""
    code = (
        "import sys, pydantic, yaml; from ti_pipeline import study_files as f, studies; calls = [0]\n"
        "def count(frame, event, value): calls[0] += event == 'call'\n"
        "sys.setprofile(count); f.load_studies(f.study_folders()); sys.setprofile(None); print(calls[0])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TI_STUDIES"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment)
    assert int(done.stdout) < 200_000


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from ti_pipeline.study_files import *; load_studies(study_folders());"
        "print(sorted({'torch', 'diffusers', 'transformers', 'pandas', 'numpy', 'PIL', 'cv2'} & set(sys.modules)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TI_STUDIES"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment)
    assert run.stdout.strip() == "[]"


JUNK = [None, True, 0, -1, 8.5, float("nan"), "", "x y", "wolf", "young", [], [1], {}, {"a": 1}, {1: 2}, [[{}]]]


def _mutated(values, random):
    """Return a copy of a tree in which one place holds junk, lacks its entry or has one too many."""
    items = values if isinstance(values, dict) else dict(enumerate(values)) if isinstance(values, list) else {}
    if not items or random.random() < 0.25:
        return random.choice(JUNK)
    key = random.choice(list(items))
    change = random.random()
    changed = {**items, key: _mutated(items[key], random)}
    if change < 0.1:
        changed.pop(key)
    elif change < 0.2:
        changed[random.choice(["nmae", "base", 8, "con"])] = items[key]
    return list(changed.values()) if isinstance(values, list) else changed


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(random=st.randoms(use_true_random=False), path=st.sampled_from(SHIPPED), times=st.integers(1, 3))
def test_no_file_crashes_the_reader(random, path, times, tmp_path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for _ in range(times):
        values = _mutated(values, random)
    written = write(tmp_path, yaml.safe_dump(values, sort_keys=False), path.name)
    try:
        load_study(written)
    except StudyError as error:
        for fault in str(error).splitlines():
            assert re.match(rf"{re.escape(str(written))}:\d+: \S", fault)
