import datetime as dt
import json
import logging

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.e621.recorded import post, recorded_posts
from ti_pipeline_tests.shared_data import E621, needs_shared

POLICY = ContentPolicy()
CONTRACT = TABLES["posts"]


def test_a_kept_row_says_what_the_record_says():
    row = posts_table([post(12, tags={"lore": ["adult_(lore)"]})], POLICY).iloc[0]
    assert (row.post_id, row.status, row.reason, row.rating) == (12, "kept", "", "s")
    assert (row.score, row.fav_count, row.width, row.height, row.file_size) == (3, 7, 380, 381, 4)
    assert row.created_at == dt.datetime(2026, 7, 13, 23, 31, 17, 553000, tzinfo=dt.UTC)
    assert (row.md5, row.ext) == (f"{12:032x}", "png")
    assert (row.tags_general, row.tags_species, row.tags_lore) == (["solo"], ["wolf"], ["adult_(lore)"])
    assert row.tags_contributor == []


def test_a_dropped_row_keeps_only_id_and_reason():
    table = posts_table([post(5, rating="e")], POLICY)
    row = table.iloc[0]
    assert CONTRACT.problems(table) == []
    assert (row.post_id, row.status) == (5, "dropped")
    assert "rating e" in row.reason
    others = table.drop(columns=["post_id", "status", "reason"]).iloc[0]
    assert all(value == [] if isinstance(value, list) else pd.isna(value) for value in others)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"file": "x"}, "file"),
        ({"file": post()["file"] | {"width": "380"}}, "file.width"),
        ({"file": post()["file"] | {"width": -1}}, "file.width"),
        ({"file": post()["file"] | {"size": True}}, "file.size"),
        ({"file": post()["file"] | {"size": 2**70}}, "file.size"),
        ({"file": post()["file"] | {"md5": "../../etc/passwd"}}, "file.md5"),
        ({"file": post()["file"] | {"ext": "/../x"}}, "file.ext"),
        ({"score": {"total": "many"}}, "score.total"),
        ({"fav_count": 1.5}, "fav_count"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"created_at": 17}, "created_at"),
        ({"tags": ["solo"]}, "tags"),
        ({"tags": {"general": "solo"}}, "tags.general"),
        ({"tags": {"new_category": [1]}}, "tags.new_category"),
        ({"tags": {"general": ["\ud83d"]}}, "tags.general"),
        ({"sources": "https://example.org"}, "sources"),
        ({"locked_tags": "young"}, "locked_tags"),
        ({"flags": []}, "flags"),
        ({"rating": 1}, "rating"),
    ],
)
def test_wrong_types_are_a_reason_not_a_crash(changes, field):
    table = posts_table([post(1) | changes, post(2)], POLICY)
    if changes != {"flags": []}:  # an empty list has nothing to misread
        assert table.reason[0].startswith(f"malformed record: {field} ")
    assert list(table.status)[1] == "kept"
    assert CONTRACT.problems(table) == []


def test_missing_and_unknown_fields_are_nothing_special():
    bare = {"id": 3, "rating": "s", "tags": {}, "file": {"url": "https://example.org/a.png"}, "novelty": {"a": [1]}}
    table = posts_table([bare, post(4, tags={"mood": ["calm"]})], POLICY)
    assert list(table.status) == ["kept", "kept"]
    assert CONTRACT.problems(table) == []


def test_records_without_an_id_are_logged_and_repeated_ids_ignored(caplog):
    with caplog.at_level(logging.WARNING):
        table = posts_table([post(2), {"id": None}, {}, {"id": "3"}, {"id": -1}, post(2, rating="e")], POLICY)
    assert list(table.post_id) == [2]
    assert list(table.status) == ["kept"]
    assert caplog.text.count("without a usable id") == 4


def test_what_a_source_could_not_read_is_said_in_its_words():
    table = posts_table([{"id": 9, "problem": "tag file a.json is not JSON"}], POLICY)
    assert list(table.reason) == ["tag file a.json is not JSON"]


def test_no_records_is_a_table_all_the_same():
    assert CONTRACT.problems(posts_table([], POLICY)) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    field=st.sampled_from(sorted(post())), value=JSON_VALUES, inner=st.sampled_from([None, "url", "total", "general"])
)
def test_any_json_makes_a_lawful_table(field, value, inner):
    record = post(1)
    if inner is None:
        record[field] = value
    elif isinstance(record[field], dict):
        record[field] = record[field] | {inner: value}
    table = posts_table([record], POLICY)
    CONTRACT.to_arrow(table)
    assert len(table) <= 1


@needs_shared
def test_recorded_posts_meet_the_contract_and_lose_nothing():
    records = recorded_posts()
    table = posts_table(records, POLICY).set_index("post_id", drop=False)
    assert CONTRACT.problems(table.reset_index(drop=True)) == []
    assert len(table) == 572
    assert (table.status == "kept").sum() == 538
    for record in records:
        row = table.loc[record["id"]]
        if row.status == "kept":
            assert {t for c in record["tags"] for t in row[f"tags_{c}"]} == {
                t for c in record["tags"].values() for t in c
            }
            assert row.created_at == dt.datetime.fromisoformat(record["created_at"])
            assert (row.file_url, row.file_size) == (record["file"]["url"], record["file"]["size"])


def newer_record() -> dict:
    return json.loads((E621 / "post_legacy_4842101.json").read_text(encoding="utf-8"))["post"]


@needs_shared
def test_a_record_of_the_newer_schema():
    row = posts_table([newer_record()], POLICY).iloc[0]
    assert (row.status, row.score, row.tags_artist) == ("kept", 3772, ["akeivi"])


# By the reference: what may be null, what older records lack, and what may yet come.
NULLABLE = ("updated_at", "duration", "preview.url", "preview.alt", "sample.url", "sample.alt", "approver_id")
LATER = ("tags.contributor", "uploader_name", "preview.alt", "sample.alt", "vote", "duration", "has_notes")


def changed(record: dict, field: str, *value: object) -> dict:
    """Return a record with another value of a field, or without it."""
    outer, _, inner = field.partition(".")
    if inner:
        return record | {outer: changed(record[outer], inner, *value)}
    return {key: found for key, found in record.items() if key != outer} | dict(zip([outer], value, strict=False))


@needs_shared
@pytest.mark.parametrize("schema", ["2020", "2026"])
def test_other_recordings_of_the_same_posts_give_the_same_row(schema):
    record = newer_record() if schema == "2026" else recorded_posts()[0]
    row = posts_table([record], POLICY)
    assert row.status[0] == "kept"
    others = [
        *(changed(record, field, None) for field in (*NULLABLE, "tags.contributor", "relationships.parent_id")),
        *(changed(record, field) for field in LATER),
        changed(record, "tags.to_come", []),
        changed(record, "file.to_come", {"a": [None]}),
        changed(record, "to_come", ["x"]),
        changed(record, "created_at", dt.datetime.fromisoformat(record["created_at"]).astimezone(dt.UTC).isoformat()),
        changed(record, "score.down", record["score"]["down"] - 100),  # the total is not always the sum
    ]
    for other in others:
        pd.testing.assert_frame_equal(posts_table([other], POLICY), row)
    assert posts_table([changed(record, "file.url", None)], POLICY).reason[0].startswith("no link")
    assert posts_table([changed(record, "tags.to_come", ["young"])], POLICY).reason[0] == "excluded tag young"
