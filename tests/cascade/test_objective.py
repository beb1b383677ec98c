"""The two halves of the loss of a learned variance: what each of them trains."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from calotype.cascade.network_call import NetworkOutput
from calotype.cascade.objective import PLAIN, NoisedImages, Objective
from calotype.cascade.preconditioning import Preconditioning
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.diffusion import CosineSchedule, EpsPrediction, min_snr_weighting
from calotype.diffusion.named import build_discrete
from calotype.errors import UsageError

SCHEDULE = build_discrete(DiscreteScheduleConfig(precision="float64"))
PLACES = torch.tensor([0, 1, 500, 999])
# openai/guided-diffusion, commit aca3097: see tests/diffusion/test_variational.py.
RECORDED_MSE = (0.0452665201, 0.0446942369, 0.0452937208, 0.0447675868)
RECORDED_BOUND = (0.720431417, 0.0874041339, 0.000205324381, 32.2607344)  # x 0.001 x 1000


def recorded(*, unknown=None):
    n = torch.arange(768, dtype=torch.float64).reshape(4, 3, 8, 8)
    x = (((1.3 * n.sin()).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    eps = 1.4 * (1.7 * n).sin()
    output = (eps + 0.3 * (2.3 * n).cos()).requires_grad_()
    values = (0.9 * n).sin().requires_grad_()
    pre = Preconditioning(torch.zeros(()), torch.ones(()))
    images = NoisedImages(x, SCHEDULE.table[PLACES], eps, pre, unknown)
    return images, output, values


def losses(objective, images, output, values):
    answer = NetworkOutput(output, None if values is None else (values + 1) / 2)
    return objective.losses(images, lambda z, level: answer, EpsPrediction(), SCHEDULE)


def test_the_loss_is_that_of_the_published_code():
    error, bound = torch.tensor([RECORDED_MSE, RECORDED_BOUND], dtype=torch.float64)
    hybrid = Objective(vlb_weight=0.001)
    assert_close(losses(hybrid, *recorded()).detach(), error + bound, rtol=1e-7, atol=0)
    alone = Objective(bound_alone=True)
    assert_close(losses(alone, *recorded()).detach(), 1000 * bound, rtol=1e-7, atol=0)
    assert_close(losses(PLAIN, *recorded()).detach(), error, rtol=1e-7, atol=0)


def test_the_bound_does_not_move_the_mean():
    gradients = []
    for objective in (Objective(vlb_weight=0.001), PLAIN, Objective(bound_alone=True)):
        images, output, values = recorded()
        losses(objective, images, output, values).sum().backward()
        gradients.append((output.grad, values.grad))
    (hybrid, of_values), (plain, nothing), (alone, _) = gradients
    assert torch.equal(hybrid, plain) and nothing is None
    assert (of_values.flatten(1).abs().sum(1) > 0).all()
    assert (alone.flatten(1).abs().sum(1) > 0).all()


def test_a_weighting_is_of_the_error_alone():
    weighting = min_snr_weighting()
    weighted = losses(Objective(weighting), *recorded())
    both = losses(Objective(weighting, vlb_weight=0.001), *recorded())
    bound = torch.tensor(RECORDED_BOUND, dtype=torch.float64)
    assert_close((both - weighted).detach(), bound, rtol=1e-6, atol=0)


def test_without_a_variance_or_a_weight_nothing_is_added():
    images, output, values = recorded()
    plain = losses(PLAIN, images, output, values)
    assert torch.equal(losses(Objective(vlb_weight=0.0), images, output, values), plain)
    assert torch.equal(losses(Objective(vlb_weight=1.0), images, output, None), plain)


def test_what_is_known_counts_in_neither():
    unknown = torch.zeros(4, 1, 8, 8, dtype=torch.float64)
    unknown[:, :, :, :4] = 1
    images, output, values = recorded(unknown=unknown)
    losses(Objective(vlb_weight=0.001), images, output, values).sum().backward()
    for gradient in (output.grad, values.grad):
        assert not gradient[..., 4:].any() and gradient[..., :4].any()
    # A mean over the unknown half: as if there were no other.
    half = NoisedImages(images.x[..., :4], images.logsnr, images.eps[..., :4], images.pre)
    objective = Objective(bound_alone=True)
    expected = losses(objective, half, output[..., :4], values[..., :4])
    assert_close(losses(objective, images, output, values), expected)


def test_images_of_another_spread_have_the_same_bound():
    """The network sees unit variance, and the bound is of the images as they are."""
    images, output, values = recorded()
    pre = Preconditioning(torch.zeros(()), torch.tensor(0.5))
    level = pre.c_noise(images.logsnr)
    seen = NoisedImages(images.x, images.logsnr, images.eps, pre)
    objective = Objective(bound_alone=True)
    assert (level != images.logsnr).all()
    assert_close(losses(objective, seen, output, values), losses(objective, images, output, values))


def test_a_schedule_without_a_table_is_refused():
    images, output, values = recorded()
    answer = NetworkOutput(output, values)
    with pytest.raises(
        UsageError, match=r"^got a schedule without a table .*; expected .*discrete"
    ):
        Objective(vlb_weight=1.0).losses(
            images, lambda z, level: answer, EpsPrediction(), CosineSchedule()
        )


def test_training_reaches_what_gaussian_data_have():
    """The mean by the error and the variance by the bound, at once: a number of each a timestep."""
    std, steps = 0.3, torch.tensor([1, 4, 10, 14])
    schedule = build_discrete(DiscreteScheduleConfig(steps=20, precision="float64"))
    level, objective = schedule.table[steps], Objective(vlb_weight=0.001)
    factor, fraction = (
        torch.full((4, 1, 1, 1), begin, dtype=torch.float64, requires_grad=True)
        for begin in (0.0, 0.5)
    )

    def network(z, level):
        return NetworkOutput(factor * z, fraction.expand_as(z))

    optimizer = torch.optim.Adam([factor, fraction], lr=0.05, betas=(0.9, 0.97))
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=200)
    pre, generator = Preconditioning(torch.zeros(()), torch.ones(())), torch.manual_seed(7)
    for _ in range(200):
        x, eps = torch.randn(2, 4, 3, 32, 32, generator=generator, dtype=torch.float64)
        images = NoisedImages(std * x, level, eps, pre)
        optimizer.zero_grad()
        objective.losses(images, network, EpsPrediction(), schedule).sum().backward()
        optimizer.step()
        slower.step()

    now, before = torch.sigmoid(level), torch.sigmoid(schedule.table[steps - 1])
    total = now * std**2 + 1 - now
    assert_close(factor.detach().flatten(), (1 - now).sqrt() / total, rtol=0.02, atol=0)
    beta = 1 - now / before
    posterior = beta * (1 - before) / (1 - now)
    weight = beta * before.sqrt() / (1 - now)
    exact = posterior + weight**2 * (1 - now) * std**2 / total
    expected = (exact / posterior).log() / (beta / posterior).log()
    assert ((expected > 0) & (expected < 1)).all()
    assert_close(fraction.detach().flatten(), expected, rtol=0, atol=0.02)
