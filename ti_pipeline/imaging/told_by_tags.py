"""What tags tell of a picture: a simple background, lettering, how many subjects.

Not here: what its pixels say (`measures`), or whether both agree (`agreement`).
"""

from __future__ import annotations

__all__ = ["SIMPLE_BACKGROUND_TAGS", "is_lettering", "subjects"]

# The tag and everything that implies it on e621 (active implications, also through a second step, May 2025). Posts of
# the site carry `simple_background` beside these; sidecars written elsewhere often do not.
SIMPLE_BACKGROUND_TAGS = frozenset({"simple_background"}) | {
    f"{kind}_background"
    for kind in (
        *("argyle", "black", "blowup", "blue", "brown", "checkered", "cyan", "dotted", "geometric", "gradient"),
        *("green", "grey", "grid", "halftone", "heart", "orange", "pattern", "pawprint", "pink", "plaid"),
        *("pokeball", "pride_color", "purple", "rainbow", "red", "star-shaped", "striped", "tan", "teal"),
        *("textured", "transparent", "white", "yellow"),
    )
}

# Lettering that is part of what a picture shows: e621's `text` with the tags that imply it, and speech. Signatures,
# watermarks and logos do not count: the site does not call them text, and nearly every finished picture has one.
_LETTERING_TAGS = frozenset(
    {
        *("text", "dialogue", "speech_bubble", "thought_bubble", "onomatopoeia", "sound_effects", "wall_of_text"),
        *("subtitled", "translated", "translation_request", "image_macro", "url", "cursive", "comic_sans"),
        *("artist_name", "character_name", "copyright_name", "species_name", "character_cipher"),
    }
)

_SUBJECTS = {"zero_pictured": 0, "solo": 1, "duo": 2, "trio": 3, "group": 3}


def is_lettering(tag: str) -> bool:
    """Tell whether a tag says that the picture shows text: the list above, `english_text`, `text_on_clothing`, …"""
    return tag in _LETTERING_TAGS or tag.endswith(("_text", "_onomatopoeia")) or tag.startswith("text_on_")


def subjects(tags: frozenset[str]) -> int | None:
    """Return how many subjects tags tell of: the most that any of them says, of `group` at least three, or None."""
    return max((number for tag, number in _SUBJECTS.items() if tag in tags), default=None)
