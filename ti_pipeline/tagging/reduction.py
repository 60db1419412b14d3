"""Reduction: the rules that take tags out of a vocabulary, each by its name, each with a reason for every tag it takes.

A rule is a function from a `Pool` (the plan, the tags still in, and where they are used) to what it takes. Rules do
not know of each other: `vocabulary` runs them in the order of `RULES`, each on what the ones before have left. Ties are
decided by name, so that the order of rows never matters. Not here: what no setting can lift (policy, unreadable names).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.tagging.concept import saying_the_same, shared_and_rare
from ti_pipeline.tagging.implications import among, redundant_uses
from ti_pipeline.tagging.per_picture import said_uses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ti_pipeline.studies import CaptionPlan
    from ti_pipeline.tagging.incidence import Incidence, Mask, Numbers

__all__ = ["RULES", "Pool", "Taken", "first_match"]


@dataclass(frozen=True)
class Pool:
    """The tags that are still in. Names stand commonest first, ties by name; arrays are [names].

    `counts` are pictures in the study, `places` the order in captions, `listed` marks the keep list, `alive` what no
    rule has taken yet. `every_use` are all uses of all names; `uses` those of alive tags, without what `implications`
    took from single pictures. `implied` is the implications' closure over the names, None where there is no catalog;
    `lifts` is how many times commoner a tag is in the study than elsewhere, not a number where that is not known.
    """

    names: Sequence[str]
    categories: Sequence[str]
    counts: NDArray[np.int64]
    places: NDArray[np.int64]
    listed: Mask
    alive: Mask
    every_use: Incidence
    uses: Incidence
    implied: Any | None
    lifts: NDArray[np.float64]
    plan: CaptionPlan

    @property
    def free(self) -> NDArray[np.int64]:
        """The tags that a rule may take: alive, and not on the keep list."""
        import numpy as np

        return np.flatnonzero(self.alive & ~self.listed)

    def share(self, count: float) -> float:
        """Return a count as a share of the pictures."""
        return count / self.uses.pictures if self.uses.pictures else 0.0

    def by_count(self, counts: Numbers) -> list[int]:
        """Return the alive tags, those of the keep list first, then by these counts, ties by name."""
        import numpy as np

        alive = np.flatnonzero(self.alive)
        return sorted(alive.tolist(), key=lambda i: (not self.listed[i], -int(counts[i]), self.names[i]))

    def in_captions(self, alive: Mask) -> NDArray[np.int64]:
        """Return in how many captions each tag stands if these tags are the vocabulary."""
        left = self.every_use.where(alive[self.every_use.tags])
        implied = None if self.implied is None else among(self.implied, alive)
        said = said_uses(left, self.plan, counts=self.counts, places=self.places, listed=self.listed, implied=implied)
        return left.where(said).counts()

    def after(self, taken: Taken) -> Pool:
        """Return the pool without what a rule took."""
        alive = self.alive.copy()
        alive[list(taken.tags)] = False
        uses = self.uses if taken.uses is None else self.uses.where(~taken.uses)
        return replace(self, alive=alive, uses=uses.where(alive[uses.tags]))


@dataclass(frozen=True)
class Taken:
    """What a rule took: tags with the reason in words and numbers, and a mask of single uses; and why others stay."""

    tags: Mapping[int, str]
    uses: Mask | None = None
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


def concept(pool: Pool) -> Taken:
    """Take the tags of what is learned: those of the list, or for `auto` what its pictures share and others lack."""
    asked = pool.plan.concept
    if asked is None:
        return Taken({})
    free = pool.free.tolist()
    stays: dict[int, str] = {}
    if asked == "auto":
        taken, stays = shared_and_rare(free, pool.counts / max(1, pool.uses.pictures), pool.lifts)
    else:
        match = first_match(asked)
        taken = {i: f"concept list: {found}" for i in free if (found := match(pool.names[i]))}
    if pool.implied is not None:
        taken |= saying_the_same(free, taken, pool.implied, pool.names)
    return Taken(taken, stays={i: words for i, words in stays.items() if i not in taken})


def min_count(pool: Pool) -> Taken:
    """Take tags on fewer pictures than `min_count`."""
    rare = pool.free[pool.counts[pool.free] < pool.plan.min_count]
    return Taken({i: f"min_count {pool.plan.min_count}: on {pool.counts[i]} pictures" for i in rare.tolist()})


def share_window(pool: Pool) -> Taken:
    """Take tags whose share of the pictures lies outside of [`min_share`, `max_share`]."""
    taken = {}
    for i in pool.free.tolist():
        share = pool.share(int(pool.counts[i]))
        if share < pool.plan.min_share:
            taken[i] = f"min_share {pool.plan.min_share:.6g}: share {share:.6g}"
        elif share > pool.plan.max_share:
            taken[i] = f"max_share {pool.plan.max_share:.6g}: share {share:.6g}"
    return Taken(taken)


def implications(pool: Pool) -> Taken:
    """Take, from each picture, tags that others of its tags say already; and tags that this leaves on no picture."""
    if pool.plan.implications == "keep" or pool.implied is None:
        return Taken({})
    uses = redundant_uses(pool.uses, pool.implied, pool.plan.implications) & ~pool.listed[pool.uses.tags]
    left = pool.uses.where(~uses).counts()
    before = pool.uses.counts()
    word = "a more special" if pool.plan.implications == "most_specific" else "a more general"
    taken = {
        i: f"implications {pool.plan.implications}: {word} tag stands on all {before[i]} pictures"
        for i in pool.free[(left[pool.free] == 0) & (before[pool.free] > 0)].tolist()
    }
    return Taken(taken, uses)


def merge_synonyms(pool: Pool) -> Taken:
    """Take each tag that nearly always stands with a commoner one that stays: the two are one thing to a trainer.

    Greedy from the commonest down, so that no tag stands for another that was itself taken. The commoner tag is not
    written onto the few pictures that only have the rarer one: a caption says nothing that the site does not.
    """
    if pool.plan.merge_synonyms is None:
        return Taken({})
    from scipy import sparse

    counts = pool.uses.counts()
    matrix = pool.uses.matrix()
    both = sparse.triu(matrix.T @ matrix, k=1).tocoo()
    either = counts[both.row] + counts[both.col] - both.data
    near = both.data >= pool.plan.merge_synonyms * either
    order = pool.by_count(counts)
    place = {tag: index for index, tag in enumerate(order)}
    commoner: dict[int, list[tuple[int, int]]] = {}
    for pair in zip(both.row[near].tolist(), both.col[near].tolist(), both.data[near].tolist(), strict=True):
        first, second = sorted(pair[:2], key=place.__getitem__)
        commoner.setdefault(second, []).append((first, pair[2]))
    taken: dict[int, str] = {}
    for tag in order:
        stays = [(place[other], other, together) for other, together in commoner.get(tag, []) if other not in taken]
        if stays and not pool.listed[tag]:
            _, other, together = min(stays)
            union = int(counts[tag] + counts[other] - together)
            taken[tag] = (
                f"merge_synonyms {pool.plan.merge_synonyms:g}: with {pool.names[other]} on {together} of the {union} "
                f"pictures of either (Jaccard {together / union:.3f})"
            )
    return Taken(taken)


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
    on more than `informative_below` of the pictures are no candidates; the keep list is chosen first.
    """
    if pool.plan.coverage is None:
        return Taken({})
    import numpy as np

    goal = pool.plan.coverage
    uses, counts = pool.uses, pool.uses.counts()
    common = {i for i in pool.free.tolist() if pool.share(int(counts[i])) > goal.informative_below}
    candidates = [i for i in pool.by_count(counts) if i not in common]
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
    import numpy as np

    wanted = math.ceil(pool.plan.balance * pool.uses.pictures - 1e-9)
    inside = pool.alive.copy()
    reasons: dict[int, str] = {}

    def in_words(tag: int, counts: NDArray[np.int64]) -> str:
        return f"balance {pool.plan.balance:g}: in {counts[tag]} captions, share {pool.share(int(counts[tag])):.6g}"

    def short(alive: Mask, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.flatnonzero(alive & ~pool.listed & (counts < wanted))

    counts = pool.in_captions(inside)
    while len(lacking := short(inside, counts)):
        worst = lacking[np.lexsort((-lacking, counts[lacking]))]
        # One at a time gives the others room; of very many, the worse half are hopeless anyway and come back below.
        for i in worst[: max(1, (len(worst) - 32) // 2)].tolist():
            inside[i] = False
            reasons[i] = in_words(i, counts)
        counts = pool.in_captions(inside)
    for i in [i for i in pool.by_count(pool.counts) if i in reasons and pool.counts[i] >= wanted]:
        inside[i] = True
        again = pool.in_captions(inside)
        if len(short(inside, again)):
            inside[i] = False
        else:
            counts = again
            del reasons[i]
    stays = {i: in_words(i, counts) for i in np.flatnonzero(inside & ~pool.listed).tolist()}
    return Taken(reasons, stays=stays)


# The order in which they are applied, whatever the order in the YAML file.
RULES: tuple[tuple[str, Callable[[Pool], Taken]], ...] = (
    ("categories", categories),
    ("drop", drop_list),
    ("concept", concept),
    ("min_count", min_count),
    ("share_window", share_window),
    ("implications", implications),
    ("merge_synonyms", merge_synonyms),
    ("budgets", budgets),
    ("coverage", coverage),
    ("balance", balance),
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
