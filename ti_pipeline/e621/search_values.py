"""Values of metatags as the site reads them: ranges, sizes, ratios, dates and ages.

Here: from text to intervals of numbers. Not here: what a search is made of (`search_language`). Source: the site's
server, which reads numbers leniently: what is not a number counts as 0, what follows one is passed over.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NUMBERS", "Interval", "SearchError", "microseconds", "whole_number"]

_AT_MOST = 320  # entries of a list that the site reads
_UNITS = r"s(?:econds?)?|mi(?:nutes?)?|h(?:ours?)?|d(?:ays?)?|w(?:eeks?)?|mo(?:nths?)?|y(?:ears?)?"
_AGO = re.compile(rf"(\d+)(?:_?({_UNITS})(?:_?ago)?)?", re.IGNORECASE | re.ASCII)
_SINCE = re.compile(rf"(\d+)_?({_UNITS})_?(?:ago)?", re.IGNORECASE | re.ASCII)
_YESTER = re.compile(r"(?:(\d{1,2})_?)?yester(week|month|year)(?:s?_?ago)?", re.ASCII)
_DATE = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SearchError(ValueError):
    """A search that cannot be answered here; the message names the part and what to do."""


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`, both included unless open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False


# A value that was read, as the first and the last number it may stand for: a day is many microseconds.
_Span = tuple[float, float]


@dataclass(frozen=True)
class _Kind:
    """How the values of one metatag are read: ranges made of what `read` makes of their parts.

    `equal` is what a single value means, if not itself; `whole`, if any, reads values that are no ranges.
    """

    field: str
    read: Callable[[str, datetime], _Span]
    equal: Callable[[_Span, datetime], _Span] = lambda span, now: span
    whole: Callable[[str, datetime], Interval | None] = lambda text, now: None
    turned: bool = False

    def intervals(self, text: str, now: datetime) -> tuple[Interval, ...]:
        """Return the numbers that a value stands for. Raises `SearchError` for dates that cannot be read."""
        try:
            whole = self.whole(text, now)
            found = (whole,) if whole is not None else self._ranges(text, now)
        except (OverflowError, ValueError) as error:
            raise SearchError(f"{self.field}: {text!r} cannot be read; write 2026-01-31, or 3_days") from error
        return tuple(map(_turned, found)) if self.turned else found

    def _ranges(self, text: str, now: datetime) -> tuple[Interval, ...]:
        """Read `>= > <= < a..b a,b`, in the site's order of looking for them."""
        for sign in ("<=", "..", "<", ">="):
            if text.startswith(sign):
                return (_bounded(sign, self.read(text.removeprefix(sign), now)),)
        if text.endswith(".."):
            return (_bounded(">=", self.read(text.removesuffix(".."), now)),)
        if text.startswith(">"):
            return (_bounded(">", self.read(text.removeprefix(">"), now)),)
        if ".." in text:
            left, right = text.split("..", 1)
            return (Interval(self.read(left, now)[0], self.read(right, now)[1]),)
        if "," in text:
            entries = text.rstrip(",").split(",")[:_AT_MOST]
            return tuple(Interval(*self.read(entry, now)) for entry in entries if text.rstrip(","))
        return (Interval(*self.equal(self.read(text, now), now)),)


def _bounded(sign: str, span: _Span) -> Interval:
    first, last = span
    return {
        "<=": Interval(high=last),
        "..": Interval(high=last),
        "<": Interval(high=first, high_open=True),
        ">=": Interval(low=first),
        ">": Interval(low=last, low_open=True),
    }[sign]


def _turned(interval: Interval) -> Interval:
    """Turn round what compares ages, which grow into the past; ends that a range has in the wrong order too."""
    low, high = -interval.high, -interval.low
    return Interval(low, high, interval.high_open, interval.low_open)


def whole_number(text: str) -> int:
    """Return the whole number that a text begins with, else 0."""
    found = re.match(r"\s*([+-]?\d+(?:_\d+)*)", text, re.ASCII)
    return int(found[1]) if found else 0


def _number(text: str) -> float:
    """Return the number that a text begins with, else 0."""
    found = re.match(r"\s*([+-]?(?:\d+(?:_\d+)*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)", text, re.ASCII | re.IGNORECASE)
    return float(found[1]) if found else 0.0


def _size(text: str) -> float:
    unit = {"kb": 1024, "mb": 1024**2}.get(text[-2:].lower(), 1)
    return max(0, int(_number(text) * unit))


def _ratio(text: str) -> float:
    """Read `16:9` or `1.78`; two decimals count."""
    width, colon, height = text.partition(":")
    value = _number(width) / _number(height) if colon and _number(height) else 0.0 if colon else _number(text)
    return float(Decimal(repr(value)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def _just(read: Callable[[str], float]) -> Callable[[str, datetime], _Span]:
    def both(text: str, now: datetime) -> _Span:
        return read(text), read(text)

    return both


def _about(span: _Span, _now: datetime) -> _Span:
    """Return 5 % less and more, cut to whole numbers (also of megapixels, which is the site's own oddity)."""
    return int(span[0] * 0.95), int(span[1] * 1.05)


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970; a moment without a zone is UTC's."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _before(now: datetime, count: int, unit: str) -> datetime:
    """Return the moment so many units ago; months and years are the calendar's."""
    short = unit[:2] if unit[:2] in {"mi", "mo"} else unit[:1]
    if short in {"mo", "y"}:
        months = now.year * 12 + now.month - 1 - count * (12 if short == "y" else 1)
        first = now.replace(year=months // 12, month=months % 12 + 1, day=1)
        return first + timedelta(days=min(now.day, _last_day(first.date()).day) - 1)
    return (
        now
        - count
        * {
            "s": timedelta(seconds=1),
            "mi": timedelta(minutes=1),
            "h": timedelta(hours=1),
            "d": timedelta(days=1),
            "w": timedelta(weeks=1),
        }[short]
    )


def _last_day(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)


def _days(first: date, last: date, now: datetime) -> _Span:
    """Return the microseconds from the start of one day to the end of another, where `now` is told."""
    end = datetime.combine(last + timedelta(days=1), time(), now.tzinfo)
    return microseconds(datetime.combine(first, time(), now.tzinfo)), microseconds(end) - 1


def _day_of(span: _Span, now: datetime) -> _Span:
    """Return the whole day of a moment; days stay as they are."""
    days = [(_EPOCH + timedelta(microseconds=int(moment))).astimezone(now.tzinfo).date() for moment in span]
    return _days(days[0], days[1], now)


def _ago(text: str, now: datetime) -> datetime | None:
    """Read `3d`, `2_weeks_ago`; a bare number means days."""
    found = _AGO.fullmatch(text)
    return _before(now, int(found[1]), (found[2] or "d").lower()) if found else None


def _moment(text: str, now: datetime) -> _Span:
    """Read one date. A calendar date stands for its first moment, `today` and the like for the whole day."""
    named = {"today": (0, "d"), "yesterday": (1, "d"), "decade": (10, "y")}
    named |= {unit: (1, unit) for unit in ("day", "week", "month", "year")}
    if text in named:
        day = _before(now, *named[text]).date()
        return _days(day, day, now)
    ago = _ago(text, now)
    if ago is not None:
        return microseconds(ago), microseconds(ago)
    calendar = _DATE.fullmatch(text)
    if calendar:
        found = datetime(int(calendar[1]), int(calendar[2]), int(calendar[3]), tzinfo=now.tzinfo)
    else:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=now.tzinfo)
    return microseconds(found), microseconds(found)


def _period(text: str, now: datetime) -> Interval | None:
    """Read what means a stretch of time by itself: `week` and `3_days` (since then), `yestermonth` (all of it)."""
    if text in {"day", "week", "month", "year"}:
        return Interval(low=microseconds(_before(now, 1, text)))
    since = _SINCE.fullmatch(text)
    if since:
        return Interval(low=microseconds(_before(now, int(since[1]), since[2].lower())))
    yester = _YESTER.fullmatch(text)
    if not yester or bool(yester[1]) != text.endswith("ago"):
        return None
    day = _before(now, int(yester[1] or 1), yester[2]).date()
    if yester[2] == "week":
        monday = day - timedelta(days=day.weekday())
        return Interval(*_days(monday, monday + timedelta(days=6), now))
    if yester[2] == "month":
        return Interval(*_days(day.replace(day=1), _last_day(day), now))
    return Interval(*_days(date(day.year, 1, 1), date(day.year, 12, 31), now))


def _aged(text: str, now: datetime) -> _Span:
    """Read an age as the moment when it began, negative so that larger ages are larger numbers."""
    moment = _ago(text, now)
    if moment is None:
        raise ValueError(text)
    return -microseconds(moment), -microseconds(moment)


def _aged_day(span: _Span, now: datetime) -> _Span:
    first, last = _day_of((-span[1], -span[0]), now)
    return -last, -first


_whole = _just(whole_number)
NUMBERS: dict[str, _Kind] = {
    **{name: _Kind(name, _whole) for name in ("id", "width", "height", "score", "favcount", "tagcount", "change")},
    "parent": _Kind("parent", _whole, whole=lambda text, now: Interval(whole_number(text), whole_number(text))),
    "mpixels": _Kind("mpixels", _just(_number), equal=_about),
    "duration": _Kind("duration", _just(_number)),
    "ratio": _Kind("ratio", _just(_ratio)),
    "filesize": _Kind("filesize", _just(_size), equal=_about),
    "date": _Kind("created", _moment, equal=_day_of, whole=_period),
    "age": _Kind("created", _aged, equal=_aged_day, turned=True),
}
