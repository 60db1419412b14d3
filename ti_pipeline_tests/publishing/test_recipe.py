"""The recipe that leaves: no path, search, address or comment of its maker, and still a study."""

import dataclasses
from pathlib import Path

import yaml

from ti_pipeline.publishing.recipe import cleaned_recipe
from ti_pipeline.publishing.release import write_release
from ti_pipeline.studies import Release, Study

SECRET = "sekret"  # stands in everything that is nobody else's business
WHOLE = {
    "name": "tiny",
    "title": "male/female pairs",
    "source": {
        "kind": "e621",
        "query": f"wolf {SECRET}",
        "opt_out_file": f"/{SECRET}/out.txt",
        "exclude_tags": ["a/b"],
    },
    "audit": {"text_detector": f"../{SECRET}/det.onnx", "text_recognizer": f"C:\\{SECRET}\\rec.onnx"},
    "base_models": {
        "base": {"file": f"/home/{SECRET}/base.safetensors", "config": f"~/{SECRET}/config"},
        "query": {"folder": f"${{HOME}}/{SECRET}/model", "published_as": "owner/model"},
        "hub": {"hub": "CompVis/stable-diffusion-v1-4", "revision": "refs/pr/1"},
    },
    "crops": {"sizes": [64], "focal_points": f"{SECRET}/points.csv", "head_detector": f"/{SECRET}/heads.onnx"},
    "captions": {
        "path": {
            "source": "tagger",
            "tagger": "t",
            "tagger_model": f"/{SECRET}/t.onnx",
            "tagger_tags": f"{SECRET}/t.csv",
        }
    },
    "common": {"base": "base", "steps": 20, "templates": ["[name] / [filewords]"]},
    "variants": {
        "a": {"vectors": 2},
        "url": {"vectors": 3, "start": "file", "initializer_file": f"s3://{SECRET}-bucket/old.pt"},
    },
    "evaluation": {
        "scorer": {"folder": f"/{SECRET}/clip"},
        "embeddings": {"other": f"/{SECRET}/other.pt"},
        "axes": {"query": {"prompt": "[name], wolf/fox", "values": ["wolf/fox", "lion"]}},
    },
    "publish": {"url": f"gs://{SECRET}-bucket/mine"},
}


def test_nothing_of_the_makers_own_is_left_and_the_rest_is_all_there() -> None:
    study = Study.model_validate(WHOLE)
    text = cleaned_recipe(study)
    assert SECRET not in text
    again = Study.model_validate(yaml.safe_load(text))
    assert (again.variants["a"], again.crops.sizes, again.title) == (study.variants["a"], [64], "male/female pairs")
    assert again.evaluation.axes == study.evaluation.axes
    assert again.source.exclude_tags == ["a/b"]
    assert again.base_models["hub"] == study.base_models["hub"]
    assert again.base_models["query"].published_as == "owner/model"
    assert (again.base_models["base"].file, again.base_models["query"].folder) == ("base.safetensors", "model")
    assert again.evaluation.embeddings == {"other": "other.pt"}
    assert again.publish is None
    head = [line.removeprefix("# - ") for line in text.splitlines() if line.startswith("# - ")]
    assert {"source.query", "publish", "base_models.base.file", "variants.url.initializer_file"} <= set(head)
    assert cleaned_recipe(study) == text


def private_fields(schema: dict) -> set[str]:
    """Every text field whose description speaks of a place, by the format's own words."""
    words = ("path", "file", "folder", "address", "bucket")
    found = set()
    for name, part in {"Study": schema, **schema["$defs"]}.items():
        for field, told in part.get("properties", {}).items():
            says = f"{field} {told.get('description', '')}".lower()
            if "string" in str(told.get("type", told.get("anyOf", ""))) and any(word in says for word in words):
                found.add(f"{name}.{field}")
    return found


def test_every_field_that_names_a_place_is_cleaned() -> None:
    """A field that is new in the format and holds a path is cleaned without being listed anywhere."""
    schema = Study.model_json_schema()
    spoken_of = private_fields(schema)
    assert {"BaseModelSource.file", "Publish.url", "CaptionPlan.tagger_model", "Variant.initializer_file"} <= spoken_of
    from ti_pipeline.publishing import recipe

    for field in sorted(spoken_of):
        name = field.split(".")[1]
        if name not in {"name", "published_as", "note", "token"}:  # of files that are ours, and words for people
            told: list[str] = []
            assert SECRET not in str(recipe._cleaned({name: f"/home/{SECRET}/x.bin"}, ("part",), told)), field
            assert told, field


def test_no_file_of_a_release_says_where_it_was_made(results, tmp_path: Path) -> None:
    study = Study.model_validate(WHOLE | {"evaluation": results.study.evaluation.model_dump(mode="json")})
    told = dataclasses.replace(results, study=study, study_text=f"# {SECRET}\n")
    folder = write_release(told, tmp_path / "releases").folder
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert SECRET.encode() not in content, path.name
            assert b"/home/" not in content, path.name
            assert str(tmp_path).encode() not in content, path.name


def test_the_full_recipe_is_the_file_itself_on_request(results, tmp_path: Path) -> None:
    study = results.study.model_copy(update={"release": Release(recipe="full")})
    folder = write_release(dataclasses.replace(results, study=study), tmp_path).folder
    assert (folder / "study.yaml").read_text() == results.study_text
    cleaned = write_release(results, tmp_path / "other").folder / "study.yaml"
    assert "alert(6)" not in cleaned.read_text()
