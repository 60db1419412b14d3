"""Derpibooru, Furbooru and other Philomena sites: flat tags with namespaces, the ratings among them.

Source: the sites' API help (`/api/v1/json/images`: `tags` is a list of names with blanks) and their tagging guidelines.
"""

from __future__ import annotations

from typing import Any

from ti_pipeline.sources.shapes.fields import facts, strictest, tag_names

__all__ = ["matches", "read"]

_SITES = frozenset({"derpibooru", "ponybooru", "furbooru", "twibooru", "manebooru", "tantabus"})
_RATINGS = {"safe": "s", "suggestive": "q", "questionable": "q", "semi-grimdark": "q"}
_RATINGS |= {"explicit": "e", "grimdark": "e", "grotesque": "e"}
_NAMESPACES = {"artist": "artist", "photographer": "artist", "editor": "contributor", "colorist": "contributor"}
_NAMESPACES |= {
    "oc": "character",
    "character": "character",
    "species": "species",
    "series": "copyright",
    "comic": "copyright",
}


def matches(data: dict[str, Any]) -> bool:
    """Tell whether an object is a picture of such a site."""
    return data.get("category") in _SITES or ("sha512_hash" in data and "tags" in data)


def read(data: dict[str, Any]) -> dict[str, Any]:
    """Return what a picture's object tells; without a rating among its tags, it has none."""
    tags: dict[str, list[str]] = {}
    ratings: list[str] = []
    for name in tag_names(data.get("tags"), divided="commas"):
        space, _, rest = name.partition(":")
        if name in _RATINGS:
            ratings.append(_RATINGS[name])
        elif rest and space in _NAMESPACES:
            tags.setdefault(_NAMESPACES[space], []).append(rest)
        else:
            tags.setdefault("general", []).append(name)
    found = facts(data) | {"tags": tags}
    return found | ({"rating": strictest(*ratings)} if ratings else {})
