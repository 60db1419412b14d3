from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageDraw

from ti_pipeline.evaluation.grids import (
    Layout,
    _plans,
    _row_label,
    draw_grid,
    layout_of,
    write_grids,
    write_label,
)

SHAPES = [(1, 1), (1, 12), (3, 5), (7, 2), (20, 12)]
LONG = "a very long label with supercalifragilisticexpialidocious words, commas and more than fits into one cell"


def boxes(layout: Layout) -> list[tuple[int, int, int, int]]:
    return [layout.title, *layout.columns, *layout.rows, *(box for row in layout.cells for box in row)]


def overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile", [16, 64, 512])
def test_no_two_boxes_overlap_and_all_lie_inside(shape: tuple[int, int], tile: int) -> None:
    layout = layout_of(*shape, tile)
    found = boxes(layout)
    for box in found:
        assert 0 <= box[0] < box[2] <= layout.size[0]
        assert 0 <= box[1] < box[3] <= layout.size[1]
    assert not any(overlap(a, b) for i, a in enumerate(found) for b in found[i + 1 :])


@pytest.mark.parametrize("text", ["wolf", LONG, "x" * 300, "狗 and 🐺", "a\tb\nc", ""])
@pytest.mark.parametrize("box", [(10, 10, 110, 60), (10, 10, 60, 34)])
def test_ink_stays_inside_its_box(text: str, box: tuple[int, int, int, int]) -> None:
    picture = Image.new("RGB", (130, 90), "white")
    write_label(ImageDraw.Draw(picture), box, text, 14)
    inked = Image.eval(picture.convert("L"), lambda value: 255 - value).getbbox()
    if inked is not None:
        assert inked[0] >= box[0]
        assert inked[1] >= box[1]
        assert inked[2] <= box[2]
        assert inked[3] <= box[3]


def test_letters_without_a_glyph_are_written_as_their_code() -> None:
    plain, coded = (Image.new("RGB", (300, 40), "white") for _ in range(2))
    write_label(ImageDraw.Draw(plain), (0, 0, 300, 40), "狗", 14)
    write_label(ImageDraw.Draw(coded), (0, 0, 300, 40), "U+72D7", 14)
    assert plain.tobytes() == coded.tobytes()


def test_pictures_stand_where_their_row_and_column_say(tmp_path: Path) -> None:
    colours = {(r, c): (40 * r + 10, 50 * c + 10, 90) for r in range(2) for c in range(3)}
    for (r, c), colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{r}{c}.png")
    pictures = [[tmp_path / f"{r}{c}.png" for c in range(3)] for r in range(2)]
    grid = draw_grid(pictures, row_labels=["a", "b"], column_labels=["x", "y", "z"], title="t", tile=64)
    for (r, c), colour in colours.items():
        left, top, right, bottom = layout_of(2, 3, 64).cells[r][c]
        assert grid.getpixel(((left + right) // 2, (top + bottom) // 2)) == colour


def images(tmp_path: Path) -> pd.DataFrame:
    rows = []
    for variant in ("v8", "v16"):
        for step in (100, 200):
            for value in ("wolf", "lion"):
                path = tmp_path / f"{variant}-{step}-{value}.png"
                Image.new("RGB", (64, 64)).save(path)
                rows.append(
                    {
                        "cell": path.stem,
                        "variant": variant,
                        "checkpoint": f"{variant}-{step}",
                        "step": step,
                        "axis": "species",
                        "value": value,
                        "seed": 6,
                        "sampler": "DDIM",
                        "steps": 20,
                        "cfg": 7.0,
                        "size": 64,
                        "prompt": f"ember, {value} / with: *every* sign?",
                        "path": path.name,
                    }
                )
    return pd.DataFrame(rows)


def test_a_study_gets_grids_per_variant_and_one_across(tmp_path: Path) -> None:
    table = write_grids("s", images(tmp_path), root=tmp_path, folder="grids", title="S")
    assert table.variant.tolist() == ["v8", "v16", "best"]
    assert table[["rows", "columns"]].to_numpy().tolist() == [[2, 2], [2, 2], [2, 2]]
    assert table.grid[0] == "xy_grid-0001-6-v8_ember_wolf_with_every_sign"
    assert all((tmp_path / path).exists() for path in table.path)


def test_one_sampler_with_two_settings_gives_two_grids(tmp_path: Path) -> None:
    pictures = images(tmp_path).query("variant == 'v8'")
    both = pd.concat([pictures, pictures.assign(cfg=9.0, cell=pictures.cell + "-9")])
    table = write_grids("s", both, root=tmp_path, folder="grids", title="S")
    assert len(table) == 2
    titles = []
    for path in table.path:
        with Image.open(tmp_path / path) as grid:
            titles.append(grid.info["Title"])
    assert titles == [f"s: S · species · seed 6 · DDIM, 20 steps, CFG {cfg} · 64 px" for cfg in (7, 9)]


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    once, again = (write_grids("s", pictures, root=tmp_path, folder=f, title="S") for f in ("one", "two"))
    assert [(tmp_path / p).read_bytes() for p in once.path] == [(tmp_path / p).read_bytes() for p in again.path]


def test_huge_grids_stay_below_what_programs_open() -> None:
    width, height = layout_of(40, 30, 768).size
    assert width * height < Image.MAX_IMAGE_PIXELS


def test_row_labels_count_mismatches_of_their_own_grid(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    scores = pictures.assign(metric="match", score=[0.0, 1.0] * 4, read_as="x")
    with_scores, without = (
        write_grids("s", pictures, root=tmp_path, folder=folder, title="S", scores=found)
        for folder, found in (("with", scores), ("without", None))
    )
    assert with_scores.grid.tolist() == without.grid.tolist()
    plan = next(_plans(pictures))
    assert [_row_label(name, plan, scores) for name in plan.checkpoints] == [
        "v8-100 mismatches: 1",
        "v8-200 mismatches: 1",
    ]


def test_a_missing_picture_is_counted_and_old_grids_go(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    write_grids("s", pictures, root=tmp_path, folder="grids", title="S")
    (tmp_path / pictures.path[0]).unlink()
    table = write_grids("s", pictures[pictures.variant == "v8"], root=tmp_path, folder="grids", title="S")
    assert table.missing.tolist() == [1]
    assert len(list((tmp_path / "grids").iterdir())) == 1
