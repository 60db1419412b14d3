"""Attribution and text of others: nothing forgotten, nothing that runs."""

import csv
import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ti_pipeline.publishing.attribution import artists_counted, attribution_csv, attribution_table, curations_of
from ti_pipeline.publishing.untrusted import csv_cell, markdown_text, visible, web_address
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Study
from ti_pipeline_tests.publishing.conftest import ARTIST, SOURCES, frame


def kept(curation, post_id, split):
    row = {"curation": curation, "post_id": post_id, "kept": split != "out", "split": split, "reason": ""}
    return row | dict.fromkeys(("solo", "simple_background", "text"), False)


def test_every_used_picture_is_there_with_its_people(results):
    table = attribution_table(results.provenance, results.training_set, ["default"])
    assert table.post_id.tolist() == [1, 2, 3, 4]
    assert table.artists.tolist() == [[ARTIST], [ARTIST], [], []]  # conditional_dnp is a remark
    assert table.sources.tolist() == [SOURCES, [], [], []]
    assert table.page.tolist() == [f"https://e621.net/posts/{n}" for n in (1, 2, 3, 4)]
    assert table.md5.tolist() == [f"{n + 100:032x}" for n in (1, 2, 3, 4)]  # of the stored file
    assert table.split.tolist() == ["train"] * 3 + ["validation"]
    assert artists_counted(table) == [(ARTIST, 2), ("unknown artist", 2)]


def test_only_the_curations_asked_for_and_training_wins(results):
    training = frame(
        "training_set",
        [
            kept("x", 1, "validation"),
            kept("x", 2, "out"),
            kept("y", 1, "train"),
            kept("y", 3, "validation"),
            kept("z", 4, "train"),
        ],
    )
    table = attribution_table(results.provenance, training, ["x", "y"])
    assert list(zip(table.post_id, table.split, strict=True)) == [(1, "train"), (3, "validation")]
    assert attribution_table(results.provenance, training, []).empty


def test_a_picture_without_provenance_is_an_error(results):
    with pytest.raises(ValueError, match=r"no provenance for 1 pictures, e\.g\. post 3: run the job prepare"):
        attribution_table(results.provenance[results.provenance.post_id != 3], results.training_set, ["default"])


def test_no_pictures_at_all():
    empty = attribution_table(*(TABLES[t].empty() for t in ("provenance", "training_set")), ["default"])
    assert artists_counted(empty) == []
    assert attribution_csv(empty) == "post_id,artists,contributors,sources,page,licence,md5,split\n"


def test_csv_reads_back(results):
    table = attribution_table(results.provenance, results.training_set, ["default"])
    rows = list(csv.DictReader(io.StringIO(attribution_csv(table), newline="")))
    assert [int(row["post_id"]) for row in rows] == [1, 2, 3, 4]
    assert rows[0]["artists"] == ARTIST
    assert rows[0]["sources"].split(" ") == [source.replace("\u202e", "\\u202e") for source in SOURCES]
    assert rows[2]["artists"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_spreadsheets_get_no_formula(start):
    assert csv_cell(start + "HYPERLINK(0)")[0] not in "=+-@\t\r"


def test_curations_of_variants():
    study = Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo"},
            "base_models": {"b": {}},
            "curations": {"wide": {}},
            "crops": {"sizes": [64, 128], "sets": {"big": {"size": 64, "curation": "wide"}}},
            "variants": {
                name: {"vectors": 1, "base": "b", "steps": 1, "crop": crop}
                for name, crop in {"v1": "64", "v2": "big", "v3": "128"}.items()
            },
        }
    )
    assert curations_of(study, ["v1", "v3"]) == ["default"]
    assert curations_of(study, ["v2", "v1"]) == ["wide", "default"]


@given(st.text())
def test_visible_text_hides_nothing_and_keeps_the_rest(text):
    shown = visible(text)
    assert {unicodedata.category(c) for c in shown if c not in "\n\t"}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn"})
    shown.encode("utf-8")  # no lone surrogates
    plain = "".join(c for c in text if c.isascii() and c.isprintable())
    assert visible(plain) == plain


@given(st.text())
def test_markdown_is_one_line_without_markup(text):
    line = markdown_text(text)
    assert "\n" not in line
    assert not {"<", ">"} & set(line)
    without_escapes = line.replace("\\\\", "")
    assert all(without_escapes[i - 1] == "\\" for i, c in enumerate(without_escapes) if c in "`*_[]|#")


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://artist.example/a?b=c&d=e#f", True),
        ("http://artist.example", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("//artist.example", False),
        ("https://", False),
        ('https://a.example/" onclick="x', False),
        ("https://a.example/\nb", False),
        ("https://b\u0430d.example", False),
        ("https://[1", False),
    ],
)
def test_links_are_plain_web_addresses(text, is_link):
    assert web_address(text) == (text if is_link else None)


def test_files_of_this_machine_are_no_sources_for_others(results):
    table = attribution_table(results.provenance, results.training_set, ["default"]).head(1)
    local = ["file:///home/me/a.png", "/home/me/a.png", r"C:\me\a.png", r"\\server\me", "~/a.png"]
    told = [*local, "https://a.example/b", "cdn.example/c", "art by somebody"]
    (row,) = csv.DictReader(io.StringIO(attribution_csv(table.assign(sources=[told]))))
    assert row["sources"] == "https://a.example/b cdn.example/c art%20by%20somebody"
