"""What people write to keep posts out: tags of `exclude_tags`, and lines of opt-out files.

Here: what an entry means in names of tags, or why it means nothing. Not here: the policy that applies them (`policy`),
or how many posts each takes (`taken`).
"""

from __future__ import annotations

import functools
import re
from urllib.parse import parse_qs, urlsplit

from ti_pipeline.e621.catalog import CATEGORY_NAMES

__all__ = ["ExclusionError", "address_key", "excluded_names", "is_address", "opted_out_names"]

# Search terms of the site that are no tags: nobody's post has a tag of such a name.
_METATAGS = frozenset(
    {"rating", "order", "score", "favcount", "tagcount", "id", "md5", "type", "filetype", "width", "height", "ratio"}
    | {"mpixels", "filesize", "date", "age", "status", "parent", "pool", "source", "randseed", "limit", "fav", "user"}
    | {"set", "duration", "approver", "description", "uploader", "hassource", "ischild", "isparent", "inpool"}
)
_SITE_PATHS = re.compile(
    r"/(?:user|users|gallery|scraps|profile|artists|submissions|view_profile|full)/", re.IGNORECASE
)
_HANDLE = re.compile(r"[\w.~@-]+")
# Hosts on which the first part of a path, or the host's own first part, is somebody's name.
_BY_PATH = frozenset({"twitter.com", "x.com", "deviantart.com", "inkbunny.net", "weasyl.com", "instagram.com"})
_BY_PATH |= {"patreon.com", "ko-fi.com", "furrynetwork.com", "itaku.ee", "t.me", "newgrounds.com", "picarto.tv"}
_BY_HOST = frozenset({"tumblr.com", "deviantart.com", "sofurry.com", "newgrounds.com", "carrd.co", "itch.io"})


class ExclusionError(ValueError):
    """An entry means nothing that could take a post; the message says what to write instead."""


def excluded_names(entry: str) -> list[str]:
    """Return the tags that an entry of `exclude_tags` means; `*` in one stands for any characters.

    `-tag` and `~tag` mean the tag, `meta:tag` too, and commas part several. Raises `ExclusionError` for an entry that
    means none: an empty one, `*` alone, or a search term such as `rating:e`.
    """
    names = []
    for part in entry.split(","):
        name = part.strip()
        space, colon, rest = name.lstrip("-~").partition(":")
        if colon and rest.strip() and space.strip().lower() in _METATAGS:
            raise ExclusionError(
                f"{entry!r} is a term of searches, not a tag: write -{name.lstrip('-~')} in source.query"
            )
        if colon and rest.strip() and space.strip().lower() in CATEGORY_NAMES:
            name = rest.strip()
        elif len(name) > 1:
            name = name.lstrip("-~") or name
        if name and not name.strip("*_ "):
            raise ExclusionError(f"{entry!r} would take every post: write the tags that are not wanted")
        names += [name] if name else []
    if not names:
        raise ExclusionError("an entry is empty: write a tag, or leave the entry out")
    return names


def opted_out_names(line: str) -> list[str]:
    """Return the names and addresses that a line of an opt-out file means.

    A line may hold several names with commas, say `artist:` or `by` before one or @ in front of it, and be the address
    of a page: then the name in it counts, and posts that state the page among their sources. Raises `ExclusionError`
    for a line that means nobody.
    """
    names: list[str] = []
    for part in [line.strip()] if is_address(line) else line.split(","):
        name = part.strip()
        if not name:
            continue
        if is_address(name):
            found = _names_in(name)
            # An address with a question, or of a whole host, is no page of one artist; the name in it may tell who.
            names += [*([name] if ("?" not in name and "/" in address_key(name)) or found else []), *found]
            continue
        bare = re.sub(r"^(?:artist|creator|contributor)\s*:\s*|^by(?:\s*:\s*|[\s_]+)|^@", "", name, flags=re.IGNORECASE)
        names += [bare or name, *([name] if bare and re.match(r"by[\s_]", name, re.IGNORECASE) else [])]
    if not names or any("*" in name for name in names):
        raise ExclusionError(
            f"{line.strip()!r} is no name of an artist: write the name of the artist's tag, or a page's address"
        )
    return list(dict.fromkeys(names))


def is_address(text: str) -> bool:
    """Tell whether a text is an address on the web, with or without `https://`."""
    found = re.match(r"(?:\w+://)?(?:[\w-]+\.)+[a-z]{2,}(?:/\S*)?$", text.strip(), re.IGNORECASE)
    return found is not None and ("/" in text or text.strip().lower().startswith("www."))


@functools.lru_cache(maxsize=2**14)
def address_key(address: str) -> str:
    """Return host and path of an address as they are compared: no scheme, no `www.`, no / at the end, small letters."""
    parts = urlsplit(address.strip() if "://" in address else f"https://{address.strip()}")
    host = re.sub(r"^(?:www|mobile|m)\.", "", (parts.netloc or "").lower())
    host = {"x.com": "twitter.com", "fxtwitter.com": "twitter.com"}.get(host, host)
    return f"{host}{parts.path.rstrip('/').lower()}"


def _names_in(address: str) -> list[str]:
    """Return who an address is of, where the host's way to write it is known; nobody for other addresses."""
    parts = urlsplit(address.strip() if "://" in address else f"https://{address.strip()}")
    host = re.sub(r"^www\.", "", (parts.hostname or "").lower())
    asked = parse_qs(parts.query)
    for field in ("tags", "name"):
        if field in asked and " " not in asked[field][0].strip():
            return [asked[field][0].strip()]
    path = [piece for piece in parts.path.split("/") if piece]
    found = _SITE_PATHS.search(f"{parts.path}/")
    if found:
        behind = [piece for piece in parts.path[found.end() :].split("/") if piece]
        path = behind[:1]
    elif host not in _BY_PATH:
        labels = host.split(".")
        path = [labels[0]] if len(labels) > 2 and ".".join(labels[-2:]) in _BY_HOST else []
    name = path[0].lstrip("~@") if path else ""
    name = name.removesuffix(".bsky.social")
    return [name] if _HANDLE.fullmatch(name) and not name.isdigit() else []
