import json
import os

import pytest

from ti_pipeline.e621.policy import ContentPolicy
from ti_pipeline.e621.records import posts_table, refused
from ti_pipeline.schemas import TABLES
from ti_pipeline.sources.folder import read_folder
from ti_pipeline.sources.sidecars import sidecars_by_picture
from ti_pipeline.sources.tag_text import read_text
from ti_pipeline_tests.sources.test_folder import put, read

# Attempts to get a picture trained whose own files say an excluded word: name of the sidecar, what stands in it.
SAYING = [
    # sentences
    ("{stem}.txt", "A photo of a young wolf in the snow."),
    ("{stem}.txt", "a drawing of two wolves, one of them a cub, at a river"),
    ("{stem}.txt", "Three toddlers playing with a ball."),
    ("{stem}.txt", "An anthropomorphic fox who looks like a teenager, standing."),
    ("{stem}.txt", "the character is 14 years old and smiles at the viewer"),
    ("{stem}.txt", "A wolf.\nA wolf and its pup."),
    ("{stem}.caption", "a small child with a red scarf"),
    ("{name}.caption", "A fox kid, laughing"),
    ("{stem}.txt", "my o.c. (she's a minor) in a forest"),
    # tags divided by anything
    ("{stem}.txt", "wolf cub solo"),
    ("{stem}.txt", "wolf young_anthro solo"),
    ("{stem}.txt", "wolf; cub; solo"),
    ("{stem}.txt", "wolf;cub;solo"),
    ("{stem}.txt", "wolf|cub|solo"),
    ("{stem}.txt", "wolf | cub | solo"),
    ("{stem}.txt", "wolf\uff0ccub\uff0csolo"),
    ("{stem}.txt", "wolf\u3001cub\u3001solo"),
    ("{stem}.txt", "wolf\ncub\nsolo"),
    ("{stem}.txt", "wolf\r\ncub\r\n"),
    ("{stem}.txt", "wolf\tcub\tsolo"),
    ("{stem}.txt", "wolf / cub / solo"),
    ("{stem}.txt", "wolf, cub and fox"),
    ("{stem}.txt", "wolf.cub.solo"),
    ("{stem}.txt", "#wolf #cub #solo"),
    ("{name}.txt", "wolf, cub, solo"),
    ("{name}.txt", "wolf cub solo"),
    ("{name}.txt", "wolf; cub"),
    # written as nobody expects
    ("{stem}.txt", "(wolf:1.2), (cub:0.8)"),
    ("{stem}.txt", "wolf, ((cub)), [solo]"),
    ("{stem}.txt", "wolf, CUB"),
    ("{stem}.txt", "wolf, \uff43\uff55\uff42"),
    ("{stem}.txt", "wolf, c\u200bub"),
    ("{stem}.txt", "wolf, 2cubs"),
    ("{stem}.txt", "wolf, cub1"),
    ("{stem}.txt", "wolf, baby_dragon"),
    ("{stem}.txt", "wolf, adolescents"),
    ("{stem}.txt", "wolf, youngster"),
    ("{stem}.txt", "wolf, young-looking"),
    ("{stem}.txt", "wolf, -young"),
    ("{stem}.txt", "wolf, age:child"),
    # namespaces
    ("{name}.txt", "species:wolf\nperson:cub"),
    ("{name}.txt", "species:wolf\nage:young"),
    ("{name}.txt", "species:wolf\nlore:young (lore)"),
    ("{name}.txt", "meta:cub"),
    # JSON
    ("{name}.json", {"tags": "wolf, cub, solo"}),
    ("{name}.json", {"tags": "wolf cub solo"}),
    ("{name}.json", {"tags": "wolf;cub"}),
    ("{name}.json", {"tags": "a young wolf in the snow"}),
    ("{name}.json", {"tags": ["wolf"], "locked_tags": "young solo"}),
    ("{name}.json", {"tags": ["wolf"], "locked_tags": ["young"]}),
    ("{name}.json", {"tags": ["wolf"], "tags_age": ["cub"]}),
    ("{name}.json", {"tags": ["wolf"], "extra_tags": ["cub"]}),
    ("{name}.json", {"tags": ["wolf"], "tag_string_lore": "young_(lore)"}),
    ("{name}.json", {"tags": ["wolf"], "hidden": {"deep": [["x", ["cub"]]]}}),
    ("{name}.json", {"tags": {"wolf": 0.9, "cub": 0.4}}),
    ("{name}.json", {"tags": ["wolf"], "scores": {"cub": 0.4}}),
    ("{name}.json", {"tags": ["wolf"], "cub": True}),
    ("{name}.json", {"tags": [{"name": "wolf"}, {"name": "cub"}]}),
    ("{name}.json", {"tags": ["wolf"], "description": "My cub, drawn for a friend"}),
    ("{name}.json", {"tags": ["wolf"], "title": "Kids at play"}),
    ("{name}.json", {"tags": ["wolf"], "caption": "a young wolf"}),
    ("{name}.json", '{"tags": ["wolf"], "tags": ["cub"], "tags": ["wolf"]}'),
    ("{name}.json", '{"tags": ["c\\u0075b"]}'),
    ("{name}.json", '["wolf", "cub"]'),
    ("{stem}.JSON", {"tags": ["wolf", "cub"]}),
    ("{name}.json", {"post": {"tags": {"lore": ["young_(lore)"]}}}),
    # files that nobody expects
    ("{stem}.TXT", "wolf, cub"),
    ("{name}.Txt", "cub"),
    ("{stem}.tags", "wolf cub"),
    ("{name}.tags", "cub"),
    ("{stem}.CAPTION", "a cub"),
    ("{stem}.wd14.txt", "wolf, cub"),
    ("{name}.notes.txt", "cub"),
    ("{stem}.xmp", "<rdf:li>wolf</rdf:li><rdf:li>cub</rdf:li>"),
    ("{stem}.yaml", "tags: [wolf, cub]"),
    ("{stem}.md", "A *cub*."),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "sidecar"), SAYING)
def test_no_picture_whose_own_words_say_an_excluded_thing(tmp_path, kind, sidecar):
    for folder in ("alone", "beside"):
        put(tmp_path, f"{folder}/a1.png", sidecar, kind)
    put(tmp_path, "beside/a1.png", "wolf, solo", "{stem}.txt" if "json" in kind.lower() else "{name}.more.tags")
    put(tmp_path, "b.png", "wolf, solo", "{stem}.txt")
    table = posts_table(read_folder(tmp_path, assume_rating="s").records, ContentPolicy()).set_index("file_url")
    assert table.status[(tmp_path / "b.png").as_uri()] == "kept"
    for folder in ("alone", "beside"):
        row = table.loc[(tmp_path / folder / "a1.png").as_uri()]
        assert (row.status, "exclude" in row.reason) == ("dropped", True)


def test_there_are_enough_attempts():
    assert len(SAYING) >= 59


@pytest.mark.parametrize("name", ["cub.png", "wolf_cub_01.png", "young-wolf.png", "2cubs.png"])
def test_nor_one_whose_name_says_it(tmp_path, name):
    put(tmp_path, name, "wolf", "{stem}.txt")
    assert posts_table(read_folder(tmp_path, assume_rating="s").records, ContentPolicy()).status[0] == "dropped"


def test_an_excluded_word_that_comes_later_is_found_in_the_stored_table(tmp_path):
    put(tmp_path, "a.png", "A wolf at dusk, drawn with a pen.", "{stem}.txt")
    posts = posts_table(read_folder(tmp_path, assume_rating="s").records, ContentPolicy())
    assert list(refused(posts, ContentPolicy())) == []
    later = ContentPolicy(excluded=frozenset({"dusk"}))
    assert list(refused(posts, later).values()) == ["its own text says dusk, which the content policy excludes"]


@pytest.mark.parametrize(
    "sidecar",
    [
        {"tags": ["wolf"], "relationships": {"has_children": True, "has_active_children": True, "children": [5, 6]}},
        {"tags": ["wolf"], "has_visible_children": True, "children_ids": "5 6"},
        {"tags": ["wolf"], "locked_tags": "-young"},
        {"tags": ["wolf"], "locked_tags": ["-young", "solo"]},
        {"tags": ["wolf"], "uploader_name": "young_fan", "url": "https://example.org/kid/1.png"},
        {"tags": ["kidney_beans", "babylon", "aged_up"]},
    ],
)
def test_what_only_looks_like_it_is_kept(tmp_path, sidecar):
    put(tmp_path, "a.png", sidecar)
    table = posts_table(read_folder(tmp_path, assume_rating="s").records, ContentPolicy())
    assert table.reason.tolist() == [""]


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("wolf, looking at viewer, fox \\(lore\\),,\n", ["wolf", "looking_at_viewer", "fox_(lore)"]),
        ("wolf solo blue_eyes", ["wolf", "solo", "blue_eyes"]),
        ("wolf solo male", ["wolf", "solo", "male"]),
        ("grey wolf", ["grey_wolf"]),
        ("looking at viewer", ["looking_at_viewer"]),
        ("wolf; fox; blue eyes", ["wolf", "fox", "blue_eyes"]),
        ("wolf|fox", ["wolf", "fox"]),
        ("wolf\uff0cfox", ["wolf", "fox"]),
        ("Grey Wolf\nlooking at viewer\n>_<\n;)", ["grey_wolf", "looking_at_viewer", ">_<", ";)"]),
        ("(wolf:1.2), [fox:0.8], ((blue eyes:1.1)), (x), ;), >:(", ["wolf", "fox", "blue_eyes", "(x)", ";)", ">:("]),
        ("wolf, the legend of zelda breath of the wild", ["wolf", "the_legend_of_zelda_breath_of_the_wild"]),
        ("wolf, a\nfox, b", ["wolf", "a", "fox", "b"]),
        ("A grey wolf stands in the snow, looking at the viewer, with a red scarf.", []),
        ("masterpiece, best quality, a grey wolf standing in the snow, night", []),
        ("photo of a wolf", []),
        ("A wolf.\nA wolf in the snow, drinking water.", []),
        ("", []),
    ],
)  # fmt: skip
def test_tags_are_told_from_sentences_by_what_stands_there(text, tags):
    told = read_text(text)
    assert told["tags"].get("general", []) == tags
    lines = [line for line in text.split("\n") if line]
    assert told["captions"] in (lines, [", ".join(lines)])  # whatever was read, the caption is as it stands


def test_all_sidecars_of_a_picture_are_read_together(tmp_path):
    put(tmp_path, "cat.png", {"id": 5, "rating": "s", "score": 3})
    put(tmp_path, "cat.png", "species:wolf\nsolo\nrating:questionable", "{name}.txt")
    put(tmp_path, "cat.png", "wolf, solo, fluffy", "{stem}.TXT")
    put(tmp_path, "cat.png", "A wolf sits in the snow.", "{stem}.caption")
    (record,) = read_folder(tmp_path, assume_rating=None).records
    assert record["tags"] == {"species": ["wolf"], "general": ["solo", "fluffy"]}
    assert (record["id"], record["rating"], record["score"]) == (5, "q", {"total": 3})
    assert record["captions"][-1] == "A wolf sits in the snow."
    table = posts_table([record], ContentPolicy(ratings=frozenset("q")))
    assert table.captions[0] == record["captions"]
    assert TABLES["posts"].problems(table) == []


def test_sidecars_of_similar_names_find_their_pictures(tmp_path):
    pictures = [tmp_path / name for name in ("a.png", "a.b.png", "A1.JPG")]
    others = [tmp_path / name for name in ("a.txt", "a.png.json", "a.b.txt", "a.b.c.txt", "a1.jpg.TXT", "c.txt", "x")]
    found = {p.name: [o.name for o in paths] for p, paths in sidecars_by_picture(pictures, others).items()}
    assert found == {"a.png": ["a.png.json", "a.txt"], "a.b.png": ["a.b.c.txt", "a.b.txt"], "A1.JPG": ["a1.jpg.TXT"]}


def test_odd_files_end_as_rows_with_a_reason(tmp_path):
    put(tmp_path, "good.png", "wolf", "{stem}.txt")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / os.fsdecode(b"na\xefve.png")).write_bytes(b"x")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "back").symlink_to(tmp_path, target_is_directory=True)
    reading = read_folder(tmp_path, assume_rating="s")
    table = posts_table(reading.records, ContentPolicy())
    reasons = sorted(table.reason)
    assert len(reasons) == 4
    assert reasons[0] == ""
    assert [reason.split(":")[0] for reason in reasons[1:]] == ["unreadable picture"] * 3
    assert any("plain file" in reason for reason in reasons)
    assert any("not UTF-8" in reason for reason in reasons)
    assert all(note.isprintable() and note.encode() for note in reading.notes)


def test_linked_folders_are_read_once(tmp_path):
    put(tmp_path, "elsewhere/a.png", "wolf", "{stem}.txt")
    put(tmp_path, "mine/b.jfif", "fox", "{stem}.txt")
    (tmp_path / "mine" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "mine" / "again").symlink_to(tmp_path / "mine", target_is_directory=True)
    found = read(tmp_path / "mine")
    assert {name: record["tags"]["general"] for name, record in found.items()} == {"a.png": ["wolf"], "b.jfif": ["fox"]}


SITES = {
    "furaffinity": (
        {"category": "furaffinity", "subcategory": "gallery", "id": 1, "title": "Snow", "artist": "Some One",
         "artist_url": "someone", "rating": "General", "species": "Wolf", "gender": "Male", "theme": "All",
         "fa_category": "Artwork (Digital)", "tags": ["snow", "Blue_Eyes"], "width": 5, "height": 6, "folders": []},
        {"species": ["wolf"], "artist": ["some_one"], "general": ["snow", "blue_eyes", "male"]}, "s",
        {"Mature": "q", "Adult": "e", "New Word": "e"}, "rating",
    ),
    "pixiv": (
        {"category": "pixiv", "id": 2, "title": "x", "type": "illust", "x_restrict": 0, "sanity_level": 2,
         "rating": "General", "tags": ["オリジナル", "ケモノ"], "translated_tags": ["original", "furry"],
         "user": {"id": 1, "name": "名前", "account": "someone"}, "caption": "<p>hi</p>", "width": 5, "height": 6},
        {"general": ["オリジナル", "ケモノ", "original", "furry"], "artist": ["someone"]}, "s",
        {"R-18": "e", "R-18G": "e", "New Word": "e"}, "rating",
    ),
    "twitter": (
        {"category": "twitter", "tweet_id": 3, "author": {"name": "someone", "nick": "Some One"},
         "content": "A wolf in the snow #wolf #Art", "hashtags": ["wolf", "Art"], "sensitive": False},
        {"general": ["wolf", "art"], "artist": ["someone"]}, None, {True: "e"}, "sensitive",
    ),
    "inkbunny": (
        {"category": "inkbunny", "submission_id": "4", "username": "Someone", "rating_id": "0", "ratings": [],
         "rating_name": "General", "tags": ["grey wolf", "snow"], "title": "x", "description": "y"},
        {"general": ["grey_wolf", "snow"], "artist": ["someone"]}, "s", {"1": "q", "2": "e", "9": "e"}, "rating_id",
    ),
    "weasyl": (
        {"submitid": 5, "owner": "Someone", "owner_login": "someone", "rating": "general", "tags": ["wolf", "snow"],
         "title": "x", "type": "submission", "subtype": "visual", "media": {"submission": []}},
        {"general": ["wolf", "snow"], "artist": ["someone"]}, "s",
        {"moderate": "q", "mature": "q", "explicit": "e", "new": "e"}, "rating",
    ),
    "danbooru": (
        {"id": 6, "tag_string": "wolf solo someone", "tag_string_general": "wolf solo", "tag_string_artist": "someone",
         "rating": "g", "score": 3, "image_width": 5, "image_height": 6, "is_deleted": False, "md5": "0" * 32},
        {"general": ["wolf", "solo"], "artist": ["someone"]}, "s", {"s": "q", "q": "q", "e": "e", "x": "e"}, "rating",
    ),
    "derpibooru": (
        {"category": "derpibooru", "id": 7, "sha512_hash": "0", "tags": ["safe",
         "artist:some one", "oc:x", "earth pony"],
         "uploader": "someone", "width": 5, "height": 6, "created_at": "2026-01-01T00:00:00Z", "score": 9},
        {"artist": ["some_one"], "character": ["x"], "general": ["earth_pony"]}, "s", {}, "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("site", SITES)
def test_what_gallery_downloaders_leave_behind(tmp_path, site):
    data, tags, rating, words, field = SITES[site]
    put(tmp_path, "a.png", data)
    record = read(tmp_path, assume_rating=None)["a.png"]
    assert record["tags"] == tags
    assert record["rating"] == rating
    for word, stands_for in words.items():
        (tmp_path / "a.png.json").write_text(json.dumps(data | {field: word}))
        assert read(tmp_path)["a.png"]["rating"] == stands_for, word
    table = posts_table(read(tmp_path, assume_rating="s").values(), ContentPolicy(ratings=frozenset("sqe")))
    assert TABLES["posts"].problems(table) == []
    assert table.status.tolist() == ["kept"]


def test_what_else_a_sites_rating_says(tmp_path):
    shapes = [
        ("pixiv", {"x_restrict": 1}, "e"), ("pixiv", {"sanity_level": 4}, "q"), ("pixiv", {"sanity_level": 6}, "e"),
        ("inkbunny", {"ratings": ["Nudity"]}, "q"), ("inkbunny", {"ratings": ["Sexual Themes"]}, "e"),
        ("derpibooru", {"tags": "suggestive, wolf"}, "q"), ("derpibooru", {"tags": ["safe", "grimdark"]}, "e"),
        ("derpibooru", {"tags": ["wolf"]}, None),
    ]  # fmt: skip
    for site, changes, rating in shapes:
        put(tmp_path, "a.png", SITES[site][0] | changes)
        assert read(tmp_path, assume_rating=None)["a.png"]["rating"] == rating, (site, changes)
    put(tmp_path, "a.png", SITES["danbooru"][0] | {"is_deleted": True})
    assert posts_table(read(tmp_path).values(), ContentPolicy()).reason.tolist() == ["deleted"]
