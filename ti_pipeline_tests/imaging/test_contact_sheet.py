import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.imaging.contact_sheet import contact_sheet, kept_and_rejected_sheet
from ti_pipeline_tests.imaging.pictures import drawing


def pixels(sheet):
    picture = Image.open(io.BytesIO(sheet))
    assert picture.format == "JPEG"
    return np.asarray(picture, dtype=int)


def test_each_picture_stands_in_its_tile(tmp_path):
    colours = [(200, 30, 30), (30, 160, 30), (30, 30, 200)]
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path, colour in zip(paths, colours, strict=True):
        Image.new("RGB", (300, 300), colour).save(path)
    sheet = pixels(contact_sheet(paths, columns=2, tile=50))
    assert sheet.shape == (2 * 54 + 4, 2 * 54 + 4, 3)
    for (x, y), colour in zip([(29, 29), (83, 29), (29, 83)], colours, strict=True):
        assert np.abs(sheet[y, x] - colour).max() < 12
    assert sheet[83, 83].min() > 240


def test_a_missing_or_broken_picture_is_a_grey_tile_with_words(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for name in ("gone.png", "broken.png"):
        sheet = pixels(contact_sheet([tmp_path / name], tile=96))
        assert np.abs(sheet[10, 10] - 214).max() < 5
        assert sheet[40:60, 30:70].min() < 120  # letters


def test_labels_add_a_line_and_must_be_as_many(tmp_path):
    path = tmp_path / "a.png"
    drawing(100, 100).save(path)
    plain, labelled = (
        pixels(contact_sheet([path], labels=words)) for words in (None, ["a very long label indeed " * 3])
    )
    assert labelled.shape[0] == plain.shape[0] + 14
    assert labelled.shape[1] == plain.shape[1]
    assert labelled[-16:].min() < 120
    with pytest.raises(ValueError, match="2 labels for 1 pictures"):
        contact_sheet([path], labels=["a", "b"])


def test_48_tiles_stay_small_and_none_is_possible(tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(48)]
    for n, path in enumerate(paths):
        drawing(256, 256, seed=n).save(path)
    assert len(contact_sheet(paths)) < 150_000
    assert pixels(contact_sheet([])).min() < 120


def test_kept_and_left_out_pictures_are_shown_with_reasons(tmp_path):
    rows = []
    for n in range(30):
        kept = n % 3 > 0
        drawing(64, 64, seed=n).save(tmp_path / f"{n}.png")
        rows.append(("default", n, kept, "" if kept else "score below 5", f"{n}.png" if n else None))
    table = pd.DataFrame(rows, columns=["curation", "post_id", "kept", "reason", "path"])
    one = pixels(kept_and_rejected_sheet(table, tmp_path))
    # Two headings; 20 kept pictures in three rows, 9 left out in two (the tenth has no file), 8 a row.
    assert one.shape == (2 * 22 + (3 * 114 + 4) + (2 * 114 + 4), 8 * 100 + 4, 3)
    two = pd.concat([table, table.assign(curation="second")])
    assert pixels(kept_and_rejected_sheet(two, tmp_path)).shape[0] > one.shape[0]
    assert len(kept_and_rejected_sheet(table.iloc[:0], tmp_path)) > 0
