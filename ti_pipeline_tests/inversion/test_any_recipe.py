"""Any recipe that the study format allows trains to its end, and goes on to the same bytes from wherever it stopped."""

import shutil

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ti_pipeline.inversion import trainer
from ti_pipeline.inversion.training_runs import train_variants
from ti_pipeline_tests.inversion.test_training_runs import StoppedError, files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bases_are_read_once")]

RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "vectors": st.integers(1, 5),
        "steps": st.one_of(st.none(), st.integers(1, 9)),
        "epochs": st.one_of(st.none(), st.integers(1, 4)),
        "batch_size": st.integers(1, 6),
        "gradient_accumulation": st.integers(1, 3),
        "checkpoint_every": st.integers(1, 5),
        "learning_rate": st.sampled_from([0.005, "0.01:3, 1e-3"]),
        "lr_scheduler": st.sampled_from(["constant", "cosine", "linear"]),
        "warmup_steps": st.integers(0, 4),
        "optimizer": st.sampled_from(["adamw", "lion", "prodigy", "directional"]),
        "start": st.sampled_from(["text", "vocabulary"]),
        "initializer": st.sampled_from(["*", "", "cat", "a red fox in the snow"]),
        "templates": st.sampled_from([["[name], [filewords]"], ["[name]", "a photo of [name], [filewords]"]]),
        "shuffle_tags": st.booleans(),
        "drop_tags": st.sampled_from([0.0, 0.5, 1.0]),
        "caption_dropout": st.sampled_from([0.0, 0.5]),
        "keep_tags": st.integers(0, 2),
        "long_prompts": st.sampled_from(["fit", "chunks", "cut"]),
        "latents": st.sampled_from(["once", "deterministic", "random"]),
        "precision": st.sampled_from(["fp32", "bf16"]),
        "gradient_clip": st.one_of(st.none(), st.just(0.1)),
        "min_snr_gamma": st.one_of(st.none(), st.just(5.0)),
        "noise_offset": st.sampled_from([0.0, 0.1]),
        "max_norm": st.one_of(st.none(), st.just(1.0)),
        "ema_decay": st.one_of(st.none(), st.just(0.9)),
        "patience": st.one_of(st.none(), st.integers(1, 2)),
        "clip_skip": st.integers(1, 2),
        "source": st.sampled_from(["tiny", "v"]),
    },
)


@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=RECIPES, stop=st.integers(1, 8), often=st.booleans())
@example(recipe={"optimizer": "directional", "learning_rate": "0.1:3, 0.02", "ema_decay": 0.9}, stop=4, often=True)
def test_any_recipe_trains_and_goes_on_from_where_it_stopped(root, make_job, recipe, stop, often):
    nothing = recipe.get("start", "text") == "text" and recipe.get("initializer") == ""
    assume(not (nothing and recipe.get("optimizer") == "directional"))  # refused: zeros have no direction
    try:
        job = make_job("a", **recipe)
    except ValidationError:
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SAVE_AFTER", 0.0 if often else 1e9)
        patch.setattr(trainer, "GATHER_AFTER", 0.0 if often else 1e9)
        (whole,) = train_variants([job], root=root, progress=lambda *step: told.append(step)).values()
        assert told[-1][0] == told[-1][1] == whole.checkpoints.step.max()
        expected = files(job.folder)
        shutil.rmtree(job.folder)

        def stopping(done, _total, what):
            if what.startswith("training") and done >= stop:
                raise StoppedError

        try:
            train_variants([job], root=root, progress=stopping)
        except StoppedError:
            train_variants([job], root=root)
    assert files(job.folder) == expected
