"""Searches in a converted dump against a brute force written from the site's rules, over random posts and searches.

Each strategy of a term gives its text together with what it means: a function of a post. So nothing here reads a
search; what the product makes of the text must agree with what the text was made from.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ti_pipeline.e621.export import ExportError, convert_dump
from ti_pipeline.e621.local_search import LocalSearch
from ti_pipeline.e621.search_language import parse_search
from ti_pipeline_tests.e621.dumps import post, write_dump

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)
TAGS = ("solo", "wolf", "fox", "wolf_ears", "fox_ears", "a*b", ":3", "\x01", "pokémon", "(", "1:1", "grey_wolf")
Post = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """A part of a search: its text, and whether a post meets it."""

    text: str
    meets: Callable[[Post], bool]


def tags_of(one: Post) -> list[str]:
    return [tag for tag in one["tag_string"].split(" ") if tag]


def created(one: Post) -> datetime:
    return datetime.fromisoformat(one["created_at"]).replace(tzinfo=UTC)


def half_up(number: Fraction) -> Fraction:
    """Two decimals."""
    return Fraction((number * 100 + Fraction(1, 2)).__floor__(), 100)


def mpixels(one: Post) -> Fraction:
    width, height = one["image_width"], one["image_height"]
    return half_up(Fraction(width * height, 1_000_000)) if width and height else Fraction(0)


def ratio(one: Post) -> Fraction:
    width, height = one["image_width"], one["image_height"]
    return half_up(Fraction(width, height)) if width and height else Fraction(1)


NUMBERS: dict[str, Callable[[Post], Any]] = {
    "id": lambda one: one["id"],
    "width": lambda one: one["image_width"],
    "height": lambda one: one["image_height"],
    "score": lambda one: one["score"],
    "favcount": lambda one: one["fav_count"],
    "filesize": lambda one: one["file_size"],
    "tagcount": lambda one: len(tags_of(one)),
    "mpixels": mpixels,
    "ratio": ratio,
}

POSTS = st.builds(
    lambda tags, **row: row | {"tag_string": " ".join(tags)},
    tags=st.lists(st.sampled_from(TAGS), unique=True, max_size=6),
    created_at=st.datetimes(datetime(2026, 3, 20), datetime(2026, 3, 31, 11)).map(lambda at: at.isoformat(" ")),
    source=st.sampled_from(
        ["", None, "https://a.example/1", "x\nhttps://b.example/wolf", "https://a.example/wolf", "?"]
    ),
    rating=st.sampled_from("sqe"),
    image_width=st.sampled_from([None, 1, 300, 1920, 4000]),
    image_height=st.sampled_from([None, 1, 301, 1080, 4000]),
    fav_count=st.integers(0, 6),
    file_ext=st.sampled_from(["png", "jpg", "webm"]),
    parent_id=st.none() | st.integers(1, 6),
    file_size=st.integers(0, 2300),
    score=st.integers(-3, 3),
    is_deleted=st.sampled_from([False, False, True]),
    is_pending=st.booleans(),
    is_flagged=st.booleans(),
)
WORLDS = st.lists(POSTS, max_size=12).map(lambda rows: [post(3 * number + 1, **row) for number, row in enumerate(rows)])


@st.composite
def ranges(draw, names=tuple(NUMBERS)):
    """`score:>2` and its kin; numbers with halves for those that have decimals."""
    name = draw(st.sampled_from(names))
    number = st.integers(-3, 40) if name != "filesize" else st.integers(0, 2300)
    if name in {"mpixels", "ratio"}:
        number = st.sampled_from([Fraction(0), Fraction(1), Fraction(3, 4), Fraction(207, 100), Fraction(178, 100)])
    low, high = draw(number), draw(number)
    written = [str(float(n)) if isinstance(n, Fraction) else str(n) for n in (low, high)]
    form = draw(st.sampled_from([">=", ">", "<=", "<", "..", "a..b", "a..", "a,b", "="]))
    if form == "=" and name == "mpixels":
        form = ">="  # equality of megapixels has a test of its own
    text, fits = {
        ">=": (f">={written[0]}", lambda n: n >= low),
        ">": (f">{written[0]}", lambda n: n > low),
        "<=": (f"<={written[0]}", lambda n: n <= low),
        "<": (f"<{written[0]}", lambda n: n < low),
        "..": (f"..{written[0]}", lambda n: n <= low),
        "a..b": (f"{written[0]}..{written[1]}", lambda n: low <= n <= high),
        "a..": (f"{written[0]}..", lambda n: n >= low),
        "a,b": (f"{written[0]},{written[1]}", lambda n: n in (low, high)),
        "=": (written[0], lambda n: n == low),
    }[form]
    if form == "=" and name == "filesize":
        fits = lambda n: int(low * 95 / 100) <= n <= int(low * 105 / 100)  # noqa: E731
    value = NUMBERS[name]
    return Said(f"{name}:{text}", lambda one: value(one) is not None and fits(value(one)))


@st.composite
def moments(draw):
    day = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(15, 32)))
    text, spell = f"{day:%Y-%m-%d}", timedelta(days=1)
    hours = draw(st.integers(0, 300))
    since = NOW - timedelta(hours=hours)
    return draw(
        st.sampled_from(
            [
                Said(f"date:{text}", lambda one: day <= created(one) < day + spell),
                Said(f"date:>={text}", lambda one: created(one) >= day),
                Said(f"date:<{text}", lambda one: created(one) < day),
                Said(f"date:{text}..2026-03-28", lambda one: day <= created(one) <= datetime(2026, 3, 28, tzinfo=UTC)),
                Said(f"date:{hours}_hours_ago", lambda one: created(one) >= since),
                Said("date:yesterday", lambda one: created(one).date() == NOW.date() - timedelta(days=1)),
                Said("date:>yesterday", lambda one: created(one).date() >= NOW.date()),
                Said("date:week", lambda one: created(one) >= NOW - timedelta(days=7)),
                Said("date:yesterweek", lambda one: 23 <= created(one).day <= 29),  # 2026-03-23 was a Monday
                Said(f"age:<{hours}h", lambda one: created(one) > since),
                Said(f"age:>={hours}_hours", lambda one: created(one) <= since),
                Said("age:2", lambda one: created(one).date() == NOW.date() - timedelta(days=2)),
                Said("age:1d..3d", lambda one: timedelta(days=1) <= NOW - created(one) <= timedelta(days=3)),
            ]
        )
    )


def sources_of(one: Post) -> list[str]:
    return (one["source"] or "").split("\n") if (one["source"] or "").strip() else []


def source(pattern: str) -> Said:
    return Said(f"source:{pattern}", lambda one: any(fnmatch.fnmatchcase(s, f"{pattern}*") for s in sources_of(one)))


PLAIN = st.one_of(
    st.sampled_from(TAGS)
    .filter(lambda tag: "*" not in tag)
    .map(lambda tag: Said(tag.upper() if tag.isascii() else tag, lambda one: tag in tags_of(one))),
    st.sampled_from(["", "afe", "ZZZ"]).flatmap(
        lambda rest: st.sampled_from("sqeS").map(
            lambda letter: Said(f"rating:{letter}{rest}", lambda one: one["rating"] == letter.lower())
        )
    ),
    st.sampled_from(["type", "filetype"]).flatmap(
        lambda name: st.sampled_from(["png", "JPG", "gif"]).map(
            lambda ext: Said(f"{name}:{ext}", lambda one: one["file_ext"] == ext.lower())
        )
    ),
    ranges(),
    moments(),
    st.sampled_from(["https://a", "*", "*wolf", "https://?.example/1", "x", "HTTPS"]).map(source),
    st.integers(1, 6).map(lambda n: Said(f"parent:{n}", lambda one: one["parent_id"] == n)),
)


def wildcards(world: list[Post]) -> st.SearchStrategy[Said]:
    """Wildcards stand for those tags that there are; here these are never more than 40."""
    there = {tag for one in world for tag in tags_of(one)}

    def said(pattern: str) -> Said:
        names = {tag for tag in there if fnmatch.fnmatchcase(tag, pattern)}
        return Said(pattern, lambda one: not names.isdisjoint(tags_of(one)))

    return st.sampled_from(["*wolf", "wolf*", "*_ears", "*", "f*x", "nobody*", "*o*"]).map(said)


STATES: dict[str, Callable[[Post], bool]] = {
    "any": lambda one: True,
    "ALL": lambda one: True,
    "deleted": lambda one: one["is_deleted"],
    "pending": lambda one: one["is_pending"],
    "flagged": lambda one: one["is_flagged"],
    "modqueue": lambda one: one["is_pending"] or one["is_flagged"],
    "active": lambda one: not (one["is_pending"] or one["is_flagged"] or one["is_deleted"]),
    "whatever": lambda one: True,
}
SHOWING = {"any", "ALL", "deleted", "active"}


@st.composite
def levels(draw, world, depth=0):
    """One level of a search; its text, its meaning, and whether it lifts the hiding of deleted posts."""
    texts, must, must_not, should, shows = [], [], [], [], False
    for prefix, said in draw(st.lists(st.tuples(st.sampled_from(["", "", "-", "~"]), PLAIN), max_size=3)):
        texts.append(prefix + said.text)
        {"": must, "-": must_not, "~": should}[prefix].append(said.meets)
    for prefix, said in draw(st.lists(st.tuples(st.sampled_from(["", "-"]), wildcards(world)), max_size=1)):
        texts.append(prefix + said.text)
        (must_not if prefix else should).append(said.meets)
    presence = draw(st.sampled_from([None, None, "parent", "source"]))
    if presence is not None:
        prefix, value = draw(st.sampled_from(["", "-", "~"])), draw(st.sampled_from(["any", "NONE"]))
        has = sources_of if presence == "source" else lambda one: one["parent_id"] is not None
        fits = lambda one: bool(has(one)) == (value == "any")  # noqa: E731
        texts.append(f"{prefix}{presence}:{value}")
        {"": must, "-": must_not, "~": should}[prefix].append(fits)
    state = draw(st.sampled_from([None, None, *STATES]))
    if state is not None:
        negated = draw(st.booleans())
        texts.append("-" * negated + f"status:{state}")
        if state not in {"any", "ALL", "whatever"}:
            (must_not if negated else must).append(STATES[state])
        shows = state in SHOWING
    if depth < 2 and draw(st.integers(0, 3)) == 0:
        prefix, (text, meets, inner_shows) = draw(st.sampled_from(["", "-", "~"])), draw(levels(world, depth + 1))
        if text:
            texts.append(f"{prefix}( {text} )")
            {"": must, "-": must_not, "~": should}[prefix].append(meets)
            shows |= inner_shows
    order = draw(st.permutations(range(len(texts))))

    def meets_all(one: Post) -> bool:
        return (
            all(meets(one) for meets in must)
            and not any(meets(one) for meets in must_not)
            and (not should or any(meets(one) for meets in should))
        )

    return " ".join(texts[place] for place in order), meets_all, shows


# What an order sorts by, and whether the smallest comes first; ties go by the id in the same direction.
ORDERS: dict[str, tuple[Callable[[Post], Any], bool]] = {
    "": (NUMBERS["id"], False),
    "order:id": (NUMBERS["id"], True),
    "order:id_asc": (NUMBERS["id"], True),
    "order:id_desc": (NUMBERS["id"], False),
    "-order:id": (NUMBERS["id"], False),
    "order:score": (NUMBERS["score"], False),
    "order:score_desc": (NUMBERS["score"], False),
    "order:score_asc": (NUMBERS["score"], True),
    "-order:score": (NUMBERS["score"], True),
    "order:favcount": (NUMBERS["favcount"], False),
    "order:filesize": (NUMBERS["filesize"], False),
    "order:size_asc": (NUMBERS["filesize"], True),
    "order:mpixels": (mpixels, False),
    "order:tagcount": (NUMBERS["tagcount"], False),
    "order:landscape": (ratio, False),
    "order:portrait": (ratio, True),
    "order:ratio": (ratio, False),
    "order:created_asc": (created, True),
    "order:md5": (lambda one: one["md5"], False),
    "order:no_such_order": (NUMBERS["id"], False),
}


def sorted_by(posts: list[Post], order: str) -> list[int]:
    key, ascending = ORDERS[order]
    return [one["id"] for one in sorted(posts, key=lambda one: (key(one), one["id"]), reverse=not ascending)]


def searching(folder, posts, **options):
    return LocalSearch(convert_dump(write_dump(folder / "posts.csv.gz", posts), folder, **options))


def ids(search, text, **options):
    return search.find(parse_search(text, now=NOW, **options)).tolist()


@settings(max_examples=120)
@given(st.data(), WORLDS, st.sampled_from([200, 1 << 20]))
def test_any_search_finds_what_brute_force_finds(tmp_path_factory, data, world, block_size):
    search = searching(tmp_path_factory.mktemp("dump"), world, block_size=block_size)
    for _ in range(4):
        text, meets, shows = data.draw(levels(world))
        order = data.draw(st.sampled_from(list(ORDERS)))
        found = [one for one in world if meets(one) and (shows or not one["is_deleted"])]
        assert ids(search, f"{text} {order}") == sorted_by(found, order), f"{text} {order}"
        assert ids(search, f"{order} {text}") == sorted_by(found, order)
    assert len(search) == len(world)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Posts 1 to 60: each has `all`, `tag_NN` of its own number, and the tags of all smaller multiples of ten."""
    posts = [
        post(
            i,
            tag_string=" ".join(["all", f"tag_{i:02d}", *(f"ten_{k}" for k in range(i // 10))]),
            rating="sqe"[i % 3],
            file_size=i * 1024,
            is_deleted=i == 60,
            image_width=i * 100,
            image_height=1000,
            fav_count=i % 2,
            parent_id=i // 2 or None,
        )
        for i in range(1, 61)
    ]
    return searching(tmp_path_factory.mktemp("many"), posts, block_size=3000)


NUMBERED = list(range(59, 0, -1))
GOLDEN = {
    # Every line of the reference that speaks of searches.
    "all": NUMBERED,
    "all -ten_0": list(range(9, 0, -1)),
    "~tag_03 ~tag_07 ~tag_60": [7, 3],
    "~tag_03": [3],
    "ten_1 ( tag_03 ~ten_4 )": [],
    "ten_1 ( all ~ten_4 ~tag_21 )": [*range(59, 49, -1), 21],
    "( ten_1 ~ten_4 ~tag_21 ) -( ~ten_4 )": [21],
    "ten_3 ~( tag_41 ) ~( ten_4 -( tag_51 ) )": [*range(59, 51, -1), 50, 41],
    "tag_1*": list(range(19, 9, -1)),
    "tag_1* ~tag_03": [*range(19, 9, -1), 3],
    "*no_such*": [],
    "all -*no_such*": NUMBERED,
    "ten_0 -ten_*": [],
    "~tag_1*": [],  # behind a ~, the star is only a star
    "tag_*": list(range(40, 0, -1)),  # the 40 commonest: equally common ones by name
    "-tag_*": list(range(59, 40, -1)),
    "id:>=58": [59, 58],
    "id:>58": [59],
    "id:<=2": [2, 1],
    "id:<2": [1],
    "id:3..5": [5, 4, 3],
    "id:5..3": [],
    "id:58..": [59, 58],
    "id:..2": [2, 1],
    "id:7,9,60,999": [9, 7],
    "-id:..58": [59],
    f"md5:{5:032x}": [5],
    f"md5:{10:032X},{5:032x}": [10, 5],
    "rating:questionable id:<8": [7, 4, 1],
    "rating:s id:<8": [6, 3],
    "rating:x id:<4": [3, 2, 1],
    "-rating:x id:<4": [3, 2, 1],
    "~rating:x ~tag_03": [3],
    "rating:s rating:q": [],
    "type:png id:<3": [2, 1],
    "png id:<3": [2, 1],  # types are tags of their own, too
    "type:jpg": [],
    "width:100": [1],
    "width:<=200": [2, 1],
    "height:1000 id:1": [1],
    "ratio:2:1": [20],
    "ratio:0.1": [1],
    "ratio:<0.3": [2, 1],
    "mpixels:<=0.2": [2, 1],
    "mpixels:1": list(range(10, 0, -1)),  # 5 % around 1, cut to whole numbers: 0 to 1
    "filesize:10kb": [10],
    "filesize:20kb": [21, 20, 19],  # 5 % less and more, both included
    "filesize:>57.5KB": [59, 58],
    "filesize:1024": [1],
    "score:2 id:<3": [2, 1],
    "favcount:0 id:<5": [4, 2],
    "tagcount:2": list(range(9, 0, -1)),
    "tagcount:>6": list(range(59, 49, -1)),
    "parent:4": [9, 8],
    "parent:none": [1],
    "-parent:any": [1],
    "parent:any id:<4": [3, 2],
    "status:deleted": [60],
    "status:any id:>58": [60, 59],
    "STATUS:All id:>58": [60, 59],
    "tag_60": [],
    "tag_60 ( status:any )": [60],
    "-status:deleted id:>58": [59],
    "order:id id:<4": [1, 2, 3],
    "order:favcount id:<5": [3, 1, 4, 2],
    "order:favcount_asc id:<5": [2, 4, 1, 3],
    "( order:id id:<4 )": [1, 2, 3],
    "order:nonsense id:<4": [3, 2, 1],
    "limit:2 id:<4": [3, 2, 1],
    'id:"3"': [3],
    "TAG_03": [3],
    "": NUMBERED,
    "   ": NUMBERED,
    "( )": NUMBERED,
    "( all": [],  # an unclosed bracket is a tag
    "~all -( order:score )": NUMBERED,
    "-( rating:x )": [],  # nothing is left of it, and that is what everything is
}


@pytest.mark.parametrize("text", GOLDEN)
def test_the_reference_line_by_line(many, text):
    assert ids(many, text) == GOLDEN[text]


def test_random_orders_are_seeded_and_whole(many):
    first, again, other = (ids(many, f"all order:random randseed:{seed}") for seed in (5, 5, 6))
    assert first == again != other
    assert sorted(first) == sorted(other) == sorted(NUMBERED)
    assert ids(many, "all randseed:5") == first
    drawn = [many.find(parse_search("all order:random"), seed=seed).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_missing_numbers_come_last_either_way(tmp_path):
    posts = [post(1, duration=2.5), post(2), post(3, duration=1.0), post(4)]
    search = searching(tmp_path, posts)
    assert ids(search, "order:duration") == [1, 3, 4, 2]
    assert ids(search, "order:duration_asc") == [3, 1, 2, 4]
    assert ids(search, "duration:>1") == [1]


def test_wildcards_take_the_tags_on_most_posts_that_are_not_deleted(tmp_path):
    posts = [post(i, tag_string=f"common_{i % 40:02d}") for i in range(1, 81)]
    posts += [post(100 + i, tag_string="common_zz", is_deleted=True) for i in range(50)]
    posts += [post(200, tag_string="common_zz")]
    search = searching(tmp_path, posts, block_size=4000)
    assert ids(search, "common_* id:>=100") == []
    assert len(ids(search, "common_*")) == 80


def test_old_names_of_tags_are_searched_by_the_new_ones(many):
    aliases = {"first": "tag_01", "tag_02": "tag_03", "t*": "tag_04"}
    assert ids(many, "first", aliases=aliases) == [1]
    assert ids(many, "~FIRST ~tag_02", aliases=aliases) == [3, 1]
    assert ids(many, "id:<4 -tag_02", aliases=aliases) == [2, 1]


def test_a_folder_without_a_finished_conversion_is_told(tmp_path):
    with pytest.raises(ExportError, match="no finished conversion"):
        LocalSearch(tmp_path)
