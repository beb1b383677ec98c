import math

import pytest
import torch
from torch import Tensor

from calotype.diffusion import (
    CosineSchedule,
    Denoiser,
    Estimate,
    GlobalNoise,
    PerSampleNoise,
    Step,
    add_noise,
    alpha_sigma,
    ancestral_step,
    ddim_step,
    ddpm_step,
    denoising_steps,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    heun_step,
    karras_levels,
    renoise,
    resampling_levels,
    sampling_levels,
)
from calotype.errors import UsageError

STEPS = {
    "ddpm": ddpm_step,
    "ddpm upper": ancestral_step(1.0),
    "ddpm between": ancestral_step(0.3),
    "ddim": ddim_step,
    "2m": dpmpp_2m_step,
    "2m sde": dpmpp_2m_sde_step,
    "heun": heun_step,
}
# Relative error of the spread times the number of steps: the posterior's variance is too small for
# data that have a spread, the forward step's too large.
BIAS = {"ddpm": 7, "ddpm upper": 3, "ddpm between": 4, "ddim": 2, "2m": 0, "2m sde": 2, "heun": 0}
close = torch.testing.assert_close


def last(denoise: Denoiser, z: Tensor, levels: Tensor, *, step: Step, seed: int = 3) -> Tensor:
    noise = GlobalNoise(torch.Generator().manual_seed(seed))
    *_, state = denoising_steps(denoise, z, levels, noise, step=step)
    return state.z


def start(count: int, dim: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


# ---- what comes out, with exact denoisers


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("grid", ["cosine", "karras"])
def test_gaussian_mean_and_spread(name: str, grid: str, gaussian) -> None:
    levels = sampling_levels(CosineSchedule(), 150) if grid == "cosine" else karras_levels(150)
    x = last(gaussian(0.3, 0.5), start(40_000), levels, step=STEPS[name])
    # Four standard errors, and for first-order steps the bias of a grid of 150.
    bias = BIAS[name] / 150
    assert abs(x.mean() - 0.3) < 0.01 + bias / 4
    assert abs(x.std() - 0.5) < 0.0071 + bias / 2


@pytest.mark.parametrize("name", STEPS)
def test_mixture_mode_weights_and_spread(name: str, mixture) -> None:
    means = torch.tensor([[-0.8, 0.4], [0.6, -0.2]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    levels = sampling_levels(CosineSchedule(), 100)
    x = last(mixture(means, weights, 0.1), start(20_000, 2), levels, step=STEPS[name])
    second = (x - means[1]).norm(dim=1) < (x - means[0]).norm(dim=1)
    assert abs(second.double().mean() - 0.7) < 0.02
    for mode, member in ((0, ~second), (1, second)):
        close(x[member].mean(0), means[mode], rtol=0, atol=0.01)
        spread = 0.04 + 2 * BIAS[name] / 100
        close(x[member].std(0), torch.full_like(means[0], 0.1), rtol=spread, atol=0)


@pytest.mark.parametrize("name", STEPS)
def test_finite_data_set_samples_its_members_evenly(name: str, mixture) -> None:
    generator = torch.Generator().manual_seed(2)
    data = torch.rand(5, 12, generator=generator, dtype=torch.float64) * 2 - 1
    denoise = mixture(data, torch.full((5,), 0.2, dtype=torch.float64), 0.0)
    x = last(denoise, start(5000, 12), karras_levels(40), step=STEPS[name])
    distance, member = torch.cdist(x, data).min(1)
    assert distance.max() < 1e-3
    fractions = member.bincount(minlength=5) / 5000
    assert (fractions - 0.2).abs().max() < 0.03


def test_the_two_variances_bracket_the_truth(gaussian) -> None:
    """The spread of data grows with the interpolation; the truth lies between 0 and 1."""
    spread = [
        last(gaussian(0.0, 0.5), start(40_000), karras_levels(25), step=ancestral_step(g)).std()
        for g in (0.0, 0.5, 1.0)
    ]
    assert spread[0] < spread[1] < spread[2]
    assert spread[0] < 0.49
    assert spread[2] > 0.51


def order(step: Step, denoise: Denoiser, flow, *, steps: int = 40) -> float:
    """Order of convergence at a finite level, grids even in logsnr."""
    errors = []
    z = start(64)
    ends = torch.tensor([-6.0, 5.0], dtype=torch.float64)
    for count in (steps, 2 * steps):
        # Float32 numbers, which the loop leaves as they are.
        levels = torch.linspace(-6, 5, count + 1).double()
        exact = flow(z, *ends, 0.3, 0.5)
        errors.append((last(denoise, z, levels, step=step) - exact).abs().max())
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("name", "expected"), [("ddim", 1), ("2m", 2), ("heun", 2)])
def test_order_of_convergence(name, expected, gaussian, exact_gaussian_flow, record_property):
    got = order(STEPS[name], gaussian(0.3, 0.5), exact_gaussian_flow)
    record_property("order", got)
    assert abs(got - expected) < 0.1


def test_second_order_beats_first_in_few_steps(gaussian, exact_gaussian_flow) -> None:
    """Also across the big first step of the cosine grid, where Heun in eps fails."""
    z, denoise = start(256), gaussian(0.3, 0.5)
    levels = sampling_levels(CosineSchedule(), 16)
    exact = exact_gaussian_flow(z, levels[0], levels[-1], 0.3, 0.5)
    error = {
        name: (last(denoise, z, levels, step=step) - exact).abs().max()
        for name, step in STEPS.items()
        if "ddpm" not in name and "sde" not in name
    }
    assert error["2m"] < error["ddim"] / 2
    assert error["heun"] < error["ddim"] / 2


@pytest.mark.parametrize("interpolation", [0.0, 0.4, 1.0])
def test_ancestral_moments_follow_the_formula(interpolation: float) -> None:
    """One step for a point: the mean is the posterior's, the variance the stated mixture."""
    logsnr, logsnr_next = torch.tensor([-1.5, 1.0], dtype=torch.float64)
    (a_t, s_t), (a_s, s_s) = alpha_sigma(logsnr), alpha_sigma(logsnr_next)
    forward = s_t**2 - (a_t / a_s) ** 2 * s_s**2  # variance of q(z_t | z_s)
    posterior = forward * s_s**2 / s_t**2
    x, z = 0.4, torch.full((1, 1), 0.9, dtype=torch.float64)
    mean = a_t / a_s * s_s**2 / s_t**2 * 0.9 + a_s * forward / s_t**2 * x

    class Fixed(GlobalNoise):
        def __init__(self, value: float) -> None:
            self.value = value

        def normal(self, shape) -> Tensor:
            return torch.full(tuple(shape), self.value)

    def step(value: float, fraction: Tensor | None) -> Tensor:
        levels = torch.stack([logsnr, logsnr_next])
        *_, state = denoising_steps(
            lambda z, logsnr: Estimate(torch.full_like(z, x), fraction),
            z,
            levels,
            Fixed(value),
            step=ancestral_step(0.5 if fraction is not None else interpolation),
        )
        return state.z

    std = posterior ** ((1 - interpolation) / 2) * forward ** (interpolation / 2)
    close(step(0.0, None).squeeze(), mean)
    close((step(1.0, None) - step(0.0, None)).squeeze(), std)
    learned = torch.full((1, 1), interpolation)
    close((step(1.0, learned) - step(0.0, learned)).squeeze(), std, rtol=1e-6, atol=0)


# ---- the loop


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_step_returns_x_hat_exactly(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    answers = torch.randn(9, 2, 3, 4, 4, generator=generator, dtype=dtype)
    calls = []

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        assert z.dtype == dtype
        assert logsnr.dtype == torch.float32
        calls.append(float(logsnr[0]))
        return Estimate(answers[len(calls) - 1])

    levels = sampling_levels(CosineSchedule(), 5)
    z = torch.randn(2, 3, 4, 4, generator=generator, dtype=dtype)
    states = list(denoising_steps(denoise, z, levels, GlobalNoise(), step=STEPS[name]))
    assert [state.index for state in states] == [0, 1, 2, 3, 4, 5]
    assert torch.equal(states[-1].z, answers[len(calls) - 1])
    assert torch.equal(states[-1].estimate.x_hat, states[-1].z)
    assert len(calls) == (9 if name == "heun" else 5)
    assert max(calls) < 1000  # never asked about the clean level
    assert all(state.z.dtype == dtype for state in states)


def test_previews_come_before_the_next_look() -> None:
    calls = []

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        calls.append(1)
        return Estimate(z)

    states = denoising_steps(denoise, torch.randn(1, 3, 2, 2), karras_levels(50), GlobalNoise())
    assert not calls
    next(states)
    next(states)
    states.close()
    assert len(calls) == 2


@pytest.mark.parametrize("name", STEPS)
def test_image_of_a_seed_is_bitwise_the_same_in_any_batch(name: str, gaussian) -> None:
    """With a pointwise denoiser: the sampler and its noise do not see the batch."""

    def sample(seeds: list[int]) -> Tensor:
        noise = PerSampleNoise(seeds, stream=1)
        z = noise.normal((len(seeds), 3, 8, 8))
        *_, state = denoising_steps(
            gaussian(0.0, 0.6), z, karras_levels(12), noise, step=STEPS[name]
        )
        return state.z

    assert torch.equal(sample([4, 8, 15])[1], sample([8])[0])


def test_deterministic_steps_draw_nothing(gaussian) -> None:
    class Silent(GlobalNoise):
        def normal(self, shape) -> Tensor:
            raise AssertionError("noise was asked for")

    for step in (ddim_step, dpmpp_2m_step, heun_step):
        list(denoising_steps(gaussian(0, 1), start(2), karras_levels(3), Silent(), step=step))


@pytest.mark.parametrize(
    "levels",
    [[1.0], [[0.0, 1.0]], [0.0, 1.0, 1.0, math.inf], [math.nan, 1.0], [-math.inf, 1.0], []],
)
def test_illegal_levels_at_once(levels, gaussian) -> None:
    with pytest.raises(UsageError, match="expected"):
        denoising_steps(gaussian(0, 1), start(2), torch.tensor(levels), GlobalNoise())


# ---- going back to noise


def test_renoise_has_the_variance_of_the_forward_process() -> None:
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for before, after in [(1.0, -2.0), (math.inf, 3.0), (9.0, 8.99), (-3.0, -18.0)]:
        logsnr, logsnr_next = torch.tensor([before, after], dtype=torch.float64)
        (alpha, sigma), (alpha_next, sigma_next) = alpha_sigma(logsnr), alpha_sigma(logsnr_next)
        keep, std = renoise(one, logsnr, logsnr_next, zero), renoise(zero, logsnr, logsnr_next, one)
        close(keep * alpha, alpha_next.reshape(1), rtol=1e-12, atol=0)
        total = std**2 + keep**2 * sigma**2
        close(total, sigma_next.square().reshape(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", STEPS)
def test_resampling_grid_keeps_the_marginal(name: str, gaussian) -> None:
    levels = sampling_levels(CosineSchedule(), 60)
    grid = resampling_levels(levels, jump=10, repeats=3)
    x = last(gaussian(0.3, 0.5), start(20_000), grid, step=STEPS[name])
    assert abs(x.mean() - 0.3) < 0.02
    assert abs(x.std() - 0.5) < 0.01 + BIAS[name] / 60 / 2


def test_resampling_levels() -> None:
    levels = torch.tensor([-3.0, -2, -1, 0, 1, 2, math.inf], dtype=torch.float64)
    grid = resampling_levels(levels, jump=2, repeats=2)
    expected = [-3, -2, -3, -2, -1, 0, -2, -1, 0, 1, 2, 0, 1, 2, math.inf]
    assert grid.tolist() == expected
    assert torch.equal(resampling_levels(levels, jump=2, repeats=1), levels)
    whole = resampling_levels(levels, jump=50, repeats=2).tolist()
    assert whole == [-3, -2, -1, 0, 1, 2, -3, -2, -1, 0, 1, 2, math.inf]
    for illegal in ({"jump": 0, "repeats": 1}, {"jump": 1, "repeats": 0}):
        with pytest.raises(UsageError, match="jump, repeats"):
            resampling_levels(levels, **illegal)


def test_states_of_a_resampling_grid_name_their_level(gaussian) -> None:
    grid = resampling_levels(karras_levels(6), jump=2, repeats=2)
    states = list(denoising_steps(gaussian(0, 1), start(2), grid, GlobalNoise()))
    assert states[-1].index == len(grid) - 1
    for state in states:
        close(state.logsnr, grid[state.index], rtol=1e-6, atol=1e-6)


def test_starting_from_an_image_keeps_it(gaussian) -> None:
    """With little noise added, DDIM with the exact denoiser of broad data gives it back."""
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    levels = sampling_levels(CosineSchedule(), 20, start_time=0.02)
    z = add_noise(x, levels[0], torch.randn_like(x))
    assert (last(gaussian(0.0, 1.0), z, levels, step=ddim_step) - x).abs().max() < 0.2


def test_interpolation_out_of_range() -> None:
    with pytest.raises(UsageError, match="interpolation"):
        ancestral_step(1.5)
