import json

import pandas as pd
from PIL import Image

from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.exports import write_dataset
from ti_pipeline_tests.tagging.test_captions import made

TAGS = {
    7: {"species": ["wolf_(species)"], "general": ["blue_eyes", "hat"]},
    8: {"species": ["fox"], "general": ["b\u00e9ret"]},
    9: {},
}


def pictures(root, *posts: int) -> pd.DataFrame:
    for post in posts:
        path = root / f"crops/s/512/{post}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (post, 0, 0)).save(path)
    return pd.DataFrame({"post_id": posts, "path": [f"crops/s/512/{post}.png" for post in posts]})


def test_each_picture_has_its_sidecar_and_its_line(tmp_path):
    captions, _ = made(TAGS, CaptionPlan(parentheses="escaped"))
    folder = tmp_path / "exports/s/v"
    assert write_dataset(captions, pictures(tmp_path, 9, 7, 8), tmp_path, folder) == 3
    assert sorted(path.name for path in folder.iterdir()) == [
        "7.png", "7.txt", "8.png", "8.txt", "9.png", "9.txt", "metadata.jsonl",
    ]  # fmt: skip
    assert (folder / "7.txt").read_text(encoding="utf-8") == "wolf \\(species\\), blue eyes, hat"
    assert (folder / "8.txt").read_text(encoding="utf-8") == "fox, b\u00e9ret"
    assert (folder / "9.txt").read_text(encoding="utf-8") == ""
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["file_name"] for line in lines] == ["7.png", "8.png", "9.png"]
    assert lines[0] == {
        "file_name": "7.png",
        "text": "wolf \\(species\\), blue eyes, hat",
        "tags": ["wolf_(species)", "blue_eyes", "hat"],
    }
    assert (folder / "8.png").read_bytes() == (tmp_path / "crops/s/512/8.png").read_bytes()


def test_a_second_export_leaves_nothing_of_the_first(tmp_path):
    captions, _ = made(TAGS, CaptionPlan())
    folder = tmp_path / "out"
    write_dataset(captions, pictures(tmp_path, 7, 8), tmp_path, folder)
    assert write_dataset(captions, pictures(tmp_path, 8, 11), tmp_path, folder) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["8.png", "8.txt", "metadata.jsonl"]
