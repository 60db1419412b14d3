"""The site's search, written from the reference alone: a query's text becomes a test of one post, and an order.

Not here: paging (`paging`), deleted posts (hidden by `site` unless `sees_deleted`), the numbers compared (`measures`).
Where the reference is silent: tags and metatag names in any case; days are UTC's; the last `order:` wins and all ties
fall to the higher id, those of `_asc` to the lower; a number that is none finds nothing; an unclosed group ends with
the query.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ti_pipeline_tests.emulator.answers import Refusal
from ti_pipeline_tests.emulator.measures import MEASURES, ORDERS

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterable, Iterator

    from ti_pipeline_tests.emulator.records import Facts

    Test = Callable[[Facts], bool]

MOST_TAGS, MOST_EXPANDED = 40, 40
_STEERING = ("order", "randseed", "limit")
_MODERATED = ("pending", "flagged", "deleted")


@dataclass
class Search:
    """A query, read: what a post must be, in which order posts come, and whether deleted ones are among them."""

    test: Test = lambda facts: True
    order: str = ""
    seed: str | None = None
    limit: str | None = None
    sees_deleted: bool = False
    terms: int = field(default=0, repr=False)

    def sort(self, found: list[Facts], chance: random.Random) -> list[Facts]:
        """Return the found posts in the query's order; `chance` shuffles where no seed is given."""
        newest = sorted(found, key=lambda facts: facts.id, reverse=True)
        name = self.order.removesuffix("_desc").removesuffix("_asc")
        if not self.order and self.seed is not None:
            name = "random"  # a seed alone shuffles
        upwards = self.order.endswith("_asc") or self.order == "id"
        if name == "random":
            chance = random.Random(self.seed) if self.seed is not None else chance
            return chance.sample(newest, len(newest))
        if name == "id" and upwards:
            return newest[::-1]
        if name in ORDERS:
            ordered = sorted(newest, key=lambda facts: (ORDERS[name](facts), facts.id))
            return ordered if upwards else ordered[::-1]
        return newest


def read(text: str, *, expand: Callable[[str], list[str]], aliases: dict[str, str], now: datetime.datetime) -> Search:
    """Read a query. Raises `Refusal` (422) for more than 40 tags.

    `expand` names the tags that a pattern stands for, the commonest first; `aliases` are resolved before searching.
    """
    search = Search()
    search.test = _Reader(search, expand, aliases, now).group(iter(text.lower().split()), outermost=True)
    if search.terms > MOST_TAGS:
        raise Refusal(422, f"You cannot search for more than {MOST_TAGS} tags at a time.")
    return search


@dataclass
class _Reader:
    search: Search
    expand: Callable[[str], list[str]]
    aliases: dict[str, str]
    now: datetime.datetime

    def group(self, words: Iterator[str], *, outermost: bool = False) -> Test:
        """Read words up to the end of their group: all of them must hold, and one of the `~` and `*` ones."""
        every: list[Test] = []
        some: list[Test] = []
        for word in words:
            if word == ")":
                if outermost:
                    continue
                break
            sign, rest = (word[0], word[1:]) if word[0] in "-~" and len(word) > 1 else ("", word)
            test = self.group(words) if rest == "(" else self.term(sign, rest)
            if test is None:
                continue
            if sign == "-":
                every.append(_not(test))
            elif sign == "~" or (_metatag(rest) is None and "*" in rest):
                some.append(test)
            else:
                every.append(test)
        if some:
            every.append(lambda facts: any(test(facts) for test in some))
        return lambda facts: all(test(facts) for test in every)

    def term(self, sign: str, word: str) -> Test | None:
        """Return the test that a word stands for; None for one that steers, or says nothing."""
        metatag = _metatag(word)
        if metatag is not None and metatag[0] in _STEERING:
            return self.steer(sign, *metatag)
        self.search.terms += 1
        if metatag is not None:
            return self.metatag(sign, *metatag)
        if "*" in word:
            names = frozenset(self.expand(word)[:MOST_EXPANDED])
            return lambda facts: not names.isdisjoint(facts.tags)
        name = self.resolved(word)
        return lambda facts: name in facts.tags

    def resolved(self, name: str) -> str:
        """Follow a chain of aliases to its end; one without an end is left after a whole round."""
        for _ in self.aliases:
            name = self.aliases.get(name, name)
        return name

    def steer(self, sign: str, name: str, value: str) -> None:
        if name == "randseed":
            self.search.seed = value
        elif name == "limit":
            self.search.limit = value
        else:
            self.search.order = _reversed(value) if sign == "-" else value

    def metatag(self, sign: str, name: str, value: str) -> Test | None:
        if name == "status":
            self.search.sees_deleted |= sign != "-" and value in {"any", "all", "deleted"}
            return _status(value)
        if name == "rating":
            return (lambda facts: facts.record["rating"] == value[:1]) if value[:1] in set("sqe") else None
        if name in _WORDS:
            return _WORDS[name](value)
        return MEASURES[name].test(value, self.now)


def _not(test: Test) -> Test:
    return lambda facts: not test(facts)


def _metatag(word: str) -> tuple[str, str] | None:
    name, colon, value = word.partition(":")
    known = name in MEASURES or name in _WORDS or name in {"status", "rating", *_STEERING}
    return (name, value) if colon and known else None


def _reversed(order: str) -> str:
    base = order.removesuffix("_desc").removesuffix("_asc")
    return f"{base}_desc" if order.endswith("_asc") or order == "id" else f"{base}_asc"


def _status(value: str) -> Test | None:
    if value in _MODERATED:
        return lambda facts: facts.flag(value)
    if value == "active":
        return lambda facts: not any(facts.flag(name) for name in _MODERATED)
    if value == "modqueue":
        return lambda facts: facts.flag("pending") or facts.flag("flagged")
    return (lambda facts: True) if value in {"any", "all"} else None


def _parent(value: str) -> Test:
    return _any_none_or(value, lambda facts: [] if facts.parent is None else [facts.parent])


def _pool(value: str) -> Test:
    return _any_none_or(value, lambda facts: facts.record.get("pools", []))


def _any_none_or(value: str, ids: Callable[[Facts], Iterable[int]]) -> Test:
    if value in {"any", "none"}:
        return lambda facts: bool(list(ids(facts))) == (value == "any")
    return lambda facts: value in {str(found) for found in ids(facts)}


def _source(value: str) -> Test:
    """Sources that begin so, `*` standing for anything; `any` and `none`."""
    if value in {"any", "none"}:
        return lambda facts: bool(facts.record.get("sources")) == (value == "any")
    pattern = pattern_of(f"{value}*")
    return lambda facts: any(pattern.fullmatch(source.lower()) for source in facts.record.get("sources", []))


def _one_of(read: Callable[[Facts], str]) -> Callable[[str], Test]:
    return lambda value: lambda facts: read(facts) in value.split(",")


def pattern_of(text: str) -> re.Pattern[str]:
    """Return what a text with `*` matches; nothing else in it is special."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


# Metatags whose values are words.
_WORDS: dict[str, Callable[[str], Test]] = {
    "md5": _one_of(lambda facts: facts.file["md5"]),
    "type": _one_of(lambda facts: facts.file["ext"]),
    "parent": _parent,
    "pool": _pool,
    "source": _source,
}
