"""The content policy: which posts, tags and texts are refused, whatever a study or the site says.

Here: the rules, the fixed exclusion list (`always_excluded_tags.txt`) and the words that mean the same as what is on it
(`kin_of_excluded_tags.txt`, plurals, ages in years). Not here: where they are applied (records, captions, prompts), nor
any setting that would weaken them: configuration adds to the exclusions, never removes.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.catalog import DO_NOT_POST_LISTS
from ti_pipeline.e621.exclusions import ExclusionError, address_key, excluded_names, is_address, opted_out_names
from ti_pipeline.e621.matching import Names, names_of
from ti_pipeline.e621.spelling import heads, plurals, spelling, words
from ti_pipeline.files import write_atomically

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

    import pandas as pd
    from upath import UPath

__all__ = [
    "DO_NOT_POST_TAGS",
    "OPT_OUT_FILE",
    "ContentPolicy",
    "PolicyError",
    "add_opt_out",
    "fixed_exclusion",
    "load_policy",
    "names_excluded",
    "opt_out_lines",
    "read_names",
    "tags_told",
]

DO_NOT_POST_TAGS = frozenset(DO_NOT_POST_LISTS)
OPT_OUT_FILE = "policy/opt_out.txt"  # in the data folder: artists that no study uses, from `purge` and from people
_RATINGS = frozenset({"s", "q", "e"})
# The lists are a promise: a shorter or edited file must stop the run, not quietly let more through.
_LISTS = {
    "always_excluded_tags.txt": "b314867245089bed068d04437d6e43b0aba57f377b08db73d7ea882cb2c677e9",
    "kin_of_excluded_tags.txt": "994d0051be8c8683053d6cc7bacafc0aa6888b0699aafd45d0494b9af4ed33da",
}
_BELOW_18 = "|".join(
    (
        r"\d|1[0-7]",
        "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve",
        "thirteen|fourteen|fifteen|sixteen|seventeen",
    )
)
_AGE = re.compile(rf" (?:{_BELOW_18}) (?:yo|y o|(?:years?|yrs?) olds?|years? of age) ")  # in what `words` returns


class PolicyError(ValueError):
    """The policy cannot be loaded, or a text breaks it; the message names where."""


@functools.cache
def fixed_exclusion() -> frozenset[str]:
    """Return the tags that are excluded at every rating. Raises `PolicyError` if the list is not whole."""
    return _read_list("always_excluded_tags.txt")


@functools.cache
def _kin() -> frozenset[str]:
    """Return words of the fixed list's meaning: plurals, and those written down with a review note."""
    listed = fixed_exclusion() | _read_list("kin_of_excluded_tags.txt")
    return frozenset(listed | {plural for tag in listed for plural in plurals(tag)}) - fixed_exclusion()


def _read_list(name: str) -> frozenset[str]:
    path: Traversable = resources.files("ti_pipeline.e621") / name
    try:
        lines = path.read_bytes().decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"the content policy's list {path} cannot be read ({error}); reinstall ti_pipeline"
        ) from error
    tags = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if hashlib.sha256("\n".join(tags).encode()).hexdigest() != _LISTS[name]:
        raise PolicyError(
            f"the content policy's list {path} is not as published ({len(tags)} tags); reinstall ti_pipeline"
        )
    return frozenset(tags)


@dataclass(frozen=True)
class ContentPolicy:
    """The rules of one study. `excluded` always contains the fixed list, whatever it is constructed with.

    `do_not_post`: whether posts of do-not-post artists are dropped. `opt_out`: artists never used, by name, and by
    addresses of pages, which posts state among their sources. `*` in an excluded name stands for any characters.
    """

    ratings: frozenset[str] = frozenset({"s"})
    excluded: frozenset[str] = frozenset()
    do_not_post: bool = True
    opt_out: frozenset[str] = frozenset()
    do_not_post_artists: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Add the fixed exclusion; raise `PolicyError` for a rating that does not exist."""
        if not self.ratings or not self.ratings <= _RATINGS:
            raise PolicyError(f"ratings are s, q and e; got {sorted(self.ratings)}")
        _kin()  # a list that is not whole stops the run here, not at the first text
        object.__setattr__(self, "excluded", self.excluded | fixed_exclusion())

    def refuses(self, record: Mapping[str, Any]) -> str | None:
        """Return why an e621-shaped record is left out, or None. Tags of unknown categories count too."""
        by_category = _tags_of(record)
        tags = _all_tags(record, by_category)
        return (
            self._refuses_rating(record.get("rating"))
            or _refuses_unreadable(record)
            or self.refuses_tags(tags)
            or self._refuses_said(record.get("said"))
            or self._refuses_artist(record, by_category, tags)
            or _refuses_state(record)
        )

    def is_opted_out(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a record is of an artist who opted out, whatever else may be said of it."""
        by_category = _tags_of(record)
        return self._has_opted_out(record, by_category, _all_tags(record, by_category))

    def refuses_tags(self, tags: Iterable[str]) -> str | None:
        """Return a reason that names the first excluded tag among `tags`, in any spelling, or None."""
        for tag in tags:
            if self._names.has(tag) or any(_AGE.fullmatch(head) for head in heads(tag)):
                return f"excluded tag {tag}"
        return None

    def refuses_text(self, text: str) -> str | None:
        """Return the excluded tag that a text says in whole words, or None; words are parted as CLIP parts them.

        Stricter than `refuses_tags`: `kid` in the caption `kid icarus` is found. A tag for which this is not None
        cannot be in a caption, a prompt or a name. An age below 18 in years counts as one, too.
        """
        age = _AGE.search(words(text))
        return self._names.said_in(text) or (age[0].strip() if age else None)

    def require_clean_text(self, text: str, where: str) -> None:
        """Raise `PolicyError` naming `where` if the text says an excluded tag."""
        found = self.refuses_text(text)
        if found is not None:
            raise PolicyError(f"{where}: {text!r} says {found!r}, which the content policy excludes; use other words")

    @functools.cached_property
    def _names(self) -> Names:
        return names_of(self.excluded | _kin())

    def _refuses_rating(self, rating: object) -> str | None:
        if rating is None:
            return "no rating is known (a folder source may set assume_rating)"
        if not isinstance(rating, str) or rating not in self.ratings:
            return f"rating {rating} is not among {', '.join(sorted(self.ratings))}"
        return None

    def _refuses_said(self, said: object) -> str | None:
        """Judge what a picture's own files say in words: `said`, texts that a source adds to its records."""
        found = next((tag for text in _texts(said) or [] if (tag := self.refuses_text(text))), None)
        return None if found is None else f"its own text says {found}, which the content policy excludes"

    def _refuses_artist(
        self, record: Mapping[str, Any], by_category: Mapping[str, list[str]], tags: Sequence[str]
    ) -> str | None:
        if self.do_not_post and {spelling(tag) for tag in tags} & (DO_NOT_POST_TAGS | self._do_not_post_keys):
            return "do-not-post artist"
        return "artist opted out" if self._has_opted_out(record, by_category, tags) else None

    def _has_opted_out(
        self, record: Mapping[str, Any], by_category: Mapping[str, list[str]], tags: Sequence[str]
    ) -> bool:
        """Names are unique on the site, so they count in any category; who opts out may leave off `_(artist)`."""
        artists = [tag for name in ("artist", "contributor") for tag in by_category.get(name, [])]
        return (
            not self._opt_out_keys.isdisjoint(map(spelling, tags))
            or any(head in self._opt_out_heads for tag in artists for head in heads(tag))
            or (bool(self._opt_out_pages) and any(map(self._is_opted_out_page, _texts(record.get("sources")) or [])))
        )

    def _is_opted_out_page(self, source: str) -> bool:
        """Tell whether a post's source is a page whose artist opted out, or one below it."""
        key = address_key(source)
        return any(key == page or key.startswith(f"{page}/") for page in self._opt_out_pages)

    @functools.cached_property
    def _opt_out_pages(self) -> frozenset[str]:
        return frozenset(address_key(name) for name in self.opt_out if is_address(name) and "?" not in name)

    @functools.cached_property
    def _do_not_post_keys(self) -> frozenset[str]:
        return frozenset(spelling(artist) for artist in self.do_not_post_artists)

    @functools.cached_property
    def _opt_out_keys(self) -> frozenset[str]:
        return frozenset(spelling(name) for name in self.opt_out)

    @functools.cached_property
    def _opt_out_heads(self) -> frozenset[str]:
        return frozenset(head for name in self.opt_out for head in heads(name))


def _texts(value: object) -> list[str] | None:
    """Return the texts of a list, tuple, set or array; None for anything that is not just texts."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if listed is None:
        return []
    if not isinstance(listed, list | tuple | set | frozenset) or not all(isinstance(entry, str) for entry in listed):
        return None
    return list(listed)


def _tags_of(record: Mapping[str, Any]) -> dict[str, list[str]]:
    tags = record.get("tags")
    return {str(name): _texts(names) or [] for name, names in tags.items()} if isinstance(tags, Mapping) else {}


def _locked(record: Mapping[str, Any]) -> list[str] | None:
    """Return a record's locked tags, which come as a list or, in dumps and sidecars, as one text."""
    locked = record.get("locked_tags")
    return locked.split() if isinstance(locked, str) else _texts(locked)


def tags_told(record: Mapping[str, Any]) -> list[str]:
    """Return a record's tags of all categories, and those locked on."""
    return _all_tags(record, _tags_of(record))


def _all_tags(record: Mapping[str, Any], by_category: Mapping[str, list[str]]) -> list[str]:
    """Return the tags of all categories and those locked on, but not those that `-` locks off."""
    locked = [tag for tag in _locked(record) or [] if not tag.startswith("-")]
    return [*(tag for names in by_category.values() for tag in names), *locked]


def _refuses_unreadable(record: Mapping[str, Any]) -> str | None:
    """A picture may be without tags, but where none are told or they are not texts, nobody knows what it shows."""
    tags = record.get("tags")
    if not isinstance(tags, Mapping):
        return "no tags are told, so that the policy cannot be checked"
    fields = [*((f"tags.{name}", _texts(names)) for name, names in tags.items()), ("locked_tags", _locked(record))]
    fields.append(("said", _texts(record.get("said"))))
    unread = next((name for name, texts in fields if texts is None), None)
    return None if unread is None else f"{unread} is not a list of texts, so that the policy cannot be checked"


def _refuses_state(record: Mapping[str, Any]) -> str | None:
    flags, file = record.get("flags"), record.get("file")
    for state in ("deleted", "pending", "flagged"):
        if isinstance(flags, Mapping) and flags.get(state):
            return state
    if not isinstance(file, Mapping) or not file.get("url"):
        return "no link to the picture (the site shows none; links are never rebuilt)"
    return None


def load_policy(
    *,
    ratings: Iterable[str] = ("s",),
    exclude_tags: Iterable[str] = (),
    do_not_post: str = "drop",
    opt_out: Iterable[str] = (),
    opt_out_files: Sequence[Path | UPath] = (),
    aliases: pd.DataFrame | None = None,
    implications: pd.DataFrame | None = None,
    do_not_post_artists: Iterable[str] = (),
) -> ContentPolicy:
    """Return a study's policy: the fixed list and the study's additions, closed over aliases and implications.

    `aliases`, `implications`: the catalog's tables (antecedent, consequent); without them the lists stand as given.
    Closed means: with a tag, every tag that implies it and every other name, old or new, of any of these is in the
    list too. Artists who opt out, and those of the do-not-post lists, are closed over their other names. Raises
    `PolicyError` if the fixed list is not whole, an opt-out file is unreadable or a setting is unknown.
    """
    if do_not_post not in {"drop", "keep"}:
        raise PolicyError(f"do_not_post is drop or keep, not {do_not_post!r}")
    artists = [*(name for entry in opt_out for name in opted_out_names(entry))]
    artists += [name for path in opt_out_files for name in read_names(path)]
    return ContentPolicy(
        ratings=frozenset(ratings),
        excluded=_closed(fixed_exclusion(), aliases, implications)
        | names_excluded(exclude_tags, aliases, implications),
        do_not_post=do_not_post == "drop",
        opt_out=_closed(_as_the_site_writes(artists), aliases, None),
        do_not_post_artists=_closed(DO_NOT_POST_TAGS | set(do_not_post_artists), aliases, implications)
        - DO_NOT_POST_TAGS,
    )


def names_excluded(
    entries: Iterable[str], aliases: pd.DataFrame | None, implications: pd.DataFrame | None
) -> frozenset[str]:
    """Return the tags that entries of `exclude_tags` mean, closed over the catalog. Raises `PolicyError`."""
    try:
        names = [name for entry in entries for name in excluded_names(entry)]
    except ExclusionError as error:
        raise PolicyError(f"exclude_tags: {error}") from error
    return _closed(_as_the_site_writes(names), aliases, implications)


def _closed(seeds: frozenset[str], aliases: pd.DataFrame | None, implications: pd.DataFrame | None) -> frozenset[str]:
    """Return `seeds` with everything that implies one of them, and all other names of these."""
    from ti_pipeline.e621.catalog import implied_by, other_names

    known, size = set(seeds) | _fitting(frozenset(name for name in seeds if "*" in name), aliases, implications), -1
    while len(known) != size:
        size = len(known)
        known |= other_names(aliases, known)
        known |= implied_by(implications, known)
    return frozenset(known)


def _fitting(wild: frozenset[str], *links: pd.DataFrame | None) -> set[str]:
    """Return the names in the catalog that names with stars stand for, so that these are closed like any others."""
    names = {str(name) for table in links if table is not None for name in [*table.antecedent, *table.consequent]}
    return {name for name in names if names_of(wild).has(name)} if wild else set()


def _as_the_site_writes(names: Iterable[str]) -> frozenset[str]:
    """Return names as given and in the site's spelling, by which the catalog knows them."""
    given = {name.strip() for name in names if name.strip()}
    return frozenset(given | {"_".join(name.casefold().split()) for name in given})


def add_opt_out(path: Path, artist: str) -> None:
    """Add an artist to an opt-out file, unless the name is there. Raises `PolicyError` for a name that is none."""
    if len(artist.splitlines()) > 1 or re.search(r"(?:^|\s)#", artist):
        raise PolicyError(f"artist {artist!r} is no name that can stand in a line of {path}")
    try:
        opted_out_names(artist)
    except ExclusionError as error:
        raise PolicyError(str(error)) from error
    lines = opt_out_lines(path) if path.exists() else []
    if spelling(artist) in map(spelling, lines):
        return
    before = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    with write_atomically(path) as aside:
        end = "" if not before or before.endswith("\n") else "\n"
        aside.write_text(f"{before}{end}{artist.strip()}\n", encoding="utf-8")


def read_names(path: Path | UPath) -> list[str]:
    """Return the artists of an opt-out file, names and addresses. Raises `PolicyError` for a line that means nobody."""
    names = []
    for number, line in _numbered_lines(path):
        try:
            names += opted_out_names(line)
        except ExclusionError as error:
            raise PolicyError(f"{path}:{number}: {error}") from error
    return list(dict.fromkeys(names))


def opt_out_lines(path: Path | UPath) -> list[str]:
    """Return the lines of an opt-out file that name somebody, as they stand there. Raises `PolicyError`."""
    return [line for _, line in _numbered_lines(path)]


def _numbered_lines(path: Path | UPath) -> list[tuple[int, str]]:
    """Return the lines that are not empty, with their numbers; ` #` starts a comment."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"the opt-out file {path} cannot be read ({error}); mend it, or source.opt_out_file"
        ) from error
    bare = [(number, re.split(r"(?:^|\s)#", line)[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in bare if line]
