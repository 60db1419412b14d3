"""What people do to posts while they are read: edits that alter the truth. Not here: faults of one answer (`faults`).

A change is a function on the `Site`; `Emulator.after` applies it between two pages. Each bumps the post's `change_seq`
and `updated_at`, as every edit does.
"""

from __future__ import annotations

import datetime
import hashlib
import random
from typing import TYPE_CHECKING, Any

from ti_pipeline_tests.emulator.world import file_of, picture, plain_post

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ti_pipeline_tests.emulator.site import Site

    Change = Callable[[Site], None]

_EDITED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def delete(post_id: int) -> Change:
    """Delete a post: it is still known, without a link, and its picture is gone."""
    return lambda site: _edit(site, post_id, flags={**site.posts[post_id]["flags"], "deleted": True})


def forget(post_id: int) -> Change:
    """Remove a post from the site altogether."""

    def change(site: Site) -> None:
        del site.posts[post_id]

    return change


def hide(post_id: int) -> Change:
    """Hide a post's link from viewers who are not logged in."""

    def change(site: Site) -> None:
        site.hidden.add(post_id)
        _edit(site, post_id)

    return change


def re_rate(post_id: int, rating: str) -> Change:
    return lambda site: _edit(site, post_id, rating=rating)


def re_tag(post_id: int, *, add: Iterable[str] = (), remove: Iterable[str] = (), category: str = "general") -> Change:
    """Add tags to a category (which may be one that nobody knows) and remove tags from all of them."""
    added, removed = list(add), set(remove)

    def change(site: Site) -> None:
        tags = {name: [tag for tag in now if tag not in removed] for name, now in site.posts[post_id]["tags"].items()}
        _edit(site, post_id, tags={**tags, category: sorted({*tags.get(category, []), *added})})

    return change


def describe(post_id: int, words: str) -> Change:
    return lambda site: _edit(site, post_id, description=words)


def replace(post_id: int, data: bytes) -> Change:
    """Replace a post's file: it gets a new md5, size and link, and the old link leads nowhere."""

    def change(site: Site) -> None:
        site.files.pop(site.posts[post_id]["file"]["md5"], None)
        new = file_of(data)
        site.files[new["md5"]] = data
        _edit(site, post_id, file=new)

    return change


def overwrite(post_id: int, data: bytes) -> Change:
    """Put other bytes behind a post's link, of which its record says nothing."""

    def change(site: Site) -> None:
        site.files[site.posts[post_id]["file"]["md5"]] = data

    return change


def insert(record: dict[str, Any], data: bytes) -> Change:
    def change(site: Site) -> None:
        site.posts[record["id"]] = record
        site.files[hashlib.md5(data).hexdigest()] = data

    return change


def drawn_changes(site: Site, count: int, seed: int) -> list[Change]:
    """Draw changes of every sort, each to a post of its own: applied in any order they leave the same site."""
    chance, last = random.Random(seed), max(site.posts)
    changes = []
    for number, post_id in enumerate(chance.sample(sorted(site.posts), min(count, len(site.posts)))):
        data = picture(8, 8, chance.randrange(2**32))
        changes.append(
            (
                delete(post_id),
                forget(post_id),
                hide(post_id),
                re_rate(post_id, "q"),
                re_tag(post_id, add=["retagged"], remove=["mammal"]),
                re_tag(post_id, add=["moved"], category="unheard_of"),
                re_tag(post_id, add=["conditional_dnp"], category="artist"),
                describe(post_id, "edited"),
                replace(post_id, data),
                overwrite(post_id, data),
                insert(*plain_post(last + 1 + number, seed)),
            )[number % 11]
        )
    return changes


def _edit(site: Site, post_id: int, **changes: Any) -> None:
    """Edit a post; its next number follows from its own, so that edits of different posts may come in any order."""
    post = site.posts[post_id]
    edits = post.get("change_seq", 0) + 1_000_000
    moment = (_EDITED + datetime.timedelta(seconds=edits % 10_000_000)).isoformat(timespec="milliseconds")
    site.posts[post_id] = {**post, **changes, "change_seq": edits, "updated_at": moment}
