"""What single fields of a study may hold: names, sides in pixels, learning rates, prompt lines.

Here: types of one value, with their bounds. Not here: which fields there are and how they hang together (`studies`).
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from ti_pipeline.inversion.schedules import parse_learning_rate

__all__ = [
    "CATEGORIES",
    "PATTERNS",
    "BaseName",
    "Category",
    "Checkpoints",
    "Day",
    "LearningRateText",
    "Name",
    "NameOrNumber",
    "Positive",
    "PromptLine",
    "Rating",
    "Seed",
    "Share",
    "Side",
    "Token",
    "Values",
    "distinct",
]

CATEGORIES = (
    "general",
    "artist",
    "contributor",
    "copyright",
    "character",
    "species",
    "invalid",
    "meta",
    "lore",
)
Category = Literal["general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore"]
Rating = Literal["s", "q", "e"]
Day = datetime.date
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]

# Patterns with what they mean in words.
# Names become partition keys, file names and parts of prompts: no character that breaks any of the three. Two
# underscores separate the parts of a partition key (`partitions.SEPARATOR`), so a name cannot contain them.
_NAME = r"^[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$"
# Base models are named in the study only, never in files or keys, and people write versions into their names.
_BASE_NAME = r"^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$"
# The embedding's name also becomes a file name in releases, where Windows drops a dot at the end.
_EMBEDDING_NAME = r"^(?:[A-Za-z0-9]|\{study\}|\{variant\})(?:[._-]*(?:[A-Za-z0-9]|\{study\}|\{variant\}))*$"
PATTERNS = {
    _NAME: "letters and digits, with single - or _ between them (it becomes part of file names and partition keys)",
    _BASE_NAME: "letters and digits, with single . - or _ between them",
    _EMBEDDING_NAME: "letters and digits, with . - _ between them, {study} or {variant} in the place of names",
}
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]
BaseName = Annotated[str, Field(pattern=_BASE_NAME, max_length=64)]
Token = Annotated[str, Field(pattern=_EMBEDDING_NAME, max_length=64)]


def _as_text(value: Any) -> Any:
    """YAML reads `512` as a number; in the place of a name it is a name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


NameOrNumber = Annotated[Name, BeforeValidator(_as_text, json_schema_input_type=str | int)]


def _distinct(items: list[Any]) -> list[Any]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(f"{item!r} is listed twice")
    return items


# For lists whose entries each ask for pictures of their own: twice the same would make two rows of one picture.
distinct = AfterValidator(_distinct)


def _readable_rate(value: float | str) -> float | str:
    parse_learning_rate(value)
    return value


LearningRateText = Annotated[float | str, AfterValidator(_readable_rate)]


def _names_the_embedding(line: str) -> str:
    if "[name]" not in line:
        raise ValueError("a prompt line lacks [name], the place of the embedding, and would train nothing")
    return line


PromptLine = Annotated[str, AfterValidator(_names_the_embedding)]


def _cells(value: Any) -> Any:
    """Read values written as one text the way A1111's X/Y grid does: as CSV, of any number of lines.

    Its early versions took a quote after a comma and a space for a letter, and split what was quoted; a quote that is
    never closed still swallows the rest there without a word. Here the first is read as it is meant, the second told.
    """
    if not isinstance(value, str):
        return value
    closed = re.sub(r'"\s+(?=,|$)', '"', value)  # for the check alone: strict CSV has no space behind a quote
    try:
        list(csv.reader(io.StringIO(closed, newline=""), skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"cannot be read as CSV ({error}): close every quote, and write one inside as two") from error
    rows = csv.reader(io.StringIO(value, newline=""), skipinitialspace=True)
    return [cell.strip() for row in rows for cell in row]


Values = Annotated[list[str], BeforeValidator(_cells, json_schema_input_type=list[str] | str), distinct]

# Tagged, so that a fault in a list is reported as one of the list.
Checkpoints = Annotated[
    Annotated[Positive, Tag("count")] | Annotated[list[Positive], Field(min_length=1), Tag("steps")],
    Discriminator(lambda value: "steps" if isinstance(value, list) else "count"),
]
