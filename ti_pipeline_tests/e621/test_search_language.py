"""What is said about searches rather than found by them: errors, warnings, limits, dates."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ti_pipeline.e621.search_language import Number, SearchError, parse_search

NOW = datetime(2024, 3, 31, 15, 30, tzinfo=UTC)  # a Sunday


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("wolf pool:12", r"pool: the posts dump does not tell this.*kind: e621"),
        ("-pool:any", "pool"),
        ("~fav:me", "fav"),
        ("( wolf ( user:someone ) )", "user"),
        ("order:hot", "order:hot"),
        ("order:gentags_asc", "order:gentags_asc"),
        ("gentags:>5", "gentags"),
        ("hassource:true", "hassource"),
        ("date:soon", r"'soon' cannot be read; write 2026-01-31"),
        ("date:2024-02-30", "2024-02-30"),
        ("date:2024-02", "'2024-02' cannot be read; write 2026-01-31"),
        ("date:2024-02..2024-03-05", "2024-02"),
        ("age:<young", "young"),
        ("age:99999y", "99999y"),
        ("limit:some", "limit:some"),
        ("( " * 11 + "wolf" + " )" * 11, "10 levels"),
    ],
)
def test_what_cannot_be_answered_is_told(text, words):
    with pytest.raises(SearchError, match=words):
        parse_search(text, now=NOW)


def test_names_that_only_look_like_metatags_are_tags():
    for tag in ("re:zero", ":3", "pool:", 'pool:""', "~status:any", "-md5:abc", "-limit:5", "pools:3"):
        parse_search(tag)


def test_limit_and_seed():
    search = parse_search("wolf ( limit:7 randseed:3 )")
    assert (search.limit, search.seed, search.order) == (7, 3, "random")
    assert parse_search("wolf").limit is None
    assert parse_search("limit:7 limit:9").limit == 9


def test_more_tags_than_the_site_takes_are_a_warning_only():
    forty = " ".join(f"tag{i}" for i in range(38)) + " -( wolf )"
    assert (
        parse_search(
            f"{forty} score:>5 order:score rating:s limit:10 status:deleted".replace("order:score", "")
        ).warnings
        == ()
    )
    warnings = parse_search(f"{forty} score:>5 fox").warnings
    assert len(warnings) == 1
    assert "41 tags" in warnings[0]
    assert parse_search(f"{forty} wolf tag1 tag1").warnings == ()  # tag1 is there twice


def test_odd_things_are_warned_of():
    assert "no order:best" in parse_search("order:best").warnings[0]
    assert "behind a ~ the * is only a star" in parse_search("~wolf* ~fox").warnings[0]
    assert "a ( without its )" in parse_search("( wolf").warnings[0]


def days(text, now=NOW):
    """Return the moments that a search for one date or age allows, where there is one interval."""
    (term,) = parse_search(text, now=now).where.must
    assert isinstance(term, Number)
    (part,) = term.intervals
    return tuple(
        datetime.fromtimestamp(end / 1e6, UTC).strftime("%Y-%m-%d %H:%M") if abs(end) != float("inf") else None
        for end in (part.low, part.high)
    )


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("date:2024-02-29", "2024-02-29 00:00", "2024-02-29 23:59"),
        ("date:2024/2/9", "2024-02-09 00:00", "2024-02-09 23:59"),
        ("date:>2024-02-29", "2024-02-29 00:00", None),
        ("date:<=2024-02-29", None, "2024-02-29 00:00"),
        ("date:<=today", None, "2024-03-31 23:59"),
        ("date:2024-02-01T10:00:00+02:00..2024-02-03", "2024-02-01 08:00", "2024-02-03 00:00"),
        ("date:today", "2024-03-31 00:00", "2024-03-31 23:59"),
        ("date:decade", "2014-03-31 00:00", "2014-03-31 23:59"),
        ("date:month", "2024-02-29 15:30", None),  # February has no 31st
        ("date:1_month_ago", "2024-02-29 15:30", None),
        ("date:13mo", "2023-02-28 15:30", None),
        ("date:2_years", "2022-03-31 15:30", None),
        ("date:90mi", "2024-03-31 14:00", None),
        ("date:3", "2024-03-28 00:00", "2024-03-28 23:59"),
        ("date:yesterweek", "2024-03-18 00:00", "2024-03-24 23:59"),
        ("date:yestermonth", "2024-02-01 00:00", "2024-02-29 23:59"),
        ("date:yesteryear", "2023-01-01 00:00", "2023-12-31 23:59"),
        ("date:2_yestermonths_ago", "2024-01-01 00:00", "2024-01-31 23:59"),
        ("age:<3d", "2024-03-28 15:30", None),
        ("age:>=1_week", None, "2024-03-24 15:30"),
        ("age:1w..2w", "2024-03-17 15:30", "2024-03-24 15:30"),
        ("age:2", "2024-03-29 00:00", "2024-03-29 23:59"),
    ],
)
def test_dates_and_ages(text, first, last):
    assert days(text) == (first, last)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("date:2024-03-09", "2024-03-09 05:00", "2024-03-10 04:59"),
        ("date:2024-03-10", "2024-03-10 05:00", "2024-03-11 03:59"),  # the clocks go forward: 23 hours
        ("date:today", "2024-03-31 04:00", "2024-04-01 03:59"),
        ("date:>=2024-02-01", "2024-02-01 05:00", None),
        ("age:2", "2024-03-29 04:00", "2024-03-30 03:59"),
    ],
)
def test_days_are_those_of_the_moments_time_zone(text, first, last):
    assert days(text, NOW.astimezone(ZoneInfo("America/New_York"))) == (first, last)
