import hashlib

import pandas as pd
import pytest

from ti_pipeline.imaging.curation import CurationError, select_training_set
from ti_pipeline.imaging.told_by_tags import SIMPLE_BACKGROUND_TAGS, is_lettering
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Curation, Shares
from ti_pipeline_tests.shared_data import E621, needs_shared

MEASURED = {"format": "PNG", "frames": 1, "width": 512, "height": 512}
MEASURED |= {"sharpness": 100.0, "detail": 6.0, "lettering": 0.0, "simple_background": 0.0}


class Collection:
    """Posts with tags and audit rows, as the tables that curation reads."""

    def __init__(self):
        self.posts, self.tags, self.images, self.audits = [], [], [], []

    def add(self, post_id, *tags, score=0, rating="s", status="ok", reason="", duplicate_of=None, **measured):
        self.posts.append((post_id, "kept", score, rating))
        self.tags += [(post_id, tag, "general") for tag in tags]
        self.images.append((post_id, f"images/{post_id}.png" if status == "ok" else None))
        known = dict.fromkeys(MEASURED) if status != "ok" else MEASURED | measured
        self.audits.append(
            {"post_id": post_id, "status": status, "reason": reason, "duplicate_of": duplicate_of} | known
        )
        return self

    def select(self, seed=0, **curations):
        posts = pd.DataFrame(self.posts, columns=["post_id", "status", "score", "rating"]).astype({"score": "Int64"})
        tags = pd.DataFrame(self.tags, columns=["post_id", "tag", "category"])
        images = pd.DataFrame(self.images, columns=["post_id", "path"])
        whole = dict.fromkeys(("width", "height", "frames", "duplicate_of"), "Int64")
        audit = pd.DataFrame(self.audits, columns=[*("post_id", "status", "reason", "duplicate_of"), *MEASURED])
        audit = audit.astype(whole | dict.fromkeys(("sharpness", "detail", "lettering", "simple_background"), float))
        self.warnings = []
        table = select_training_set(posts, tags, images, audit, curations, seed=seed, warn=self.warnings.append)
        assert TABLES["training_set"].problems(table) == []
        return table


def reasons(table):
    return dict(zip(table.post_id, table.reason, strict=True))


def test_each_filter_leaves_its_reason():
    pictures = Collection()
    pictures.add(1, "wolf", "solo", score=10)
    pictures.add(2, status="failed", reason="the file is empty")
    pictures.add(3, "solo", score=10)
    pictures.add(4, "wolf", "sketch", score=10)
    pictures.add(5, "wolf", score=4)
    pictures.add(6, "wolf", score=None)
    pictures.add(7, "wolf", score=10, height=99)
    pictures.add(8, "wolf", score=10, width=401, height=200)
    pictures.add(9, "wolf", score=10, sharpness=29.0)
    pictures.add(10, "wolf", score=5, width=400, height=200, sharpness=30.0)
    pictures.add(11, "wolf", score=10, detail=1.9)
    pictures.add(12, "wolf", score=10, detail=2.0, lettering=0.1)
    pictures.add(13, "wolf", score=10, lettering=0.11)
    pictures.add(14, "wolf", score=10, format="BMP")
    pictures.add(15, "wolf", score=10, frames=2)
    pictures.add(16, "wolf", score=10, rating="q")
    pictures.add(17, "wolf", "duo", score=10)
    for tags in pictures.tags[:]:
        if tags[1] == "wolf" and tags[0] != 17:
            pictures.tags.append((tags[0], "solo", "general"))
    rules = {"require_tags": ["Wolf"], "forbid_tags": ["sketch"], "min_score": 5, "min_side": 100, "min_detail": 2}
    rules |= {"max_lettering": 0.1, "formats": ["PNG", "JPEG"], "animations": False, "ratings": ["s"], "solo": True}
    table = pictures.select(default=Curation(**rules, max_aspect=2, min_sharpness=30))
    assert reasons(table) == {
        1: "",
        2: "the file is empty",
        3: "lacks the required tag wolf",
        4: "has the forbidden tag sketch",
        5: "score below 5",
        6: "score unknown (at least 5 is wanted)",
        7: "shorter side below 100 px",
        8: "longer than 2 times its shorter side",
        9: "sharpness below 30",
        10: "",
        11: "detail below 2 bits",
        12: "",
        13: "lettering on more than 0.1 of it",
        14: "format is none of PNG, JPEG",
        15: "is an animation",
        16: "rating is none of s",
        17: "is not tagged solo",
    }
    assert table.kept.tolist() == [reason == "" for reason in table.reason]
    assert (table.split[~table.kept] == "out").all()


def test_a_single_pixel_is_left_out_by_the_default_curation():
    pictures = Collection().add(1, width=1, height=1).add(2)
    assert reasons(pictures.select(default=Curation())) == {1: "shorter side below 64 px", 2: ""}


def test_one_of_each_duplicate_group_stays_the_best_scored_that_passes():
    pictures = Collection().add(1, score=1).add(2, score=9, duplicate_of=1).add(3, score=5, duplicate_of=1)
    pictures.add(4, score=0, width=30, height=30).add(5, score=0, duplicate_of=4)
    kept = pictures.select(default=Curation()).set_index("post_id").kept
    assert kept[kept].index.tolist() == [2, 5]
    assert pictures.select(default=Curation(drop_duplicates=False)).kept.sum() == 4


def test_the_best_scored_take_the_places_smaller_ids_first():
    pictures = Collection()
    for post_id, score in ((8, 3), (2, 3), (5, 7), (6, None), (4, -1)):
        pictures.add(post_id, score=score)
    table = pictures.select(two=Curation(images=2), four=Curation(images=4))
    assert table[table.kept].groupby("curation").post_id.agg(sorted).to_dict() == {"two": [2, 5], "four": [2, 4, 5, 8]}
    assert table.curation.tolist() == ["two"] * 5 + ["four"] * 5


def test_target_shares_are_met():
    pictures = Collection()
    for post_id in range(40):
        tags = [t for t, every in (("solo", 2), ("english_text", 5), ("white_background", 3)) if post_id % every == 0]
        pictures.add(post_id, *tags, score=post_id)
    shares = Shares(text=0.0, solo=0.75, simple_background=0.5)
    table = pictures.select(default=Curation(images=12, shares=shares, share_tolerance=0))
    kept = table[table.kept]
    assert len(kept) == 12
    assert (kept.text.sum(), kept.solo.sum(), kept.simple_background.sum()) == (0, 9, 6)
    assert set(table.reason[~table.kept]) == {"no room: pictures that meet the target shares take the 12 places"}


def test_shares_that_nothing_has_say_what_is_there():
    pictures = Collection()
    for post_id in range(20):
        pictures.add(post_id, *(["solo"] if post_id < 5 else []))
    wanted = Curation(shares=Shares(solo=0.9), share_tolerance=0.1, min_images=10)
    with pytest.raises(CurationError) as error:
        pictures.select(few=wanted)
    for words in ("'few'", "solo 0.9 (on 5 of 20 pictures)", "at most 6 pictures", "min_images is 10", "solo 0.5"):
        assert words in str(error.value)


def test_too_few_pictures_say_why():
    pictures = Collection().add(1, width=10).add(2, width=10).add(3, status="failed", reason="the file is empty")
    with pytest.raises(CurationError, match="0 of 3 pictures") as error:
        pictures.select(default=Curation())
    assert "2 × shorter side below 64 px; 1 × the file is empty" in str(error.value)
    with pytest.raises(CurationError, match="0 of 0 pictures"):
        Collection().select(default=Curation())


@pytest.mark.parametrize(
    ("count", "share", "held_out"), [(9, 0.1, 0), (10, 0.1, 1), (19, 0.1, 1), (3, 0.5, 1), (30, 0, 0)]
)
def test_held_out_pictures(count, share, held_out):
    pictures = Collection()
    for post_id in range(count):
        pictures.add(post_id)
    table = pictures.select(seed=4, default=Curation(validation_share=share))
    assert (table.split == "validation").sum() == held_out
    assert (table.split == "train").sum() == count - held_out
    order = sorted(range(count), key=lambda i: hashlib.sha256(f"4:{i}".encode()).hexdigest())
    assert set(table.post_id[table.split == "validation"]) == set(order[:held_out])


def test_tags_decide_the_flags():
    pictures = Collection().add(1, "solo", "grey_background").add(2, "text_on_shirt").add(3, "signature", "watermark")
    table = pictures.select(default=Curation())
    assert table.solo.tolist() == [True, False, False]
    assert table.simple_background.tolist() == [True, False, False]
    assert table.text.tolist() == [False, True, False]


@needs_shared
def test_tag_lists_agree_with_the_sites_implications():
    rows = pd.read_csv(E621 / "tag_implications_2025-05-01_strict.csv")
    active = rows[rows.status == "active"]

    def implying(tag):
        found, open_ = set(), {tag}
        while open_:
            new = set(active.antecedent_name[active.consequent_name.isin(open_)]) - found
            found, open_ = found | new, new
        return found

    assert implying("simple_background") | {"simple_background"} == SIMPLE_BACKGROUND_TAGS
    counts = pd.read_csv(E621 / "e621_tags_2026-04-01_strict.csv").set_index("name").post_count
    lettering = {tag: counts.get(tag, 0) for tag in implying("text")}
    missed = {tag: count for tag, count in lettering.items() if not is_lettering(tag)}
    assert sum(missed.values()) < 0.01 * sum(lettering.values()), missed


def test_shares_that_leave_few_pictures_say_so_and_which_one_binds():
    pictures = Collection()
    for n in range(500):
        pictures.add(n, "solo", *(["white_background"] if n < 10 else []))
    few = Curation(images=300, shares=Shares(solo=1.0, simple_background=1.0))
    assert pictures.select(few=few).kept.sum() == 10
    assert pictures.warnings == [
        "curation 'few': only 10 of the 300 pictures asked for have the target shares within ±0.05; what binds is "
        "simple_background: without it there would be 300"
    ]
    pictures.select(half=Curation(images=20, shares=Shares(solo=1.0, simple_background=1.0)))
    assert pictures.warnings == []


def test_pixels_steer_shares_of_pictures_without_tags():
    pictures = Collection()
    for n in range(40):
        pictures.add(n, simple_background=0.9 if n < 10 else 0.1, lettering=0.2 if n % 2 else 0.0)
    shares = Shares(simple_background=0.5, text=0.0)
    seen = pictures.select(seen=Curation(shares=shares, shares_from="pixels", share_tolerance=0))
    kept = seen[seen.kept]
    assert sorted(kept.post_id) == [*range(0, 10, 2), *sorted(set(kept.post_id) - set(range(10)))]
    assert (len(kept), kept.simple_background.sum(), kept.text.sum()) == (10, 5, 0)
    with pytest.raises(CurationError, match=r"simple_background 0.5 \(on 0 of 40 pictures\)"):
        pictures.select(told=Curation(shares=shares))
