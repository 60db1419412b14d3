"""The page, as a browser's parser sees it: self-contained, harmless whatever tags and artists are called, and true."""

import base64
import dataclasses
import hashlib
import io
import re
import unicodedata
from html.parser import HTMLParser
from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image

from ti_pipeline.publishing.first_screen import FIELD, points
from ti_pipeline.publishing.pictures import PAGE_BYTES, picture, shrunk
from ti_pipeline.publishing.report import render_report, write_report
from ti_pipeline.publishing.verdict import ValueCount, mismatches_by_value
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.publishing.conftest import (
    ARTIST,
    AXES,
    HOSTILE_TAGS,
    OVERALL,
    WRONG,
    build_results,
    frame,
    with_people,
)

_VOID = {"meta", "img", "input", "br", "link", "hr"}
_INLINE = {"bdi", "span", "strong", "a", "i"}


class Page(HTMLParser):
    """Elements with their attributes, the text outside of style and script, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.pieces, self.inside = [], [], [], {"style": [], "script": []}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)
        if tag not in _INLINE:
            self.pieces.append(" ")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        raw = self.inside.get(self.open[-1]) if self.open else None
        (self.pieces if raw is None else raw).append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join("".join(self.pieces).split())


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return render_report(build_results(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def page_text(html):
    return Page(html).text


def test_is_well_formed_and_complete(html):
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = {a["href"] for a in page.all("a") if a["href"].startswith("#")}
    assert anchors == {f"#{attrs['id']}" for attrs in page.all("section")}
    assert page.all("html")[0]["lang"] == "en"


def test_asks_nothing_of_the_network(html):
    page = Page(html)
    fetching = {"src", "srcset", "action", "data", "poster", "background", "formaction", "style", "ping"}
    for tag, attrs in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "use", "foreignobject"}
        assert not [name for name in attrs if name.startswith("on")], attrs
        for name in fetching & set(attrs):
            assert tag == "img"
            assert attrs[name].startswith("data:image/")
        if "href" in attrs:
            assert tag == "a"
            assert re.match(r"#|https://(e621\.net/posts/\d+|artist\.example/art\?a=1&b=2)$", attrs["href"])
    css = "".join(page.inside["style"])
    assert not re.search(r"url\(|@import|http", css)


def test_the_security_policy_admits_only_our_own_style_and_script(html):
    page = Page(html)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    for kind in ("style", "script"):
        (content,) = page.inside[kind]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert directives[f"{kind}-src"] == f"'sha256-{digest}'"


def test_every_picture_has_words_and_its_true_size(html):
    pictures = Page(html).all("img")
    assert len(pictures) >= 4 + 5  # the grids, and plots and sheets
    empty = [attrs for attrs in pictures if "src" not in attrs]
    assert len(empty) == 2  # the two panes of the flicker, which its script fills with a picture and its words
    for attrs in (attrs for attrs in pictures if "src" in attrs):
        assert attrs["alt"].strip()
        with Image.open(io.BytesIO(base64.b64decode(attrs["src"].partition(",")[2]))) as opened:
            assert (str(opened.width), str(opened.height)) == (attrs["width"], attrs["height"])
            assert f"data:image/{opened.format.lower()};" in attrs["src"]


def test_hostile_names_are_shown_as_text(html):
    text = Page(html).text
    for name in [*HOSTILE_TAGS, ARTIST]:
        shown = name.replace("\u202e", "\\u202e").replace("\x07", "\\x07")
        assert " ".join(shown.split()) in text, name
    assert "javascript:alert(4)" in text
    assert "# </pre><script>alert(6)</script>" in text


def test_nothing_on_the_page_hides_or_reorders_text(html):
    assert {c for c in html if unicodedata.category(c) in {"Cc", "Cf", "Cs"}} == {"\n"}


def test_the_decision_comes_first_and_is_honest(page_text):
    text = page_text
    start = text.index("Decision", text.index("Make it again"))
    decision = text[start : text.index("Leaderboard", start)]
    assert "a-20 (a after 20 updates)" in decision
    assert "Overall 0.88 (0.70–1.00), obedience 0.88, likeness 0.88; best of 4 checkpoints" in decision
    assert (
        "Too close to call: 1 other checkpoint cannot be told from it on the same prompts and seeds: b-20" in decision
    )
    assert "Better than it in obedience or in likeness, beyond chance" in decision
    assert "Against the runner-up, a-10: obedience +0.38" in decision
    assert "Left out: b-5: <i>3 of 8 pictures are broken." in decision
    assert "A true difference of 0.25 overall is found in four of five such studies" in decision
    assert "Overfitting: b-10 is nearer to the concept than an earlier checkpoint of the variant" in decision
    assert "– no embedding 0.000 0.000–0.000 reference" in text
    assert "a-10 0.500 0.200–0.800 8 4 0.375 (0.100 to 0.600) 0.031 no" in text
    assert "8 pictures of each checkpoint, on clothing, species, seen by /home/someone/clip" in decision


def test_the_same_prompts_stand_without_and_with_the_embedding_on_every_axis(results, html):
    shown = [a["alt"] for a in Page(html).all("img") if "without the embedding" in a["alt"]]
    assert sorted(alt.split(":")[0] for alt in shown) == ["coat", "shirt", "tiger", "wolf"]
    assert all("below with a-20; seeds 6, 7" in alt for alt in shown)
    assert "three of the concept's own pictures (trained on)" in Page(html).text


def test_every_checkpoint_and_reference_has_a_place_by_obedience_and_likeness(results):
    board = results.leaderboard
    edits = {("obedience", "a-20"): (0.5, 0.25, 0.75), ("likeness", "a-20"): (1.0, 0.9, 2.0)}
    for (axis, name), numbers in edits.items():
        board.loc[(board.axis == axis) & (board.checkpoint == name), ["score", "low", "high"]] = numbers
    found = {point.name: point for point in points(results)}
    assert list(found)[-1] == "a-20", "the best is drawn over the others"
    left, top, width, height = FIELD
    at = [left + width * (share + 0.1) / 1.25 for share in (0.5, 0.25, 0.75)]
    assert found["a-20"].x == pytest.approx(at, abs=0.1)
    down = [top + height * (1 - (share + 0.1) / 1.25) for share in (1.0, 0.9, 1.15)]  # 2.0 is beyond the field's end
    assert found["a-20"].y == pytest.approx(down, abs=0.1)
    assert found["no embedding"].colour is None
    named = [point for point in found.values() if point.named]
    assert {point.name for point in named} == {"a-20", "b-20", "no embedding"}
    for one, other in combinations(named, 2):
        assert abs(one.label[0] - other.label[0]) > 90 or abs(one.label[1] - other.label[1]) > 12, "names cover names"


def test_a_clear_winner_is_called_clear(results):
    board = results.leaderboard.assign(tied=False)
    text = Page(render_report(dataclasses.replace(results, leaderboard=board))).text
    assert "It leads every other checkpoint on the same prompts and seeds by more than chance." in text
    assert "Too close to call:" not in text


def test_where_nothing_was_learned_none_is_called_best(results):
    text = Page(render_report(dataclasses.replace(results, leaderboard=results.leaderboard.assign(best=False)))).text
    assert "Nothing was learned (first in rank: a-20)" in text
    assert "best of 4 checkpoints" not in text
    assert "Look at the crops and captions first" in text


@pytest.mark.parametrize(
    "words",
    [
        "a 10, 20 3, 1 4 b 10, 20 2, 2 4",  # mismatches: variant, steps, counts, pictures each
        "a 10, 20 1, 0 4 b 10, 20 4, 2 4",
        "10|2: 0.568 20|4: 0.218",  # max and min epoch loss
        "0.371 over 4 epochs",  # (0.4 + 0.568 + 0.3 + 0.218) / 4 = 0.3715, which a binary float rounds down
        "posts found 6 5 1 × excluded tag <x>",
        "3 pictures to train on, 1 held out, of 5.",
        "input contender 1 contender 2 conclusion",
        "overall a-20 b-20 too close to call",
        "solo 50.0 % 50.0 % ± 5.0",
        "simple background 100.0 % not steered",
        "simple background 1 2 1 0 1 sketch",  # post 2 by both, post 1 by its pixels alone
        "lettering 0 3 0 1 4 animated 0 4 0 0",
        "curation default: the share of text is 25.0%, wanted 90.0%",
        "embedding of c is not there: <it> has not been made yet",
        "1 pictures could not be fetched",
        "9 tags kept, 3 dropped",
        "4 captions, 12.5 tags on average; 0 without a tag; 0 shortened",
        "a 2 73 25.0 0 4 9 12.5",  # vectors, tokens left, mean tokens, captions longer, captions, tags, tags a picture
        "b 70 5 25.0 4 4 9 12.5",
        "b: 4 of 4 captions are longer than the 5 tokens that 70 vectors leave: they lose their tail",
        "b: 70 vectors for 9 tags: too many vectors for few tags give strange pictures",
        "<b> wolf 7 0.875 1.50 yes",  # a pair of tags with its numbers
        "plan 9 100.0 % 100.0 % 12.5",  # a plan side by side with others: tags, covered, well covered, tags a picture
        "The 4 pictures remain their artists'.",
        "unknown artist 2",
        '"dagster/asset_partition_range_start": "tiny__a", "dagster/asset_partition_range_end": "tiny__b"}\'',
        'compare --tags \'{"dagster/partition": "tiny"}\'',
    ],
)
def test_says(words, page_text):
    assert words in page_text


def test_is_within_its_budget(html):
    assert len(html.encode()) <= PAGE_BYTES == 15_000_000


def test_headings_are_in_order(html):
    levels = [int(tag[1]) for tag, _ in Page(html).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(level <= before + 1 for before, level in pairwise(levels))


def test_error_bars_lie_where_the_numbers_say(html):
    """Of the board a-20 (0.7, 0.875, 1.0) down to b-10 (0.0, 0.25, 0.5), 0 is drawn at 2 and 1 at 98."""
    page = Page(html)
    spans = [a for a in page.all("line") if a["class"] == "span"][:4]
    dots = [a for a in page.all("circle") if a.get("class") == "dot"][:4]
    for (score, low, high), span, dot in zip(OVERALL.values(), spans, dots, strict=True):
        drawn = [float(x) for x in (span["x1"], dot["cx"], span["x2"])]
        assert drawn == pytest.approx([2 + 96 * low, 2 + 96 * score, 2 + 96 * high], abs=0.01)


def test_same_results_same_bytes(results, html, tmp_path):
    write_report(results, tmp_path / "reports" / "tiny.html")
    assert (tmp_path / "reports" / "tiny.html").read_bytes() == html.encode()
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["tiny.html"]


def test_before_anything_is_measured(nothing_measured):
    page = Page(render_report(nothing_measured))
    assert "Nothing has been measured yet, so there is no best checkpoint." in page.text
    assert "No variant has been trained yet." in page.text
    assert "There are no grids yet." in page.text


def test_empty_tables_make_a_page_too(nothing_measured):
    tables = (
        "posts",
        "post_tags",
        "tag_frequencies",
        "tag_pairs",
        "images",
        "provenance",
        "image_audit",
        "training_set",
    )
    empty = dataclasses.replace(
        nothing_measured, **{t: TABLES[t].empty() for t in tables}, crops={}, captions={}, vocabularies={}
    )
    text = Page(render_report(empty)).text
    assert "0 pictures to train on, 0 held out, of 0." in text
    assert "There are no captions yet." in text


def test_a_grid_that_is_gone_is_a_warning(results):
    path = results.evaluation_grids.path.iloc[0]
    (results.root / path).unlink()
    page = Page(render_report(results))
    assert f"the grid {path} is gone: run the job compare again" in page.text


def test_pictures_share_the_room(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (700, 1100, 3), dtype=np.uint8)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path in paths:
        Image.fromarray(noise).save(path, compress_level=1)
    for room in (300_000, 2_400_000):
        made = shrunk(paths, at_most=room)
        assert sum(map(len, made)) <= room
        assert 300 <= picture(made[0], "noise").width <= 1100
    assert picture(shrunk(paths[:1], at_most=50_000_000)[0], "noise").width == 1100  # never made smaller for nothing


def test_curations_with_unreached_shares_within_tolerance_are_not_warned_of(results):
    rows = results.training_set.assign(text=True).to_dict("records")
    text = Page(render_report(dataclasses.replace(results, training_set=frame("training_set", rows)))).text
    assert "the share of solo" not in text
    assert "the share of text is 100.0%, wanted 90.0%" in text


def test_peoples_verdicts_stand_there_once_somebody_voted(results, page_text):
    assert "People's verdicts" not in page_text
    voted = with_people(results)
    text = Page(render_report(voted)).text
    assert "by x, y, z, without names on the pictures" in text
    assert "a-20 75 % 50–90 % 3 1, 4" in text
    assert "b-20 " not in text.split("chance to win 95 % interval")[1].split("These groups")[0]
    assert "These groups never met" in text
    assert "a-10, b-10; a-20, b-20." in " ".join(text.split()).replace(" ; ", "; ").replace(" .", ".")
    met = voted.votes[voted.votes["first"] == "a-20"]
    assert "never met" not in Page(render_report(dataclasses.replace(voted, votes=met))).text


def test_mismatches_are_counted_for_every_value_in_its_order(results, page_text):
    found = {
        (table.axis, checkpoint): (table.values, [(count.wrong, count.pictures) for count in counts])
        for table in mismatches_by_value(results)
        for checkpoint, counts in table.checkpoints
    }
    # The fixture gets the first pictures wrong: both seeds of the first value, then those of the second.
    assert found == {
        (axis, f"{variant}-{step}"): (AXES[axis], [(min(wrong, 2), 2), (max(wrong - 2, 0), 2)])
        for (axis, variant), counts in WRONG.items()
        for step, wrong in zip((10, 20), counts, strict=True)
    }
    assert [count.quarter for count in (ValueCount(0, 9), ValueCount(1, 9), ValueCount(3, 6), ValueCount(9, 9))] == [
        0,
        1,
        2,
        4,
    ]
    told = " ".join(page_text.split())
    assert re.search(r"species\W+checkpoint wolf tiger a-10 2 1 ", told)
