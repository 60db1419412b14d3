import itertools
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from ti_pipeline.evaluation import grids
from ti_pipeline.evaluation.grid_plans import best_steps, plan_grids, with_versions
from ti_pipeline.evaluation.grids import Labels, Layout, draw_grid, layout_of, row_label, write_grids
from ti_pipeline.evaluation.infotext import infotext, parse_infotext, write_png
from ti_pipeline.evaluation.suites import SuiteError
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Study

SHAPES = [(1, 1), (1, 12), (3, 5), (7, 2), (20, 12)]
LONG = "a very long label with supercalifragilisticexpialidocious words, 狗 and 🐺, more than fits into one cell"


def labels(rows: int, columns: int, text: str = LONG, notes: bool = False) -> Labels:
    lines = [[f"match 1 · {text}"] * columns] * rows if notes else []
    return Labels(
        f"{text} {text}", [f"{r} {text}" for r in range(rows)], [f"{c} {text}" for c in range(columns)], lines
    )


def boxes(layout: Layout) -> list[tuple[int, int, int, int]]:
    inner = (box for row in (*layout.cells, *layout.notes) for box in row)
    return [layout.title, *layout.columns, *layout.rows, *inner]


def overlap(one: tuple, other: tuple) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile", [16, 64, 512])
@pytest.mark.parametrize("notes", [False, True])
def test_no_two_boxes_overlap_and_all_lie_inside(shape: tuple[int, int], tile: int, notes: bool) -> None:
    layout = layout_of(labels(*shape, notes=notes), tile)
    found = boxes(layout)
    assert len(found) == 1 + sum(shape) + (1 + notes) * shape[0] * shape[1]
    for box in found:
        assert 0 <= box[0] < box[2] <= layout.size[0]
        assert 0 <= box[1] < box[3] <= layout.size[1]
    for one, other in itertools.combinations(found, 2):
        assert not overlap(one, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_drawn_labels_leave_the_cells_and_the_gaps_alone(shape: tuple[int, int], tmp_path: Path) -> None:
    """Rendered, not only laid out: every cell is its own colour to the edge, and between boxes there is paper."""
    path = tmp_path / "cell.png"
    Image.new("RGB", (24, 24), (10, 200, 30)).save(path)
    named = labels(*shape, notes=True)
    grid = draw_grid([[path] * shape[1]] * shape[0], named, tile=24)
    layout = layout_of(named, 24)
    rest = grid.copy()
    for box in boxes(layout):
        rest.paste((255, 255, 255), box)
    assert rest.getcolors() == [(grid.width * grid.height, (255, 255, 255))]
    for box in (box for row in layout.cells for box in row):
        assert grid.crop(box).getcolors() == [((box[2] - box[0]) * (box[3] - box[1]), (10, 200, 30))]
    for box in [layout.title, *layout.columns, *layout.rows, *(box for row in layout.notes for box in row)]:
        assert len(grid.crop(box).convert("L").getcolors() or []) > 1, "each label is written"


def test_pictures_stand_where_their_row_and_column_say(tmp_path: Path) -> None:
    colours = {(r, c): (40 * r + 10, 50 * c + 10, 90) for r in range(2) for c in range(3)}
    for (r, c), colour in colours.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{r}{c}.png")
    pictures = [[tmp_path / f"{r}{c}.png" for c in range(3)] for r in range(2)]
    named = Labels("t", ["a", "b"], ["x", "y", "z"])
    grid = draw_grid(pictures, named, tile=64)
    for (r, c), colour in colours.items():
        left, top, right, bottom = layout_of(named, 64).cells[r][c]
        assert grid.getpixel(((left + right) // 2, (top + bottom) // 2)) == colour


def test_huge_grids_stay_below_what_programs_open() -> None:
    width, height = layout_of(labels(40, 30, "x"), 768).size
    assert width * height < Image.MAX_IMAGE_PIXELS


def study(name: str = "s", **evaluation: object) -> Study:
    axes = {"species": {"prompt": "[name], wolf", "values": ["wolf", "lion"]}}
    return Study.model_validate(
        {
            "name": name,
            "source": {"kind": "demo"},
            "base_models": {"b": {}},
            "variants": {name: {"vectors": 8, "base": "b", "steps": 1} for name in ("v8", "v16")},
            "evaluation": {"axes": axes, "sizes": [64], "seeds": [6]} | evaluation,
        }
    )


CELL = {
    "axis": "species",
    "seed": 6,
    "sampler": "DDIM",
    "steps": 20,
    "cfg": 7.0,
    "size": 64,
    "clip_skip": 1,
    "base": "sd-1.5",
    "token": "ember",
    "negative": "",
}


def images(root: Path, folder: str = ".", **changes: list[object]) -> pd.DataFrame:
    """Pictures of two variants, each of two steps and values, times every combination of `changes`."""
    rows = []
    for variant, step in itertools.product(("v8", "v16"), (100, 200)):
        for value, *more in itertools.product(("wolf", "lion"), *changes.values()):
            changed = dict(zip(changes, more, strict=True))
            name = "-".join(map(str, [variant, step, value, *more])).replace(" ", "_")
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64)).save(path)
            row = CELL | {"variant": variant, "step": step, "value": value, "cell": name} | changed
            row |= {"checkpoint": f"{variant}-{step}", "embedding_sha256": f"{step:064x}"}
            rows.append(
                row
                | {
                    "prompt": f"{row['token']}, {value} / with: *every* sign?",
                    "path": path.relative_to(root).as_posix(),
                }
            )
    return pd.DataFrame(rows)


def write(of: Study, pictures: pd.DataFrame, root: Path, folder: str = "grids", **options) -> pd.DataFrame:
    told = {"title": "S", "date": "2026-11-23", "fingerprint": "f" * 64} | options
    return write_grids(plan_grids(of, pictures), root=root, folder=folder, **told)


def test_a_study_gets_grids_per_variant_and_one_across(tmp_path: Path) -> None:
    table = write(study(), images(tmp_path), tmp_path)
    assert TABLES["evaluation_grids"].problems(table) == []
    assert table.variant.tolist() == ["v8", "v16", "best"]
    assert table[["rows", "columns"]].to_numpy().tolist() == [[2, 2], [2, 2], [2, 2]]
    assert table.grid[0] == "xy_grid-0001-6-v8_ember_wolf_with_every_sign"
    assert all((tmp_path / path).exists() for path in [*table.path, *table.webp_path])
    assert len((tmp_path / table.path[0]).name) < 100


def test_file_names_are_short_and_safe_whatever_the_prompt(tmp_path: Path) -> None:
    pictures = images(tmp_path).assign(prompt="../../etc/passwd \x00 <狗> " + "x" * 500)
    for name in write(study(), pictures, tmp_path).grid:
        assert name.isascii()
        assert set("/\\:*?<>| ").isdisjoint(name)
        assert len(name) <= 90


def test_the_title_says_study_settings_base_and_date(tmp_path: Path) -> None:
    both = images(tmp_path, cfg=[7.0, 9.0])
    table = write(study(), both[both.variant == "v8"], tmp_path, title="s: Wolves")
    titles = []
    for path in table.path:
        with Image.open(tmp_path / path) as grid:
            titles.append(grid.info["Title"])
    settings = "seed 6 · DDIM, 20 steps, CFG {} · 64 px"
    assert titles == [f"s: Wolves · species · {settings.format(cfg)} · base sd-1.5 · 2026-11-23" for cfg in (7, 9)]


@pytest.mark.parametrize(
    ("grid", "changes", "rows", "columns", "count"),
    [
        ({"x": "seed", "y": "value"}, {"seed": [6, 7, 8]}, ["wolf", "lion"], ["seed 6", "seed 7", "seed 8"], 2),
        ({"x": "value", "y": "cfg"}, {"cfg": [3.5, 7.0]}, ["CFG 3.5", "CFG 7"], ["wolf", "lion"], 2),
        (
            {"x": "sampler", "y": "checkpoint"},
            {"sampler": ["DDIM", "Euler a"]},
            ["v8-100", "v8-200"],
            ["DDIM, 20 steps, CFG 7", "Euler a, 20 steps, CFG 7"],
            4,
        ),
        ({"x": "size", "y": "variant"}, {"size": [64, 128]}, ["v8-200", "v16-200"], ["64 px", "128 px"], 2),
        ({"x": "clip_skip", "y": "value"}, {"clip_skip": [1, 2]}, ["wolf", "lion"], ["clip skip 1", "clip skip 2"], 2),
        ({"x": "checkpoint", "y": "seed"}, {"seed": [6, 7]}, ["seed 6", "seed 7"], ["v8-100", "v8-200"], 4),
    ],
)
def test_any_two_dimensions_make_grids(
    grid: dict[str, str], changes: dict[str, list], rows: list[str], columns: list[str], count: int, tmp_path: Path
) -> None:
    found = list(plan_grids(study(grids=[grid], clip_skips=[1, 2]), images(tmp_path, **changes)))
    assert len(found) == count
    assert (found[0].rows, found[0].columns) == (rows, columns)
    for plan in found:
        assert len(plan.images) == len(plan.rows) * len(plan.columns)
        same = {"axis", "value", "checkpoint", "variant", "seed", "sampler", "cfg", "size", "clip_skip"}
        same -= {grid["x"], grid["y"]} | ({"checkpoint", "variant"} if "variant" in grid.values() else set())
        assert len(plan.images[sorted(same)].drop_duplicates()) == 1, "only the sides may differ"


def test_only_the_axes_that_a_grid_names_are_drawn(tmp_path: Path) -> None:
    pictures = pd.concat([images(tmp_path), images(tmp_path).assign(axis="mood")])
    axes = {name: {"prompt": "[name], wolf", "values": ["wolf", "lion"]} for name in ("species", "mood")}
    found = plan_grids(study(axes=axes, grids=[{"axes": ["mood"]}]), pictures)
    assert {plan.axis for plan in found} == {"mood"}


def test_versions_of_other_studies_stand_beside_the_own_where_they_answered_the_same(tmp_path: Path) -> None:
    of = study(versions=[{"study": "old", "variant": "v8"}, {"study": "old", "variant": "v16", "step": 100}])
    own, old = images(tmp_path), images(tmp_path, "old", token=["older-word"]).assign(axis="other_name")
    others = {("old", variant): old[old.variant == variant] for variant in ("v8", "v16")}
    found = [plan for plan in plan_grids(of, with_versions(of, own, others)) if plan.grid.y == "version"]
    assert [plan.rows for plan in found] == [["s/v8-200", "s/v16-200", "old/v8-200", "old/v16-100"]]
    assert found[0].columns == ["wolf", "lion"]
    assert len(found[0].images) == 8
    table = write(of, with_versions(of, own, others), tmp_path)
    assert table[table.y == "version"].missing.tolist() == [0]


def test_a_version_may_be_an_earlier_checkpoint_of_the_study_itself(tmp_path: Path) -> None:
    of = study(versions=[{"study": "s", "variant": "v8", "step": 100}])
    own = images(tmp_path)
    shown = with_versions(of, own, {("s", variant): own[own.variant == variant] for variant in ("v8", "v16")})
    plans = list(plan_grids(of, shown))
    assert [plan.rows for plan in plans if plan.grid.y == "version"] == [["s/v8-200", "s/v16-200", "s/v8-100"]]
    assert [plan.rows for plan in plans if plan.grid.y == "checkpoint"] == [
        ["v8-100", "v8-200"],
        ["v16-100", "v16-200"],
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"seed": 9}, "has no picture of a prompt, seed, sampler"),
        ({"prompt": "older-word, fox"}, "has no picture of a prompt, seed, sampler"),
        ({"step": 300}, r"was not evaluated at step 200 \(was at: 300\)"),
    ],
)
def test_versions_that_cannot_be_compared_are_errors(change: dict, problem: str, tmp_path: Path) -> None:
    of = study(versions=[{"study": "old", "variant": "v8", "step": 200}])
    old = images(tmp_path, "old", token=["older-word"]).query("variant == 'v8'").assign(**change)
    with pytest.raises(SuiteError, match=problem):
        with_versions(of, images(tmp_path), {("old", "v8"): old})


def test_a_version_that_was_never_evaluated_is_an_error(tmp_path: Path) -> None:
    of = study(versions=[{"study": "old", "variant": "v8"}])
    with pytest.raises(SuiteError, match="old/v8 has no pictures: run the job evaluate"):
        with_versions(of, images(tmp_path), {})


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    once, again = (write(study(), pictures, tmp_path, folder) for folder in ("one", "two"))
    for column in ("path", "webp_path"):
        assert [(tmp_path / p).read_bytes() for p in once[column]] == [
            (tmp_path / p).read_bytes() for p in again[column]
        ]


def test_row_labels_count_mismatches_of_their_own_grid(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    scores = pictures.assign(metric="match", score=[0.0, 1.0, 1.0, 1.0] * 2, read_as="x")
    plan = next(plan_grids(study(), pictures))
    assert [row_label(row, plan, scores) for row in plan.rows] == ["v8-100 mismatches: 1", "v8-200 mismatches: 0"]
    assert (
        write(study(), pictures, tmp_path, scores=scores).grid.tolist()
        == write(study(), pictures, tmp_path).grid.tolist()
    )


def test_scores_stand_under_the_cells_when_a_grid_asks_for_them(tmp_path: Path) -> None:
    of, pictures = study(grids=[{"scores": ["match", "likeness"]}]), images(tmp_path)
    scores = pd.concat(
        [
            pictures.assign(metric="match", score=[0.0, 1.0] * 4, read_as=["bear", "lion"] * 4),
            pictures.assign(metric="likeness", score=0.754, read_as=None),
        ]
    )
    plan = next(plan_grids(of, pictures))
    found = grids._labels(plan, "t", scores)
    assert found.notes == [["seen: bear · likeness 0.75", "right · likeness 0.75"]] * 2
    plain = write(of, pictures, tmp_path)
    with Image.open(tmp_path / plain.path[0]) as grid:
        height = grid.height
    noted = write(of, pictures, tmp_path, scores=scores)
    with Image.open(tmp_path / noted.path[0]) as grid:
        assert grid.height > height


def test_variants_show_their_best_below_the_references(tmp_path: Path) -> None:
    of, pictures = study(grids=[{"y": "variant"}]), images(tmp_path)
    bare = pictures[pictures.checkpoint == "v8-100"].assign(variant="", checkpoint="no embedding", step=0)
    plan = next(plan_grids(of, pictures, best={"v8": 100}, references=bare))
    assert plan.rows == ["no embedding", "v8-100", "v16-200"]
    board = pd.DataFrame({"axis": "overall", "variant": ["v16", "v8", "v8", ""], "step": [200, 100, 200, 0]})
    board = board.assign(rank=[1, 2, 3, None], candidate=[True, True, True, False])
    assert best_steps(board) == {"v16": 200, "v8": 100}


def test_a_missing_picture_is_counted_and_old_grids_go(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    write(study(), pictures, tmp_path)
    (tmp_path / pictures.path[0]).unlink()
    table = write(study(), pictures[pictures.variant == "v8"], tmp_path)
    assert table.missing.tolist() == [1]
    assert {path.suffix for path in (tmp_path / "grids").iterdir()} == {".png", ".webp"}
    assert len(list((tmp_path / "grids").iterdir())) == 2


def test_grids_carry_the_text_that_other_programs_read(tmp_path: Path) -> None:
    pictures = images(tmp_path)
    said = infotext("ember, wolf", "", {"Steps": 20, "Sampler": "DDIM", "Seed": 6})
    for path in pictures.path:
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("parameters", said)
        Image.new("RGB", (64, 64)).save(tmp_path / path, pnginfo=info)
    table = write(study(), pictures, tmp_path)
    with Image.open(tmp_path / table.path[0]) as grid:
        text, fingerprint = grid.info["parameters"], grid.info["ti_study"]
    with Image.open(tmp_path / table.webp_path[0]) as grid:
        comment = grid.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == text
    read = parse_infotext(text)
    assert read["Prompt"] == "ember, wolf"
    assert read["X Type"] == "Prompt S/R"
    assert read["X Values"] == "wolf,lion"
    assert read["Y Values"] == "v8-100,v8-200"
    assert read["Embedding hashes"] == "v8-100: 000000000000, v8-200: 000000000000"
    assert fingerprint == "f" * 64


def test_a_large_grid_also_comes_in_tiles_of_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "_MOST_PIXELS", 20_000)  # of 4 cells of 128 pixels: 96 is the least
    monkeypatch.setattr(grids, "_TILE_PIXELS", 128 * 128)
    pictures = images(tmp_path).assign(size=128)
    for number, (path, prompt) in enumerate(zip(pictures.path, pictures.prompt, strict=True)):
        said = {"parameters": infotext(prompt, "", {"Steps": 20, "Sampler": "DDIM", "Seed": 6})}
        write_png(Image.new("RGB", (128, 128), (number * 20, 99, 20)), tmp_path / path, said)
    table = write(study(), pictures, tmp_path)
    assert table.tiles.tolist() == [4, 4, 4]
    tiles = sorted((tmp_path / "grids").glob("xy_grid-0001-*-part-*.png"))
    assert len(tiles) == 4
    seen = []
    for tile in tiles:
        with Image.open(tile) as picture:
            colours = {colour: count for count, colour in picture.getcolors(100_000) if colour[1:] == (99, 20)}
        assert list(colours.values()) == [128 * 128], "in full size"
        seen += colours
    assert seen == [(number * 20, 99, 20) for number in range(4)]
    told = []
    for tile in tiles:
        with Image.open(tile) as picture:
            read = parse_infotext(picture.info["parameters"])
        told.append((read["Prompt"].split(" / ")[0], read["X Values"], read["Y Values"], read["Embedding hashes"]))
    assert told == [
        (f"ember, {value}", value, f"v8-{step}", f"v8-{step}: 000000000000")
        for step in (100, 200)
        for value in ("wolf", "lion")
    ], "each piece says what it shows itself"


def test_a_grid_too_wide_for_webp_is_a_png_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "_WEBP_SIDE", 100)
    table = write(study(), images(tmp_path), tmp_path)
    assert table.webp_path.isna().all()
    assert TABLES["evaluation_grids"].problems(table) == []
