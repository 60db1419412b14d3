import hashlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.imaging.audit import audit_images
from ti_pipeline.imaging.duplicates import Look, duplicates_of
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.imaging.pictures import drawing
from ti_pipeline_tests.imaging.tables import images_table, tags_table
from ti_pipeline_tests.shared_data import PICTURES, needs_shared


def jpeg(picture, quality):
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def test_good_and_bad_pictures_each_have_their_row(tmp_path):
    drawing(200, 100).save(tmp_path / "good.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(jpeg(drawing(), 90)[:3000])
    paths = {7: "good.png", 3: "empty.png", 5: "cut.jpg", 4: None, 9: None}  # nobody wants the dropped post's picture
    table = images_table(paths, ["ok", "ok", "ok", "failed", "dropped"])
    seen = []
    audit = audit_images(table, root=tmp_path, progress=lambda *step: seen.append(step))
    assert TABLES["image_audit"].problems(audit) == []
    assert audit.post_id.tolist() == [7, 3, 5, 4]
    assert audit.status.tolist() == ["ok", "failed", "failed", "failed"]
    assert audit.reason[1] == "the file is empty"
    assert audit.reason[2].startswith("truncated")
    assert audit.reason[3] == "no picture: gone"
    assert (audit.width[0], audit.height[0], audit["format"][0]) == (200, 100, "PNG")
    assert seen == [(n, 4, "pictures audited") for n in (1, 2, 3, 4)]


def test_tags_tell_how_many_subjects_there_are(tmp_path):
    tags = {1: ["solo", "wolf"], 2: ["solo", "duo"], 3: ["group"], 4: ["zero_pictured"], 5: ["wolf"], 6: []}
    for number in tags:
        drawing(seed=number).save(tmp_path / f"{number}.png")
    table = images_table({number: f"{number}.png" for number in tags})
    audit = audit_images(table, tags_table(tags), root=tmp_path)
    assert TABLES["image_audit"].problems(audit) == []
    assert [None if pd.isna(number) else number for number in audit.subjects] == [1, 2, 3, 0, None, None]
    assert audit_images(table, root=tmp_path).subjects.isna().all()


def test_an_empty_table_gives_an_empty_audit(tmp_path):
    audit = audit_images(TABLES["images"].empty(), root=tmp_path)
    assert len(audit) == 0
    assert TABLES["image_audit"].problems(audit) == []


def test_copies_are_found_whatever_was_done_to_them(tmp_path):
    source = drawing(400, 300, seed=1)
    source.save(tmp_path / "source.png")
    source.resize((150, 112)).save(tmp_path / "small.png")
    (tmp_path / "poor.jpg").write_bytes(jpeg(source, 40))
    source.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    red, green, blue = source.split()
    Image.merge("RGB", (blue, green, red)).save(tmp_path / "recoloured.png")
    drawing(400, 300, seed=2).save(tmp_path / "other.png")
    names = ["small.png", "source.png", "poor.jpg", "mirrored.png", "recoloured.png", "other.png"]
    audit = audit_images(images_table(dict(zip([12, 11, 13, 14, 15, 16], names, strict=True))), root=tmp_path)
    found = dict(zip(audit.post_id, audit.duplicate_of, strict=True))
    assert {k: v for k, v in found.items() if not pd.isna(v)} == {12: 11, 13: 11, 14: 11}


def test_duplicates_never_join_through_a_chain():
    """Three hashes, neighbours 8 bits apart: the third is near the second, which is itself a copy of the first."""
    flat = np.zeros((16, 16, 3), dtype=np.int16)
    looks = [Look(hash_, 2**64 - 1 - hash_, flat) for hash_ in (0x0, 0xFF, 0xFFFF)]
    assert duplicates_of([1, 2, 3], looks) == {2: 1}
    assert duplicates_of([2, 1, 3], looks) == {2: 1, 3: 1}


def test_duplicates_equal_a_plain_search():
    random = np.random.default_rng(5)
    ids = random.permutation(700).tolist()
    seeds = random.integers(0, 2**63, 40, dtype=np.int64).tolist()
    flat = np.zeros((16, 16, 3), dtype=np.int16)
    hashes = [seeds[i % 40] ^ sum(1 << int(b) for b in random.choice(63, int(random.integers(0, 8)))) for i in ids]
    looks = [Look(value, 2**64 - 1 - value, flat) for value in hashes]
    expected, originals = {}, []
    for post_id, look in sorted(zip(ids, looks, strict=True), key=lambda pair: pair[0]):
        near = [i for i, h in originals if (h ^ look.phash).bit_count() <= 8 or (h ^ look.mirrored).bit_count() <= 8]
        if near:
            expected[post_id] = near[0]
        else:
            originals.append((post_id, look.phash))
    assert duplicates_of(ids, looks) == expected
    assert len(expected) > 400


@needs_shared
def test_real_pictures():
    paths = sorted(PICTURES.glob("*/*.png"))[::7]
    sidecars = [json.loads(path.with_name(path.name + ".json").read_text()) for path in paths]
    table = images_table({s["id"]: p.relative_to(PICTURES).as_posix() for s, p in zip(sidecars, paths, strict=True)})
    audit = audit_images(table, root=PICTURES).set_index("post_id")
    assert len(audit) > 50
    assert (audit.status == "ok").all()
    for sidecar, path in zip(sidecars, paths, strict=True):
        row = audit.loc[sidecar["id"]]
        assert (row.width, row.height) == (sidecar["file"]["width"], sidecar["file"]["height"]), path.name
        assert hashlib.md5(path.read_bytes()).hexdigest() == sidecar["file"]["md5"]
    # Every one is tagged simple_background.
    assert (audit.simple_background > 0.1).mean() > 0.95
    assert audit.sharpness.min() > 20


@needs_shared
def test_the_same_drawing_under_two_names_is_found_and_other_expressions_are_not():
    names = ("cat_face", "grinning_cat", "pouting_cat", "ewe", "ram", "leopard", "tiger")
    audit = audit_images(
        images_table({i: f"fluent-emoji-flat/{name}.png" for i, name in enumerate(names)}), root=PICTURES
    )
    copies = audit.duplicate_of.dropna()
    same = (PICTURES / "fluent-emoji-flat/cat_face.png", PICTURES / "fluent-emoji-flat/grinning_cat.png")
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in same]
    assert np.abs(pixels[0].astype(int) - pixels[1]).mean() == pytest.approx(0, abs=0.5)
    assert copies.to_dict() == {1: 0}
