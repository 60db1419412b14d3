import json

import pandas as pd
from PIL import Image

from ti_pipeline.imaging.alpha import write_alpha
from ti_pipeline.studies import CaptionPlan
from ti_pipeline.tagging.exports import write_dataset, write_masks
from ti_pipeline.tagging.pieces import for_web_uis
from ti_pipeline_tests.tagging.test_captions import made

TAGS = {
    7: {"species": ["wolf_(species)"], "general": ["blue_eyes", "hat"]},
    8: {"species": ["fox"], "general": ["b\u00e9ret"]},
    9: {},
}


def pictures(root, *posts: int, crop_set: str = "512", transparent: int | None = None) -> pd.DataFrame:
    rows = []
    for post in posts:
        path = root / f"crops/s/{crop_set}/{post}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 6), (post, 0, 0)).save(path)
        alpha = write_alpha(Image.new("L", (4, 6), 90) if post == transparent else None, path)
        rows.append((post, crop_set, f"crops/s/{crop_set}/{post}.png", 4, 6, alpha))
    return pd.DataFrame(rows, columns=["post_id", "crop_set", "path", "width", "height", "alpha_sha256"])


def files_in(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def kohya_reads(path) -> str:
    """What `read_caption` of kohya's sd-scripts (library/train_util.py) makes of a caption file."""
    with path.open(encoding="utf-8") as stream:
        lines = stream.readlines()
    assert len(lines) > 0, "caption file is empty"
    return lines[0].strip()


def test_each_picture_has_its_sidecar_and_its_line(tmp_path):
    captions, _ = made(TAGS, CaptionPlan(parentheses="escaped"))
    folder = tmp_path / "exports/s/v"
    assert write_dataset(captions, pictures(tmp_path, 9, 7, 8), tmp_path, folder, wording=for_web_uis) == 3
    assert files_in(folder) == ["7.png", "7.txt", "8.png", "8.txt", "9.png", "9.txt", "metadata.jsonl"]
    assert kohya_reads(folder / "7.txt") == "wolf \\(species\\), blue eyes, hat"
    assert kohya_reads(folder / "8.txt") == "fox, b\u00e9ret"
    assert kohya_reads(folder / "9.txt") == ""
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["file_name"] for line in lines] == ["7.png", "8.png", "9.png"]
    assert lines[0] == {
        "file_name": "7.png",
        "text": "wolf \\(species\\), blue eyes, hat",
        "tags": ["wolf_(species)", "blue_eyes", "hat"],
    }
    assert lines[2]["text"] == ""
    assert (folder / "8.png").read_bytes() == (tmp_path / "crops/s/512/8.png").read_bytes()


def test_a_second_export_leaves_nothing_of_the_first(tmp_path):
    captions, _ = made(TAGS, CaptionPlan())
    folder = tmp_path / "out"
    write_dataset(captions, pictures(tmp_path, 7, 8), tmp_path, folder)
    assert write_dataset(captions, pictures(tmp_path, 8, 11), tmp_path, folder) == 1
    assert files_in(folder) == ["8.png", "8.txt", "metadata.jsonl"]


def test_each_stage_has_its_own_crops_in_a_folder(tmp_path):
    captions, _ = made(TAGS, CaptionPlan())
    folder = tmp_path / "out"
    both = pd.concat([pictures(tmp_path, 7, 8), pictures(tmp_path, 7, crop_set="wide")])
    assert write_dataset(captions, both, tmp_path, folder) == 3
    assert files_in(folder) == [
        *("512/7.png", "512/7.txt", "512/8.png", "512/8.txt", "metadata.jsonl", "wide/7.png", "wide/7.txt")
    ]
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all((folder / line["file_name"]).is_file() for line in lines)
    write_dataset(captions, pictures(tmp_path, 7), tmp_path, folder)
    assert files_in(folder) == ["7.png", "7.txt", "metadata.jsonl"]
    assert not (folder / "wide").exists()


def test_masks_are_there_for_all_pictures_if_any_is_transparent(tmp_path):
    folder = tmp_path / "masks"
    assert write_masks(pictures(tmp_path, 7, 8, transparent=8), tmp_path, folder) == 2
    assert files_in(folder) == ["7.png", "8.png"]
    for name, value in (("7.png", 255), ("8.png", 90)):
        with Image.open(folder / name) as mask:
            assert (mask.mode, mask.size, mask.getextrema()) == ("L", (4, 6), (value, value))
    assert write_masks(pictures(tmp_path, 7, 8), tmp_path, folder) == 0
    assert not folder.exists()
