import dataclasses
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ti_pipeline.evaluation import sampler
from ti_pipeline.evaluation.infotext import parse_infotext
from ti_pipeline.evaluation.sampler import Suite, draw_pictures, render_suites
from ti_pipeline.inversion.base_models import Base, BaseModelError, load_base
from ti_pipeline.inversion.embedding_files import Embedding, save_safetensors
from ti_pipeline.studies import BaseModelSource
from ti_pipeline_tests.evaluation.conftest import cell, sha256_for

SAMPLERS = ("DDIM", "Euler a", "DPM++ 2M Karras")


@pytest.fixture
def pipeline(base_folder: Path):
    from diffusers import StableDiffusionPipeline

    made = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers, under NumPy 2
@pytest.mark.parametrize("kind", [{}, {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_cell_equals_diffusers_own_pipeline(
    name: str,
    kind: dict[str, str],
    pipeline,
    base: Base,
    embeddings: dict[str, Embedding],
    vectors: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    """The peer: StableDiffusionPipeline with the embedding loaded by its own load_textual_inversion."""
    import diffusers

    # Names and settings as in diffusers' own table of A1111's samplers.
    scheduler, settings = {
        "DDIM": (diffusers.DDIMScheduler, {}),
        "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
        "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    }[name]
    base = dataclasses.replace(base, scheduler_config=base.scheduler_config | kind)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **kind, **settings)
    save_safetensors(tmp_path / "ember.safetensors", embeddings["v-1"])
    pipeline.load_textual_inversion(str(tmp_path / "ember.safetensors"), token="ember")
    theirs = pipeline(
        "ember, wolf",
        negative_prompt="blurry",
        num_inference_steps=5,
        guidance_scale=7.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(6),
        output_type="np",
    ).images[0]
    wanted = [
        cell(sampler=name, steps=5, negative="blurry"),
        cell(sampler=name, steps=5, seed=7, value="lion", prompt="ember, lion", checkpoint="v-2"),
    ]
    ours = draw_pictures(wanted, base=base, vectors=vectors)
    assert np.abs(ours[0].astype(int) - (theirs * 255).round().astype(int)).max() <= 2


# Every class with Stable Diffusion's kind of noise schedule that a folder may name.
FOLDER_SCHEDULERS = (
    "DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler",
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def folder_with(scheduler, base_folder: Path, folder: Path) -> Path:
    """Write the base anew, saved with another scheduler."""
    shutil.copytree(base_folder, folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    scheduler.save_config(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def loaded(folder: Path) -> Base:
    return load_base("other", BaseModelSource(folder=str(folder)), folder=folder.parent, device="cpu")


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # in diffusers, under NumPy 2
@pytest.mark.filterwarnings("ignore:.*configuration file of this scheduler:FutureWarning")
@pytest.mark.parametrize("saved", FOLDER_SCHEDULERS)
def test_a_folder_may_name_any_scheduler(
    saved: str, base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """The peer: diffusers' pipeline, whose constructor repairs what it is given, with the sampler's own class."""
    import diffusers

    kind = getattr(diffusers, saved)
    kind(**NOISE).save_config(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text())
    ours = dataclasses.replace(base, scheduler_config=dict(kind.from_pretrained(tmp_path).config))
    parts = {name: getattr(base, name) for name in ("unet", "vae", "text_encoder", "tokenizer")}
    prompt = {"prompt": "wolf", "num_inference_steps": 4, "guidance_scale": 7.0, "height": 64, "width": 64}
    for name, (kind, settings) in {
        "DDIM": ("DDIMScheduler", {} if "set_alpha_to_one" in config else {"set_alpha_to_one": False}),
        "Euler a": ("EulerAncestralDiscreteScheduler", {}),
        "DPM++ 2M Karras": (
            "DPMSolverMultistepScheduler",
            {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"},
        ),
    }.items():
        pipeline = diffusers.StableDiffusionPipeline(
            **parts,
            scheduler=getattr(diffusers, kind).from_config(config, **settings),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        theirs = pipeline(**prompt, generator=torch.Generator().manual_seed(6), output_type="np").images[0]
        drawn = draw_pictures([cell(sampler=name, prompt="wolf")], base=ours, vectors=vectors)[0]
        assert np.abs(drawn.astype(int) - (theirs * 255).round().astype(int)).max() <= 2, name


@pytest.mark.filterwarnings("ignore:.*configuration file of this scheduler:FutureWarning")
def test_settings_of_a_saved_solver_do_not_make_another_sampler_of_it(
    base_folder: Path, base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from diffusers import DPMSolverMultistepScheduler

    other = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3, "use_exponential_sigmas": True}
    plain = folder_with(DPMSolverMultistepScheduler(**NOISE), base_folder, tmp_path / "plain")
    strange = folder_with(DPMSolverMultistepScheduler(**NOISE, **other), base_folder, tmp_path / "strange")
    one = [cell(sampler="DPM++ 2M Karras")]
    found = [draw_pictures(one, base=loaded(folder), vectors=vectors) for folder in (plain, strange)]
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "IPNDMScheduler"])
def test_a_scheduler_that_says_nothing_of_the_noise_is_refused(name: str, base_folder: Path, tmp_path: Path) -> None:
    import diffusers

    folder = folder_with(getattr(diffusers, name)(), base_folder, tmp_path / "base")
    with pytest.raises(BaseModelError, match=rf"its {name} says nothing of the noise .* scheduler_config\.json"):
        loaded(folder)


def test_two_embeddings_in_one_prompt_equal_diffusers_own_pipeline(
    pipeline, base: Base, embeddings: dict[str, Embedding], vectors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    from diffusers import DDIMScheduler

    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    for checkpoint, name in (("v-1", "ember"), ("v-2", "style-of")):
        save_safetensors(tmp_path / f"{name}.safetensors", embeddings[checkpoint])
        pipeline.load_textual_inversion(str(tmp_path / f"{name}.safetensors"), token=name)
    theirs = pipeline(
        "ember, wolf, style-of",
        negative_prompt="style-of",
        num_inference_steps=4,
        guidance_scale=7.0,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(6),
        output_type="np",
    ).images[0]
    others = (("style-of", sha256_for("v-2")),)
    one = cell(prompt="ember, wolf, style-of", negative="style-of", others=others)
    ours = draw_pictures([one, cell()], base=base, vectors=vectors)
    assert np.abs(ours[0].astype(int) - (theirs * 255).round().astype(int)).max() <= 2


def test_a_long_prompt_is_encoded_in_chunks_that_stand_in_one_batch_with_short_ones(
    base: Base, vectors: dict[str, torch.Tensor]
) -> None:
    words = "wolf, " * 60
    long, cut = (cell(prompt=words + "ember", long_prompts=how) for how in ("chunks", "cut"))
    other_end = cell(prompt=words + "city, sea", long_prompts="chunks")
    cut_other_end = cell(prompt=words + "city, sea", long_prompts="cut")
    found = draw_pictures([long, other_end, cut, cut_other_end, cell()], base=base, vectors=vectors).astype(int)
    for index, one in enumerate((long, other_end, cut, cut_other_end, cell())):
        assert np.abs(draw_pictures([one], base=base, vectors=vectors)[0].astype(int) - found[index]).max() <= 1
    assert np.abs(found[0] - found[1]).max() > 2, "what is said beyond 75 tokens must be seen"
    assert np.abs(found[2] - found[3]).max() == 0, "what is cut off cannot be"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_batch(name: str, base: Base, vectors: dict[str, torch.Tensor]) -> None:
    cells = [cell(sampler=name, seed=seed, checkpoint=c) for seed in (1, 2) for c in ("v-1", "v-2")]
    together = draw_pictures(cells, base=base, vectors=vectors)
    for index, one in enumerate(cells):
        alone = draw_pictures([one], base=base, vectors=vectors)[0]
        assert np.abs(alone.astype(int) - together[index].astype(int)).max() <= 1
    assert np.abs(together[0].astype(int) - together[1].astype(int)).max() > 2, "checkpoints must differ"


def render(cells, base, vectors, root: Path, **options):
    suite = Suite(cells, "evaluation/s/v", base="tiny", study="s", study_fingerprint="f" * 64)
    return render_suites([suite], load=lambda: (base, vectors), root=root, batch_size=4, **options)[0]


def test_rendering_goes_on_where_it_stopped(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [cell(seed=seed, steps=2) for seed in range(3)]
    table = render(cells[:2], base, vectors, tmp_path)
    (tmp_path / table.path[0]).write_bytes(b"half a pic")
    drawn: list[str] = []
    real = sampler.draw_pictures

    def watched(batch, **options):
        drawn.extend(one.cell for one in batch)
        return real(batch, **options)

    monkeypatch.setattr(sampler, "draw_pictures", watched)
    table = render(cells, base, vectors, tmp_path)
    assert sorted(drawn) == sorted([cells[0].cell, cells[2].cell])
    assert len(table) == 3
    with Image.open(tmp_path / table.path[0]) as picture:
        assert picture.info["ti_study"] == "f" * 64
        said = parse_infotext(picture.info["parameters"])
    assert said["TI hashes"] == f"ember: {cells[0].embedding_sha256[:12]}"
    assert said["Size"] == "64x64"
    assert said["RNG"] == "CPU", "A1111 would draw another picture with the GPU's noise"
    assert said["Study hash"] == "f" * 10
    assert "Clip skip" not in said


def test_variants_of_one_base_share_batches_and_keep_their_own_folders(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes, told = sampler.draw_pictures, [], []

    def watched(batch, **options):
        sizes.append(len(batch))
        return real(batch, **options)

    monkeypatch.setattr(sampler, "draw_pictures", watched)
    suites = [
        Suite([cell(variant="v", seed=seed, steps=1) for seed in range(3)], "evaluation/s/v"),
        Suite([cell(variant="w", seed=seed, steps=1, checkpoint="v-2") for seed in range(5)], "evaluation/s/w"),
    ]
    tables = render_suites(
        suites,
        load=lambda: (base, vectors),
        root=tmp_path,
        batch_size=4,
        progress=lambda done, of, what: told.append((done, of)),
    )
    assert sizes == [4, 4]
    assert told == [(0, 8), (4, 8), (8, 8)]
    assert [set(table.variant) for table in tables] == [{"v"}, {"w"}]
    assert [len(list((tmp_path / suite.folder).glob("*.png"))) for suite in suites] == [3, 5]


def test_pictures_nobody_asks_for_are_removed(base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    render([cell(steps=1), cell(steps=1, seed=9)], base, vectors, tmp_path)
    table = render([cell(steps=1)], base, vectors, tmp_path)
    assert [p.name for p in (tmp_path / "evaluation/s/v").glob("*.png")] == [Path(table.path[0]).name]


def test_when_memory_runs_out_the_batch_is_halved(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes = sampler.draw_pictures, []

    def small(batch, **options):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return real(batch, **options)

    monkeypatch.setattr(sampler, "draw_pictures", small)
    assert len(render([cell(seed=seed, steps=1) for seed in range(4)], base, vectors, tmp_path)) == 4
    assert sizes == [4, 2, 1, 1, 1, 1], "what was too much once is not tried again"


def test_one_picture_that_is_too_much_is_an_error(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(batch, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(sampler, "draw_pictures", never)
    with pytest.raises(torch.OutOfMemoryError):
        render([cell(seed=seed) for seed in range(2)], base, vectors, tmp_path)


def test_a_prompt_is_encoded_once_per_checkpoint_over_all_batches(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ti_pipeline.inversion import conditioning

    real, encoded = conditioning.encode_prompts, []

    def watched(base, prompts, vectors, **options):
        encoded.extend(prompts)
        return real(base, prompts, vectors, **options)

    monkeypatch.setattr(conditioning, "encode_prompts", watched)
    render([cell(seed=s, checkpoint=c, steps=1) for c in ("v-1", "v-2") for s in range(5)], base, vectors, tmp_path)
    assert sorted(encoded) == ["", "", "ember, wolf", "ember, wolf"]


def test_no_damage_to_a_picture_stops_a_run_or_passes_as_finished(
    base: Base, vectors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    one = cell(steps=1)
    path = tmp_path / render([one], base, vectors, tmp_path).path[0]
    whole, draws = path.read_bytes(), random.Random(1)
    with Image.open(path) as picture:
        pixels = picture.tobytes()
    for number in range(120):
        damaged = bytearray(whole)
        if number % 2:
            del damaged[draws.randrange(len(whole)) :]
        else:
            damaged[draws.randrange(len(whole))] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        if sampler._is_finished(path, one.cell):
            with Image.open(path) as picture:
                assert picture.tobytes() == pixels
