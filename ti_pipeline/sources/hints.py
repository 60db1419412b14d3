"""What may be wrong with a search that finds nothing. Not here: searching (`search`, `dump`)."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["hints"]


def hints(query: str, tags: Collection[str]) -> list[str]:
    """Return what to try instead of a search that finds nothing; `tags` are those that the catalog knows, or none.

    A pasted address, commas between tags, and for each tag that is unknown the nearest one by its letters.
    """
    if address := re.search(r"https?://\S+", query):
        asked = parse_qs(urlsplit(address[0]).query).get("tags")
        return [f"an address is no search: write {asked[0] if asked else 'its tags'}"]
    found = []
    if re.search(r"\S,(?:\s|$)", query):
        found.append("tags are divided by blanks, and the words of one tag by _, not by commas")
    known = set(tags)
    plain = [re.sub(r"^[-~]+", "", word).rstrip(",").lower() for word in query.split() if not word.startswith("-")]
    for tag in [tag for tag in plain if tag and known and not re.search(r"[*():]", tag) and tag not in known]:
        alike = [name for name in known if abs(len(name) - len(tag)) <= 3 and name[:1] == tag[:1]]
        near = difflib.get_close_matches(tag, alike, n=1, cutoff=0.7)
        found.append(f"the catalog has no tag {tag}{f': is {near[0]} meant?' if near else ''}")
    return found
