import csv
import gzip
import hashlib
import io
import itertools
import json

import dagster as dg
import pandas as pd
import pytest
from upath import UPath

from ti_pipeline.assets.catalog import site_catalog
from ti_pipeline.e621.catalog import (
    CatalogError,
    fetch_catalog,
    fetch_export,
    implication_closure,
    implied_by,
    read_catalog,
    resolve_aliases,
)
from ti_pipeline.e621.client import E621Client
from ti_pipeline.io_managers import ParquetTables, Tables
from ti_pipeline.resources import CatalogSource, DataStore, E621Site
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.e621.scripted import Answer, Request, Scripted
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
        "5,inky,ink,,active",
        "6,ink,conditional_dnp,,active",
        "3,x,y,,deleted\n",
    )
)


LINKS = ("tag_aliases_2025-05-01_strict.csv", "tag_implications_2025-05-01_strict.csv")


def write(folder, *, tags=TAGS, aliases=ALIASES, implications=IMPLICATIONS):
    (folder / "tags-2026-01-02.csv").write_text(tags, encoding="utf-8", newline="")
    (folder / "tags-2026-01-01.csv").write_text("nothing of use", encoding="utf-8")
    (folder / "tag_aliases-2026-01-02.csv.gz").write_bytes(gzip.compress(aliases.encode()))
    (folder / "tag_implications.csv").write_text(implications, encoding="utf-8")
    return folder


def pairs(frame: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(frame.antecedent, frame.consequent, strict=True))


def listed(tables: dict[str, pd.DataFrame]) -> set[tuple[str, str]]:
    return set(zip(tables["do_not_post"].artist, tables["do_not_post"]["list"], strict=True))


def client_of(site: Emulator | Scripted) -> E621Client:
    return E621Client(site.url, username="tester", per_second=1000.0, backoff=0.0)


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
    assert pairs(tables["tag_implications"]) == {
        ("wolf", "canis"),
        ("canis", "canine"),
        ("inky", "ink"),
        ("ink", "conditional_dnp"),
    }
    assert listed(tables) == {("ink", "conditional_dnp"), ("inky", "conditional_dnp")}


def test_a_file_of_do_not_post_artists_counts_beside_the_implications(tmp_path):
    write(tmp_path)
    (tmp_path / "dnp_artists.csv").write_text("tag,list,since\ninky,avoid_posting,\nnull,avoid_posting,2020\n")
    assert listed(read_catalog(tmp_path)) == {
        ("ink", "conditional_dnp"),
        ("inky", "conditional_dnp"),
        ("inky", "avoid_posting"),
        ("null", "avoid_posting"),
    }


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
def test_a_circle_is_an_error_that_names_it(circle, tmp_path):
    names = [f"c{i}" for i in range(circle)]
    round_it = [*zip(names, names[1:] + names[:1], strict=True)]
    links = [("fine", "end"), ("into", "c0"), *round_it]
    with pytest.raises(CatalogError, match="aliases form a circle") as caught:
        resolve_aliases(pd.DataFrame(links, columns=["antecedent", "consequent"]))
    named = str(caught.value).split(": ")[1].split(";")[0].split(" -> ")
    assert {*itertools.pairwise(named)} == {*round_it}
    lines = "".join(f"{i},{one},{other},,active\n" for i, (one, other) in enumerate([*links, ("c0", "end")]))
    write(tmp_path, implications=f"id,antecedent_name,consequent_name,created_at,status\n{lines}")
    with pytest.raises(CatalogError, match=r"implications form a circle: c\d -> "):
        read_catalog(tmp_path)


def api_rows(text: str, whole: tuple[str, ...]) -> list[dict]:
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    return [row | {key: int(row[key]) for key in whole} for row in found]


def test_the_api_gives_the_same_tables(tmp_path):
    tables = {
        "tags": api_rows(TAGS, ("id", "category", "post_count")),
        "tag_aliases": api_rows(ALIASES, ("id",)),
        "tag_implications": api_rows(IMPLICATIONS, ("id",)),
    }
    expected = read_catalog(write(tmp_path))
    with Emulator(tables=tables) as site:
        found = fetch_catalog(client_of(site))
        assert {asked.query["search[hide_empty]"] for asked in site.asked("/tags.json")} == {"false"}
    for name, frame in expected.items():
        columns = list(frame)  # the API gives what was added last first, and implications may be of any age
        pd.testing.assert_frame_equal(
            found[name].sort_values(columns, ignore_index=True), frame.sort_values(columns, ignore_index=True)
        )
    with Emulator() as site:
        nothing = fetch_catalog(client_of(site))
    assert {name: (len(frame), TABLES[name].problems(frame)) for name, frame in nothing.items()} == {
        name: (0, []) for name in nothing
    }


def tags_of_api(*rows: dict) -> dict[str, tuple[str, int]]:
    with Emulator(tables={"tags": list(rows)}) as site:
        table = fetch_catalog(client_of(site))["tag_catalog"]
    assert TABLES["tag_catalog"].problems(table) == []
    return {row.tag: (row.category, row.post_count) for row in table.itertuples()}


def test_one_empty_field_of_the_api_spoils_no_other_row():
    wolf = {"id": 1, "name": "wolf", "category": 5, "post_count": 3}
    unknown = {"id": 2, "name": "new", "category": 12, "post_count": 1, "to_come": {"a": [None]}}
    empty = {"id": 3, "name": "empty", "category": None, "post_count": None, "related_tags": None}
    assert tags_of_api(wolf, unknown, empty, {"id": 4, "name": "bare"}) == {
        "wolf": ("species", 3),
        "new": ("unknown", 1),
        "empty": ("unknown", 0),
        "bare": ("unknown", 0),
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, "name is None"),
        ({"name": 7}, "name is 7"),
        ({"category": "5"}, "category is '5'"),
        ({"category": True}, "category is True"),
        ({"post_count": 1.5}, r"post_count is 1\.5"),
        ({"post_count": "many"}, "post_count is 'many'"),
    ],
)
def test_a_field_of_another_type_is_an_error_with_its_name(change, words):
    with pytest.raises(CatalogError, match=words):
        tags_of_api({"id": 1, "name": "wolf", "category": 5, "post_count": 3} | change)


def export_of(*, envelope: bool = False, **damage: bytes) -> Scripted:
    """Return what answers like the site's export of the files above; `damage` replaces what is sent of a file."""
    texts = {"tags": TAGS, "tag_aliases": ALIASES, "tag_implications": IMPLICATIONS, "posts": "id\n"}
    files = {name: gzip.compress(text.encode(), mtime=0) for name, text in texts.items()}
    index = [
        {
            "name": name,
            "file_name": f"{name}.csv.gz",
            "file_size": len(data),
            "checksum": hashlib.sha256(data).hexdigest(),
            "updated_at": "2026-06-01T00:00:00.000+02:00",
            "url": f"/elsewhere/{name}.csv.gz",
        }
        for name, data in files.items()
    ]

    def respond(request: Request, _number: int) -> Answer:
        if request.path == "/db_exports.json":
            return Answer(body=json.dumps({"db_exports": index} if envelope else index).encode())
        return Answer(body=(files | damage)[request.path.removeprefix("/elsewhere/").removesuffix(".csv.gz")])

    return Scripted(respond)


@pytest.mark.parametrize("envelope", [False, True])
def test_the_export_gives_the_same_tables_and_is_fetched_once(tmp_path, envelope):
    (tmp_path / "files").mkdir()
    expected = read_catalog(write(tmp_path / "files"))
    with export_of(envelope=envelope) as site:
        found = fetch_export(client_of(site), tmp_path / "kept")
        for name, frame in expected.items():
            pd.testing.assert_frame_equal(found[name], frame)
        first = [request.path for request in site.log]
        fetch_export(client_of(site), tmp_path / "kept")
        again = [request.path for request in site.log[len(first) :]]
    names = ("tags", "tag_aliases", "tag_implications")
    assert first == ["/db_exports.json", *(f"/elsewhere/{name}.csv.gz" for name in names)], "posts are not for here"
    assert again == ["/db_exports.json"]


def test_an_export_that_is_not_what_was_told_is_not_kept(tmp_path):
    other = gzip.compress(ALIASES.replace("a,b", "a,x").encode())
    with export_of(tag_aliases=other) as site, pytest.raises(CatalogError, match=r"tag_aliases.*sha256"):
        fetch_export(client_of(site), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db_exports.json", "tags.csv.gz"]
    with export_of() as site:
        fetch_export(client_of(site), tmp_path)
    (tmp_path / "tags.csv.gz").write_bytes(gzip.compress(b"id,name,category,post_count\n"))
    with pytest.raises(CatalogError, match=r"tags\.csv\.gz has not the sha256"):
        read_catalog(tmp_path)


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"nonsense", b'[{"name": "tags"}]', b'[{"name":1,"checksum":2,"url":3}]']
)
def test_a_site_without_such_an_export_says_what_to_do(tmp_path, body):
    said = r"db_exports\.json (lists no tag|is not|has an entry)"
    with Scripted(lambda _request, _number: Answer(body=body)) as site, pytest.raises(CatalogError, match=said):
        fetch_export(client_of(site), tmp_path)
    said = r"no such file \(404\).*set TI_CATALOG"
    with Scripted(lambda _request, _number: Answer(404)) as site, pytest.raises(CatalogError, match=said):
        fetch_export(client_of(site), tmp_path)


@pytest.mark.parametrize("origin", ["files", "export", "api"])
def test_the_job_stores_the_same_tables_whatever_they_come_from(origin, tmp_path, monkeypatch):
    monkeypatch.setenv("TI_E621_USERNAME", "tester")
    monkeypatch.setenv("TI_E621_PER_SECOND", "1000")
    (tmp_path / "files").mkdir()
    expected = read_catalog(write(tmp_path / "files"))
    data = str(tmp_path / "data")
    rows = {
        "tags": api_rows(TAGS, ("id", "category", "post_count")),
        "tag_aliases": api_rows(ALIASES, ("id",)),
        "tag_implications": api_rows(IMPLICATIONS, ("id",)),
    }
    with Emulator(tables=rows) if origin == "api" else export_of() as site:
        result = dg.materialize(
            [site_catalog],
            resources={
                "catalog_source": CatalogSource(folder=str(tmp_path / "files") if origin == "files" else None),
                "e621": E621Site(url=site.url),
                "store": DataStore(url=data),
                "io_manager": ParquetTables(url=data),
            },
            run_config={"ops": {"site_catalog": {"config": {"ask_api": origin == "api"}}}},
        )
    tables = Tables(UPath(data))
    for name, frame in expected.items():
        found, columns = tables.read(name, None), list(frame)
        pd.testing.assert_frame_equal(
            found.sort_values(columns, ignore_index=True), frame.sort_values(columns, ignore_index=True)
        )
    said = {m.asset_key.to_user_string(): m.metadata for m in result.asset_materializations_for_node("site_catalog")}
    assert said["tag_implications"]["most steps"].value == 2
    assert said["tag_implications"]["pairs over all steps"].value == 6


@needs_shared
def test_the_sites_own_tables_load_whole():
    tables = read_catalog(E621)
    assert {name: len(frame) for name, frame in tables.items()} == {
        "tag_catalog": 106_844,
        "tag_aliases": 34_392,
        "tag_implications": 43_284,
        "do_not_post": 1593,
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

    closure = implication_closure(implications)
    assert not closure.duplicated(["antecedent", "consequent"]).any()
    for wanted in ("canine", "mammal", "clothing", "no_such_tag"):
        special = {tag for tag in up if implies(tag, wanted)}
        assert implied_by(implications, [wanted]) == special
        assert set(closure.antecedent[closure.consequent == wanted]) == special


@needs_shared
def test_the_sites_implications_are_nine_deep():
    closure = implication_closure(read_catalog(E621)["tag_implications"])
    ancestors = closure.groupby("antecedent").consequent.agg(set)
    for steps in (1, 2, 9):  # fewest steps, counted by a search in breadth from single tags
        row = closure[closure.steps == steps].iloc[0]
        one_step = closure[closure.steps == 1].groupby("antecedent").consequent.agg(set)
        level, seen = {row.antecedent}, {row.antecedent}
        for _ in range(steps):
            level = {c for tag in level for c in one_step.get(tag, ())} - seen
            seen |= level
        assert row.consequent in level
        assert level <= ancestors[row.antecedent]
    assert closure.steps.max() == 9


@needs_shared
def test_artists_of_the_implications_are_those_of_the_recorded_lists(tmp_path):
    for name in ("e621_tags_2026-04-01_strict.csv", *LINKS):
        (tmp_path / name).symlink_to(E621 / name)
    told = listed(read_catalog(E621))
    implied = listed(read_catalog(tmp_path))
    with (E621 / "dnp_artists_2025-05-01.csv").open(encoding="utf-8", newline="") as stream:
        recorded = {(row["tag"], row["list"]) for row in csv.DictReader(stream)}
    assert told == recorded | implied
    assert implied
    assert implied <= recorded


@needs_shared
def test_the_recorded_answer_of_tags_is_read_whole():
    """As it came, and as the site might send it: in an envelope, with nulls, with what is to come."""
    recorded = json.loads((E621 / "tags_order-count_sfw.json").read_text(encoding="utf-8"))
    table = tags_of_api(*recorded)
    numbers = ("general", "artist", "contributor", "copyright", "character", "species", "invalid", "meta", "lore")
    assert table == {row["name"]: (numbers[row["category"]], row["post_count"]) for row in recorded}
    for envelope in (lambda rows: rows, lambda rows: {"tags": rows}):

        def respond(request: Request, _number: int, envelope=envelope) -> Answer:
            rows = recorded if request.path == "/tags.json" and "page" not in request.query else []
            return Answer(body=json.dumps(envelope(rows) if request.path == "/tags.json" else rows).encode())

        with Scripted(respond) as site:
            found = fetch_catalog(client_of(site))["tag_catalog"]
        assert {row.tag: (row.category, row.post_count) for row in found.itertuples()} == table
