import hashlib
import json
from pathlib import Path

import pytest

from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources import SourceError
from ti_pipeline.sources.folder import read_folder
from ti_pipeline_tests.shared_data import PICTURES, needs_shared


def put(folder: Path, name: str, sidecar: str | bytes | dict | None = None, kind: str = "{name}.json") -> Path:
    picture = folder / name
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(f"picture {name}".encode())
    if sidecar is not None:
        data = json.dumps(sidecar).encode() if isinstance(sidecar, dict) else sidecar
        target = picture.parent / kind.format(name=picture.name, stem=picture.stem)
        target.write_bytes(data if isinstance(data, bytes) else data.encode())
    return picture


def read(folder: Path, assume_rating: str | None = "s") -> dict[str, dict]:
    records = read_folder(folder, assume_rating=assume_rating).records
    return {Path(r["file"]["url"]).name if "file" in r else f"problem {i}": r for i, r in enumerate(records)}


def test_three_kinds_of_sidecars_in_mixed_nested_folders(tmp_path):
    downloaded = {
        "id": 77,
        "rating": "q",
        "tags": {"species": ["wolf"], "artist": ["a b", "A_B"], "new_category": ["x"]},
        "score": {"up": 3, "down": -1, "total": 2},
        "flags": {"deleted": True},
        "created_at": "2026-07-14T02:31:17.553+03:00",
        "file": {"width": 5, "height": 6, "md5": "0" * 32, "size": 1, "url": "https://example.org/x"},
    }
    put(tmp_path, "one/a.png", downloaded)
    put(tmp_path, "one/deep/b.JPG", "wolf, looking at viewer, fox \\(lore\\),, Rating:Safe\n", "{stem}.txt")
    put(
        tmp_path,
        "two/c.webp",
        "\ufeffspecies:Grey Wolf\r\ncreator:some one\r\nseries:my show\nrating:explicit\n"
        "\npage:3\n:3\nre:zero\nmeta:hi res\n",
        "{name}.txt",
    )
    put(tmp_path, "d.gif", {"post": {"tags": "solo duo"}}, "{stem}.json")
    put(tmp_path, ".hidden/e.png")
    found = read(tmp_path)
    assert list(found) == ["d.gif", "a.png", "b.JPG", "c.webp"]
    a = found["a.png"]
    data = (tmp_path / "one/a.png").read_bytes()
    tags = {"species": ["wolf"], "artist": ["a_b"], "new_category": ["x"]}
    assert (a["id"], a["rating"], a["tags"]) == (77, "q", tags)
    assert (a["score"], a["flags"], a["created_at"]) == tuple(downloaded[k] for k in ("score", "flags", "created_at"))
    assert a["file"] == {
        "width": 5,
        "height": 6,
        "ext": "png",
        "size": len(data),
        "md5": hashlib.md5(data).hexdigest(),
        "url": (tmp_path / "one/a.png").as_uri(),
    }
    assert found["b.JPG"]["tags"] == {"general": ["wolf", "looking_at_viewer", "fox_(lore)"]}
    assert (found["b.JPG"]["rating"], found["b.JPG"]["file"]["ext"]) == ("s", "jpg")
    assert found["c.webp"]["tags"] == {
        "species": ["grey_wolf"],
        "artist": ["some_one"],
        "copyright": ["my_show"],
        "general": ["page:3", ":3", "re:zero"],
        "meta": ["hi_res"],
    }
    assert found["c.webp"]["rating"] == "e"
    assert found["d.gif"]["tags"] == {"general": ["solo", "duo"]}


@pytest.mark.parametrize(
    ("sidecar", "tags"),
    [
        ({"tags": {"general": "a b", "artist": ["c d"]}}, {"general": ["a", "b"], "artist": ["c_d"]}),
        ({"tags": ["a", "b"]}, {"general": ["a", "b"]}),
        ({"tags": "a  b\tc\n"}, {"general": ["a", "b", "c"]}),
        ({"tags": "a \x0b b"}, {"general": ["a", "\x0b", "b"]}),
        ({"tags": "a b c", "tags_artist": "b", "tags_lore": ["c"]}, {"general": ["a"], "artist": ["b"], "lore": ["c"]}),
        ({"tag_string": "a b", "tag_string_character": "b"}, {"general": ["a"], "character": ["b"]}),
        ({"tags": "Blue Eyes, grey wolf"}, {"general": ["blue_eyes", "grey_wolf"]}),
        ({"tags": "wolf;fox|x"}, {"general": ["wolf", "fox", "x"]}),
        ({"tags": {"wolf": 0.98, "blue eyes": 1}}, {"general": ["wolf", "blue_eyes"]}),
        ({"tags": [{"name": "Grey Wolf", "count": 3}]}, {"general": ["grey_wolf"]}),
        ({"keywords": ["a"], "tags_of_age": "b c"}, {"general": ["a"], "of_age": ["b", "c"]}),
        ({"tags": None}, {}),
        ({}, {}),
    ],
)  # fmt: skip
def test_shapes_of_downloaders_tags(tmp_path, sidecar, tags):
    put(tmp_path, "a.png", sidecar)
    assert read(tmp_path)["a.png"]["tags"] == tags


@pytest.mark.parametrize(
    ("written", "rating"),
    [("s", "s"), ("safe", "s"), ("General", "s"), ("questionable", "q"), ("sensitive", "q"), ("Explicit", "e"),
     ("unheard of", "e"), (5, "e"), (None, "q")],
)  # fmt: skip
def test_ratings_in_words(tmp_path, written, rating):
    put(tmp_path, "a.png", {"rating": written})
    assert read(tmp_path, assume_rating="q")["a.png"]["rating"] == rating


def test_without_any_rating_pictures_are_left_out(tmp_path):
    put(tmp_path, "a.png", "wolf", "{stem}.txt")
    table = posts_table(read_folder(tmp_path, assume_rating=None).records, ContentPolicy())
    assert list(table.status) == ["dropped"]
    assert "assume_rating" in table.reason[0]


def test_odd_tags_survive_as_data(tmp_path):
    odd = [
        "..",
        "/etc/passwd",
        '"quoted"',
        "it's",
        "🐺",
        "\x0b",
        "\u202eabc\u202c",
        "a,b",
        "(x)",
        "子供服",
        "nan",
        "-solo",
    ]
    put(tmp_path, "a.png", {"id": 1, "tags": {"general": odd}})
    lines = [tag for tag in odd if "," not in tag]
    put(tmp_path, "b.png", "\n".join(lines), "{name}.txt")
    put(tmp_path, "c.png", ", ".join(lines), "{stem}.TXT")
    found = read(tmp_path)
    assert found["a.png"]["tags"]["general"] == odd
    assert found["b.png"]["tags"]["general"] == lines
    assert found["c.png"]["tags"]["general"] == lines
    table = posts_table(list(found.values()), ContentPolicy())
    assert TABLES["posts"].problems(table) == []
    assert table.set_index("post_id").tags_general[1] == odd


@pytest.mark.parametrize(
    ("sidecar", "kind"),
    [
        (b"\xff\xfe\x00", "{name}.json"),
        (b"{", "{name}.json"),
        (b"", "{name}.json"),
        (b"[" * 100_000, "{name}.json"),
        (b"[1]", "{name}.json"),
        (b'{"tags": 5}', "{name}.json"),
        (b'{"tags": {"general": [5]}}', "{name}.json"),
        (b"wolf\xff", "{name}.txt"),
        (b"wolf\xff", "{stem}.txt"),
    ],
)
def test_a_sidecar_that_cannot_be_read_leaves_the_post_out_with_its_reason(tmp_path, sidecar, kind):
    put(tmp_path, "a.png", sidecar, kind)
    put(tmp_path, "b.png", {"tags": "wolf"})
    reading = read_folder(tmp_path, assume_rating="s")
    table = posts_table(reading.records, ContentPolicy()).sort_values("status")
    assert list(table.status) == ["dropped", "kept"]
    assert table.reason.iloc[0].startswith(f"tag file {kind.format(name='a.png', stem='a')}")
    assert table.file_url.iloc[0] == (tmp_path / "a.png").as_uri()  # so that people find it
    assert any("cannot be used" in note and "a.png" in note for note in reading.notes)


def test_missing_surplus_and_orphaned_tag_files_are_noted(tmp_path):
    for i in range(8):
        put(tmp_path, f"bare{i}.png")
    put(tmp_path, "two.png", {"tags": "json"})
    put(tmp_path, "two.png", "json, text", "{stem}.txt")
    (tmp_path / "lost.txt").write_text("wolf", encoding="utf-8")
    reading = read_folder(tmp_path, assume_rating="s")
    assert len(reading.records) == 9
    assert reading.records[-1]["tags"] == {"general": ["json", "text"]}
    first, second, third = reading.notes
    assert first.startswith("8 without a tag file")
    assert "bare0.png" in first
    assert "3 more" in first
    assert "two.png (two.png.json: 1 tags, two.txt: 2 tags)" in second
    assert "lost.txt" in third


def test_ids_are_the_sidecars_or_made_from_the_path(tmp_path):
    for name, told in {"a": 5, "b": 6, "c": 6, "d": "7", "e": True, "f": -1, "g": 2**63, "h": None, "i": 1.0}.items():
        put(tmp_path, f"sub/{name}.png", {"id": told, "tags": ""})
    ids = [record["id"] for record in read_folder(tmp_path, assume_rating="s").records]
    digest = int(hashlib.sha256(b"sub/b.png").hexdigest()[:16], 16)
    assert ids[0] == 5
    assert ids[1] == digest >> 2
    assert len(set(ids)) == 9
    assert all(0 <= post_id < 2**62 for post_id in ids)
    assert ids == [record["id"] for record in read_folder(tmp_path, assume_rating="s").records]


def test_no_folder_and_no_pictures(tmp_path):
    with pytest.raises(SourceError, match=r"source\.path.*nowhere"):
        read_folder(tmp_path / "nowhere", assume_rating=None)
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(SourceError, match=r"source\.path.*no pictures"):
        read_folder(tmp_path, assume_rating=None)


@needs_shared
def test_the_real_tagged_pictures():
    reading = read_folder(PICTURES, assume_rating=None)
    sidecars = {path: json.loads(path.read_text(encoding="utf-8")) for path in PICTURES.rglob("*.json")}
    assert len(reading.records) == len(sidecars) == 396
    assert reading.notes == []
    stated = {data["id"]: data for data in sidecars.values()}
    for record in reading.records:
        told = stated[record["id"]]
        assert record["tags"] == told["tags"]
        assert {key: record["file"][key] for key in told["file"]} == told["file"]
    table = posts_table(reading.records, ContentPolicy())
    assert list(table.status.unique()) == ["kept"]
    assert TABLES["posts"].problems(table) == []
