import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from ti_pipeline.contracts import TableError
from ti_pipeline.e621.policy import ContentPolicy, PolicyError, load_policy
from ti_pipeline.evaluation import runs, scorers
from ti_pipeline.evaluation.infotext import parse_infotext
from ti_pipeline.evaluation.runs import render_variants
from ti_pipeline.files import sha256_of
from ti_pipeline.inversion.embedding_files import Embedding, EmbeddingFileError, save_safetensors
from ti_pipeline.schemas import TABLES
from ti_pipeline.studies import Study
from ti_pipeline.study_files import LoadedStudy

AXES = {"sky": {"prompt": "[name], blue HERE", "search": "HERE", "values": ["sea", "city"]}}


def loaded(base_folder: Path, axes: dict[str, object], **evaluation: object) -> LoadedStudy:
    study = Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo"},
            "base_models": {"b": {"folder": str(base_folder)}},
            "variants": {"v": {"vectors": 2, "base": "b", "steps": 1, "token": "ember"}},
            "evaluation": {"axes": axes, "seeds": [6], "sizes": [64], "samplers": [{"steps": 1}]} | evaluation,
        }
    )
    return LoadedStudy(study, base_folder.parent / "s.yaml", "")


def trained(root: Path) -> pd.DataFrame:
    path = root / "embeddings/s/v/v-1.safetensors"
    save_safetensors(path, Embedding("v-1", torch.ones(2, 32), step=1))
    return pd.DataFrame(
        [
            {
                "checkpoint": "v-1",
                "step": 1,
                "sha256": sha256_of(path),
                "safetensors_path": path.relative_to(root).as_posix(),
            }
        ]
    )


def render(
    study: LoadedStudy, table: pd.DataFrame, root: Path, policy: ContentPolicy | None = None
) -> dict[str, pd.DataFrame]:
    return render_variants(
        {"s__v": (study, "v", table)}, policies={"s": policy or ContentPolicy()}, rankings={}, root=root
    )


def test_a_variant_is_rendered_from_its_files(base_folder: Path, tmp_path: Path) -> None:
    tables = render(loaded(base_folder, AXES), trained(tmp_path), tmp_path)
    assert TABLES["evaluation_images"].problems(tables["s__v"]) == []
    assert tables["s__v"].prompt.tolist() == ["ember, blue sea", "ember, blue city"]
    assert all((tmp_path / path).exists() for path in tables["s__v"].path)


def test_a_swapped_embedding_file_is_refused(base_folder: Path, tmp_path: Path) -> None:
    table = trained(tmp_path)
    save_safetensors(tmp_path / table.safetensors_path[0], Embedding("v-1", torch.zeros(2, 32), step=1))
    with pytest.raises(EmbeddingFileError, match=r"v-1\.safetensors is gone or was changed"):
        render(loaded(base_folder, AXES), table, tmp_path)


def test_a_prompt_that_becomes_an_excluded_tag_only_when_put_together_is_refused(
    base_folder: Path, tmp_path: Path
) -> None:
    # Neither word is excluded by itself, and only the catalog knows that `blue_city` is.
    aliases = pd.DataFrame({"antecedent": ["blue_city"], "consequent": ["sad_town"]})
    implications = pd.DataFrame({"antecedent": ["sad_town"], "consequent": ["gloom"]})
    policy = load_policy(exclude_tags=["gloom"], aliases=aliases, implications=implications)
    with pytest.raises(PolicyError, match=r"s\.yaml: evaluation\.axes\.sky with the value 'city'"):
        render(loaded(base_folder, AXES), trained(tmp_path), tmp_path, policy)
    assert not (tmp_path / "evaluation").exists()


def test_scores_are_used_again_only_while_pictures_and_scorer_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ti_pipeline_tests.tiny_models import DEMO_BASE

    study = Study.model_validate(
        {
            "name": "s",
            "source": {"kind": "demo"},
            "base_models": {"b": {}},
            "variants": {"v8": {"vectors": 8, "base": "b", "steps": 1}},
            "evaluation": {
                "scorer": {"folder": str(DEMO_BASE / "scorer")},
                "axes": {"species": {"prompt": "[name], wolf", "values": ["wolf", "bear"]}},
            },
        }
    )
    loaded = LoadedStudy(study, tmp_path / "s.yaml", "")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cell.png")
    row = {"cell": "c", "variant": "v8", "checkpoint": "v8-1", "step": 1, "axis": "species", "value": "wolf", "seed": 6}
    row |= {"path": "cell.png", "sha256": sha256_of(tmp_path / "cell.png")}
    images = pd.DataFrame([row])
    crops = pd.DataFrame([{"status": "ok", "split": "validation", "path": "cell.png", "sha256": row["sha256"]}])
    loads: list[object] = []
    real = scorers.load_scorer

    def counted(source, *, folder):
        loads.append(source)
        return real(source, folder=folder)

    monkeypatch.setattr(scorers, "load_scorer", counted)

    def score(pictures: pd.DataFrame) -> pd.DataFrame:
        return runs.score_variant(loaded, pictures, crops, root=tmp_path, folder="evaluation/s/v8")

    first, again = score(images), score(images)
    pd.testing.assert_frame_equal(first, again, check_dtype=False)
    assert len(loads) == 1
    score(images.assign(sha256="f" * 64))
    assert len(loads) == 2


def test_grids_of_a_study_need_its_own_pictures(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="run the job evaluate"):
        runs.write_study_grids(
            loaded(base_folder, AXES), {}, [], best={}, references=pd.DataFrame(), root=tmp_path, folder="grids"
        )


def test_grids_are_dated_by_their_newest_picture(base_folder: Path, tmp_path: Path) -> None:
    of = loaded(base_folder, AXES)
    table = render(of, trained(tmp_path), tmp_path)["s__v"]
    for path, day in zip(table.path, (1_000_000_000, 1_100_000_000), strict=True):  # 2001-09-09, 2004-11-09
        os.utime(tmp_path / path, (day, day))
    scores, bare = TABLES["evaluation_scores"].empty(), TABLES["reference_images"].empty()
    found = runs.write_study_grids(
        of, {("s", "v"): table}, [scores], best={}, references=bare, root=tmp_path, folder="grids"
    )
    with Image.open(tmp_path / found.path[0]) as grid:
        assert grid.info["Title"] == "s · sky · seed 6 · DDIM, 1 steps, CFG 7 · 64 px · base b · 2004-11-09"
        assert (
            f"TI hashes: ember: {table.embedding_sha256[0][:12]}".replace(": ember: ", ': "ember: ')
            in grid.text["parameters"]
        )


def test_another_embeddings_file_that_is_gone_is_named_with_its_field(base_folder: Path, tmp_path: Path) -> None:
    of = loaded(base_folder, AXES, embeddings={"style-of": "gone.pt"})
    with pytest.raises(EmbeddingFileError, match=r"s\.yaml: evaluation\.embeddings\.style-of: there is no file"):
        render(of, trained(tmp_path), tmp_path)


def test_another_embedding_is_drawn_where_a_prompt_names_it(base_folder: Path, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "other.safetensors", Embedding("x", torch.randn(2, 32, generator=torch.Generator())))
    axes = {"with": {"prompt": "[name], sea", "search": "sea", "values": ["sea", "style-of"]}}
    of = loaded(base_folder, axes, embeddings={"style-of": str(tmp_path / "other.safetensors")})
    table = render(of, trained(tmp_path), tmp_path)["s__v"]
    with Image.open(tmp_path / table.path[1]) as picture:
        said = parse_infotext(picture.info["parameters"])
    assert said["TI hashes"].split(", ")[1] == f"style-of: {sha256_of(tmp_path / 'other.safetensors')[:12]}"
    without = loaded(base_folder, axes)
    same = render(without, trained(tmp_path / "b"), tmp_path / "b")["s__v"]
    assert table.cell[0] == same.cell[0]
    assert table.cell[1] != same.cell[1]
