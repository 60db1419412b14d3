"""YAML with line numbers: one file read as plain values, and the line on which a field stands.

Here: syntax. Not here: what a study may say (`studies`), or how its faults are worded (`study_faults`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["StudyError", "YamlFile", "read_yaml"]

# The C parser, where PyYAML was built with it, is ten times as fast; both give the same tree and marks.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StudyError(ValueError):
    """One or more study files cannot be used; the message has a line `file:line: field: problem` for each fault."""


@dataclass(frozen=True)
class YamlFile:
    """A file with a mapping at its top: its text, its values, and its tree of nodes with their marks."""

    path: Path
    text: str
    root: yaml.nodes.MappingNode
    values: dict[Any, Any]

    def has(self, location: Sequence[str | int]) -> bool:
        """Tell whether the file itself has the field at `location`."""
        return self._walk(location)[1] == len(location)

    def line(self, location: Sequence[str | int]) -> int:
        """Return the 1-based line of the deepest part of `location` that the file has; of a key, not its value."""
        return self._walk(location)[0]

    def fault(self, location: Sequence[str | int], problem: str) -> str:
        """Return `file:line: field: problem`."""
        field = ".".join(str(part) for part in location)
        return f"{self.path}:{self.line(location)}: {f'{field}: ' if field else ''}{problem}"

    def _walk(self, location: Sequence[str | int]) -> tuple[int, int]:
        """Return the line reached and how many parts of `location` lead there."""
        node: yaml.nodes.Node = self.root
        line = 1
        for depth, part in enumerate(location):
            step = _child(node, part)
            if step is None:
                return line, depth
            line, node = step
        return line, len(location)


def _child(node: yaml.nodes.Node, part: str | int) -> tuple[int, yaml.nodes.Node] | None:
    """Return line and node of one entry of a mapping (as the key's text) or of a list (as a number)."""
    if isinstance(node, yaml.nodes.MappingNode):
        found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        return None if found is None else (found[0].start_mark.line + 1, found[1])
    if isinstance(node, yaml.nodes.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def read_yaml(path: Path) -> YamlFile:
    """Read one file. Raises `StudyError` for what is not UTF-8, not YAML, not a mapping, or has a key twice."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise StudyError(f"{path}:1: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise StudyError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    root = _tree(path, text)
    doubled = [f"{path}:{line}: {key!r} is written twice; one of the two would be lost" for key, line in _doubled(root)]
    if doubled:
        raise StudyError("\n".join(doubled))
    return YamlFile(path, text, root, _values(path, root))


def _tree(path: Path, text: str) -> yaml.nodes.MappingNode:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise StudyError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {what}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise StudyError(f"{path}:{line}: not valid YAML: {error.reason} (character {error.character!r})") from error
    except RecursionError as error:
        raise StudyError(f"{path}:1: not valid YAML: nested too deeply") from error
    if not isinstance(root, yaml.nodes.MappingNode):
        what = "is empty" if root is None else "is not a mapping of fields"
        raise StudyError(f"{path}:1: the file {what}; a study needs name, source, base_models and variants")
    return root


def _nodes(root: yaml.nodes.Node) -> Iterator[yaml.nodes.Node]:
    """Yield every node once, though anchors may lead back to it."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.nodes.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.nodes.MappingNode):
            waiting += [entry for pair in node.value for entry in pair]


def _doubled(root: yaml.nodes.Node) -> Iterator[tuple[str, int]]:
    """Yield keys that stand twice in one mapping, with the line of the second."""
    for node in _nodes(root):
        if isinstance(node, yaml.nodes.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.nodes.ScalarNode)]
            for index, key in enumerate(keys):
                if any(key.value == earlier.value for earlier in keys[:index]):
                    yield key.value, key.start_mark.line + 1


def _values(path: Path, root: yaml.nodes.MappingNode) -> dict[Any, Any]:
    loader = yaml.SafeLoader("")
    try:
        return dict(loader.construct_document(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise StudyError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise StudyError(f"{path}:1: not valid YAML: nested too deeply") from error
    except ValueError as error:  # a date such as 2026-13-45, which YAML reads as one
        line = next((node.start_mark.line + 1 for node in _nodes(root) if not _reads(node)), 1)
        raise StudyError(f"{path}:{line}: a value cannot be read ({error}); put quotes around it") from error


def _reads(node: yaml.nodes.Node) -> bool:
    try:
        return not isinstance(node, yaml.nodes.ScalarNode) or bool([yaml.SafeLoader("").construct_document(node)])
    except ValueError:
        return False
