"""Faults in words: what pydantic found wrong, on which line it stands, what is allowed, and the nearest known name.

Not here: which rules there are (`studies`, and `study_files` for those that look beyond one field).
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ti_pipeline.studies import Study
from ti_pipeline.study_fields import PATTERNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ti_pipeline.study_yaml import YamlFile

__all__ = ["checked", "json_schema"]

Location = tuple[str | int, ...]
_NOT_TEXT = "a name must be text; put it in quotes"
# Where a field that an entry does not set itself is inherited from: the place of the entries, and of their parent.
_INHERITED: tuple[tuple[Location, Location], ...] = (
    (("variants",), ("common",)),
    (("curations",), ("curation",)),
    (("crops", "sets"), ("crops",)),
)
# What pydantic puts behind these locations beside the fields: the member of the union that it tried.
_LABELS = {
    ("source",): re.compile(r"demo|folder|e621_export|e621"),
    ("evaluation", "checkpoints"): re.compile(r"count|steps"),
    ("captions", "*", "concept"): re.compile(r"auto|tags"),
    ("variants", "*", "learning_rate"): re.compile(r"float|str"),
}


@dataclass(frozen=True)
class _Fault:
    """`shown` is the value as written, in brackets, or empty where the sentence says it."""

    location: Location
    problem: str
    shown: str


def checked(file: YamlFile) -> tuple[Study | None, list[str]]:
    """Return the study, and `file:line: field: problem` for each fault, once each and in the order of lines.

    One fault must not hide another: what is wrong is left out and the rest read again. So there can be faults and
    a study, for rules that look at whole studies; it is None where too little is left of it.
    """
    values, faults = file.values, list[_Fault]()
    while True:
        try:
            return Study.model_validate(values), _sentences(faults, file)
        except ValidationError as error:
            found = [fault for raw in error.errors(include_url=False) for fault in _worded(raw)]
        new = [fault for fault in found if not any(_related(fault.location, old.location) for old in faults)]
        faults += new
        for fault in new:
            values = _without(values, _place(fault.location, file))
        if not new:  # what lacks something now lacks it because it was left out: go on without those variants
            spoilt = {str(at[1]) for at in (fault.location for fault in found) if at[:1] == ("variants",) and at[1:]}
            whole = {name: own for name, own in _mapping(values, "variants").items() if str(name) not in spoilt}
            if len(whole) == len(_mapping(values, "variants")):
                return None, _sentences(faults, file)
            values = {**values, "variants": whole}


def _mapping(values: dict[Any, Any], field: str) -> dict[Any, Any]:
    found = values.get(field)
    return found if isinstance(found, dict) else {}


def _related(one: Location, other: Location) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _without(values: Any, location: Location) -> Any:
    """Return a copy of plain values without what stands at `location`; mappings stay as empty ones."""
    items = dict(values) if isinstance(values, dict) else dict(enumerate(values)) if isinstance(values, list) else {}
    key = next((key for key in items if location and str(key) == str(location[0])), None)
    if key is None:
        return values
    if len(location) > 1:
        items[key] = _without(items[key], location[1:])
    elif isinstance(items[key], dict):
        items[key] = {}
    else:
        del items[key]
    return list(items.values()) if isinstance(values, list) else items


def _sentences(faults: list[_Fault], file: YamlFile) -> list[str]:
    """Return one sentence for each place; the members of a union each have their say."""
    problems: dict[Location, dict[str, None]] = {}
    shown: dict[Location, str] = {}
    for fault in faults:
        place = _place(fault.location, file)
        problems.setdefault(place, {})[fault.problem] = None
        shown[place] = fault.shown
    return [file.fault(place, " or ".join(problems[place]) + shown[place]) for place in sorted(problems, key=file.line)]


def _place(location: Location, file: YamlFile) -> Location:
    """Return where people wrote the field: what comes from `common` stands there."""
    for entries, parent in _INHERITED:
        depth = len(entries) + 1
        if location[: depth - 1] == entries and len(location) > depth and not file.has(location[: depth + 1]):
            inherited = parent + location[depth:]
            if file.has(inherited[: len(parent) + 1]):
                return inherited
    return location


def _worded(fault: Any) -> Iterator[_Fault]:
    """Yield one of pydantic's faults in words; one of the whole study may be about several fields."""
    location, kind, context = _plain(fault["loc"]), fault["type"], fault.get("ctx", {})
    match kind:
        case "broken_references":
            for field, name, known in context["broken"]:
                yield _Fault(field, f"there is no {name!r}; {_hint(name, known)}", "")
        case "faults":
            for field, problem in context["found"]:
                yield _Fault(field, problem, "")
        case "extra_forbidden":
            hint = _hint(str(location[-1]), _known_fields(fault["loc"][:-1]))
            yield _Fault(location, f"unknown field; {hint}", "")
        case "literal_error":
            yield _Fault(location, _not_one_of(fault["input"], context["expected"]), "")
        case "union_tag_invalid":
            yield _Fault((*location, "kind"), _not_one_of(context["tag"], context["expected_tags"]), "")
        case "union_tag_not_found":
            yield _Fault((*location, "kind"), f"is missing; one of {', '.join(_kinds())}", "")
        case "missing":
            inherits = location[0] == "variants" and len(location) > 1
            yield _Fault(location, "is missing" + (" (here and in common)" if inherits else ""), "")
        case _:
            yield _Fault(location, _problem(fault), _shown(fault["input"]))


def _problem(fault: Any) -> str:
    """Return what is wrong with a value."""
    match fault["type"]:
        case "string_pattern_mismatch":
            return f"must be {PATTERNS[fault['ctx']['pattern']]}"
        case "model_type" | "dict_type":
            return "must be a mapping of fields"
        case "invalid_key":
            return _NOT_TEXT
        case "string_type" if fault["loc"][-1] == "[key]":
            return _NOT_TEXT
        case _:
            return str(fault["msg"]).removeprefix("Value error, ")


def _plain(raw: Sequence[str | int]) -> Location:
    """Return a location as people would write it, without pydantic's labels."""
    parts = [part for part in raw if part != "[key]"]
    for place, label in _LABELS.items():
        depth = len(place)
        fits = len(parts) > depth and all(want in ("*", part) for want, part in zip(place, parts, strict=False))
        if fits and label.fullmatch(str(parts[depth])):
            del parts[depth]
    return tuple(parts)


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [entry.lower() for entry in known], 1)
    listed = f"known: {', '.join(known)}"
    nearest = next((entry for entry in known if near and entry.lower() == near[0]), None)
    return listed if nearest is None else f"did you mean {nearest!r}? ({listed})"


def _not_one_of(given: object, expected: str) -> str:
    allowed = re.findall(r"'([^']+)'", expected)
    return f"{given!r} is not allowed; {_hint(str(given), allowed)}"


def _shown(value: object) -> str:
    """Return a short value in brackets; mappings and long lists would only hide the sentence."""
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, dict | list) for entry in entries) or len(repr(value)) > 80:
        return ""
    return f" (is {value!r})"


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
    axes = definitions["Evaluation"]["properties"]["axes"]
    for entries in (schema["properties"]["variants"], schema["properties"]["curations"], axes):
        named = entries["patternProperties"]
        entries["patternProperties"] = {key: {"anyOf": [entry, {"type": "null"}]} for key, entry in named.items()}
    for entries in (*schema["properties"].values(), axes, definitions["Evaluation"]["properties"]["embeddings"]):
        if "patternProperties" in entries:
            entries["additionalProperties"] = False  # a bad name is an error, not another kind of entry
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
