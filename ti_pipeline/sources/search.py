"""A study's search on the site: asked page by page, resumed where it broke off, compared with the last time.

Here: what is asked for, pages kept aside, posts that have left the search. Not here: the protocol (`e621.client`), the
files of kept answers (`e621.answers`), the site's dump (`dump`), or which records are used (`e621.policy`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ti_pipeline.e621.answers import PagesAside, read_answers, write_answers
from ti_pipeline.e621.records import LEFT_SEARCH
from ti_pipeline.e621.search_language import TAG_LIMIT, counted_terms
from ti_pipeline.sources.reading import Reading, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ti_pipeline.e621.answers import KeptAnswers
    from ti_pipeline.e621.client import E621Client, Page
    from ti_pipeline.progress import Progress
    from ti_pipeline.studies import E621ExportSource, E621Source

__all__ = ["Found", "Wanted", "answered", "kept_search", "limited_to_ratings", "search_site"]

_RATING = re.compile(r"([-~]?)rating:\"?(\S).*", re.IGNORECASE)
_LIMIT = re.compile(r"(?:^|(?<=\s))limit:(\d+)(?=\s|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Wanted:
    """What a study asks for: `limit` posts of `query`."""

    query: str
    limit: int

    @classmethod
    def of(cls, source: E621Source | E621ExportSource) -> Wanted:
        """Read a study's source. Raises `SourceError` where it asks for nothing."""
        written = (source.query or "").strip()
        limits = [int(number) for number in _LIMIT.findall(written)]
        query = " ".join(_LIMIT.sub("", written).split())
        if not query:
            raise SourceError("source.query is empty: write the search there as you would on the site")
        if 0 in limits:
            raise SourceError("source.query asks for no posts: leave out limit:0")
        if not limits or "limit" in source.model_fields_set:
            limits.append(source.limit)
        return cls(limited_to_ratings(query, source.ratings), min(limits))


@dataclass(frozen=True)
class Found:
    """What a search gave: records, remarks, and the id below which the limit cut posts off, if it did."""

    records: Page
    notes: list[str]
    cut_below: int | None = None


def search_site(
    source: E621Source,
    client: Callable[[], E621Client],
    *,
    folder: Path,
    progress: Progress,
    seed: int = 0,
    redraw: bool = False,
) -> Reading:
    """Return the records of a study's search, and keep them as they came in `folder`; `client` makes who asks.

    A search that broke off goes on behind its last complete page. Posts that the same search found the last time and
    finds no more are records too, marked with why, so that nothing goes on using them. A random search is drawn once,
    by its own seed or `seed`, and kept: later runs ask only what has become of the drawn posts, until the search
    changes or `redraw` asks for another draw. Raises `SourceError` where nothing is found, and what the client raises.
    """
    from ti_pipeline.e621.client import is_random

    wanted, site = Wanted.of(source), client()
    if not is_random(wanted.query):
        return answered(wanted, site, lambda pages: _found(wanted, site, pages, progress), folder=folder)
    kept = read_answers(_path(folder))
    draw = 0 if kept is None else int(kept.search.get("draw", 0))
    if kept is not None and kept.search == _identity(wanted, site, seed=seed, draw=draw) and not redraw:
        return _drawn_before(kept, site, _path(folder), progress)
    draw += redraw
    own = "randseed:" in wanted.query.lower()
    # Without a seed, each page would be another draw.
    seeded = wanted if own else Wanted(f"{wanted.query} randseed:{seed + draw}", wanted.limit)
    # Posts of another draw have not gone anywhere, so there is nothing to compare with.
    return answered(
        wanted,
        site,
        lambda pages: _found(seeded, site, pages, progress),
        folder=folder,
        compared=False,
        seed=seed,
        draw=draw,
    )


def _drawn_before(kept: KeptAnswers, client: E621Client, path: Path, progress: Progress) -> Reading:
    """Return the posts of an earlier draw as the site shows them now."""
    before = kept.records
    asked = [record["id"] for record in before if LEFT_SEARCH not in record]
    progress(0, len(asked), "posts of the draw that is kept")
    now: dict[int, dict[str, Any]] = {}
    for record in client.posts(asked):
        now[record["id"]] = record
        progress(len(now), len(asked), "posts of the draw that is kept")
    records = [
        record if LEFT_SEARCH in record else now.get(record["id"]) or _marked(record["id"], None) for record in before
    ]
    write_answers(path, kept.search, records)
    lost = len(asked) - len(now)
    notes = [f"the random draw of {len(before)} posts is kept; `redraw: true` of the asset posts draws anew"]
    return Reading(records, notes + [f"{lost} of them are no longer on the site"] * (lost > 0), path)


def _identity(wanted: Wanted, client: E621Client, **where: str | int) -> dict[str, Any]:
    """Return what tells a kept search from others."""
    return {"site": client.url, "query": wanted.query, "limit": wanted.limit, **where}


def answered(
    wanted: Wanted,
    client: E621Client,
    find: Callable[[PagesAside], Found],
    *,
    folder: Path,
    compared: bool = True,
    **where: str | int,
) -> Reading:
    """Return what `find` finds, kept in `folder` and, unless not `compared`, compared with the last time.

    `find` keeps complete pages aside, and is given those that are there. `where` tells searches of one query in
    several places apart. Raises `SourceError` where nothing is found.
    """
    path = _path(folder)
    search = _identity(wanted, client, **where)
    kept = read_answers(path)
    before = kept.records if compared and kept is not None and kept.search == search else []
    pages = PagesAside(folder, search | {"login": client.logged_in}, before=path)
    found = find(pages)
    if not found.records:
        pages.discard()
        raise SourceError(f"source.query: the site finds no posts for {wanted.query!r}")
    gone = _gone(before, found, client)
    write_answers(path, search, [*found.records, *gone])
    pages.discard()
    return Reading([*found.records, *gone], [*found.notes, *_news(before, found.records, gone)], path)


def kept_search(source: E621Source | E621ExportSource, *, folder: Path) -> Reading:
    """Return the records that the site gave for a study's search, without asking it again.

    Raises `SourceError` where none are kept, or those of another search.
    """
    wanted, path = Wanted.of(source), _path(folder)
    kept = read_answers(path)
    if kept is None:
        raise SourceError(f"{path} is not there: the site was not asked yet, so ask it")
    if (kept.search.get("query"), kept.search.get("limit")) != (wanted.query, wanted.limit):
        raise SourceError(f"{path} answers another search than source.query now says: ask the site again")
    return Reading(kept.records, [f"made from the answers kept in {path.name}; the site was not asked"], path)


def _path(folder: Path) -> Path:
    return folder / "posts.jsonl.gz"


def _found(wanted: Wanted, client: E621Client, pages: PagesAside, progress: Progress) -> Found:
    """Return what the site finds; every complete page is kept aside at once."""
    from ti_pipeline.e621.client import is_ordered

    count = client.count(wanted.query)
    done = pages.read()
    found = [record for page in done for record in page]
    notes = [f"the search {wanted.query!r}: {'an unknown number of' if count is None else count} posts on the site"]
    notes += [f"going on behind {len(done)} pages of a search that broke off"] if done else []
    expected = wanted.limit if count is None else min(count, wanted.limit)
    progress(0, expected, notes[0])
    for number, page in enumerate(client.search(wanted.query, wanted.limit, after=done), start=len(done)):
        pages.add(number, page)
        found += page
        progress(len(found), max(expected, len(found)), "posts")
    if len(found) < expected:
        progress(len(found), len(found), "posts")
        notes.append(f"{len(found)} of them came: others have gone meanwhile, or run again")
    cut = len(found) >= wanted.limit and not is_ordered(wanted.query)
    return Found(found, notes, min(record["id"] for record in found) if cut else None)


def _gone(before: Page, found: Found, client: E621Client) -> Page:
    """Return the posts of the last time that the search finds no more, as the site shows them now.

    Where the limit cuts a search off, older posts that newer ones pushed out have not gone anywhere.
    """
    there = {record["id"] for record in found.records}
    lowest = 0 if found.cut_below is None else found.cut_below
    missing = [record for record in before if record["id"] not in there and record["id"] >= lowest]
    # Once gone, a post is asked about no more: if it comes back, the search finds it.
    known = [record for record in missing if LEFT_SEARCH in record]
    asked = [record["id"] for record in missing if LEFT_SEARCH not in record]
    now = {record["id"]: record for record in client.posts(asked)}
    return [*known, *(_marked(post_id, now.get(post_id)) for post_id in asked)]


def _marked(post_id: int, record: Mapping[str, Any] | None) -> dict[str, Any]:
    if record is None:
        reason = "gone: the site no longer knows this post"
        return {"id": post_id, "problem": reason, LEFT_SEARCH: reason}
    return {**record, LEFT_SEARCH: "the study's search no longer finds this post"}


def _news(before: Page, found: Page, gone: Page) -> list[str]:
    """Return what is new since the last time in one line, or nothing the first time."""
    if not before:
        return []
    last = {record["id"]: record for record in before}
    new = sum(record["id"] not in last for record in found)
    changed = sum(_change(last.get(record["id"], record)) != _change(record) for record in found)
    left = sum(LEFT_SEARCH not in last[record["id"]] for record in gone)
    return [f"since the last time: {new} posts new, {changed} changed, {left} gone"]


def _change(record: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return what differs after an edit: the site's own count of changes, and whether we had marked the post."""
    return record.get("change_seq"), LEFT_SEARCH in record


def limited_to_ratings(query: str, ratings: Sequence[str]) -> str:
    """Return a search that asks only for the allowed ratings, so that the limit counts usable posts.

    Each record is checked all the same, so a search that has as many terms as the site allows is left as it is. Raises
    `SourceError` for one that asks for other ratings only.
    """
    told = [(prefix, letter) for prefix, letter in _ratings_told(query) if letter in "sqe"]
    asked = {letter for prefix, letter in told if not prefix}
    left_out = {letter for prefix, letter in told if prefix == "-"}
    possible = set(ratings) - left_out
    if len(asked) > 1 or not asked <= possible or not possible:
        wanted_in_words = f"{', '.join(sorted(asked)) or 'any'} without {', '.join(sorted(left_out)) or 'any'}"
        raise SourceError(
            f"source.query leaves no rating that a post could have: it asks for {wanted_in_words}, and source.ratings "
            f"allows {', '.join(ratings)}; change one of them"
        )
    if asked:
        return query
    wanted = [f"rating:{letter}" for letter in ratings if len(ratings) == 1]
    wanted = wanted or [f"-rating:{letter}" for letter in "sqe" if letter not in {*ratings, *left_out}]
    limited = " ".join([query, *wanted])
    return limited if counted_terms(limited) <= max(TAG_LIMIT, counted_terms(query)) else query


def _ratings_told(query: str) -> Iterator[tuple[str, str]]:
    """Yield prefix and first letter (the site reads no more) of each `rating:` that stands in no brackets."""
    depth = 0
    for word in query.split():
        depth = max(0, depth + (word in {"(", "-(", "~("}) - (word == ")"))
        if depth == 0 and (found := _RATING.fullmatch(word)) is not None:
            yield found[1], found[2].lower()
