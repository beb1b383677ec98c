"""DDIM inversion against Gaussian data, whose steps and whose flow have closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from calotype.diffusion import (
    CosineSchedule,
    Denoiser,
    Estimate,
    GlobalNoise,
    alpha_sigma,
    ddim_step,
    denoising_steps,
    inversion_steps,
    karras_levels,
    sampling_levels,
)
from calotype.errors import UsageError

MEAN, STD = 0.3, 0.5
X = torch.linspace(-1, 1, 33, dtype=torch.float64)[:, None]


def inverted(denoise: Denoiser, x: Tensor, levels: Tensor, refine: int = 0) -> Tensor:
    *_, state = inversion_steps(denoise, x, levels, refine=refine)
    return state.z


def sampled(denoise: Denoiser, z: Tensor, levels: Tensor) -> Tensor:
    *_, state = denoising_steps(denoise, z, levels, GlobalNoise(), step=ddim_step)
    return state.z


def missed(denoise: Denoiser, levels: Tensor, refine: int = 0) -> float:
    back = sampled(denoise, inverted(denoise, X, levels, refine), levels)
    return float((back - X).abs().max())


def grids(count: int) -> dict[str, Tensor]:
    return {
        "finite": torch.linspace(-6, 5, count + 1).double(),
        "karras": karras_levels(count, sigma_min=0.002),
        "cosine": sampling_levels(CosineSchedule(), count),
    }


@pytest.mark.parametrize("grid", ["finite", "karras", "cosine"])
@pytest.mark.parametrize(("refine", "order"), [(0, 1), (1, 2), (2, 3)])
def test_plain_is_of_first_order_and_each_refinement_adds_one(
    gaussian, grid: str, refine: int, order: int
) -> None:
    few, many = (missed(gaussian(MEAN, STD), grids(n)[grid], refine) for n in (40, 80))
    assert math.log2(few / many) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("refine", [0, 20])
def test_the_start_is_that_of_the_probability_flow(gaussian, exact_gaussian_flow, refine) -> None:
    """To first order, as DDIM solves it: plain or refined."""
    errors = []
    for count in (40, 80):
        levels = grids(count)["finite"]
        start = inverted(gaussian(MEAN, STD), X, levels, refine)
        exact = exact_gaussian_flow(X, levels[-1], levels[0], MEAN, STD)
        errors.append(float((start - exact).abs().max()))
    assert errors[1] < 0.1
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("grid", ["finite", "karras", "cosine"])
@pytest.mark.parametrize(("std", "refine"), [(0.5, 6), (0.05, 30)])
def test_refined_it_gives_the_image_back(gaussian, grid: str, std: float, refine: int) -> None:
    levels, denoise = grids(50)[grid], gaussian(MEAN, std)
    assert missed(denoise, levels, refine) < 1e-6
    # The closed form: every step of DDIM scales what lies off the mean.
    a, scale = alpha_sigma(levels[0].float())[0], 1.0
    for now, following in pairwise(levels.float()):
        (alpha, sigma), (alpha_next, sigma_next) = alpha_sigma(now), alpha_sigma(following)
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        scale *= float(sigma_next / sigma + (alpha_next - alpha * sigma_next / sigma) * gain)
    a_last = alpha_sigma(levels[-1])[0]
    exact = a * MEAN + (X - a_last * MEAN) / scale
    start = inverted(denoise, X, levels, refine)
    torch.testing.assert_close(start, exact, rtol=1e-5, atol=1e-5)


def test_pixels_that_depend_on_each_other() -> None:
    """The narrow direction is refined as the wide one is; pixels alone would hide it."""
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    spread = torch.tensor([1.5, 0.5, 0.2, 0.05], dtype=torch.float64)

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        alpha, sigma = (v[:, None] for v in alpha_sigma(logsnr))
        gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
        return Estimate((z @ basis) * gain @ basis.T)

    x = (torch.randn(16, 4, dtype=torch.float64) * spread) @ basis.T
    levels = karras_levels(50)
    torch.testing.assert_close(
        sampled(denoise, inverted(denoise, x, levels, 30), levels), x, rtol=0, atol=1e-6
    )


def test_data_with_two_modes_come_back(mixture) -> None:
    means = torch.tensor([[-0.6], [0.6]], dtype=torch.float64)
    denoise = mixture(means, torch.tensor([0.3, 0.7], dtype=torch.float64), 0.2)
    assert missed(denoise, karras_levels(60), refine=30) < 1e-6


def test_states_go_from_the_last_noisy_level_to_the_first(gaussian) -> None:
    levels = karras_levels(5)
    calls = []

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        calls.append(float(logsnr[0]))
        return gaussian(MEAN, STD)(z, logsnr)

    states = list(inversion_steps(denoise, X, levels))
    assert [state.index for state in states] == list(range(5))
    assert [float(state.logsnr) for state in states] == levels[:-1].flip(0).float().tolist()
    assert torch.equal(states[-1].estimate.x_hat, states[-1].z)
    assert len(calls) == 5 and math.inf not in calls
    calls.clear()
    list(inversion_steps(denoise, X, levels, refine=3))
    assert len(calls) == 5 * 4


def test_what_it_refuses(gaussian) -> None:
    denoise = gaussian(MEAN, STD)
    for levels in ([math.inf, 1.0], [1.0, 2.0, 2.0], [1.0], [-math.inf, 1.0], [0.0, math.nan]):
        with pytest.raises(UsageError, match="levels do not rise"):
            inversion_steps(denoise, X, torch.tensor(levels).double())
    with pytest.raises(UsageError, match="refine is -1"):
        inversion_steps(denoise, X, karras_levels(5), refine=-1)
