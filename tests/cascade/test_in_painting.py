"""In-painting against an exact answer: two pixels whose correlation is known, one of them given."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import KnownPixels, StageEdit
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.network import DraftConfig, EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import PerSampleNoise, alpha_sigma, resampling_levels

CORRELATION = 0.9
GIVEN = 0.24
VARIANCE = 0.04  # well within [-1, 1], where estimates are clipped
SAMPLING = SamplingConfig(
    steps=60, sampler="ddpm", grid="schedule", guidance_weight=1.0, threshold_percentile=None
)
LEVELS = (LevelConfig(channels=8, blocks=1),)


class CorrelatedPixels(torch.nn.Module):
    """The best prediction of x for two pixels, N(0, v [[1, r], [r, 1]]); given one, or none."""

    def __init__(self, *, informed: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.informed = informed

    def bind(self, cond: Conditioning) -> object:
        r = CORRELATION

        def predict(z: Tensor, logsnr: Tensor) -> Tensor:
            alpha, sigma = (v.to(z)[:, None, None] for v in alpha_sigma(logsnr))
            left, right = z[..., 0], z[..., 1]
            if self.informed:
                assert cond.extra is not None
                given = cond.extra[:, :3, :, 0]
                mean, variance = r * given, VARIANCE * (1 - r**2)
                gain = alpha * variance / (alpha**2 * variance + sigma**2)
                return torch.stack((given, mean + gain * (right - alpha * mean)), -1)
            # Kalman's gain: S a (a^2 S + s^2)^-1 with S of both pixels.
            own, other = alpha**2 * VARIANCE + sigma**2, alpha**2 * VARIANCE * r
            determinant = own**2 - other**2
            a = alpha * VARIANCE * (own - r * other) / determinant
            b = alpha * VARIANCE * (r * own - other) / determinant
            return torch.stack((a * left + b * right, b * left + a * right), -1)

        return predict


def in_painted(
    *, informed: bool, repeats: int = 1, count: int = 4000, sampler: str = "ddpm"
) -> Tensor:
    """The sampled pixels beside `GIVEN`, (count * 3,)."""
    network = UNetConfig(levels=LEVELS, text_dim=0, extra_channels=4)
    stage = Stage(StageConfig(resolution=2, network=network, parametrization="x"))
    stage.network = CorrelatedPixels(informed=informed)
    image = torch.full((count, 3, 1, 2), GIVEN)
    mask = torch.tensor([True, False]).expand(count, 1, 1, 2)
    edit = StageEdit(
        known=KnownPixels(image, mask, seamless=False),  # else smoothness would be assumed
        regrid=lambda levels: resampling_levels(levels, jump=4, repeats=repeats),
    )
    states = stage.steps(
        Conditioning(),
        None,
        PerSampleNoise(range(count)),
        size=(1, 2),
        sampling=replace(SAMPLING, sampler=sampler),
        edit=edit,
    )
    *_, end = states
    assert torch.equal(end.z[..., 0], image[..., 0])
    return end.z[..., 1].flatten()


def test_a_network_that_is_told_what_is_known_is_exact() -> None:
    sampled = in_painted(informed=True, sampler="dpmpp_2m")
    assert float(sampled.mean()) == pytest.approx(CORRELATION * GIVEN, abs=0.004)
    spread = math.sqrt(VARIANCE * (1 - CORRELATION**2))
    assert float(sampled.std()) == pytest.approx(spread, rel=0.05)


@pytest.mark.slow
def test_repaint_is_nearer_to_the_truth_than_replacement() -> None:
    truth = CORRELATION * GIVEN
    replaced, repainted = (float(in_painted(informed=False, repeats=n).mean()) for n in (1, 6))
    assert abs(repainted - truth) < 0.6 * abs(replaced - truth)


def test_known_pixels_are_given_as_the_network_sees_clean_images() -> None:
    """Of a residual stage: less what the low-resolution image says, and scaled."""
    seen = []

    class Recorder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def bind(self, cond: Conditioning) -> object:
            def predict(z: Tensor, logsnr: Tensor) -> Tensor:
                seen.append((z, cond.extra))
                return z

            return predict

    network = EfficientUNetConfig(levels=LEVELS, text_dim=0, extra_channels=4)
    config = StageConfig(
        resolution=8, network=network, lowres_resolution=4, residual=True, data_std=0.1
    )
    stage = Stage(config)
    stage.network = Recorder()
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    noise = PerSampleNoise(range(2))
    small = torch.nn.functional.avg_pool2d(x, 2)
    cond = stage.lowres_condition(small, None, size=(8, 8), aug_level=0.1, noise=noise)
    mask = torch.rand(2, 1, 8, 8) > 0.5
    known = KnownPixels(x, mask)
    states = stage.steps(
        cond, None, noise, size=(8, 8), sampling=SAMPLING, edit=StageEdit(known=known)
    )
    next(states)
    clean = torch.full((2,), 60.0)  # log-SNR: no noise to speak of
    stage.denoiser(Conditioning(None, cond.lowres, cond.aug_level, known.channels()))(x, clean)
    z, extra = seen[-1]
    torch.testing.assert_close(extra[:, :3], z * mask, atol=1e-4, rtol=1e-4)
    assert torch.equal(extra[:, 3:], mask.float()) and torch.equal(seen[0][1], extra)
    blind = StageEdit(known=known, blind=True)
    next(stage.steps(cond, None, noise, size=(8, 8), sampling=SAMPLING, edit=blind))
    assert seen[-1][1] is None


@pytest.mark.parametrize("spread", [False, True])
def test_the_draft_holds_what_is_known(spread: bool) -> None:
    """Whether or not the network is told, too; in sampling as in training."""
    network = UNetConfig(
        levels=LEVELS,
        text_dim=6,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=8, rank=4, resolution=8, spread=spread),
    )
    stage, given = Stage(StageConfig(resolution=8, network=network)), []
    stage.network.draft_in[0].register_forward_hook(lambda _, x, y: given.append(x[0]))
    image, mask = torch.rand(1, 3, 8, 8) * 2 - 1, torch.rand(1, 1, 8, 8) > 0.5
    text = TextEmbedding(torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool))
    known = KnownPixels(image, mask)
    plain = stage.with_draft(Conditioning(text)).draft
    assert plain is not None
    edit, noise = StageEdit(known=known), PerSampleNoise([0])
    states = stage.steps(Conditioning(text), None, noise, size=(8, 8), sampling=SAMPLING, edit=edit)
    with torch.no_grad():
        next(states)
        stage.loss(image, Conditioning(text, extra=known.channels()), torch.zeros(1), image)
    assert len(given) == 2 and torch.equal(given[0], given[1])
    torch.testing.assert_close(given[0], torch.where(mask, image, plain))  # the spread is 0
