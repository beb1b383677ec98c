"""Training of networks that learn the variance of the reverse step, from settings to a run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from calotype.cascade.timesteps import build_schedule
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.diffusion import PreservationConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig, UniformTimes, WholeTimesteps
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.random_numbers import step_numbers, whole_timesteps

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
