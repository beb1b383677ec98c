"""Training of networks that learn the variance of the reverse step, from settings to a run."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.diffusion import PreservationConfig
from calotype.config.recipe import Recipe
from calotype.config.sampling import SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig, UniformTimes, WholeTimesteps
from calotype.config.stage import StageConfig
from calotype.config.typed_json import to_dict
from calotype.diffusion.named import build_schedule
from calotype.errors import ConfigError
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.random_numbers import step_numbers, whole_timesteps
from calotype.training import progress
from calotype.training.sharded_checkpoint import read_shards

STEPS = 20
NETWORK = AdmConfig(
    levels=(AdmLevel(channels=8, blocks=1),),
    middle="none",
    norm_groups=4,
    learned_variance=True,
)
STAGE = StageConfig(
    resolution=8,
    network=NETWORK,
    schedule=DiscreteScheduleConfig(steps=STEPS),
    sampling=SamplingConfig(steps=5, sampler="ddpm"),
)
SHAPE = torch.Size((40, 3, 8, 8))


@pytest.fixture
def learned(micro):
    """Make settings of a stage that learns its variance."""

    def make(*, importance=False, **changes):
        levels = WholeTimesteps(importance=importance)
        return micro(**{"stage": STAGE, "levels": levels, "grid_captions": (), **changes})

    return make


def test_levels_are_entries_of_the_table_and_stratified(learned):
    schedule = build_schedule(STAGE.schedule)
    numbers = step_numbers(learned(), schedule, 0, shape=SHAPE)
    assert set(numbers.logsnr.tolist()) <= set(schedule.table.tolist())
    counts = whole_timesteps(schedule, numbers.logsnr).bincount(minlength=STEPS)
    assert counts.min() >= 1 and counts.max() <= 3  # two each but where the strata begin
    assert numbers.loss_weights is None


def test_importance_weighs_losses_so_that_their_mean_is_that_of_uniform_timesteps(learned):
    schedule = build_schedule(STAGE.schedule)
    probabilities = torch.arange(1, STEPS + 1).double() / (STEPS * (STEPS + 1) / 2)
    shape = torch.Size((4200, 1, 1, 1))
    numbers = step_numbers(
        learned(importance=True), schedule, 0, shape=shape, probabilities=probabilities
    )
    timesteps = whole_timesteps(schedule, numbers.logsnr)
    assert (timesteps.bincount() / 4200 - probabilities).abs().max() < 1e-3
    terms = torch.rand(STEPS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = (terms[timesteps] * numbers.loss_weights).mean()
    torch.testing.assert_close(mean, terms.mean(), rtol=1e-2, atol=0)


def test_the_task_remembers_losses_as_they_were(learned):
    config = learned(importance=True)
    stage = new_stage(config, device="cpu", dtype=torch.float32)
    task = DiffusionTask(config, stage)
    probabilities = torch.full((STEPS,), 1 / STEPS).double()
    probabilities[0], probabilities[1] = 1.5 / STEPS, 0.5 / STEPS
    numbers = step_numbers(config, stage.schedule, 0, shape=SHAPE, probabilities=probabilities)
    timesteps = whole_timesteps(stage.schedule, numbers.logsnr)
    task.remember(timesteps.double() * numbers.loss_weights, numbers)
    newest = task.memory["losses"][:, -1]
    seen = torch.isin(torch.arange(STEPS), timesteps)
    torch.testing.assert_close(newest[seen], torch.arange(STEPS).double()[seen])
    assert newest[~seen].isnan().all()
    plain = DiffusionTask(learned(), new_stage(learned(), device="cpu", dtype=torch.float32))
    assert dict(plain.memory) == {}


CASCADED = dataclasses.replace(STAGE, schedule="cosine")
FIXED = dataclasses.replace(STAGE, network=dataclasses.replace(NETWORK, learned_variance=False))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": CASCADED}, r"^got levels whole_timesteps with schedule='cosine'.*; expected "),
        ({"levels": UniformTimes()}, r"^got levels uniform_times for .* learned_variance.*; expec"),
        ({"stage": FIXED, "importance": True}, r"^got levels with importance=true.*; expected one"),
        ({"importance": True, "weighting": "min_snr"}, r"^got weighting .*; expected weighting="),
        (
            {"importance": True, "preservation": PreservationConfig(data="x")},
            r"^got weighting or preservation .*; expected ",
        ),
        ({"vlb_weight": -0.1}, "vlb_weight"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(learned, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        learned(**changes)
    assert "\n" not in str(caught.value)


def test_a_variance_may_stay_as_it_is(learned):
    assert learned(levels=UniformTimes(), vlb_weight=0.0).vlb_weight == 0
    assert learned(stage=FIXED).levels == WholeTimesteps()


def lines(run, name):
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def weights(run, images, name="weights"):
    return load_file(run / "checkpoints" / str(images) / f"{name}.safetensors")


def test_a_run_learns_variance_and_says_its_bits(learned, train, tmp_path):
    config = learned(total_images=32, checkpoint_images=16, validation_images=16, grid_images=0)
    assert train(Recipe(name="learned", stages=(config,)), tmp_path / "run") == 0
    before, after = (weights(tmp_path / "run", images) for images in (16, 32))
    (last,) = (name for name, weight in after.items() if weight.ndim == 4 and len(weight) == 6)
    moved = after[last] - before[last]
    assert (moved.flatten(1).abs().sum(1) > 0).all()  # of the error and of the variance
    for line in lines(tmp_path / "run", "validation"):
        for kind in ("validation", "trained"):
            assert 0 < line.get(kind, {"vlb": 1})["vlb"] < 1000
    assert not (tmp_path / "run/checkpoints/32/memory.safetensors").exists()


@pytest.fixture
def weighed(learned):
    """Settings whose timesteps are soon those of the largest losses."""
    return learned(
        importance=True, total_images=40, checkpoint_images=20, grid_images=0, validation_images=0,
        stage=dataclasses.replace(STAGE, schedule=DiscreteScheduleConfig(steps=2)),
    )  # fmt: skip


def assert_same(whole, parts):
    for name in ("weights", "optimizer", "memory"):
        ours, theirs = (weights(run, 40, name) for run in (whole, parts))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


@pytest.mark.slow
def test_a_run_by_importance_resumes_to_the_bit(weighed, train, tmp_path, monkeypatch):
    recipe = Recipe(name="weighed", stages=(weighed,))
    assert train(recipe, tmp_path / "whole") == 0
    show = progress.TrainingDisplay.show

    def interrupted(self, now, meter):
        if now == 28:
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, now, meter)

    with monkeypatch.context() as context:
        context.setattr(progress.TrainingDisplay, "show", interrupted)
        assert train(recipe, tmp_path / "parts") == 0
    history = weights(tmp_path / "parts", 28, "memory")["losses"]
    assert not history.isnan().any()  # it is in use when the run is stopped
    assert train(recipe, tmp_path / "parts", resume=True) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert not torch.equal(weights(tmp_path / "whole", 40, "memory")["losses"], history)


@pytest.mark.slow
def test_two_processes_remember_the_losses_of_one_and_resume_to_the_bit(
    weighed, train, images, tmp_path
):
    recipe = Recipe(name="weighed", stages=(weighed,))
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    shutil.copytree(images, tmp_path / "data")
    assert train(recipe, tmp_path / "one", data=tmp_path / "data") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    worker = Path(__file__).with_name("importance_worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*launch, str(worker), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "copies", tmp_path / "copies-parts")
    one = weights(tmp_path / "one", 40, "memory")["losses"]
    two = weights(tmp_path / "copies", 40, "memory")["losses"]
    torch.testing.assert_close(two, one, rtol=1e-3, atol=0)
    whole, parts = (
        read_shards(tmp_path / run / "checkpoints" / "40") for run in ("shards", "shards-parts")
    )
    assert "memory.safetensors" in whole
    for file, tensors in whole.items():
        assert all(torch.equal(tensor, parts[file][key]) for key, tensor in tensors.items()), file
    found = whole["memory.safetensors"]["losses"]
    torch.testing.assert_close(found, one, rtol=1e-3, atol=0)
