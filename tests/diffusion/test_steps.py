"""Cross-checks with the schedulers of diffusers, on the same denoiser, start and noise."""

import math

import pytest
import torch
from torch import Tensor

from calotype.diffusion import (
    Denoiser,
    GlobalNoise,
    ddim_step,
    ddpm_step,
    denoising_steps,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    karras_levels,
)

diffusers = pytest.importorskip("diffusers")


def noises(steps: int) -> list[Tensor]:
    noise = GlobalNoise(torch.Generator().manual_seed(5))
    return [noise.normal((6, 3, 4, 4)).double() for _ in range(steps)]


def ours(denoise: Denoiser, z: Tensor, levels: Tensor, step) -> Tensor:
    *_, state = denoising_steps(
        denoise, z, levels, GlobalNoise(torch.Generator().manual_seed(5)), step=step
    )
    return state.z


@pytest.fixture
def denoise(mixture) -> Denoiser:
    """A mixture of two values for every pixel by itself: curved, so that errors show."""
    means = torch.tensor([[-0.7], [0.5]], dtype=torch.float64)
    pixel = mixture(means, torch.tensor([0.4, 0.6], dtype=torch.float64), 0.2)

    def images(z: Tensor, logsnr: Tensor):
        levels = logsnr.repeat_interleave(z[0].numel())
        estimate = pixel(z.reshape(-1, 1), levels)
        return type(estimate)(estimate.x_hat.reshape(z.shape))

    return images


@pytest.mark.parametrize(("eta", "step"), [(0.0, ddim_step), (1.0, ddpm_step)])
def test_ddim_and_ddpm(eta: float, step, denoise: Denoiser, implied_noise, record_property) -> None:
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="linear", clip_sample=False, timestep_spacing="leading"
    )
    # Levels that float32 holds, so that both sides see the same; coefficients in float64.
    levels = torch.logit(scheduler.alphas_cumprod.double()).float().double()
    scheduler.alphas_cumprod = torch.sigmoid(levels)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(25)
    z = theirs = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    for t, noise in zip(scheduler.timesteps, noises(25), strict=True):
        level = levels[t].float().expand(6)
        eps = implied_noise(denoise(theirs, level).x_hat, theirs, level)
        theirs = scheduler.step(eps, t, theirs, eta=eta, variance_noise=noise).prev_sample
    grid = torch.cat([levels[scheduler.timesteps], torch.tensor([math.inf])])
    difference = (ours(denoise, z, grid, step) - theirs).abs().max().item()
    record_property("difference", difference)
    assert difference < 1e-10


@pytest.mark.parametrize("steps", [8, 25])
@pytest.mark.parametrize(
    ("algorithm", "step"),
    [("dpmsolver++", dpmpp_2m_step), ("sde-dpmsolver++", dpmpp_2m_sde_step)],
)
def test_dpm_solver(algorithm, step, steps, denoise: Denoiser, record_property) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type=algorithm, solver_order=2, prediction_type="sample", final_sigmas_type="zero"
    )
    scheduler.set_timesteps(steps)
    levels = karras_levels(steps).float().double()
    scheduler.sigmas = torch.exp(-levels / 2)
    z = theirs = torch.randn(6, 3, 4, 4, dtype=torch.float64)
    for index, noise in enumerate(noises(steps)):
        x_hat = denoise(theirs, levels[index].float().expand(6)).x_hat
        t = scheduler.timesteps[index]
        theirs = scheduler.step(x_hat, t, theirs, variance_noise=noise).prev_sample.double()
    difference = (ours(denoise, z, levels, step) - theirs).abs().max().item()
    record_property("difference", difference)
    assert difference < 1e-5  # diffusers keeps its images in float32
