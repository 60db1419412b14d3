"""The site's search language: a line of tags, `-`, `~`, groups and metatags, read into a tree of terms.

Here: what a search means, exactly as the site reads it, odd corners included. Not here: what a metatag's value means
(`search_values`), or which posts match (`local_search`). Source: the site's API help and server, as of mid-2026.

On each level of groups, posts must meet every plain term, none of the `-` terms, and at least one of the `~` terms if
there are any. A plain wildcard counts as a `~` term.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ti_pipeline.e621.search_values import NUMBERS, SearchError, whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ti_pipeline.e621.search_values import Interval

__all__ = [
    "TAG_LIMIT",
    "Group",
    "Has",
    "Number",
    "Search",
    "SearchError",
    "SourceLike",
    "Status",
    "Tag",
    "Term",
    "Text",
    "Wildcard",
    "counted_terms",
    "parse_search",
]

TAG_LIMIT = 40
_DEEPEST = 10
_IDS_AT_MOST = 320  # entries of a list that the site reads
_FILE_TYPES = frozenset({"png", "jpg", "gif", "swf", "webm", "mp4", "webp"})
_STATES = frozenset({"pending", "modqueue", "deleted", "flagged", "active"})
_SHOW_DELETED = frozenset({"deleted", "active", "any", "all"})
# Orders by a number, with other names for them. All can be turned round by `_asc`.
_ORDERS = {name: name for name in ("score", "favcount", "change", "md5", "mpixels", "filesize", "tagcount", "duration")}
_ORDERS |= {
    "created": "created",
    "created_at": "created",
    "updated": "updated",
    "updated_at": "updated",
    "size": "filesize",
    "ratio": "ratio",
    "aspect_ratio": "ratio",
    "comment_count": "comment_count",
    "comm_count": "comment_count",
}
_CATEGORY_COUNTS = ("gen", "art", "cont", "copy", "char", "spec", "inv", "meta", "lor")
_UNANSWERED_ORDERS = frozenset(
    {"hot", "rank", "note", "comment", "comm", "comment_bumped", "comm_bumped", "deleted", "flagged"}
    | {f"{name}tags" for name in _CATEGORY_COUNTS}
    | {f"{name}_tags" for name in ("general", "artist", "contributor", "copyright", "character", "species")}
    | {"invalid_tags", "meta_tags", "lore_tags"}
)
# What the site knows beside the posts of its dump, or what nobody needed here so far.
_UNANSWERED = frozenset(
    {"approver", "artverified", "child", "comm", "comment_count", "commenter", "deletedby", "deleter", "delreason"}
    | {"description", "downvote", "downvoted", "fav", "favoritedby", "flaggedby", "flagger", "flagnote", "flagreason"}
    | {"hasdescription", "haschild", "haschildren", "hasparent", "hassource", "inpool", "ischild", "isparent", "locked"}
    | {"note", "notelocked", "noter", "noteupdater", "pending_replacements", "pool", "ratinglocked", "set"}
    | {"statuslocked", "upvote", "upvoted", "user", "user_id", "vote", "voted", "voteddown", "votedown", "votedup"}
    | {"voteup", *(f"{name}tags" for name in _CATEGORY_COUNTS)}
)

_PREFIXES = "-~"
_BRACKETS = frozenset({"(", "-(", "~(", ")"})
# White space is ASCII's: the names of tags contain any other kind.
_WORD = re.compile(r'[-~]?\w+:"[^"]+"(?=\s|\Z)|\S+', re.ASCII)
_METATAG = re.compile(r'([-~]?)(\w+):(?!"{1,2}\Z)(.+)', re.ASCII | re.DOTALL)
_BLANK = " \t\r\n\f\v"
_UNCOUNTED = re.compile(r"-?status:deleted|rating:s.*|limit:.+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Tag:
    """Posts with this very tag."""

    name: str


@dataclass(frozen=True)
class Wildcard:
    """Posts with one of the 40 commonest tags that `pattern` fits; `*` stands for any characters."""

    pattern: str


@dataclass(frozen=True)
class Number:
    """Posts whose `field` lies in one of the intervals; dates are microseconds since 1970 (UTC)."""

    field: str
    intervals: tuple[Interval, ...]


@dataclass(frozen=True)
class Text:
    """Posts whose `field` (rating, type, md5) is one of the values."""

    field: str
    values: frozenset[str]


@dataclass(frozen=True)
class SourceLike:
    """Posts with a source that starts like `pattern`; `*` and `?` stand for any characters and one."""

    pattern: str


@dataclass(frozen=True)
class Has:
    """Posts that have a `source` or a `parent` at all."""

    field: str


@dataclass(frozen=True)
class Status:
    """Posts that are deleted, pending, flagged, modqueue (one of the two) or active (none of the three)."""

    name: str


@dataclass(frozen=True)
class Group:
    """Posts that meet all of `must`, none of `must_not`, and one of `should` unless that is empty."""

    must: tuple[Term, ...] = ()
    must_not: tuple[Term, ...] = ()
    should: tuple[Term, ...] = ()


Term = Tag | Wildcard | Number | Text | SourceLike | Has | Status | Group


@dataclass(frozen=True)
class Search:
    """What was asked for: which posts, in which order (by `order`, `ascending`), at most how many.

    `order` is id, random, md5, or a number's name. `warnings` are for people.
    """

    where: Group
    order: str = "id"
    ascending: bool = False
    limit: int | None = None
    seed: int | None = None
    warnings: tuple[str, ...] = ()


def parse_search(text: str, *, aliases: Mapping[str, str] | None = None, now: datetime | None = None) -> Search:
    """Return what a search on the site means.

    `aliases`: old names of tags and those used now. `now`: the moment that ages and relative dates count from; days are
    days of UTC. Raises `SearchError` for what the dump cannot answer, and for values that cannot be read.
    """
    words = _WORD.findall(unicodedata.normalize("NFC", text).replace("\0", "").strip(_BLANK))
    reading = _Reading(aliases or {}, now or datetime.now(UTC))
    where = reading.level(words) or Group()
    if not reading.shows_deleted:
        where = Group(where.must, (*where.must_not, Status("deleted")), where.should)
    if reading.counted > TAG_LIMIT:
        reading.warnings.append(f"the search has {reading.counted} tags; the site itself takes {TAG_LIMIT}")
    order, ascending = reading.order or ("random" if reading.seed is not None else "id", False)
    return Search(where, order, ascending, reading.limit, reading.seed, tuple(reading.warnings))


def counted_terms(text: str) -> int:
    """Return how many of the site's 40 terms a search uses; brackets and what the site leaves out do not count."""
    return sum(word not in _BRACKETS and _UNCOUNTED.fullmatch(word) is None for word in _WORD.findall(text))


@dataclass
class _Level:
    """The terms of one level, by their prefix; of statuses and of each any/none the last one counts."""

    terms: dict[str, list[Term]] = field(default_factory=lambda: defaultdict(list))
    says_something: bool = False
    status: tuple[str, Term] | None = None
    presence: dict[tuple[str, bool], tuple[str, Term]] = field(default_factory=dict)

    def group(self) -> Group:
        last = [*([self.status] if self.status else []), *self.presence.values()]
        for prefix, term in last:
            self.terms[prefix].append(term)
        return Group(tuple(self.terms[""]), tuple(self.terms["-"]), tuple(self.terms["~"]))


@dataclass
class _Reading:
    """One search being read: what holds for all of it, wherever in its groups it was said."""

    aliases: Mapping[str, str]
    now: datetime
    order: tuple[str, bool] | None = None
    limit: int | None = None
    seed: int | None = None
    shows_deleted: bool = False
    counted: int = 0
    warnings: list[str] = field(default_factory=list)

    def level(self, words: Sequence[str], depth: int = 0) -> Group | None:
        """Read the words of one level; those between brackets are a level of their own.

        Returns None where nothing was said but what holds for the whole search (`order:` and the like).
        """
        if depth > _DEEPEST:
            raise SearchError(f"the search has more than {_DEEPEST} levels of groups")
        level, closing, place = _Level(), _closing(words), 0
        seen: set[str] = set()
        while place < len(words):
            word, end = words[place], closing.get(place)
            if end is not None:
                self._group(level, word[:-1], words[place + 1 : end], depth)
            elif word not in seen:
                seen.add(word)
                self._word(level, word)
            place = place + 1 if end is None else end + 1
        return level.group() if level.says_something else None

    def _group(self, level: _Level, prefix: str, words: Sequence[str], depth: int) -> None:
        inner = self.level(words, depth + 1)
        if inner is not None:
            level.says_something = True
            level.terms[prefix].append(inner)

    def _word(self, level: _Level, word: str) -> None:
        self.counted += _UNCOUNTED.fullmatch(word) is None
        metatag = _METATAG.fullmatch(word)
        if metatag is not None:
            prefix, name, value = metatag.groups()
            value = value.removeprefix('"').removesuffix('"')
            if self._setting(prefix, name.lower(), value):
                return
            level.says_something = True
            if self._status(level, prefix, name.lower(), value) or self._metatag(level, prefix, name.lower(), value):
                return
        level.says_something = True
        if word == "(":
            self.warnings.append("a ( without its ) counts as a tag, as on the site; write brackets with spaces around")
        prefix = word[0] if word[0] in _PREFIXES else ""
        self._tag(level, prefix, word[len(prefix) :].lower())

    def _tag(self, level: _Level, prefix: str, name: str) -> None:
        file_type = "swf" if name == "flash" else name
        if file_type in _FILE_TYPES:
            level.terms[prefix].append(Text("type", frozenset({file_type})))
        elif "*" in name and prefix != "~":  # behind a ~, the site takes the star for itself
            level.terms[prefix or "~"].append(Wildcard(name))
        else:
            if "*" in name:
                self.warnings.append(f"~{name}: behind a ~ the * is only a star, as on the site; leave out the ~")
            level.terms[prefix].append(Tag(self.aliases.get(name, name)))

    def _setting(self, prefix: str, name: str, value: str) -> bool:
        """Read what holds for the whole search; tell whether it was such (under some prefixes it is a tag)."""
        if name == "order" and prefix != "~":
            self.order = self._order(value.lower(), turned=prefix == "-")
        elif name == "limit" and not prefix:
            if not value.isascii() or not value.isdigit():
                raise SearchError(f"limit:{value}: write a whole number")
            self.limit = int(value)
        elif name == "randseed" and not prefix:
            self.seed = max(0, whole_number(value))
        else:
            return False
        return True

    def _status(self, level: _Level, prefix: str, name: str, value: str) -> bool:
        if name != "status" or prefix == "~":
            return False
        state = value.lower()
        self.shows_deleted |= state in _SHOW_DELETED
        level.status = (prefix, Status(state)) if state in _STATES else None
        return True

    def _metatag(self, level: _Level, prefix: str, name: str, value: str) -> bool:
        """Read a condition on something else than tags; tell whether it was one."""
        if name in _UNANSWERED:
            raise SearchError(f"{name}: the posts dump does not tell this; leave it out, or search with kind: e621")
        if name in {"parent", "source"} and value.lower() in {"any", "none"}:
            level.presence[name, prefix == "~"] = _presence(prefix, name, value.lower())
            return True
        terms = self._terms(prefix, name, value)
        if terms is None:
            return False
        level.terms[prefix] += terms
        return True

    def _terms(self, prefix: str, name: str, value: str) -> list[Term] | None:
        """Return the conditions that a metatag means (none: it is ignored), or None if it is not a metatag."""
        if name in NUMBERS:
            return [Number(NUMBERS[name].field, NUMBERS[name].intervals(value, self.now))]
        if name == "rating":
            letter = value[0].lower()
            return [Text("rating", frozenset(letter))] if letter in "sqe" else []
        if name in {"type", "filetype"}:
            return [Text("type", frozenset({value.lower()}))]
        if name == "source":
            return [SourceLike(value + "*")]
        if name == "md5" and not prefix:
            return [Text("md5", frozenset(value.lower().split(",")[:_IDS_AT_MOST]))]
        return None

    def _order(self, value: str, *, turned: bool) -> tuple[str, bool]:
        """Return what an `order:` sorts by, and whether the smallest comes first."""
        name, ascending = value.removesuffix("_desc"), turned
        if name.endswith("_asc"):
            name, ascending = name.removesuffix("_asc"), not turned
        if name in {"portrait", "landscape"}:
            name, ascending = "ratio", ascending ^ (name == "portrait")
        if name == "id":
            # `order:id` alone is the one order that begins with the smallest.
            return "id", (value != "id_desc") ^ turned
        if name in _UNANSWERED_ORDERS:
            raise SearchError(f"order:{value}: the posts dump does not tell this; choose another order")
        if name == "random" and not value.endswith("_asc"):
            return "random", False
        if name in _ORDERS:
            return _ORDERS[name], ascending
        self.warnings.append(f"there is no order:{value}; the newest come first, as on the site")
        return "id", False


def _closing(words: Sequence[str]) -> dict[int, int]:
    """Return for each opening bracket that is closed where; the others are tags of that name."""
    opened: list[int] = []
    closing = {}
    for place, word in enumerate(words):
        if word in _BRACKETS - {")"}:
            opened.append(place)
        elif word == ")" and opened:
            closing[opened.pop()] = place
    return closing


def _presence(prefix: str, name: str, value: str) -> tuple[str, Term]:
    """Return `parent:any` and its kin as prefix and term; `-parent:none` is `parent:any`."""
    if prefix == "~":
        return "~", Has(name) if value == "any" else Group(must_not=(Has(name),))
    return "-" if (value == "none") ^ (prefix == "-") else "", Has(name)
