"""Tables of noise levels at whole timesteps, against diffusers' scheduler where it is installed."""

from __future__ import annotations

import math

import pytest
import torch

from calotype.diffusion import (
    DiscreteSchedule,
    linear_betas,
    schedule_from_betas,
    squaredcos_betas,
)
from calotype.errors import UsageError

TABLES = {"squaredcos_cap_v2": squaredcos_betas(1000), "linear": linear_betas(1000)}


@pytest.mark.parametrize("name", list(TABLES))
def test_whole_timesteps_are_exact(name: str) -> None:
    schedule, timesteps = schedule_from_betas(TABLES[name]), torch.arange(1000)
    levels = schedule.logsnr_at(timesteps)
    kept = torch.cumprod(1 - TABLES[name], 0).double()
    torch.testing.assert_close(torch.sigmoid(levels), kept, atol=1e-15, rtol=1e-14)
    assert torch.equal(schedule.timestep(levels), timesteps.double())
    assert torch.equal(schedule.timestep(levels.float()), timesteps.double())
    assert torch.equal(schedule.logsnr(timesteps.double() / 999), levels)


def test_between_timesteps_it_is_interpolated() -> None:
    schedule = schedule_from_betas(TABLES["linear"])
    t = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(schedule.time(schedule.logsnr(t)), t)
    beyond = torch.tensor([math.inf, 100.0, -100.0])
    assert schedule.time(beyond).tolist() == [0, 0, 1]


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_shorter_walks_are_those_of_diffusers(spacing: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(timestep_spacing=spacing)
    ours = schedule_from_betas(TABLES["linear"], spacing=spacing)
    for steps in (1, 2, 3, 7, 9, 27, 48, 50, 96, 100, 112, 144, 192, 333, 999, 1000):
        theirs.set_timesteps(steps)
        assert ours.sampling_timesteps(steps) == theirs.timesteps.tolist(), steps


@pytest.mark.parametrize("name", list(TABLES))
def test_tables_are_those_of_diffusers(name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod
    assert torch.equal(theirs, torch.cumprod(1 - TABLES[name], 0))


def test_grids() -> None:
    schedule = schedule_from_betas(TABLES["linear"])
    levels = schedule.sampling_levels([999, 500, 0])
    assert levels[-1] == math.inf and bool((levels.diff() > 0).all()) and len(levels) == 4
    half = schedule.sampling_levels([999, 500, 0], start_time=0.6)
    assert torch.equal(half, levels[1:])
    for wrong in ([], [1000], [-1]):
        with pytest.raises(UsageError, match="timesteps"):
            schedule.sampling_levels(wrong)
    with pytest.raises(UsageError, match="steps"):
        schedule.sampling_timesteps(1001)
    with pytest.raises(UsageError, match="fall"):
        DiscreteSchedule(torch.tensor([0.5, 0.5]))
