import numpy as np
import pandas as pd
from PIL import Image

from ti_pipeline.imaging.agreement import QUESTIONS, agreement, as_markdown
from ti_pipeline.imaging.audit import audit_images
from ti_pipeline_tests.imaging.pictures import subject_scene
from ti_pipeline_tests.imaging.tables import images_table, tags_table


def test_every_picture_falls_into_one_cell():
    audit = pd.DataFrame(
        [
            (n, "ok", simple, detail, frames, lettering)
            for n, simple, detail, frames, lettering in (
                (1, 0.9, 5.0, 1, 0.0),
                (2, 0.9, 1.0, 1, 0.0),
                (3, 0.1, 5.0, 1, 0.02),
                (4, 0.1, 1.0, 2, 0.02),
            )
        ]
        + [(5, "failed", None, None, None, None)],
        columns=["post_id", "status", "simple_background", "detail", "frames", "lettering"],
    )
    tags = tags_table(
        {1: ["white_background"], 2: [], 3: ["simple_background", "english_text"], 4: ["sketch"], 5: ["animated"]}
    )
    table = agreement(audit, tags).set_index("question")
    assert table.index.tolist() == [question.name for question in QUESTIONS]
    assert (table[["both", "only_pixels", "only_tags", "neither"]].sum(axis=1) == 4).all()
    row = table.loc["simple_background"]
    assert (row.both, row.only_pixels_posts, row.only_tags_posts, row.neither) == (1, [2], [3], 1)
    row = table.loc["sketch"]
    assert (row.both, row.only_pixels_posts, row.only_tags, row.neither) == (1, [2], 0, 2)
    row = table.loc["lettering"]
    assert (row.both, row.only_pixels_posts, row.only_tags, row.neither) == (1, [4], 0, 2)
    lines = as_markdown(agreement(audit, tags)).splitlines()
    assert lines[2] == "| simple_background | 1 | 1 | 1 | 1 | 2 | 3 |"
    assert {line.count("|") for line in lines} == {8}
    assert table.loc["animated"].only_pixels_posts == [4]


def test_a_mistagged_picture_is_found(tmp_path):
    subject_scene(300, 200, (100, 50, 200, 150), grain=0).save(tmp_path / "plain.png")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "busy.png")
    audit = audit_images(images_table({1: "plain.png", 2: "busy.png"}), root=tmp_path)
    row = agreement(audit, tags_table({2: ["simple_background"]})).set_index("question").loc["simple_background"]
    assert (row.only_pixels_posts, row.only_tags_posts) == ([1], [2])


def test_no_pictures_give_a_table_of_zeros():
    measures = ["simple_background", "detail", "frames", "lettering"]
    audit = pd.DataFrame({"post_id": [1], "status": ["failed"]} | {name: [float("nan")] for name in measures})
    counts = agreement(audit, tags_table({}))
    assert counts[["both", "only_pixels", "only_tags", "neither"]].to_numpy().sum() == 0
