"""Faults in words: what pydantic found wrong, on which line it stands, what is allowed, and the nearest known name.

Not here: which rules there are (`studies`, and `study_files` for those that look beyond one field).
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING, Any

from ti_pipeline.studies import Study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import ValidationError

    from ti_pipeline.study_yaml import YamlFile

__all__ = ["faults_of", "json_schema"]

Location = tuple[str | int, ...]

# Where a field that an entry does not set itself is inherited from: the place of the entries, and of their parent.
_INHERITED: tuple[tuple[Location, Location], ...] = (
    (("variants",), ("common",)),
    (("curations",), ("curation",)),
    (("crops", "sets"), ("crops",)),
)
# What pydantic puts into locations beside the fields: the members of unions, and the mark of a bad key.
_LABELS = re.compile(r"\[key\]|int|str|float|constrained-\w+|list\[.*\]|function-.*")


def faults_of(error: ValidationError, file: YamlFile) -> list[str]:
    """Return `file:line: field: problem` for each fault of a study, once each, in the order of lines."""
    found: dict[tuple[int, Location], list[str]] = {}
    for fault in error.errors(include_url=False):
        for location, problem in _worded(fault):
            place = _place(location, file)
            problems = found.setdefault((file.line(place), place), [])
            if problem not in problems:
                problems.append(problem)
    return [file.fault(place, " or ".join(problems)) for (_, place), problems in sorted(found.items(), key=_line)]


def _line(entry: tuple[tuple[int, Location], list[str]]) -> int:
    return entry[0][0]


def _place(location: Location, file: YamlFile) -> Location:
    """Return where people wrote the field: what comes from `common` stands there."""
    for entries, parent in _INHERITED:
        depth = len(entries) + 1
        if location[: depth - 1] == entries and len(location) > depth and not file.has(location[: depth + 1]):
            inherited = parent + location[depth:]
            if file.has(inherited[: len(parent) + 1]):
                return inherited
    return location


def _worded(fault: Any) -> Iterator[tuple[Location, str]]:
    """Yield field and problem; one fault of the whole study may be about several fields."""
    raw, kind, context = fault["loc"], fault["type"], fault.get("ctx", {})
    location = _plain(raw)
    match kind:
        case "broken_references":
            for field, name, known in context["broken"]:
                yield field, f"there is no {name!r}; {_hint(name, known)}"
        case "extra_forbidden":
            yield location, f"unknown field; {_hint(str(location[-1]), _known_fields(raw[:-1]))}"
        case "literal_error" | "union_tag_invalid":
            allowed = re.findall(r"'([^']+)'", context.get("expected") or context["expected_tags"])
            given = fault["input"] if kind == "literal_error" else context["tag"]
            yield location if kind == "literal_error" else (*location, "kind"), _not_one_of(given, allowed)
        case "union_tag_not_found":
            yield (*location, "kind"), f"is missing; one of {', '.join(_kinds())}"
        case "missing":
            yield location, "is missing" + (" (here and in common)" if location[0] == "variants" else "")
        case "string_pattern_mismatch":
            yield location, _not_a_name(fault["input"])
        case "model_type" | "dict_type":
            yield location, f"must be a mapping of fields{_shown(fault['input'])}"
        case _:
            yield location, f"{fault['msg'].removeprefix('Value error, ')}{_shown(fault['input'])}"


def _plain(raw: Sequence[str | int]) -> Location:
    """Return a location as people would write it, without pydantic's labels."""
    parts = [part for index, part in enumerate(raw) if not (index == 1 and raw[0] == "source" and part in _kinds())]
    while len(parts) > 1 and isinstance(parts[-1], str) and _LABELS.fullmatch(parts[-1]):
        parts.pop()
    labelled = raw[:2] == ("evaluation", "checkpoints")
    return tuple(p for p in parts if not (labelled and isinstance(p, str) and _LABELS.fullmatch(p)))


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [entry.lower() for entry in known], 1)
    listed = f"known: {', '.join(known)}"
    nearest = next((entry for entry in known if near and entry.lower() == near[0]), None)
    return listed if nearest is None else f"did you mean {nearest!r}? ({listed})"


def _not_one_of(given: object, allowed: Sequence[str]) -> str:
    return f"{given!r} is not allowed; {_hint(str(given), allowed)}"


def _not_a_name(given: object) -> str:
    return (
        f"{given!r} cannot be a name: letters and digits, with single - or _ between them"
        " (names become file names, partition keys and parts of prompts)"
    )


def _shown(value: object) -> str:
    """Return a short value in brackets; mappings and long lists would only hide the sentence."""
    text = repr(value)
    return "" if isinstance(value, dict) or len(text) > 80 else f" (is {text})"


def _kinds() -> list[str]:
    return list(json_schema()["properties"]["source"]["discriminator"]["mapping"])


def _known_fields(location: Sequence[str | int]) -> list[str]:
    """Return the fields that the schema allows at a location."""
    schema = json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = _step(_resolved(node, schema), str(part))
    return list(_resolved(node, schema).get("properties", {}))


def _step(node: dict[str, Any], part: str) -> dict[str, Any]:
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    named = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties"))
    inner = node.get("properties", {}).get(part) or named or node.get("items")
    return dict(inner) if isinstance(inner, dict) else {}


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in node:
        node = next((choice for choice in node["anyOf"] if "$ref" in choice), node)
    return dict(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]) if "$ref" in node else node


@functools.lru_cache(maxsize=1)
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the format, inheritance included.

    `common` offers the fields of a variant; what inherits needs nothing of its own and may be empty (null).
    """
    schema = Study.model_json_schema()
    definitions = schema["$defs"]
    definitions["Variant"]["required"] = []
    schema["properties"]["common"] = {
        "$ref": "#/$defs/Variant",
        "description": "Values for every variant that does not set its own.",
    }
    for entries in (schema["properties"]["variants"], schema["properties"]["curations"]):
        named = entries["patternProperties"]
        entries["patternProperties"] = {key: {"anyOf": [entry, {"type": "null"}]} for key, entry in named.items()}
    for entries in (*schema["properties"].values(), definitions["Evaluation"]["properties"]["axes"]):
        if "patternProperties" in entries:
            entries["additionalProperties"] = False  # a bad name is an error, not another kind of entry
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
