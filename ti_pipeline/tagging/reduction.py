"""Reduction: the rules that take tags out of a vocabulary, each by its name, each with a reason for every tag it takes.

A rule is a function from a `Pool` (the plan, the tags still in, and where they are used) to what it takes. Rules do
not know of each other: `vocabulary` runs them in the order of `RULES`, each on what the ones before have left. Counts
are pictures that are trained, without those on which the plan's `implications` leave a tag unsaid. Ties are decided by
name, so that the order of rows never matters. Not here: what no setting can lift (policy, unreadable names).
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.concept import saying_the_same, shared_and_rare
from ti_pipeline.tagging.implications import depths
from ti_pipeline.tagging.pieces import piece

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Mask, Numbers
    from ti_pipeline.tagging.per_picture import Chooser

__all__ = ["RULES", "Pool", "Taken", "first_match"]


# Two tags that met on fewer pictures look inseparable by chance; what nearly all pictures have is nothing's synonym.
_LEAST_TOGETHER = 3
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Pool:
    """The tags that are still in. Names stand commonest first, ties by name; arrays are [names].

    `counts` are pictures that are trained, `on_site` posts of the whole site (-1: unknown), `lifts` how many times
    commoner tags are here than elsewhere (infinite where nobody else has them), `places` the order in captions,
    `listed` marks the keep list, `alive` what no rule has taken yet. `implied` is the implications' closure over the
    names, None where there is no catalog; `chooser` decides what captions of living tags say.
    """

    names: Sequence[str]
    categories: Sequence[str]
    counts: NDArray[np.int64]
    on_site: NDArray[np.int64]
    lifts: NDArray[np.float64]
    places: NDArray[np.int64]
    listed: Mask
    alive: Mask
    implied: Any | None
    chooser: Chooser
    plan: CaptionPlan

    @property
    def free(self) -> NDArray[np.int64]:
        """The tags that a rule may take: alive, and not on the keep list."""
        import numpy as np

        return np.flatnonzero(self.alive & ~self.listed)

    @functools.cached_property
    def uses(self) -> Incidence:
        """The uses of living tags, without what `implications` take from single pictures."""
        return self.chooser.uses.where(self.chooser.said(self.alive, limit=False))

    def share(self, count: float) -> float:
        """Return a count as a share of the pictures."""
        return count / self.chooser.uses.pictures if self.chooser.uses.pictures else 0.0

    def least(self, share: float) -> int:
        """Return the smallest count that reaches a share of the pictures."""
        return math.ceil(share * self.chooser.uses.pictures - 1e-9)

    def by_count(self, counts: Numbers) -> list[int]:
        """Return the alive tags, those of the keep list first, then by these counts, ties by name."""
        import numpy as np

        alive = np.flatnonzero(self.alive)
        return sorted(alive.tolist(), key=lambda i: (not self.listed[i], -int(counts[i]), self.names[i]))

    def in_captions(self, alive: Mask, *, limit: bool = True) -> NDArray[np.int64]:
        """Return in how many captions each tag stands if these tags are the vocabulary."""
        return self.chooser.uses.where(self.chooser.said(alive, limit=limit)).counts()

    def after(self, taken: Taken) -> Pool:
        """Return the pool without what a rule took."""
        if not taken.tags:
            return self
        alive = self.alive.copy()
        alive[list(taken.tags)] = False
        return replace(self, alive=alive)


@dataclass(frozen=True)
class Taken:
    """What a rule took: tags with the reason in words and numbers; and why others stay."""

    tags: Mapping[int, str]
    stays: Mapping[int, str] = field(default_factory=dict)


def categories(pool: Pool) -> Taken:
    """Take tags of categories that the plan does not use."""
    wanted = set(pool.plan.kept_categories())
    return Taken(
        {
            i: f"category {pool.categories[i]} is not in the plan"
            for i in pool.free.tolist()
            if pool.categories[i] not in wanted
        }
    )


def drop_list(pool: Pool) -> Taken:
    """Take tags that the plan's drop list names."""
    match = first_match(pool.plan.drop)
    return Taken({i: f"drop list: {found}" for i in pool.free.tolist() if (found := match(pool.names[i]))})


def same_words(pool: Pool) -> Taken:
    """Take tags that read as a commoner one does: captions would say the same twice, and nobody could tell them apart.

    Letters' case makes no difference to CLIP; `wolf_(species)` and `wolf species` are one where parentheses go.
    """
    first: dict[str, int] = {}
    taken = {}
    for i in pool.by_count(pool.counts):
        words = piece(pool.names[i], pool.plan).casefold()
        other = first.setdefault(words, i)
        if other != i:
            taken[i] = f"captions write it as they write {pool.names[other]}"
    return Taken(taken)


def concept(pool: Pool) -> Taken:
    """Take the tags of what is learned: those of the list, or for `auto` what its pictures share and others lack."""
    asked = pool.plan.concept
    if asked is None:
        return Taken({})
    free = pool.free.tolist()
    stays: dict[int, str] = {}
    if asked == "auto":
        taken, stays = shared_and_rare(free, pool.counts / max(1, pool.chooser.uses.pictures), pool.lifts)
    else:
        match = first_match(asked)
        taken = {i: f"concept list: {found}" for i in free if (found := match(pool.names[i]))}
    if pool.implied is not None:
        taken |= saying_the_same(free, taken, pool.implied, pool.names)
    return Taken(taken, stays={i: words for i, words in stays.items() if i not in taken})


def constant(pool: Pool) -> Taken:
    """Take tags that all pictures have, if the plan says so: they tell no picture from another."""
    if pool.plan.constant == "keep":
        return Taken({})
    every = pool.free[pool.counts[pool.free] == pool.chooser.uses.pictures]
    return Taken({i: f"constant: on all {pool.counts[i]} pictures" for i in every.tolist()})


def min_count(pool: Pool) -> Taken:
    """Take tags on fewer pictures than `min_count`."""
    least = pool.plan.min_count
    return Taken({i: f"min_count {least}: on {count} pictures" for i, count in _too_rare(pool, least).items()})


def min_share(pool: Pool) -> Taken:
    """Take tags on a smaller share of the pictures than `min_share`."""
    share = pool.plan.min_share
    found = _too_rare(pool, pool.least(share))
    return Taken({i: f"min_share {share:.6g}: share {pool.share(count):.6g}" for i, count in found.items()})


def _too_rare(pool: Pool, least: int) -> dict[int, int]:
    """Return tags on fewer pictures than `least`, with how many: until all that are left are on as many.

    Where a picture's special tag goes, `implications` give it back the general one; so the most special and rarest go
    first, and general ones are counted anew. A tag that implications leave on no picture is not rare: it waits.
    """
    import numpy as np

    alive, taken = pool.alive.copy(), dict[int, int]()
    deep = np.zeros(len(alive), dtype=np.int64) if pool.implied is None else depths(pool.implied)
    counts = pool.uses.counts()
    while True:
        rare = np.flatnonzero(alive & ~pool.listed & (counts < least) & ((counts > 0) | (pool.counts < least)))
        if pool.plan.implications != "keep" and len(rare):
            sign = -1 if pool.plan.implications == "most_specific" else 1
            rare = rare[(sign * deep[rare]) == (sign * deep[rare]).min()]
        if not len(rare):
            return taken
        taken |= {int(i): int(counts[i] or pool.counts[i]) for i in rare}
        alive[rare] = False
        if pool.plan.implications == "keep":
            return taken
        counts = pool.in_captions(alive, limit=False)


def max_share(pool: Pool) -> Taken:
    """Take tags on a larger share of the pictures than `max_share`, in the end: after all other rules."""
    import numpy as np

    alive, taken, most = pool.alive.copy(), dict[int, str](), pool.plan.max_share
    while most < 1:
        counts = pool.in_captions(alive, limit=False)
        common = np.flatnonzero(alive & ~pool.listed & (counts > most * pool.chooser.uses.pictures + 1e-9))
        if not len(common):
            break
        taken |= {int(i): f"max_share {most:.6g}: share {pool.share(int(counts[i])):.6g}" for i in common}
        alive[common] = False
    return Taken(taken)


def implications(pool: Pool) -> Taken:
    """Take tags that others of each picture's tags say already, on all of their pictures."""
    if pool.plan.implications == "keep" or pool.implied is None:
        return Taken({})
    left = pool.uses.counts()
    word = "a more special" if pool.plan.implications == "most_specific" else "a more general"
    taken = {
        i: f"implications {pool.plan.implications}: {word} tag stands on all {pool.counts[i]} pictures"
        for i in pool.free[(left[pool.free] == 0) & (pool.counts[pool.free] > 0)].tolist()
    }
    return Taken(taken)


def merge_synonyms(pool: Pool) -> Taken:
    """Take each tag that nearly always stands with one that stays: the two are one thing to a trainer.

    The word that more posts of the site have stays: it is what people type; without the catalog, the one that more of
    the pictures have. Greedy from those down, so that no tag stands for another that was itself taken. Not merged: tags
    of which one implies the other (`implications` has that choice), tags that met on fewer than three pictures, and any
    tag into one that nearly all pictures have. The word that stays is not written onto the few pictures that only
    have the other: a caption says nothing that the site does not.
    """
    if pool.plan.merge_synonyms is None:
        return Taken({})
    near = _near(pool, pool.plan.merge_synonyms)
    counts = pool.uses.counts()
    order = sorted(
        {tag for pair in near for tag in pair},
        key=lambda i: (not pool.listed[i], -int(pool.on_site[i]), -int(counts[i]), pool.names[i]),
    )
    place = {tag: index for index, tag in enumerate(order)}
    better: dict[int, list[int]] = {}
    for pair in near:
        first, second = sorted(pair, key=place.__getitem__)
        better.setdefault(second, []).append(first)
    taken: dict[int, str] = {}
    for tag in order:
        stays = [other for other in better.get(tag, []) if other not in taken]
        stays = [other for other in stays if pool.share(int(counts[other])) <= _NEARLY_ALL]
        if stays and not pool.listed[tag]:
            other = min(stays, key=place.__getitem__)
            together = near[min(tag, other), max(tag, other)]
            union = int(counts[tag] + counts[other] - together)
            taken[tag] = (
                f"merge_synonyms {pool.plan.merge_synonyms:g}: with {pool.names[other]} on {together} of the {union} "
                f"pictures of either (Jaccard {together / union:.3f})"
            )
    return Taken(taken)


def _near(pool: Pool, jaccard: float) -> dict[tuple[int, int], int]:
    """Return pairs of tags (the lower number first) that nearly always stand together, with on how many pictures."""
    from scipy import sparse

    counts = pool.uses.counts()
    matrix = pool.uses.where(counts[pool.uses.tags] >= _LEAST_TOGETHER).matrix()
    both = sparse.triu(matrix.T @ matrix, k=1).tocoo()
    near = (both.data >= jaccard * (counts[both.row] + counts[both.col] - both.data)) & (both.data >= _LEAST_TOGETHER)
    pairs = zip(both.row[near].tolist(), both.col[near].tolist(), both.data[near].tolist(), strict=True)
    implied = pool.implied
    return {
        (one, other): together
        for one, other, together in pairs
        if implied is None or not (implied[one, other] or implied[other, one])
    }


def budgets(pool: Pool) -> Taken:
    """Take the rarest tags of each category beyond its budget; tags of the keep list take places of it."""
    ranks = dict.fromkeys(pool.plan.budgets, 0)
    taken, stays = {}, {}
    for i in pool.by_count(pool.uses.counts()):
        category = pool.categories[i]
        if category not in ranks:
            continue
        ranks[category] += 1
        words = f"{category} budget {pool.plan.budgets[category]}: rank {ranks[category]}"
        if pool.listed[i] or ranks[category] <= pool.plan.budgets[category]:
            stays[i] = words
        else:
            taken[i] = words
    return Taken(taken, stays=stays)


def coverage(pool: Pool) -> Taken:
    """Take all but the tags with which pictures are covered best.

    Maximises Σ min(m, chosen tags of the picture) over the pictures, m = `per_picture`; for m = 1 that is the number
    of pictures with a tag. The function is monotone and submodular, so taking the tag that adds most, again and again,
    reaches at least 1 − 1/e = 63 % of what the best choice of as many tags does (Nemhauser, Wolsey & Fisher 1978). Tags
    on more than `informative_below` of the pictures are no candidates, nor are those on fewer than `min_pictures`; the
    keep list is chosen first.
    """
    if pool.plan.coverage is None:
        return Taken({})
    import numpy as np

    goal = pool.plan.coverage
    uses, counts = pool.uses, pool.uses.counts()
    common = {i for i in pool.free.tolist() if pool.share(int(counts[i])) > goal.informative_below}
    rare = {i for i in pool.free.tolist() if counts[i] < goal.min_pictures}
    candidates = [i for i in pool.by_count(counts) if i not in common and i not in rare]
    listed = [i for i in candidates if pool.listed[i]]
    picks = _greedy_cover(uses, candidates, listed, goal.tags, goal.per_picture)
    chosen = {tag: (number, gain) for number, (tag, gain) in enumerate(picks, 1)}
    covered = np.bincount(uses.rows[np.isin(uses.tags, list(chosen))], minlength=uses.pictures)
    open_ = covered < goal.per_picture
    would_add = np.bincount(uses.tags[open_[uses.rows]], minlength=len(pool.names))
    rule = f"coverage {goal.tags}"
    taken = {
        i: f"{rule}: on {counts[i]} pictures, share {pool.share(int(counts[i])):.6g} above {goal.informative_below:g}"
        for i in common
    }
    taken |= {i: f"{rule}: on {counts[i]} pictures, fewer than {goal.min_pictures}" for i in rare - common}
    left = f"{goal.per_picture} tags" if goal.per_picture > 1 else "a tag"
    taken |= {
        i: f"{rule}: would give {would_add[i]} more pictures of those that lack {left} one"
        for i in candidates
        if i not in chosen and not pool.listed[i]
    }
    stays = {i: f"{rule}: choice {number}, for {gain} more pictures" for i, (number, gain) in chosen.items()}
    return Taken(taken, stays=stays)


def _greedy_cover(
    uses: Incidence, candidates: list[int], first: list[int], tags: int, per_picture: int
) -> list[tuple[int, int]]:
    """Return the chosen tags with what each added, in the order of choice; it ends early when nothing adds anything.

    Gains are kept up to date by subtracting, for each picture that is full now, its tags: all in all once per use.
    """
    import numpy as np

    if not candidates:
        return []
    matrix = uses.matrix()
    by_tag = matrix.tocsc()
    lacking = np.full(uses.pictures, per_picture)
    gains = np.bincount(uses.tags, minlength=len(uses.names))
    order = np.array(candidates)
    open_ = np.ones(len(order), dtype=bool)
    picks: list[tuple[int, int]] = []
    while len(picks) < tags and open_.any():
        best = len(picks) if len(picks) < len(first) else int(np.argmax(np.where(open_, gains[order], -1)))
        tag, gain = int(order[best]), int(gains[order[best]])
        if gain == 0 and len(picks) >= len(first):
            break
        open_[best] = False
        picks.append((tag, gain))
        on = by_tag.indices[by_tag.indptr[tag] : by_tag.indptr[tag + 1]]
        lacking[on] -= 1
        full = on[lacking[on] == 0]
        gains -= np.bincount(matrix[full].indices, minlength=len(gains))
    return picks


def balance(pool: Pool) -> Taken:
    """Take as few tags as it needs for every other one to keep the share `balance` in the captions.

    The seed log's belief as a rule: many tags do no harm if each one's share of the pictures reaches a threshold.
    Without `per_image` the answer is exact: every tag whose share reaches it. With a limit, tags compete for places
    in captions and each set of tags has shares of its own. Then: take the tag that falls shortest, look again, until
    every tag reaches the share; last, put back each tag, the commonest first, with which all still do. What comes out
    cannot be extended by any one tag; that no other choice is larger is not promised (the tests compare it with all
    choices on small cases).
    """
    if pool.plan.balance is None:
        return Taken({})
    wanted = pool.least(pool.plan.balance)
    never = pool.free[pool.counts[pool.free] < wanted]
    reasons = {
        i: f"balance {pool.plan.balance:g}: on {pool.counts[i]} pictures, share {pool.share(int(pool.counts[i])):.6g}"
        for i in never.tolist()
    }
    trial = _Trial(pool.after(Taken(reasons)), wanted)

    def in_words(tag: int) -> str:
        count = int(trial.counts[tag])
        return f"balance {pool.plan.balance:g}: in {count} captions, share {pool.share(count):.6g}"

    while len(lacking := trial.short()):
        # One at a time gives the others room; of very many, the worse half are hopeless anyway and come back below.
        worst = lacking[: max(1, (len(lacking) - 32) // 2)].tolist()
        reasons |= {i: in_words(i) for i in worst}
        trial.take(worst)
    for i in pool.by_count(pool.counts):
        if i in reasons and pool.counts[i] >= trial.wanted and trial.put_back(i):
            del reasons[i]
    return Taken(reasons, stays={i: in_words(i) for i in trial.free().tolist()})


class _Trial:
    """Tags that are tried as a vocabulary, and in how many captions each stands; a change asks only its pictures."""

    def __init__(self, pool: Pool, wanted: int) -> None:
        import numpy as np

        self._pool, self._chooser, self.wanted = pool, pool.chooser.narrowed(pool.alive), wanted
        self._alive = pool.alive.copy()
        self._said = self._chooser.said(self._alive)
        self._tags, self._width = self._chooser.uses.tags, len(pool.names)
        self.counts = np.bincount(self._tags[self._said], minlength=self._width)

    def free(self) -> NDArray[np.int64]:
        """Return the tags that are in, without the keep list."""
        import numpy as np

        return np.flatnonzero(self._alive & ~self._pool.listed)

    def short(self) -> NDArray[np.int64]:
        """Return the tags that stand in too few captions, the shortest first, of equals the later."""
        import numpy as np

        lacking = self.free()
        lacking = lacking[self.counts[lacking] < self.wanted]
        return lacking[np.lexsort((-lacking, self.counts[lacking]))]

    def take(self, tags: list[int]) -> None:
        """Take tags out."""
        self._alive[tags] = False
        uses = self._chooser.beside(tags[0]) if len(tags) == 1 else self._chooser.everything()
        self._change(uses, self._chooser.said(self._alive, uses))

    def put_back(self, tag: int) -> bool:
        """Put a tag in if it and all others then still stand in enough captions; tell whether it did."""
        self._alive[tag] = True
        uses = self._chooser.beside(tag)
        before = self._said[uses]
        self._change(uses, self._chooser.said(self._alive, uses))
        if len(self.short()):
            self._alive[tag] = False
            self._change(uses, before)
        return bool(self._alive[tag])

    def _change(self, uses: NDArray[np.int64], said: Mask) -> None:
        import numpy as np

        tags = self._tags[uses]
        self.counts = self.counts + np.bincount(tags[said], minlength=self._width)
        self.counts -= np.bincount(tags[self._said[uses]], minlength=self._width)
        self._said[uses] = said


# The order in which they are applied, whatever the order in the YAML file.
RULES: tuple[tuple[str, Callable[[Pool], Taken]], ...] = (
    ("categories", categories),
    ("drop", drop_list),
    ("same_words", same_words),
    ("concept", concept),
    ("constant", constant),
    ("min_count", min_count),
    ("min_share", min_share),
    ("max_share", max_share),
    ("implications", implications),
    ("merge_synonyms", merge_synonyms),
    ("budgets", budgets),
    ("coverage", coverage),
    ("balance", balance),
    ("max_share", max_share),  # once more: with special tags gone, captions say general ones more often
)


def first_match(patterns: Sequence[str]) -> Callable[[str], str]:
    """Return a function from a tag to the first pattern that matches it, or an empty text.

    `*` is any text; case and the difference between a space and an underscore do not matter.
    """

    def plain(text: str) -> str:
        return text.replace(" ", "_").casefold()

    compiled = [
        (re.compile(".*".join(map(re.escape, plain(pattern).split("*"))), re.DOTALL), pattern) for pattern in patterns
    ]
    return lambda tag: next((pattern for regex, pattern in compiled if regex.fullmatch(plain(tag))), "")
