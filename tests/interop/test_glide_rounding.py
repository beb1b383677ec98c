"""Another order of operations: the same numbers in float64, and those of the table in float32."""

import math

import pytest
import torch

from calotype.diffusion import (
    EpsPrediction,
    Estimate,
    Move,
    SamplerState,
    ddim_step,
    linear_betas,
    schedule_from_betas,
)
from calotype.interop.glide import reference

SCHEDULE = schedule_from_betas(linear_betas(1000, dtype=torch.float64))


def random(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64).to(dtype)


def test_the_estimate_is_the_same():
    z, eps, levels = random(0), random(1), SCHEDULE.table[torch.tensor([0, 500, 999])]
    found = reference.eps_to_x(eps, z, levels)
    torch.testing.assert_close(found, EpsPrediction().to_x(eps, z, levels), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("following", [100, 498, None])
def test_ddim_is_the_same(following):
    level = SCHEDULE.table[500]
    end = torch.tensor(math.inf, dtype=torch.float64)
    state = SamplerState(0, level, random(2), Estimate(random(3)))
    move = Move(state, end if following is None else SCHEDULE.table[following], None, None)
    torch.testing.assert_close(reference.ddim_step(move), ddim_step(move), atol=1e-12, rtol=1e-12)
    if following is None:
        assert torch.equal(reference.ddim_step(move), state.estimate.x_hat)


def test_float32_is_that_of_the_table():
    """Coefficients from alpha^2 in float64, rounded once, as their code takes them from numpy."""
    alpha2 = torch.cumprod(1 - linear_betas(1000, dtype=torch.float64), 0)[[10, 500, 990]]
    of_z, of_eps = (v.sqrt().float()[:, None, None, None] for v in (1 / alpha2, 1 / alpha2 - 1))
    z, eps = random(4, torch.float32), random(5, torch.float32)
    found = reference.eps_to_x(eps, z, SCHEDULE.table[[10, 500, 990]])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, of_z * z - of_eps * eps, atol=0, rtol=2e-7)
