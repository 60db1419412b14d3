"""What people and editors read about the format: the JSON schema and the guide, both checked against the code."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ti_pipeline.study_files import load_study, main

REPO = Path(__file__).resolve().parents[1]
SHIPPED = sorted((REPO / "data" / "studies").glob("*.yaml"))


def test_the_shipped_schema_is_current(tmp_path):
    assert main(["--schema", str(tmp_path / "schema.json")]) == 0
    shipped = (REPO / "docs" / "study.schema.json").read_bytes()
    assert (tmp_path / "schema.json").read_bytes() == shipped, (
        "run: python -m ti_pipeline.study_files --schema docs/study.schema.json"
    )


def conforms(value, schema, root) -> bool:
    """Validate by JSON schema's rules, for the keywords that the format's schema uses."""
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        return conforms(value, target, root)
    if "anyOf" in schema or "oneOf" in schema:
        matches = [conforms(value, choice, root) for choice in schema.get("anyOf", schema.get("oneOf"))]
        return any(matches) if "anyOf" in schema else sum(matches) == 1
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "null": type(None)}
    kind = schema.get("type")
    if kind == "boolean":
        return isinstance(value, bool)
    if kind and (not isinstance(value, types[kind]) or isinstance(value, bool)):
        return False
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    if isinstance(value, dict):
        return set(schema.get("required", [])) <= set(value) and all(
            _entry(k, v, schema, root) for k, v in value.items()
        )
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(conforms(v, schema["items"], root) for v in value)
    if isinstance(value, int | float):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return re.search(schema.get("pattern", ""), value or "") is not None


def _entry(key, value, schema, root) -> bool:
    if key in schema.get("properties", {}):
        return conforms(value, schema["properties"][key], root)
    for pattern, inner in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            return conforms(value, inner, root)
    extra = schema.get("additionalProperties", True)
    return extra if isinstance(extra, bool) else conforms(value, extra, root)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_editors_accept_the_shipped_studies(path):
    schema = json.loads((REPO / "docs" / "study.schema.json").read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert text.startswith("# yaml-language-server: $schema=../../docs/study.schema.json\n")
    assert conforms(values, schema, schema)
    assert not conforms(values | {"nmae": 1}, schema, schema)
    first = next(iter(values["variants"]))
    broken = values | {"variants": {first: {"vectrs": 1}}}
    assert not conforms(broken, schema, schema)


def _examples() -> list[str]:
    text = (REPO / "docs" / "studies.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_the_examples_of_the_guide_load(tmp_path):
    _, smallest, *parts = _examples()
    (tmp_path / "harbour.yaml").write_text(smallest, encoding="utf-8")
    load_study(tmp_path / "harbour.yaml")
    (tmp_path / "whole.yaml").write_text("name: whole\n" + "".join(parts), encoding="utf-8")
    whole = load_study(tmp_path / "whole.yaml").study
    assert whole.variant("lean").token == "whole-lean"
    assert whole.evaluation.axes["scene"].values == ["city", "sea, boat", "forest"]
