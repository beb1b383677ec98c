"""The stage: with an exact network inside, exact images come out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calotype.cascade.sampling import guided
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import (
    GlobalNoise,
    PerSampleNoise,
    add_noise,
    alpha_sigma,
    oscillating_weight,
)
from calotype.errors import UsageError

LEVELS = (LevelConfig(channels=8, blocks=1), LevelConfig(channels=8, blocks=1, self_attention=True))
BASE = UNetConfig(levels=LEVELS, text_dim=6, head_dim=4)
FINE = EfficientUNetConfig(levels=LEVELS, text_dim=6, head_dim=4)
STD = 0.3


class GaussianNetwork(torch.nn.Module):
    """The best prediction for x' ~ N(0, 1): zero v, zero x-hat shrinkage in closed form."""

    def __init__(self, parametrization: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.parametrization = parametrization

    def bind(self, cond: Conditioning) -> object:
        def predict(z: Tensor, logsnr: Tensor) -> Tensor:
            alpha, sigma = (v[:, None, None, None].to(z) for v in alpha_sigma(logsnr))
            # E[x|z] = alpha z, E[eps|z] = sigma z, v = alpha eps - sigma x = 0
            return {"x": alpha * z, "eps": sigma * z, "v": 0 * z}[self.parametrization]

        return predict


def exact_stage(**changes: object) -> Stage:
    settings: dict[str, object] = dict(resolution=16, network=BASE, data_std=STD)
    stage = Stage(StageConfig(**{**settings, **changes}))  # type: ignore[arg-type]
    stage.network = GaussianNetwork(stage.config.parametrization)
    return stage


def captions(batch: int) -> TextEmbedding:
    return TextEmbedding(torch.randn(batch, 3, 6), torch.ones(batch, 3, dtype=torch.bool))


@pytest.mark.parametrize("parametrization", ["eps", "v", "x"])
@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "heun", "ddpm"])
def test_samples_images_of_the_right_spread(parametrization: str, sampler: str) -> None:
    stage = exact_stage(parametrization=parametrization)
    sampling = SamplingConfig(
        steps=64,
        sampler=sampler,
        grid="karras",
        threshold_percentile=None,  # type: ignore[arg-type]
    )
    sampled = stage.sample(
        Conditioning(captions(8)), None, GlobalNoise(), size=(16, 16), sampling=sampling
    )
    # 64 ancestral steps still lose some of the spread; order 1 and 2 solvers lose little.
    assert sampled.std().item() == pytest.approx(STD, rel=0.1 if sampler == "ddpm" else 0.05)
    assert sampled.mean().item() == pytest.approx(0.0, abs=0.02)


def test_without_a_threshold_estimates_go_beyond_1() -> None:
    """x ~ N(0, 2^2): E[x|z] = 4 alpha z / (4 alpha^2 + sigma^2)."""
    stage, cond = exact_stage(data_std=2.0), Conditioning(captions(4))
    z, logsnr = 2 * torch.randn(4, 3, 16, 16), torch.tensor([-2.0, 0.0, 2.0, 6.0])
    alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(logsnr))
    exact = 4 * alpha * z / (4 * alpha**2 + sigma**2)
    for clip, expected in ((False, exact), (True, exact.clamp(-1, 1))):
        sampling = SamplingConfig(threshold_percentile=None, static_clip=clip)
        levels = torch.tensor([-2.0, torch.inf])
        denoise = guided(stage.denoiser, cond, None, sampling=sampling, levels=levels)
        found = denoise(z, logsnr).x_hat
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-5)
    assert exact.abs().max() > 2


def test_without_a_threshold_images_are_those_of_the_data_clipped_once() -> None:
    stage = exact_stage(data_std=2.0)
    sampling = SamplingConfig(
        steps=64, sampler="ddim", grid="karras", threshold_percentile=None, static_clip=False
    )
    cond, noise = Conditioning(captions(8)), PerSampleNoise(range(8))
    images = stage.sample(cond, None, noise, size=(16, 16), sampling=sampling)
    generator = torch.Generator().manual_seed(0)
    data = (2 * torch.randn(200_000, generator=generator)).clamp(-1, 1)
    assert images.std().item() == pytest.approx(data.std().item(), rel=0.02)
    whole = images.abs().eq(1).float().mean().item()
    assert whole == pytest.approx(math.erfc(1 / math.sqrt(8)), rel=0.04)


def test_a_percentile_decides_alone() -> None:
    stage = exact_stage(data_std=2.0)
    one, other = (
        stage.sample(
            Conditioning(captions(2)), None, PerSampleNoise(range(2)), size=(16, 16),
            sampling=SamplingConfig(steps=4, threshold_percentile=0.9, static_clip=clip),
        )
        for clip in (True, False)
    )  # fmt: skip
    assert torch.equal(one, other)


@pytest.mark.parametrize("aug_level", [0.0, 0.3, 1.0])
def test_residual_stage_samples_around_the_low_resolution_image(aug_level: float) -> None:
    stage = exact_stage(network=FINE, lowres_resolution=4, residual=True, parametrization="v")
    noise = PerSampleNoise(range(8))
    lowres = torch.rand(8, 3, 4, 4) - 0.5
    cond = stage.lowres_condition(
        lowres, captions(8), size=(16, 16), aug_level=aug_level, noise=noise
    )
    assert cond.lowres is not None
    sampling = SamplingConfig(steps=64, sampler="ddim", grid="karras", threshold_percentile=None)
    sampled = stage.sample(cond, None, noise, size=(16, 16), sampling=sampling)
    if aug_level == 0:
        assert (sampled - cond.lowres).std().item() == pytest.approx(STD, rel=0.1)
    if aug_level == 1:  # nothing known: whole images of spread sqrt(0.3^2 + 0.6^2), clipped
        assert sampled.std().item() == pytest.approx(math.hypot(STD, 0.6), rel=0.15)


def test_loss_is_that_of_the_inner_diffusion() -> None:
    stage = exact_stage(parametrization="v")
    x = STD * torch.randn(4, 3, 16, 16)
    eps, logsnr = torch.randn_like(x), torch.linspace(-4, 4, 4)
    loss = stage.loss(x, Conditioning(captions(4)), logsnr, eps)
    alpha, sigma = alpha_sigma(logsnr + 2 * math.log(STD))
    v = alpha[:, None, None, None] * eps - sigma[:, None, None, None] * x / STD
    torch.testing.assert_close(loss, v.square().flatten(1).mean(1).float(), rtol=1e-5, atol=1e-6)


def test_denoiser_sees_images_whatever_the_preconditioning() -> None:
    """With x ~ N(0, std^2) the best estimate has a closed form, with no trace of the inside."""
    stage = exact_stage(parametrization="eps")
    x, eps = STD * torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16)
    logsnr = torch.tensor([-6.0, -1.0, 1.0, 6.0])
    z = add_noise(x, logsnr, eps)
    alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(logsnr))
    expected = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * z
    estimate = stage.denoiser(Conditioning(captions(4)))(z, logsnr)
    torch.testing.assert_close(estimate.x_hat, expected.float(), rtol=1e-4, atol=1e-5)


def test_image_to_image_keeps_more_with_less_noise() -> None:
    stage = exact_stage(parametrization="v")
    start = STD * torch.randn(4, 3, 16, 16)
    sampling = SamplingConfig(steps=16, sampler="ddim", grid="schedule")
    kept = []
    for strength in (0.1, 0.9):
        sampled = stage.sample(
            Conditioning(captions(4)),
            None,
            GlobalNoise(),
            size=(16, 16),
            sampling=sampling,
            edit=StageEdit(start=start, start_time=strength),
        )
        kept.append((sampled - start).square().mean().item())
    assert kept[0] < 0.2 * kept[1]


def test_guided_with_equal_conditionings_changes_nothing() -> None:
    torch.manual_seed(0)
    stage = Stage(StageConfig(resolution=16, network=BASE))
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    cond = Conditioning(captions(2))
    sampled = [
        stage.sample(
            cond,
            cond,
            PerSampleNoise([1, 2]),
            size=(16, 16),
            sampling=SamplingConfig(
                steps=4, guidance_weight=weight, guidance_interval=interval, sampler="ddim"
            ),
        )
        for weight, interval in ((1.0, None), (4.0, None), (4.0, (0.1, 2.0)))
    ]
    torch.testing.assert_close(sampled[0], sampled[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(sampled[0], sampled[2], atol=1e-4, rtol=0)


def test_sizes_that_cannot_be_sampled_are_refused() -> None:
    stage = Stage(StageConfig(resolution=16, network=BASE))
    with pytest.raises(UsageError, match="multiples of 2"):
        stage.sample(Conditioning(captions(1)), None, PerSampleNoise([0]), size=(15, 16))


@pytest.mark.parametrize("edited", [False, True])
def test_oscillating_guidance_alternates_along_the_levels_that_are_walked(
    edited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = exact_stage()
    seen: dict[float, float] = {}  # weights by level, in the order of steps

    def watched(levels: Tensor, *, high: float) -> Callable[[Tensor], Tensor]:
        weight = oscillating_weight(levels, high=high)

        def note(logsnr: Tensor) -> Tensor:
            seen[logsnr[0].item()] = weight(logsnr)[0].item()
            return weight(logsnr)

        return note

    monkeypatch.setattr("calotype.cascade.sampling.oscillating_weight", watched)
    sampling = SamplingConfig(
        steps=6, sampler="ddim", guidance_weight=3.0, oscillating_guidance=True
    )
    start = torch.zeros(1, 3, 16, 16)
    edit = StageEdit(start=start, start_time=0.4) if edited else None
    cond = Conditioning(captions(1))
    stage.sample(cond, cond, PerSampleNoise([1]), size=(16, 16), sampling=sampling, edit=edit)
    assert list(seen.values()) == [3.0, 1.0] * 3
