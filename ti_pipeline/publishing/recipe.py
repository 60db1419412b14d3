"""The recipe that leaves the house: a study without what is its maker's own business.

Paths become bare names; searches, places of pictures, opt-out lists and addresses of publishing are left out, and so
are the file's comments. What is left loads as a study again, for whoever fills in what the first lines name.
Not here: which files a release has (`release`).
"""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ti_pipeline.studies import Study

__all__ = ["bare_name", "cleaned_recipe"]

_LEFT_OUT = frozenset({"common", "dump", "opt_out_file", "path", "publish", "query", "url"})
# Texts that may hold slashes and are meant for others: prompts, tags, words for people, ids of models.
_FOR_OTHERS = frozenset(
    {
        "description", "drop", "exclude_tags", "forbid_tags", "hub", "initializer", "keep", "learning_rate", "licence",
        "negative", "note", "prompt", "published_as", "require_tags", "revision", "search", "templates", "title",
        "values", "words",
    }
)  # fmt: skip


def cleaned_recipe(study: Study) -> str:
    """Return a study as YAML without paths, searches, addresses and comments; the first lines say what is missing.

    `common` is written into the variants. The same study gives the same text.
    """
    import yaml

    told: list[str] = []
    content = _cleaned(study.model_dump(mode="json", exclude_unset=True), (), told)
    head = ["# The recipe. Left out or cut to a bare name, as its maker's own business:"]
    head += [f"# - {field}" for field in told] or ["# nothing"]
    body = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return "\n".join(head) + "\n" + str(body)


def _cleaned(value: Any, place: tuple[str, ...], told: list[str]) -> Any:
    """Return a part of a study cleaned; `told` gathers the fields that lost something."""
    if isinstance(value, dict):
        kept = {}
        for key, part in value.items():
            if key in _LEFT_OUT and not _names_of_people(place):
                told += [".".join((*place, key))] if part and key != "common" else []
            else:
                kept[key] = _cleaned(part, (*place, str(key)), told)
        return kept
    if isinstance(value, list):
        return [_cleaned(part, place, told) for part in value]
    if not isinstance(value, str) or place[-1] in _FOR_OTHERS:
        return value
    bare = bare_name(value)
    told += [".".join(place)] if bare != value else []
    return bare


def _names_of_people(place: tuple[str, ...]) -> bool:
    """Tell whether the keys below a place are names that people chose, which may be called like a field."""
    tables = {"axes", "base_models", "captions", "curations", "embeddings", "sets", "variants"}
    return bool(place) and place[-1] in tables and len(place) < 3


def bare_name(text: str) -> str:
    """Return the last part of a path of either kind of slashes; nothing of an address, whose parts name places."""
    return "" if "://" in text else PureWindowsPath(text).name
