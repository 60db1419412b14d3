"""The release, read by other libraries than our own: torch, safetensors, hashlib, yaml, csv."""

import csv
import dataclasses
import hashlib
import re

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from ti_pipeline.publishing.release import ReleaseError, verify_release, write_release
from ti_pipeline.studies import Release

FILES = [
    ".a1111/tiny-a.pt",
    "README.md",
    "SHA256SUMS",
    "attribution.csv",
    "losses.csv",
    "preview.png",
    "safetensors/tiny-a.safetensors",
    "study.yaml",
]


def names_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_holds_the_best_checkpoint_in_both_layouts(results, tmp_path):
    made = write_release(results, tmp_path / "tiny")
    assert (made.name, made.best_checkpoint) == ("tiny-a-20", "a-20")
    assert made.folder == tmp_path / "tiny" / "tiny-a-20"
    assert names_in(made.folder) == sorted(FILES)
    assert made.files == sorted(made.folder / name for name in FILES)

    trained = torch.randn(2, 8, generator=torch.Generator().manual_seed(20))
    pickled = torch.load(made.folder / ".a1111/tiny-a.pt", weights_only=True)
    assert pickled["name"] == "tiny-a"
    assert pickled["step"] == 20
    assert pickled["string_to_param"]["*"].equal(trained)
    assert pickled["sd_checkpoint_name"] == "base"
    assert load_file(made.folder / "safetensors/tiny-a.safetensors")["emb_params"].equal(trained)
    with safe_open(made.folder / "safetensors/tiny-a.safetensors", "pt") as reader:
        metadata = reader.metadata()
    assert metadata["name"] == "tiny-a"
    assert (metadata["study"], metadata["variant"], metadata["checkpoint"]) == ("tiny", "a", "a-20")
    assert metadata["training_pictures"] == "3"


def test_checksums_cover_every_other_file(results, tmp_path):
    folder = write_release(results, tmp_path).folder
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES if name != "SHA256SUMS"
    }


def test_evidence_is_the_studys_own(results, tmp_path):
    folder = write_release(results, tmp_path).folder
    grid = results.root / "evaluation/tiny/grids/xy_grid-0001-6-a.png"
    assert (folder / "preview.png").read_bytes() == grid.read_bytes()
    with (folder / "losses.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["loss"]) for row in rows] == results.losses["a"].loss.tolist()


def with_study(results, **changes):
    return dataclasses.replace(results, study=results.study.model_copy(update=changes))


def test_the_same_release_again_is_left_alone(results, tmp_path):
    first = write_release(results, tmp_path / "releases")
    before = {path: path.stat().st_mtime_ns for path in first.files}
    (first.folder / "my notes.txt").write_text("added by its owner")
    again = write_release(results, tmp_path / "releases")
    assert again.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.files} == before
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["tiny-a-20"]


def test_a_different_release_gets_the_next_name(results, tmp_path):
    folder = tmp_path / "releases"
    first = write_release(results, folder)
    kept = {path: path.read_bytes() for path in first.files}
    changed, other = (with_study(results, description=words) for words in ("more", "other"))
    assert write_release(changed, folder).name == "tiny-a-20-2"
    assert write_release(other, folder).name == "tiny-a-20-3"
    assert write_release(changed, folder).name == "tiny-a-20-2"
    assert write_release(results, folder).name == "tiny-a-20"
    assert {path: path.read_bytes() for path in first.files} == kept
    assert sorted(path.name for path in folder.iterdir()) == ["tiny-a-20", "tiny-a-20-2", "tiny-a-20-3"]


def test_a_damaged_release_is_not_taken_for_the_same(results, tmp_path):
    first = write_release(results, tmp_path)
    (first.folder / ".a1111/tiny-a.pt").write_bytes(b"half")
    with pytest.raises(ReleaseError, match=r"tiny-a\.pt is gone or is not the file that SHA256SUMS names"):
        verify_release(first.folder)
    assert write_release(results, tmp_path).name == "tiny-a-20-2"


def test_nothing_measured_is_no_release(nothing_measured, tmp_path):
    with pytest.raises(ReleaseError, match=r"study tiny: nothing was measured; run the jobs evaluate and compare"):
        write_release(nothing_measured, tmp_path / "releases")
    assert not (tmp_path / "releases").exists()


def test_a_changed_embedding_is_not_released(results, tmp_path):
    path = results.root / "embeddings/tiny/a/a-20.safetensors"
    path.write_bytes((results.root / "embeddings/tiny/a/a-10.safetensors").read_bytes())
    with pytest.raises(ReleaseError, match=r"a-20\.safetensors is gone or was changed since training"):
        write_release(results, tmp_path / "releases")


def test_a_best_checkpoint_without_a_row_is_not_released(results, tmp_path):
    fewer = {"a": results.embeddings["a"].query("step == 10"), "b": results.embeddings["b"]}
    with pytest.raises(ReleaseError, match=r"a-20 is first but no longer in the embedding table"):
        write_release(dataclasses.replace(results, embeddings=fewer), tmp_path / "releases")


def test_what_does_not_read_back_leaves_nothing(results, tmp_path, monkeypatch):
    from ti_pipeline.inversion import embedding_files

    save = embedding_files.save_pt
    monkeypatch.setattr(
        embedding_files, "save_pt", lambda path, e: save(path, dataclasses.replace(e, vectors=e.vectors + 1))
    )
    with pytest.raises(ReleaseError, match=r"a1111/tiny-a\.pt does not read back as it was written"):
        write_release(results, tmp_path / "releases")
    assert list((tmp_path / "releases").iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(results, tmp_path):
    leftover = tmp_path / "releases" / ".0123456789ab-partial"
    leftover.mkdir(parents=True)
    (leftover / "README.md").write_text("half")
    write_release(results, tmp_path / "releases")
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["tiny-a-20"]


def test_without_grids_and_losses(results, tmp_path):
    bare = dataclasses.replace(results, losses={}, evaluation_grids=results.evaluation_grids.iloc[:0])
    folder = write_release(bare, tmp_path).folder
    assert names_in(folder) == sorted(set(FILES) - {"losses.csv", "preview.png"})
    card = (folder / "README.md").read_text()
    assert "preview.png" not in card
    assert "losses.csv" not in card


@pytest.fixture
def card(results, tmp_path):
    return (write_release(results, tmp_path / "releases").folder / "README.md").read_text()


def test_card_metadata(card):
    assert yaml.safe_load(card.split("---\n")[1]) == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": "tiny-a",
        "tags": ["stable-diffusion", "stable-diffusion-diffusers", "textual_inversion", "embedding"],
    }


def test_card_names_licence_and_hub_base_where_given(results, tmp_path):
    source = results.study.base_models["base"].model_copy(update={"published_as": "CompVis/stable-diffusion-v1-4"})
    told = with_study(results, base_models={"base": source}, release=Release(license="cc-by-4.0"))
    text = (write_release(told, tmp_path).folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert (metadata["license"], metadata["base_model"]) == ("cc-by-4.0", "CompVis/stable-diffusion-v1-4")
    assert 'from_pretrained("CompVis/stable-diffusion-v1-4")' in text


def test_card_tells_only_what_the_leaderboard_measured(card):
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in card[card.index("## Measured") : card.index("## Training")].splitlines()
        if line.startswith("|")
    ][2:]
    assert [(row[0], float(row[1]), int(row[3]), int(row[4]), int(row[5])) for row in table] == [
        (axis, 0.875, 8, 1, 1) for axis in ("overall", "obedience", "likeness", "clothing", "species")
    ]
    assert "best of 4 checkpoints" in card
    assert "too close to call\nagainst b-20 (on the same prompts and seeds they cannot be told from it)" in card
    assert "| pictures | 3 trained on, 1 held out |" in card


def test_card_shows_how_to_use_it(card):
    assert 'load_textual_inversion("safetensors/tiny-a.safetensors", token="tiny-a")' in card
    assert "`embedding:tiny-a`" in card
    assert "`.a1111/tiny-a.pt`" in card
    assert 'Set "Clip skip" to 2' in card


@pytest.mark.parametrize(("width", "named"), [(768, True), (1024, True), (8, False)])
def test_card_sends_nobody_to_a_program_that_knows_no_such_width(results, tmp_path, width, named):
    """InvokeAI takes the widths of the published Stable Diffusions alone."""
    embeddings = {name: table.assign(width=width) for name, table in results.embeddings.items()}
    card = (
        write_release(dataclasses.replace(results, embeddings=embeddings), tmp_path).folder / "README.md"
    ).read_text()
    assert ("`<tiny-a>`" in card) is named


def invokeai_finds(folder):
    """What InvokeAI's scan lists: names with these ends, in no folder and of no name that begins with a dot."""
    ends = (".ckpt", ".bin", ".pth", ".safetensors", ".pt", ".gguf")
    found = []
    for entry in sorted(folder.iterdir()):
        if not entry.name.startswith("."):
            found += invokeai_finds(entry) if entry.is_dir() else [entry.name] if entry.name.endswith(ends) else []
    return found


def test_a_scan_of_the_whole_folder_finds_one_model(results, tmp_path):
    assert invokeai_finds(write_release(results, tmp_path).folder) == ["tiny-a.safetensors"]


def test_card_is_harmless_and_private(card):
    outside_code = re.sub(r"```.*?```|`[^`\n]*`", "", card, flags=re.DOTALL)
    assert "<" not in outside_code
    assert "\u202e" not in card
    assert r"o'&lt;b&gt;brien&lt;/b&gt;\|\_\[x\](y) (2), unknown artist (2)." in card
    assert "/home/someone" not in card
    assert "base.safetensors" in card


def test_the_card_is_one_that_the_hub_reads(results, tmp_path):
    """By Hugging Face's own reader of model cards, offline."""
    from huggingface_hub import ModelCard

    card = ModelCard((write_release(results, tmp_path).folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.to_dict() == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "instance_prompt": "tiny-a",
        "tags": ["stable-diffusion", "stable-diffusion-diffusers", "textual_inversion", "embedding"],
    }
    assert card.text.lstrip().startswith("# Tiny")
