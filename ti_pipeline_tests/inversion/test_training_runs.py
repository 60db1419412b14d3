"""Training runs: files, reuse, interruption, and what cannot be trained."""

import dataclasses
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from ti_pipeline.inversion import trainer, training_runs
from ti_pipeline.inversion.base_models import BaseModelError
from ti_pipeline.inversion.embedding_files import load_embedding
from ti_pipeline.inversion.trainer import TrainingError
from ti_pipeline.inversion.training_runs import train_variants
from ti_pipeline.schemas import TABLES
from ti_pipeline_tests.inversion import readers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bases_are_read_once")]


def files(folder: Path) -> dict[str, str]:
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def checkpoint_files(name: str, step: int) -> list[str]:
    return [f"{name}-{step}.pt", f"{name}-{step}.safetensors", f"diffusers/{name}-{step}.safetensors"]


def clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_variant_leaves_its_files_and_tables(root, make_job):
    result = train_variants([make_job("v2", steps=7)], root=root)["s__v2"]
    assert not result.reused
    folder = root / "embeddings" / "s" / "v2"
    names = [name for step in (3, 6, 7) for name in checkpoint_files("v2", step)]
    assert sorted(files(folder)) == sorted([*names, "losses.parquet", "state.pt", "training.json"])
    assert TABLES["embedding"].problems(result.checkpoints) == []
    assert TABLES["losses"].problems(result.losses) == []
    assert result.losses.step.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert result.losses.epoch.tolist() == [1, 1, 1, 1, 2, 2, 2]
    assert result.losses.epoch_step.tolist() == [1, 2, 3, 4, 1, 2, 3]
    assert [m["to_step"] for m in result.summary["mean_loss"]] == [3, 6, 7]
    for row in result.checkpoints.itertuples():
        vectors = load_embedding(root / row.safetensors_path).vectors
        assert torch.equal(load_embedding(root / row.pt_path).vectors, vectors)
        assert (len(vectors), vectors.shape[1]) == (row.vectors, row.width) == (2, 32)
        assert float(vectors.norm(dim=1).mean()) == pytest.approx(row.mean_norm, rel=1e-5)
        assert hashlib.sha256((root / row.safetensors_path).read_bytes()).hexdigest() == row.sha256
        assert hashlib.sha256((root / row.pt_path).read_bytes()).hexdigest() == row.pt_sha256
    assert result.checkpoints.validation_loss.notna().all()
    assert result.losses.vector_norm.iloc[-1] == pytest.approx(result.checkpoints.mean_norm.iloc[-1], rel=1e-5)
    assert load_embedding(folder / "v2-6.pt").step == 6
    assert load_embedding(folder / "v2-6.pt").name == "v2-6"


def test_finished_variants_are_reused_and_changed_ones_trained_anew(root, make_job, monkeypatch):
    first = train_variants([make_job("v2")], root=root)["s__v2"]
    before = files(root / "embeddings" / "s" / "v2")
    monkeypatch.setattr(training_runs, "_train_group", lambda *_: pytest.fail("trained although nothing changed"))
    again = train_variants([make_job("v2", note="a note changes nothing")], root=root)["s__v2"]
    assert again.reused
    pd.testing.assert_frame_equal(again.checkpoints, first.checkpoints)
    pd.testing.assert_frame_equal(again.losses, first.losses)
    assert again.summary == first.summary
    monkeypatch.undo()
    said = []
    other = train_variants([make_job("v2", seed=6, steps=4)], root=root, tell=said.append)["s__v2"]
    assert not other.reused
    folder, names = root / "embeddings" / "s" / "v2", ["losses.parquet", "state.pt", "training.json"]
    now = files(folder)
    fingerprint = json.loads((next((folder / "earlier").iterdir()) / "training.json").read_text())["fingerprint"]
    aside = f"earlier/{fingerprint[:16]}/"
    assert sorted(name for name in now if not name.startswith("earlier/")) == sorted(
        [*checkpoint_files("v2", 3), *checkpoint_files("v2", 4), *names]
    )
    assert {name.removeprefix(aside): sha256 for name, sha256 in now.items() if name.startswith("earlier/")} == before
    assert f"s__v2: other settings or pictures than last time; the training {fingerprint[:8]} is kept in" in said[0]
    monkeypatch.setattr(training_runs, "_train_group", lambda *_: pytest.fail("trained although it was kept"))
    back = train_variants([make_job("v2")], root=root)["s__v2"]
    assert back.reused
    assert {name: sha256 for name, sha256 in files(folder).items() if not name.startswith("earlier/")} == before


@pytest.mark.parametrize("harm", ["checkpoint gone", "checkpoint changed", "losses changed", "record damaged"])
def test_a_finished_folder_that_was_harmed_is_trained_anew(root, make_job, harm):
    train_variants([make_job("v2")], root=root)
    folder = root / "embeddings" / "s" / "v2"
    before = files(folder)
    if harm == "checkpoint gone":
        (folder / "v2-3.pt").unlink()
    else:
        name = {"checkpoint changed": "v2-6.safetensors", "losses changed": "losses.parquet"}.get(harm, "training.json")
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    assert not train_variants([make_job("v2")], root=root)["s__v2"].reused
    assert files(folder) == before


@pytest.mark.parametrize("changed", ["captions", "crops", "base"])
def test_inputs_are_part_of_the_fingerprint(root, make_job, changed):
    job = make_job("v2")
    train_variants([job], root=root)
    if changed == "captions":
        job = dataclasses.replace(job, captions=job.captions.assign(caption="lion"))
    elif changed == "crops":
        job = dataclasses.replace(job, crops={"64": job.crops["64"][job.crops["64"].post_id != 12]})
    else:
        job = make_job("v2", source="v")
    assert not train_variants([job], root=root)["s__v2"].reused


class StoppedError(Exception):
    """Stands for whatever ends a process between two updates."""


def test_an_interrupted_run_goes_on_to_identical_bytes(root, make_job, monkeypatch):
    jobs = [make_job("a", steps=12), make_job("b", steps=9, vectors=4, gradient_accumulation=2)]
    train_variants(jobs, root=root)
    folders = [job.folder for job in jobs]
    whole = [files(folder) for folder in folders]
    for folder in folders:
        clear(folder)
    calls, plain = [], training_runs._save

    def stop_after_three(run, *args, **options):
        plain(run, *args, **options)
        calls.append(run.done)
        if len(calls) == 3:
            raise StoppedError

    monkeypatch.setattr(training_runs, "_save", stop_after_three)
    with pytest.raises(StoppedError):
        train_variants(jobs, root=root)
    assert all((folder / "state.pt").exists() or not files(folder) for folder in folders)
    monkeypatch.undo()
    updates, step = [], training_runs.train_variants.__globals__["_save"]
    monkeypatch.setattr(
        training_runs, "_save", lambda run, *a, **o: updates.append((run.key, run.done)) or step(run, *a, **o)
    )
    results = train_variants(jobs, root=root)
    assert ("s__a", 3) not in updates  # it went on from its state and did not begin again
    assert not any(result.reused for result in results.values())
    for folder, expected in zip(folders, whole, strict=True):
        assert files(folder) == expected


def test_a_lone_interrupted_run_is_bit_identical_also_between_checkpoints(root, make_job, monkeypatch):
    from ti_pipeline.inversion import trainer

    monkeypatch.setattr(trainer, "SAVE_EVERY", 2)
    job = make_job("a", steps=11, checkpoint_every=5, latents="random", shuffle_tags=True)
    train_variants([job], root=root)
    whole = files(job.folder)
    plain = training_runs._save
    for stop in (1, 3, 4):  # saves are at 2, 4, 5, 6, 8, 10 updates
        clear(job.folder)
        calls = []

        def stopping(run, *args, calls=calls, stop=stop, **options):
            plain(run, *args, **options)
            calls.append(run.done)
            if len(calls) == stop:
                raise StoppedError

        monkeypatch.setattr(training_runs, "_save", stopping)
        with pytest.raises(StoppedError):
            train_variants([job], root=root)
        monkeypatch.setattr(training_runs, "_save", plain)
        train_variants([job], root=root)
        assert files(job.folder) == whole


def test_a_killed_process_goes_on_to_identical_bytes(root, make_job, tmp_path_factory):
    """SIGKILL from within, right after a state was written: nothing gets to clean up."""
    job = make_job("a", steps=9)
    train_variants([job], root=root)
    whole = files(job.folder)
    clear(job.folder)
    import pickle

    (root / "job.pickle").write_bytes(pickle.dumps(job))
    script = (
        "import os, pickle, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from ti_pipeline.inversion import training_runs\n"
        "torch.set_num_threads(1)\n"
        "plain = training_runs._save\n"
        "def save(run, *args, **options):\n"
        "    plain(run, *args, **options)\n"
        "    if run.done == 6:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "training_runs._save = save\n"
        "root = Path(sys.argv[1])\n"
        "training_runs.train_variants([pickle.loads((root / 'job.pickle').read_bytes())], root=root)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(root)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "state.pt" in files(job.folder)
    assert "training.json" not in files(job.folder)
    train_variants([job], root=root)
    assert files(job.folder) == whole


@pytest.mark.parametrize("harm", ["cut", "junk", "other fingerprint", "checkpoint gone"])
def test_an_unusable_state_means_going_on_from_an_earlier_one_or_beginning_again(root, make_job, monkeypatch, harm):
    job = make_job("a")
    train_variants([job], root=root)
    whole = files(job.folder)
    plain = training_runs._finish
    clear(job.folder)
    monkeypatch.setattr(training_runs, "_finish", lambda *_, **__: (_ for _ in ()).throw(StoppedError))
    with pytest.raises(StoppedError):
        train_variants([job], root=root)
    monkeypatch.setattr(training_runs, "_finish", plain)
    state = job.folder / "state.pt"
    if harm == "cut":
        state.write_bytes(state.read_bytes()[:400])
    elif harm == "junk":
        state.write_bytes(b"junk")
    elif harm == "checkpoint gone":
        (job.folder / "a-3.pt").unlink()
    else:
        content = torch.load(state, weights_only=True)
        torch.save(content | {"fingerprint": "0" * 64}, state)
    (job.folder / "a-99.pt").write_bytes(b"stale")
    (job.folder / "mine.txt").write_text("somebody's own file stays")
    updates = []
    plain_update = trainer._update
    monkeypatch.setattr(trainer, "_update", lambda run, *rest: (updates.append(run.done), plain_update(run, *rest)))
    train_variants([job], root=root)
    assert updates == ([0, 1, 2, 3, 4, 5] if harm == "checkpoint gone" else [3, 4, 5])
    found = files(job.folder)
    assert found.pop("mine.txt")
    assert found.pop("earlier/unknown/a-99.pt")
    assert {name: sha256 for name, sha256 in found.items() if not name.startswith("earlier/0000")} == whole


def test_variants_that_cannot_share_a_call_are_grouped_by_themselves(root, make_job, monkeypatch):
    groups, plain = [], training_runs._train_group
    monkeypatch.setattr(
        training_runs,
        "_train_group",
        lambda plans, *rest: groups.append(sorted(p.job.name for p in plans)) or plain(plans, *rest),
    )
    jobs = [
        make_job("a"),
        make_job("b", vectors=8, batch_size=3),
        make_job("c", clip_skip=2),
        make_job("d", resolution=128),
        make_job("e", source="v"),
        make_job("f", precision="bf16"),
    ]
    seen = []
    results = train_variants(jobs, root=root, progress=lambda done, total, what: seen.append((done, total, what)))
    assert list(results) == [f"s__{name}" for name in "abcdef"]
    assert sorted(groups) == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert all(0 <= done <= total for done, total, _ in seen)
    assert any("s__a" in what and "s__b" in what for _, _, what in seen)


def test_bad_jobs_stop_before_anything_is_trained(root, make_job):
    good = make_job("a")
    job = make_job("b")
    bad = {
        "no picture to train on": dataclasses.replace(
            job, crops={"64": job.crops["64"][job.crops["64"].split == "validation"]}
        ),
        r"no caption for posts \[12\]": dataclasses.replace(job, captions=job.captions[job.captions.post_id != 12]),
    }
    for words, wrong in bad.items():
        with pytest.raises(TrainingError, match=f"s__b: .*{words}"):
            train_variants([good, wrong], root=root)
    old = dataclasses.replace(
        make_job("b", masked_loss=True), crops={"64": job.crops["64"].drop(columns="alpha_sha256")}
    )
    with pytest.raises(TrainingError, match="s__b: masked_loss needs crops that know their transparency"):
        train_variants([good, old], root=root)
    with pytest.raises(BaseModelError, match="nowhere"):
        train_variants([good, make_job("b", source="nowhere")], root=root)
    assert not (root / "embeddings").exists()


def test_a_changed_crop_is_named(root, make_job):
    (root / "crops" / "15.png").write_bytes(b"changed")
    with pytest.raises(TrainingError, match=r"s__a: the crop crops/15\.png is gone or was changed"):
        train_variants([make_job("a")], root=root)


def test_a_clip_skip_deeper_than_the_encoder_is_refused(root, make_job):
    with pytest.raises(BaseModelError, match="clip_skip 5 is deeper"):
        train_variants([make_job("a", clip_skip=5)], root=root)


def test_broken_numbers_are_reported_after_the_others_are_finished(root, make_job):
    jobs = [make_job("bad", steps=30, learning_rate="0.005:4, 1e30", checkpoint_every=1), make_job("good", steps=30)]
    with pytest.raises(
        TrainingError, match=r"s__bad: at update 5 .* the vectors' norm inf .*last good checkpoint is 4"
    ):
        train_variants(jobs, root=root)
    assert (jobs[1].folder / "training.json").exists()
    assert not (jobs[0].folder / "training.json").exists()
    kept = sorted(jobs[0].folder.glob("*.safetensors"))
    assert kept
    assert all(bool(torch.isfinite(load_embedding(path).vectors).all()) for path in kept)
    assert train_variants(jobs[1:], root=root)["s__good"].reused


def test_too_little_memory_gives_advice(root, make_job, monkeypatch):
    from ti_pipeline.inversion import trainer

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "_errors", exhausted)
    with pytest.raises(TrainingError, match=r"s__a: the GPU's memory .* batch_size .* precision bf16"):
        train_variants([make_job("a")], root=root)


def test_too_little_memory_to_encode_gives_advice(root, make_job, monkeypatch):
    from diffusers import AutoencoderKL

    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoencoderKL, "encode", exhausted)
    with pytest.raises(TrainingError, match=r"s__a: the GPU's memory .* of 64 pixels; .* smaller resolution"):
        train_variants([make_job("a")], root=root)


def test_what_applies_is_told_as_it_is(root, make_job):
    said = []
    job = make_job("a", learning_rate="0.01:3, 1e-3", warmup_steps=2, gradient_accumulation=2, templates=["[name]"])
    result = train_variants([job], root=root, tell=said.append)["s__a"]
    applied = result.applied
    assert applied["learning rate"] == "0 at the first update, 0.001 at the last, 0.01 at most"
    assert applied["optimizer"] == "AdamW, betas (0.9, 0.999), eps 1e-08, weight_decay 0.0"
    assert applied["pictures"] == "4 to train on, 1 held out, latents of 8 × 8"
    assert applied["updates"] == "6, 3 passes begun, 12 pictures shown"
    assert applied["captions"] == "prompts of 2 to 2 tokens with the vectors"
    assert applied["not used"] == "captions (no template has [filewords])"
    assert said == ["s__a: " + "; ".join(f"{name} {value}" for name, value in applied.items())]
    assert train_variants([job], root=root)["s__a"].applied == applied


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(root, make_job, monkeypatch, mount):
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained for nothing"))
    mount(root / "embeddings" / "s" / "a", "ro,size=64k")
    with pytest.raises(TrainingError, match=r"s__a: checkpoints cannot be written to .*s/a \(Read-only"):
        train_variants([make_job("a")], root=root)
    (root / "embeddings" / "s" / "b").write_text("a file where a folder should be")
    with pytest.raises(TrainingError, match=r"s__b: checkpoints cannot be written to .*s/b \(File exists\); .*TI_DATA"):
        train_variants([make_job("b")], root=root)


def test_a_disk_that_is_full_at_a_checkpoint_is_told_and_the_run_goes_on_when_there_is_room(root, make_job, mount):
    job = make_job("a", steps=12)
    train_variants([job], root=root)
    whole = files(job.folder)
    clear(job.folder)
    mount(job.folder, "size=96k")  # room for the checkpoint at 3 updates, not for all four
    (job.folder / "ballast").write_bytes(bytes(60 << 10))
    with pytest.raises(
        TrainingError, match=r"s__a: update \d+ cannot be saved in .* \(No space left on device\); make"
    ):
        train_variants([job], root=root)
    left = files(job.folder)
    assert {"state.pt", "state-before.pt"} & set(left)
    assert "training.json" not in left
    assert not [name for name in left if "partial" in name]
    (job.folder / "ballast").unlink()
    updates = []
    plain, trainer._update = trainer._update, lambda run, *rest: (updates.append(run.done), plain(run, *rest))
    try:
        train_variants([job], root=root)
    finally:
        trainer._update = plain
    assert updates[0] >= 3, "it began again"
    assert files(job.folder) == whole


def test_every_peer_reads_every_checkpoint(root, make_job, bases_folder):
    from diffusers import StableDiffusionPipeline

    job = make_job("wideV2", vectors=3)
    result = train_variants([job], root=root)["s__wideV2"]
    pipeline = StableDiffusionPipeline.from_pretrained(bases_folder / "tiny")
    for row in result.checkpoints.itertuples():
        name = row.checkpoint
        wanted = load_embedding(root / row.safetensors_path).vectors
        pt, safetensors, own = (job.folder / file for file in checkpoint_files("wideV2", row.step))
        read = {f"{reader.__name__} {path.suffix}": reader(path) for path in (pt, safetensors, own)
                for reader in (readers.a1111, readers.kohya, readers.invokeai)}  # fmt: skip
        read |= {"ComfyUI": readers.comfyui(job.folder, name), "ComfyUI, diffusers'": readers.comfyui(own.parent, name)}
        assert {who for who, vectors in read.items() if not torch.equal(vectors, wanted)} == set()
        pipeline.load_textual_inversion(own)  # no token given: the file tells it
        token = name.lower()  # of one with a capital letter diffusers would find the first vector alone
        ids = pipeline.tokenizer.convert_tokens_to_ids([token, f"{token}_1", f"{token}_2"])
        text = pipeline.maybe_convert_prompt(f"{token}, wolf", pipeline.tokenizer)
        assert pipeline.tokenizer(text).input_ids[1:4] == ids
        assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight.detach()[ids], wanted)
        pipeline.load_textual_inversion(pt, token=f"pt-{name}")
        pipeline.load_textual_inversion(safetensors, token=f"st-{name}")
        for token in (f"pt-{name}", f"st-{name}"):
            id_ = pipeline.tokenizer.convert_tokens_to_ids(token)
            assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight.detach()[id_], wanted[0])


def test_checkpoints_say_what_they_were_made_of(root, make_job):
    from safetensors import safe_open

    from ti_pipeline.inversion.base_models import base_identity

    origin = {"attribution_sha256": "ab" * 32, "licence": "CC BY 4.0"}
    job = dataclasses.replace(make_job("v2"), origin=origin)
    train_variants([job], root=root)

    def metadata(name: str = "v2-6.safetensors") -> dict[str, str]:
        with safe_open(job.folder / name, framework="pt") as reader:
            return reader.metadata()

    found = metadata()
    identity = base_identity("tiny", job.base_source, folder=job.base_folder)
    assert metadata("diffusers/v2-6.safetensors") == found
    assert {key: found[key] for key in ("study", "variant", "step", "base_name", "base_hash", *origin)} == {
        "study": "s", "variant": "v2", "step": "6", "base_name": "tiny", "base_hash": identity, **origin
    }  # fmt: skip
    train_variants([dataclasses.replace(job, captions=job.captions.assign(caption="lion"))], root=root)
    assert metadata()["data_fingerprint"] != found["data_fingerprint"]
    train_variants([dataclasses.replace(make_job("v2", learning_rate=0.001))], root=root)
    assert metadata()["data_fingerprint"] == found["data_fingerprint"]
    assert metadata()["fingerprint"] != found["fingerprint"]


def mixture(root: Path, make_job, name: str, **values):
    """A job whose crops have three shapes, one of them partly transparent."""
    import numpy as np
    from PIL import Image

    crops = make_job("x").crops["64"].assign(size=64, width=[64, 128, 64, 128, 64], height=[64, 64, 128, 64, 64])
    (root / "crops" / "alpha").mkdir(exist_ok=True)
    sums = {}
    for row in crops.itertuples():
        Image.open(root / row.path).resize((row.width, row.height)).save(root / row.path)
        sums[row.Index] = hashlib.sha256((root / row.path).read_bytes()).hexdigest()
    alpha = np.random.default_rng(0).integers(0, 2, (64, 128), dtype=np.uint8) * 255
    Image.fromarray(alpha).save(root / "crops" / "alpha" / "12.png")
    told = hashlib.sha256((root / "crops" / "alpha" / "12.png").read_bytes()).hexdigest()
    crops = crops.assign(sha256=pd.Series(sums))
    crops.loc[crops.post_id == 12, "alpha_sha256"] = told
    return dataclasses.replace(make_job(name, **values), crops={"64": crops})


def test_crops_of_several_shapes_are_trained_masked_and_go_on_exactly(root, make_job, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY", 2)
    job = mixture(root, make_job, "a", steps=9, checkpoint_every=4, masked_loss=True, batch_size=2)
    result = train_variants([job], root=root)["s__a"]
    assert result.checkpoints.validation_loss.notna().all()
    whole = files(job.folder)
    clear(job.folder)
    plain = training_runs._save

    def stopping(run, *args, **options):
        plain(run, *args, **options)
        if run.done == 6:
            raise StoppedError

    monkeypatch.setattr(training_runs, "_save", stopping)
    with pytest.raises(StoppedError):
        train_variants([job], root=root)
    monkeypatch.setattr(training_runs, "_save", plain)
    train_variants([job], root=root)
    assert files(job.folder) == whole
    unmasked = dataclasses.replace(job, variant=job.variant.model_copy(update={"masked_loss": False}))
    train_variants([unmasked], root=root)
    assert files(job.folder)["a-8.pt"] != whole["a-8.pt"]


def test_a_masked_loss_of_opaque_pictures_is_the_plain_one_to_the_bit(root, make_job):
    plain = train_variants([make_job("a")], root=root)["s__a"]
    masked = train_variants([make_job("a", masked_loss=True)], root=root)["s__a"]
    assert not masked.reused
    assert masked.checkpoints.pt_sha256.tolist() == plain.checkpoints.pt_sha256.tolist()
    pd.testing.assert_frame_equal(masked.losses, plain.losses)


def test_an_alpha_that_is_gone_is_named(root, make_job):
    job = mixture(root, make_job, "a", masked_loss=True)
    (root / "crops" / "alpha" / "12.png").unlink()
    with pytest.raises(TrainingError, match=r"s__a: the crop crops/alpha/12\.png is gone or was changed"):
        train_variants([job], root=root)


def test_the_record_tells_what_was_kept(root, make_job):
    job = make_job("a")
    train_variants([job], root=root)
    record = json.loads((job.folder / "training.json").read_text())
    assert record["files"] == {k: v for k, v in files(job.folder).items() if k not in {"training.json", "state.pt"}}


def test_going_on_from_a_file_is_part_of_the_fingerprint_and_its_absence_is_told(root, make_job, bases_folder):
    theirs = root / "theirs.pt"
    shutil.copy(_trained(root, make_job, "v2") / "v2-6.pt", theirs)
    job = make_job("more", start="file", initializer_file=str(theirs), learning_rate=1e-9)
    train_variants([job], root=root)
    found = load_embedding(root / "embeddings" / "s" / "more" / "more-6.pt").vectors
    assert torch.allclose(found, load_embedding(theirs).vectors, atol=1e-6)
    assert train_variants([job], root=root)["s__more"].reused
    shutil.copy(root / "embeddings" / "s" / "v2" / "v2-3.pt", theirs)
    assert not train_variants([job], root=root)["s__more"].reused
    theirs.unlink()
    with pytest.raises(TrainingError, match=r"s__more: initializer_file: .*theirs\.pt is not there"):
        train_variants([job], root=root)


def _trained(root: Path, make_job, name: str) -> Path:
    train_variants([make_job(name)], root=root)
    return root / "embeddings" / "s" / name


def test_stages_train_on_their_own_crop_sets_and_hold_out_what_none_of_them_trains_on(root, make_job):
    crops = make_job("x").crops["64"]
    # In the second set 31 is trained on and 12 is held out, but 12 was trained on before: nothing is left to measure.
    busy = crops[crops.post_id.isin([12, 31])].assign(split=["validation", "train"])
    stages = [{"crop": "64", "steps": 4}, {"crop": "busy", "steps": 2, "learning_rate": 0.001}]
    job = make_job("a", more={"busy": busy}, stages=stages, crop=None, steps=None)
    result = train_variants([job], root=root)["s__a"]
    assert result.losses.learning_rate.tolist() == [0.005] * 4 + [0.001] * 2
    assert result.losses.epoch.tolist() == [1, 1, 1, 1, 2, 3]
    assert result.checkpoints.validation_loss.isna().all()
    assert train_variants([job], root=root)["s__a"].reused
    changed = dataclasses.replace(job, crops=dict(job.crops) | {"busy": busy.assign(split=["train", "train"])})
    assert not train_variants([changed], root=root)["s__a"].reused
    with pytest.raises(TrainingError, match="no picture to train on in its crop set 'busy'"):
        train_variants([dataclasses.replace(job, crops=dict(job.crops) | {"busy": busy.iloc[:1]})], root=root)
