"""The numbers and dates that searches compare: how each is read from a query and from a post, and when two are equal.

Ranges: `>= > <= <`, `a..b` with either end open, lists `a,b`. Not here: metatags whose values are words (`search`).
"""

from __future__ import annotations

import datetime
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ti_pipeline_tests.emulator.records import Facts

    Test = Callable[[Facts], bool]

_COMPARED = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_BYTES = {"": 1, "b": 1, "kb": 1024, "k": 1024, "mb": 1024**2, "m": 1024**2}
_DAY = 86_400
# Months and years of an age are even ones.
_SECONDS = {"s": 1, "mi": 60, "h": 3600, "d": _DAY, "w": 7 * _DAY, "mo": 30 * _DAY, "y": 365 * _DAY}


@dataclass(frozen=True)
class Measure:
    """One metatag: `read` a value in a query (ValueError for none), take it `of` a post, when a post's is `equal`."""

    read: Callable[[str], Any]
    of: Callable[[Facts, datetime.datetime], Any]
    equal: Callable[[Any, Any], bool] = operator.eq

    def test(self, text: str, now: datetime.datetime) -> Test:
        """Return the test that a value or range stands for; what cannot be read finds nothing."""
        try:
            fits = self._fits(text)
        except ValueError:
            return lambda facts: False
        return lambda facts: fits(self.of(facts, now))

    def _fits(self, text: str) -> Callable[[Any], bool]:
        if sign := re.match(r"[<>]=?", text):
            bound, compare = self.read(text[sign.end() :]), _COMPARED[sign[0]]
            return lambda value: compare(value, bound)
        if ".." in text:
            low, high = (self.read(end) if end else None for end in text.split("..", 1))
            return lambda value: (low is None or value >= low) and (high is None or value <= high)
        wanted = [self.read(one) for one in text.split(",")]
        return lambda value: any(self.equal(value, one) for one in wanted)


def _ratio(text: str) -> float:
    """Read `1.5` or `3:2`."""
    wide, colon, high = text.partition(":")
    try:
        return round(float(wide) / (float(high) if colon else 1), 2)
    except ZeroDivisionError as error:
        raise ValueError(text) from error


def _amount(text: str, units: dict[str, int]) -> tuple[float, int]:
    """Read a number and its unit."""
    parts = re.fullmatch(r"([0-9.]+)([a-z]*)", text)
    if parts is None or parts[2] not in units:
        raise ValueError(text)
    return float(parts[1]), units[parts[2]]


def _bytes(text: str) -> float:
    number, unit = _amount(text, _BYTES)
    return number * unit


class _Age(float):
    """Seconds, told in a unit: an age of one day is one of at least that and less than two."""

    unit = 0

    @classmethod
    def read(cls, text: str) -> _Age:
        number, unit = _amount(text, _SECONDS)
        age = cls(number * unit)
        age.unit = unit
        return age

    @staticmethod
    def is_about(seconds: float, wanted: _Age) -> bool:
        return wanted <= seconds < wanted + wanted.unit


def _nearly(size: int, wanted: float) -> bool:
    """Equal within five in a hundred, as the site takes file sizes."""
    return abs(size - wanted) * 20 <= wanted


MEASURES: dict[str, Measure] = {
    "id": Measure(int, lambda facts, now: facts.id),
    "width": Measure(int, lambda facts, now: facts.file["width"]),
    "height": Measure(int, lambda facts, now: facts.file["height"]),
    "ratio": Measure(_ratio, lambda facts, now: facts.ratio),
    "mpixels": Measure(lambda text: round(float(text), 2), lambda facts, now: round(facts.pixels / 1e6, 2)),
    "filesize": Measure(_bytes, lambda facts, now: facts.file["size"], _nearly),
    "score": Measure(int, lambda facts, now: facts.score),
    "favcount": Measure(int, lambda facts, now: facts.record["fav_count"]),
    "tagcount": Measure(int, lambda facts, now: len(facts.tags)),
    "date": Measure(datetime.date.fromisoformat, lambda facts, now: facts.created.date()),
    "age": Measure(_Age.read, lambda facts, now: (now - facts.created).total_seconds(), _Age.is_about),
}

# What posts are ordered by, the greatest first.
ORDERS: dict[str, Callable[[Facts], float]] = {
    "score": lambda facts: facts.score,
    "favcount": lambda facts: facts.record["fav_count"],
    "tagcount": lambda facts: len(facts.tags),
    "mpixels": lambda facts: facts.pixels,
    "filesize": lambda facts: facts.file["size"],
    "comment_count": lambda facts: facts.record.get("comment_count", 0),
    "change": lambda facts: facts.record.get("change_seq", 0),
    "created": lambda facts: facts.created.timestamp(),
    "landscape": lambda facts: facts.ratio,
    "portrait": lambda facts: -facts.ratio,
}
