"""Which pictures a plan's tags are counted on, and the tags it counts: those of the pictures that are trained.

A vocabulary is of a training set, not of everything that was fetched: a tag's share matters where it is learned. The
study's own tables (`tag_frequencies`, `tag_pairs`) stay of all kept posts. Not here: which pictures are trained
(`imaging.curation`), or what is done with the counts (`vocabulary`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from ti_pipeline.studies import Study

__all__ = ["Pictures", "counted_tags", "pictures_of", "pictures_of_plan", "renamed", "replaced"]


class Pictures(NamedTuple):
    """Post ids, ascending: those that get captions, and of these the ones on which tags are counted."""

    captioned: NDArray[np.int64]
    counted: NDArray[np.int64]

    def without(self, refused: Collection[int]) -> Pictures:
        """Return the pictures without those that must not be used."""
        import numpy as np

        return Pictures(*(ids[~np.isin(ids, list(refused))] for ids in self))


def pictures_of(
    training_set: pd.DataFrame, posts: pd.DataFrame, *, counted: Collection[str], captioned: Collection[str]
) -> Pictures:
    """Return the pictures of a plan: tags are counted on those that the curations `counted` train on.

    Captions are for all pictures, also held-out ones, of `captioned` (and of `counted`). Where no training set is made
    yet, both are all kept posts. Raises `ValueError` for a curation that the training set does not know.
    """
    import numpy as np

    if training_set.empty:
        kept = np.sort(posts.post_id[posts.status == "kept"].to_numpy(dtype=np.int64))
        return Pictures(kept, kept)
    unknown = sorted({*counted, *captioned} - set(training_set.curation))
    if unknown:
        raise ValueError(f"the training set has no curation {unknown[0]!r}: make it again (the asset training_set)")
    used = training_set[training_set.kept & training_set.curation.isin({*counted, *captioned})]
    trained = used[used.curation.isin(set(counted)) & (used.split == "train")]
    return Pictures(*(np.unique(rows.post_id.to_numpy(dtype=np.int64)) for rows in (used, trained)))


def pictures_of_plan(study: Study, plan: str, training_set: pd.DataFrame, posts: pd.DataFrame) -> Pictures:
    """Return the pictures of a study's caption plan: those of its variants' curations, counted on `curation` if set."""
    trained, own = study.curations_of_plan(plan), study.captions[plan].curation
    return pictures_of(training_set, posts, counted=trained if own is None else [own], captioned=trained)


def replaced(post_tags: pd.DataFrame, words: Mapping[str, str]) -> pd.DataFrame:
    """Return uses of tags with some replaced by others, all at once; a post has each tag once.

    Names are compared as the site spells them: blanks are underscores, case makes no difference. A new tag that the
    uses know already keeps its category, another takes that of the one it replaces.
    """
    import pandas as pd

    if not words or post_tags.empty:
        return post_tags
    wanted = {_spelled(old): _spelled(new) for old, new in words.items()}
    tags, categories = post_tags.tag.astype("category"), post_tags.category.astype("str")
    known = list(tags.cat.categories)
    renamed = [wanted.get(_spelled(name), name) for name in known]
    touched = [name for name, new in zip(known, renamed, strict=True) if name != new]
    if not touched:
        return post_tags
    of_tag = pd.Series(categories.to_numpy(), index=post_tags.tag.astype("str")).groupby(level=0, sort=True).first()
    category_of = dict(of_tag.items())
    for name in touched:
        category_of.setdefault(wanted[_spelled(name)], category_of[name])
    new = tags.astype("str").map(dict(zip(known, renamed, strict=True)))
    table = pd.DataFrame({"post_id": post_tags.post_id, "tag": new, "category": new.map(category_of)})
    table = table.drop_duplicates(["post_id", "tag"]).sort_values(["post_id", "tag"], ignore_index=True)
    return table.astype({"tag": "category", "category": "category"})


def renamed(frequencies: pd.DataFrame, words: Mapping[str, str], *, by: str) -> pd.DataFrame:
    """Return `tag_frequencies` with some tags named as others, as `replaced` does with uses.

    Of several that become one, the row with the largest value in the column `by` stands for all: on how many pictures
    any of them stands cannot be told from counts, but on no fewer.
    """
    if not words or frequencies.empty:
        return frequencies
    wanted = {_spelled(old): _spelled(new) for old, new in words.items()}
    tags = [wanted.get(_spelled(name), name) for name in frequencies.tag]
    table = frequencies.assign(tag=tags).sort_values(by, ascending=False, kind="stable", na_position="last")
    return table.drop_duplicates("tag", ignore_index=True)


def _spelled(tag: str) -> str:
    return "_".join(tag.lower().split())


def counted_tags(
    post_tags: pd.DataFrame, pictures: NDArray[np.int64], site_counts: pd.Series | None = None
) -> pd.DataFrame:
    """Return tag, category, count, share and site_count of every tag of the uses, counted on some pictures (ids).

    Tags on none of them are there with a count of 0. `site_counts` are the whole site's, by tag, where they are known.
    Commonest first, ties by name.
    """
    import numpy as np
    import pandas as pd

    used = post_tags[np.isin(post_tags.post_id.to_numpy(dtype=np.int64), pictures)]
    counts = used.tag.astype("str").value_counts()
    every = post_tags.drop_duplicates("tag")[["tag", "category"]].astype("str")
    table = pd.DataFrame({"tag": every.tag, "category": every.category})
    table["count"] = table.tag.map(counts).fillna(0).astype("int64")
    table["share"] = table["count"] / max(len(pictures), 1)
    known = pd.Series(dtype="Int64") if site_counts is None else site_counts
    table["site_count"] = table.tag.map(known).astype("Int64")
    return table.sort_values(["count", "tag"], ascending=[False, True], ignore_index=True)
