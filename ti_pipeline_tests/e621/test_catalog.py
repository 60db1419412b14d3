import csv
import gzip
import io
import logging
import time

import pandas as pd
import pytest

from ti_pipeline.e621.catalog import CatalogError, fetch_catalog, implied_by, read_catalog, resolve_aliases
from ti_pipeline.e621.client import E621Client
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.emulator import Emulator
from ti_pipeline_tests.shared_data import E621, needs_shared

TAGS = "\n".join(
    (
        "id,name,category,post_count,created_at",
        "1,wolf,5,10,x",
        "2,null,0,3,x",
        '3,"a\n""b""",1,-2,x',
        "4,\x0b,0,2000000,x",
        "5,odd,12,1,x\n",
    )
)
ALIASES = "\n".join(
    (
        "status,id,antecedent_name,consequent_name",
        "active,1,a,b",
        "active,2,b,c",
        "active,3,c,d",
        "pending,4,e,f",
        "error: x,5,g,h\n",
    )
)
IMPLICATIONS = "\n".join(
    (
        "id,antecedent_name,consequent_name,created_at,status",
        "1,wolf,canis,,active",
        "2,canis,canine,,active",
        "3,x,y,,deleted\n",
    )
)


def write(folder, *, tags=TAGS, aliases=ALIASES, implications=IMPLICATIONS):
    (folder / "tags-2026-01-02.csv").write_text(tags, encoding="utf-8", newline="")
    (folder / "tags-2026-01-01.csv").write_text("nothing of use", encoding="utf-8")
    (folder / "tag_aliases-2026-01-02.csv.gz").write_bytes(gzip.compress(aliases.encode()))
    (folder / "tag_implications.csv").write_text(implications, encoding="utf-8")
    return folder


def pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame.antecedent, frame.consequent, strict=True))


def test_the_newest_files_are_read_by_column_name(tmp_path):
    tables = read_catalog(write(tmp_path))
    assert {name: TABLES[name].problems(frame) for name, frame in tables.items()} == {name: [] for name in tables}
    tags = tables["tag_catalog"]
    assert list(zip(tags.tag, tags.category, tags.post_count, strict=True)) == [
        ("wolf", "species", 10),
        ("null", "general", 3),
        ('a\n"b"', "artist", 0),
        ("\x0b", "general", 2_000_000),
        ("odd", "unknown", 1),
    ]
    assert pairs(tables["tag_aliases"]) == {("a", "d"), ("b", "d"), ("c", "d")}
    assert pairs(tables["tag_implications"]) == {("wolf", "canis"), ("canis", "canine")}


def test_what_is_wrong_with_a_file_is_named(tmp_path):
    with pytest.raises(CatalogError, match="TI_CATALOG"):
        read_catalog(tmp_path / "absent")
    with pytest.raises(CatalogError, match=r"tags\*\.csv"):
        read_catalog(tmp_path)
    write(tmp_path, implications="id,antecedent_name\n1,a\n")
    with pytest.raises(CatalogError, match=r"tag_implications\.csv has no column consequent_name, status"):
        read_catalog(tmp_path)
    write(tmp_path, tags="name,category,post_count\nwolf,5,many\n")
    with pytest.raises(CatalogError, match="'wolf' is 'many'"):
        read_catalog(tmp_path)
    write(tmp_path)
    (tmp_path / "tag_aliases-2026-01-02.csv.gz").write_bytes(gzip.compress(ALIASES.encode())[:40])
    with pytest.raises(CatalogError, match="tag_aliases-2026-01-02"):
        read_catalog(tmp_path)
    (tmp_path / "tag_aliases-2026-01-02.csv.gz").write_bytes(gzip.compress(b"\xff\xfe,a\n"))
    with pytest.raises(CatalogError, match="tag_aliases-2026-01-02"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("length", [1, 2, 3, 9, 64, 1000])
def test_alias_chains_lead_to_their_end(length):
    names = [f"n{i}" for i in range(length + 1)]
    frame = pd.DataFrame({"antecedent": names[:-1], "consequent": names[1:]}).sample(frac=1, random_state=0)
    assert pairs(resolve_aliases(frame)) == {(name, names[-1]) for name in names[:-1]}


@pytest.mark.parametrize("circle", [1, 2, 3, 5])
def test_circles_are_left_out_and_told(circle, caplog):
    names = [f"c{i}" for i in range(circle)]
    links = [*zip(names, names[1:] + names[:1], strict=True), ("into", "c0"), ("fine", "end")]
    with caplog.at_level(logging.WARNING):
        found = resolve_aliases(pd.DataFrame(links, columns=["antecedent", "consequent"]))
    assert pairs(found) == {("fine", "end")}
    assert all(name in caplog.text for name in [*names, "into"])


def test_the_api_gives_the_same_tables(tmp_path):
    def rows(text: str, whole: tuple[str, ...]) -> list[dict]:
        found = list(csv.DictReader(io.StringIO(text, newline="")))
        return [row | {key: int(row[key]) for key in whole} for row in found]

    tables = {
        "tags": rows(TAGS, ("id", "category", "post_count")),
        "tag_aliases": rows(ALIASES, ("id",)),
        "tag_implications": rows(IMPLICATIONS, ("id",)),
    }
    expected = read_catalog(write(tmp_path))
    with Emulator(tables=tables) as site:
        found = fetch_catalog(E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0))
    for name, frame in expected.items():
        columns = list(frame)
        pd.testing.assert_frame_equal(
            found[name].sort_values(columns, ignore_index=True), frame.sort_values(columns, ignore_index=True)
        )
    with Emulator() as site:
        nothing = fetch_catalog(E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0))
    assert {name: (len(frame), TABLES[name].problems(frame)) for name, frame in nothing.items()} == {
        name: (0, []) for name in nothing
    }


@needs_shared
def test_the_sites_own_tables_load_whole_and_quickly():
    began = time.process_time()
    tables = read_catalog(E621)
    assert time.process_time() - began < 2.0
    assert {name: len(frame) for name, frame in tables.items()} == {
        "tag_catalog": 106_844,
        "tag_aliases": 34_392,
        "tag_implications": 43_284,
    }
    with (E621 / "tag_aliases_2025-05-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        step = {row["antecedent_name"]: row["consequent_name"] for row in csv.DictReader(stream)}
    for antecedent, consequent in pairs(tables["tag_aliases"]):
        end = step[antecedent]
        while end in step:
            end = step[end]
        assert consequent == end
    with (E621 / "e621_tags_2026-04-01_strict.csv").open(encoding="utf-8", newline="") as stream:
        known = {row["name"]: int(row["post_count"]) for row in csv.DictReader(stream)}
    assert dict(zip(tables["tag_catalog"].tag, tables["tag_catalog"].post_count, strict=True)) == known


@needs_shared
def test_closure_over_the_sites_implications_is_that_of_a_walk():
    implications = read_catalog(E621)["tag_implications"]
    up: dict[str, set[str]] = {}
    for special, general in pairs(implications):
        up.setdefault(special, set()).add(general)

    def implies(tag: str, wanted: str) -> bool:
        return wanted in up.get(tag, ()) or any(implies(general, wanted) for general in up.get(tag, ()))

    for wanted in ("canine", "mammal", "clothing", "no_such_tag"):
        assert implied_by(implications, [wanted]) == {tag for tag in up if implies(tag, wanted)}
