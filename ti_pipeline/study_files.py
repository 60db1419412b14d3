"""Study files: finding them, reading them, and telling people which line is wrong and what would be right.

Here: files, lines and wording. Not here: what a field means (`studies`).

`python -m ti_pipeline.study_files --schema FILE` writes the JSON schema with which editors complete a study.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import gzip
import importlib.resources
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from ti_pipeline.studies import Study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["LoadedStudy", "StudyError", "json_schema", "load_studies", "load_study", "study_folders"]

# Names that Windows keeps for devices, whatever their suffix.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com[0-9]|lpt[0-9])$", re.IGNORECASE)


class StudyError(ValueError):
    """One or more study files cannot be used; the message has a line `file:line: field: problem` for each fault."""


@dataclass(frozen=True)
class LoadedStudy:
    """A study with the file it came from; relative paths in it start at the file's folder."""

    study: Study
    path: Path
    text: str


def study_folders() -> list[Path]:
    """Return this checkout's `data/studies` and the folders of `TI_STUDIES`. Raises `StudyError` for a missing one."""
    folders = [Path(__file__).resolve().parents[1] / "data" / "studies"]
    folders += [Path(part).expanduser() for part in os.environ.get("TI_STUDIES", "").split(os.pathsep) if part]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        raise StudyError(f"no such folder of studies: {', '.join(missing)} (folders come from TI_STUDIES)")
    return folders


def load_studies(folders: Sequence[Path]) -> dict[str, LoadedStudy]:
    """Return the studies of all `*.yaml` files in `folders`, by name, in the order of folders and file names.

    Raises `StudyError` with every fault of every file at once.
    """
    found: dict[str, LoadedStudy] = {}
    faults: list[str] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        try:
            loaded = load_study(path)
        except StudyError as error:
            faults.append(str(error))
            continue
        twin = next((other for name, other in found.items() if name.casefold() == loaded.study.name.casefold()), None)
        if twin is not None:
            faults.append(f"{path}:1: name: study {loaded.study.name!r} exists already in {twin.path}; rename one")
            continue
        found[loaded.study.name] = loaded
    if faults:
        raise StudyError("\n".join(faults))
    return found


def load_study(path: Path) -> LoadedStudy:
    """Return one study. Raises `StudyError` that names file, line, field and what is allowed."""
    text, root = _parse(path)
    lines = _Lines(path, root)
    data = _plain(root, lines)
    faults = list(_name_faults(data, path, lines))
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        faults += [_word(fault, lines) for fault in error.errors()]
    else:
        faults += list(_content_faults(study, lines))
    if faults:
        raise StudyError("\n".join(faults))
    return LoadedStudy(study, path, text)


def _parse(path: Path) -> tuple[str, yaml.nodes.MappingNode]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}:1: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise StudyError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise StudyError(f"{path}:1: not valid YAML: {error}") from error
    if not isinstance(root, yaml.nodes.MappingNode):
        what = "is empty" if root is None else "is not a mapping of fields"
        raise StudyError(f"{path}:1: the file {what}; a study needs name, source, base_models and variants")
    return text, root


class _Lines:
    """Finds the line of a field in the YAML tree."""

    def __init__(self, path: Path, root: yaml.nodes.MappingNode) -> None:
        self.path, self.root = path, root

    def at(self, location: Sequence[str | int]) -> int:
        """Return the 1-based line of the deepest part of `location` that the file has."""
        node: yaml.nodes.Node = self.root
        line = 1
        for part in location:
            if isinstance(node, yaml.nodes.MappingNode):
                pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if pair is None:
                    continue  # a discriminator or union member that pydantic puts into locations
                line, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.nodes.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line

    def fault(self, location: Sequence[str | int], problem: str) -> str:
        """Return `file:line: field: problem`."""
        field = ".".join(str(part) for part in location)
        return f"{self.path}:{self.at(location)}: {f'{field}: ' if field else ''}{problem}"


def _plain(root: yaml.nodes.MappingNode, lines: _Lines) -> dict[str, Any]:
    """Return the file's values; a key written twice is an error, since one of the two would be lost."""
    doubled = list(_doubled_keys(root))
    if doubled:
        raise StudyError("\n".join(f"{lines.path}:{line}: {key!r} is written twice" for key, line in doubled))
    loader = yaml.SafeLoader("")
    try:
        return dict(loader.construct_document(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise StudyError(f"{lines.path}:{mark.line + 1 if mark else 1}: {error.problem}") from error


def _doubled_keys(node: yaml.nodes.Node) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.nodes.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            yield from _doubled_keys(value)
    elif isinstance(node, yaml.nodes.SequenceNode):
        for value in node.value:
            yield from _doubled_keys(value)


def _name_faults(data: dict[str, Any], path: Path, lines: _Lines) -> Iterator[str]:
    """Find names that file systems would not keep apart."""
    if isinstance(data.get("name"), str) and data["name"] != path.stem:
        yield lines.fault(["name"], f"is {data['name']!r}, but the file is called {path.name}; make them the same")
    for field in ("variants", "captions", "curations"):
        entries = data.get(field)
        names = [str(name) for name in entries] if isinstance(entries, dict) else []
        for name in names:
            if _RESERVED.match(name):
                yield lines.fault([field, name], f"{name!r} is a device name on Windows; choose another")
        for name in {n for n in names if sum(n.casefold() == other.casefold() for other in names) > 1}:
            yield lines.fault([field, name], f"{name!r} differs from another only in upper and lower case")


def _word(fault: Any, lines: _Lines) -> str:
    """Return one validation fault in words: what is wrong, what is allowed, and the nearest known name."""
    location, kind = [part for part in fault["loc"] if part != "[key]"], fault["type"]
    if kind == "extra_forbidden":
        known = _known_fields(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return lines.fault(location, f"unknown field; {hint}")
    if kind == "literal_error":
        near = difflib.get_close_matches(str(fault["input"]), re.findall(r"'([^']+)'", fault["ctx"]["expected"]), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return lines.fault(location, f"{fault['input']!r} is not one of {fault['ctx']['expected']}{hint}")
    if kind == "missing":
        return lines.fault(location, "is missing")
    if kind == "string_pattern_mismatch":
        return lines.fault(
            location,
            f"{fault['input']!r} cannot be a name: letters and digits, with single - or _ between them"
            " (names become file names, partition keys and parts of prompts)",
        )
    message = fault["msg"].removeprefix("Value error, ")
    if not location:  # faults of the whole study name their fields themselves
        parts = message.split("; ") if kind == "value_error" else [message]
        return "\n".join(lines.fault(part.split(":")[0].split("."), part.split(": ", 1)[-1]) for part in parts)
    shown = "" if isinstance(fault["input"], dict) else f" (is {fault['input']!r})"
    return lines.fault(location, f"{message}{shown}")


def _known_fields(location: Sequence[str | int]) -> list[str]:
    """Return the fields that the schema allows at a location."""
    schema = json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = _step(node, str(part), schema)
    return sorted(_resolve(node, schema).get("properties", {}))


def _step(node: dict[str, Any], part: str, schema: dict[str, Any]) -> dict[str, Any]:
    node = _resolve(node, schema)
    if "discriminator" in node and part in node["discriminator"]["mapping"]:
        return {"$ref": node["discriminator"]["mapping"][part]}
    inner = node.get("properties", {}).get(part, node.get("additionalProperties", node.get("items", {})))
    return dict(inner) if isinstance(inner, dict) else {}


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return dict(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    return node


@functools.lru_cache(maxsize=1)
def _clip_words() -> frozenset[str]:
    """Return every word that is one token of CLIP's vocabulary."""
    packed = importlib.resources.files("ti_pipeline.inversion").joinpath("clip_words.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode().split("\n"))


def _content_faults(study: Study, lines: _Lines) -> Iterator[str]:
    """Find tokens that hijack words, and texts that name what the content policy excludes."""
    from ti_pipeline.e621.policy import PolicyError, load_policy

    for name in study.variants:
        token = str(study.variant(name).token)
        if token.lower() in _clip_words():
            yield lines.fault(
                ["variants", name],
                f"{token!r} is an ordinary word: an embedding of that name would take over the word in every prompt;"
                " set `token:` to another name",
            )
    policy = load_policy()
    for location, text in _texts(study):
        try:
            policy.require_clean_text(text, ".".join(map(str, location)))
        except PolicyError as error:
            yield lines.fault(location, str(error))


def _texts(study: Study) -> Iterator[tuple[list[str | int], str]]:
    """Yield every text of a study that reaches a caption or a prompt."""
    if study.source.kind == "demo":
        yield ["source", "concept"], study.source.concept
    for plan, captions in study.captions.items():
        for tag in captions.keep:
            yield ["captions", plan, "keep"], tag
    for name, variant in study.variants.items():
        yield ["variants", name, "token"], str(study.variant(name).token)
        yield ["variants", name, "initializer"], variant.initializer
        for line in variant.templates:
            yield ["variants", name, "templates"], line
    for name, axis in study.evaluation.axes.items():
        for field, texts in (("prompt", [axis.prompt]), ("negative", [axis.negative]), ("values", axis.values)):
            for text in texts:
                yield ["evaluation", "axes", name, field], text


@functools.lru_cache(maxsize=1)
def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the format; `common` offers the fields of a variant, none of them required."""
    schema = Study.model_json_schema()
    variant = schema["$defs"]["Variant"]
    schema["$defs"]["Common"] = {**variant, "title": "Common", "required": []}
    variant["required"] = []  # a variant may take everything from `common`
    schema["properties"]["common"] = {"$ref": "#/$defs/Common"}
    return schema


def main(arguments: list[str] | None = None) -> int:
    """Write the JSON schema; return the exit status."""
    from ti_pipeline.files import write_atomically

    parser = argparse.ArgumentParser(prog="python -m ti_pipeline.study_files", description=__doc__)
    parser.add_argument("--schema", type=Path, required=True, help="the file to write")
    options = parser.parse_args(arguments)
    with write_atomically(options.schema) as aside:
        aside.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
