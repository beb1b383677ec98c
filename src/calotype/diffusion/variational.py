"""The variational bound of a model at whole timesteps: what a learned variance is trained by.

    L = L_prior + L_0 + ... + L_{T-1},   L_t = KL(q(z_s | z_t, x) || p(z_s | z_t)),  s = t - 1

in bits per dimension: nats / (numbers of an image) / ln 2. From timestep 0 the step leads to the
image itself, and its term is the negative log-likelihood of an 8-bit image under a Gaussian.

Reference: Nichol & Dhariwal 2021, section 2.2 and Eq. 15 and 16, arXiv:2102.09672.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from calotype.diffusion.discrete import DiscreteSchedule
from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.random import NoiseSource
from calotype.diffusion.schedule import add_noise, alpha_sigma, broadcast_to_image, float64

_HALF_STEP = 1 / 255  # half the distance of two 8-bit values in [-1, 1]
_EDGE = 0.999  # beyond, a value is black or white, and its bin reaches to infinity
_GOLDEN = (5**0.5 - 1) / 2  # steps of it fill [0, 1) evenly


def normal_kl(mean: Tensor, log_variance: Tensor, other: Tensor, other_log: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(other, exp(other_log))) of each number, in nats."""
    log_ratio = log_variance - other_log
    distance = (mean - other).square() * torch.exp(-other_log)
    return (torch.expm1(log_ratio) - log_ratio + distance) / 2


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log of the probability that a Gaussian falls into the bin of an 8-bit value.

    The bins of black and white reach to infinity, so that the probabilities of all 256 values sum
    to 1. The distribution function is that of published models: `sigmoid(2u)` with
    `u = sqrt(2/pi) * (x + 0.044715 x^3)`, within 3e-4 of the Gaussian's.

    Args:
        x: 8-bit values, scaled to [-1, 1]; any shape.
        mean: of the Gaussian, like `x`.
        log_std: logarithm of its standard deviation, like `x`.

    Returns:
        Natural logarithms, like `x`; finite, however far the mean is.

    Reference: Ho et al. 2020, Eq. 13, arXiv:2006.11239.
    """
    inverse = torch.exp(-log_std)
    above, below = (x - mean + _HALF_STEP) * inverse, (x - mean - _HALF_STEP) * inverse
    upper, lower = _logit_of_cdf(above), _logit_of_cdf(below)
    # The difference of the two, without cancellation: a^3 - b^3 = (a - b)(a^2 + ab + b^2).
    cubic = 1 + 0.044715 * (above.square() + above * below + below.square())
    width = math.sqrt(8 / math.pi) * 2 * _HALF_STEP * inverse * cubic
    inside = (
        functional.logsigmoid(upper)
        + functional.logsigmoid(-lower)
        + torch.log(-torch.expm1(-width))
    )
    white = torch.where(x > _EDGE, functional.logsigmoid(-lower), inside)
    return torch.where(x < -_EDGE, functional.logsigmoid(upper), white)


def bound_terms(
    schedule: DiscreteSchedule, timesteps: Tensor, x: Tensor, estimate: Estimate
) -> Tensor:
    """Return what each number of an image adds to the bound at a timestep, in bits.

    Args:
        schedule: the table.
        timesteps: (B,) int64 in [0, T - 1].
        x: clean images, (B, 3, H, W) in [-1, 1].
        estimate: of them, from `z` at these timesteps. Without a `variance_fraction` the reverse
            step has the posterior's variance.

    Returns:
        Bits like `x`; their mean over an image is L_t in bits per dimension.
    """
    x_hat, fraction = estimate.x_hat.to(x), estimate.variance_fraction
    weight, lower, upper = (broadcast_to_image(one, x) for one in _reverse(schedule, timesteps))
    log_variance = lower if fraction is None else lower + fraction.to(x) * (upper - lower)
    log_variance = log_variance.expand_as(x)
    kl = normal_kl(weight * x, lower, weight * x_hat, log_variance)
    first = broadcast_to_image(timesteps == 0, x).bool()
    # Elsewhere numbers that are surely finite, whose gradients are not used.
    mean, log_std = torch.where(first, x_hat, x), torch.where(first, log_variance / 2, 0)
    nats = torch.where(first, -discretized_log_likelihood(x, mean, log_std), kl)
    return nats / math.log(2)


def prior_term(schedule: DiscreteSchedule, x: Tensor) -> Tensor:
    """Return L_prior of clean images (B, 3, H, W): what the last timestep still knows, (B,) bits.

    No network has a part in it.
    """
    level = schedule.table[-1:].to(float64(x).device)
    (alpha, _), zero = alpha_sigma(level), torch.zeros_like(level)
    log_variance = functional.logsigmoid(-level)
    nats = normal_kl(alpha * float64(x).flatten(1), log_variance, zero, zero)
    return nats.mean(1) / math.log(2)


@dataclass(frozen=True)
class Bound:
    """The bound of some images, in bits per dimension.

    Args:
        prior: L_prior, (B,) float64.
        terms: L_t at the timesteps that were looked at, (B, K) float64.
        counts: how many timesteps each of the terms stands for, (K,).
    """

    prior: Tensor
    terms: Tensor
    counts: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, (B,): exact where every timestep was looked at, else an estimate."""
        return self.prior + self.terms @ self.counts.to(self.terms)


@torch.no_grad()
def variational_bound(
    denoise: Denoiser,
    x: Tensor,
    noise: NoiseSource,
    *,
    schedule: DiscreteSchedule,
    timesteps: Tensor | None = None,
    counts: Tensor | None = None,
) -> Bound:
    """Return the bound of clean images (B, 3, H, W) in [-1, 1].

    Args:
        denoise: the model; published bounds are of estimates that were clipped.
        x: images, whose values are 8-bit ones.
        noise: of the images, in the order of the timesteps.
        schedule: the table that the model was trained on.
        timesteps: those to look at, (B, K) int64; None = all, which calls the model T times.
        counts: how many timesteps each stands for, (K,); None = 1. `some_timesteps` makes both.
    """
    if timesteps is None:
        timesteps = torch.arange(schedule.steps).expand(len(x), -1)
    terms = []
    for step in timesteps.to(x.device).unbind(1):
        logsnr = schedule.logsnr_at(step)
        z = add_noise(x, logsnr, noise.normal(x.shape).to(x))
        estimate = denoise(z, logsnr.to(x.device, torch.float32))
        bits = bound_terms(schedule, step, x, estimate)
        terms.append(float64(bits).flatten(1).mean(1))
    counts = torch.ones(len(terms)) if counts is None else counts
    return Bound(prior_term(schedule, x), torch.stack(terms, 1), counts)


def some_timesteps(steps: int, images: int) -> tuple[Tensor, Tensor]:
    """Return about log2(T) timesteps for each image, whose terms stand for those of all T.

    One of each octave, as terms fall steeply: 0; 1; 2 or 3; 4 to 7; ... Each image has another
    place in the octaves, so that the mean over many images is nearly that of all timesteps.

    Args:
        steps: T.
        images: how many share them.

    Returns:
        Timesteps (images, K) int64, and how many each of the K stands for, (K,) int64.
    """
    starts = torch.tensor([0, *(2**k for k in range((steps - 1).bit_length()))])
    counts = torch.cat((starts, torch.tensor([steps]))).diff()
    place = (torch.arange(images, dtype=torch.float64) + 0.5)[:, None] / images
    place = (place + _GOLDEN * torch.arange(len(starts))) % 1
    return starts + (place * counts).long(), counts


def _reverse(schedule: DiscreteSchedule, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the reverse step: weight of x in the mean, logs of the least and largest variance.

    With `c = 1 - exp(logsnr_t - logsnr_s)` they are `c*alpha_s`, `c*sigma_s^2` and `c*sigma_t^2`.
    At timestep 0 nothing is left to be added, and the least variance is that of timestep 1, as
    published models have it. All (B,) float64.
    """
    table = schedule.table.to(float64(timesteps).device)
    level, following = table[1:], table[:-1]
    c = -torch.expm1(level - following)
    weight = torch.cat((c.new_ones(1), c * alpha_sigma(following)[0]))
    least = c.log() + functional.logsigmoid(-following)
    upper = torch.cat((c.new_zeros(1), c.log())) + functional.logsigmoid(-table)
    chosen = timesteps.to(table.device)
    return weight[chosen], torch.cat((least[:1], least))[chosen], upper[chosen]


def _logit_of_cdf(x: Tensor) -> Tensor:
    """Logit of the standard normal distribution function, approximately (Page 1977)."""
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)
