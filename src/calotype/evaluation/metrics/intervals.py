"""How far a number would move with other samples: jackknife by blocks, clusters by prompt.

FID and KID must not be bootstrapped: images that come twice shrink the covariance, which moves both
upwards by about as much as the finite number of samples does already. A delete-one-block jackknife
has no such fault. Fractions and means are clustered by prompt, since samples of one prompt succeed
and fail together. All intervals are of 95 %, with Student's t.

Reference: Efron and Stein 1981, doi:10.1214/aos/1176345462 (jackknife); Cameron and Miller 2015,
doi:10.3368/jhr.50.2.317 (clusters); Korn and Graubard 1998 (fractions with an effective count).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.errors import MissingExtra, UsageError

BLOCKS = 20
LEAST_BLOCKS = 5
CONFIDENCE = 0.95
Pair = tuple[str, int]
"""What is compared with what: the prompt's id and the seed."""


@dataclass(frozen=True)
class Estimate:
    """A number and how sure it is.

    Args:
        value: the statistic of all samples.
        count: of samples.
        standard_error: None, as `low` and `high` are, where there are too few samples for it.
        low: lower end of the 95 % interval.
        high: upper end.
        note: why the number is to be read with care; None = nothing to say.
    """

    value: float
    count: int
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None


def blocks_in_order(count: int, blocks: int = BLOCKS) -> Tensor:
    """Blocks of neighbouring rows, of sizes that differ by at most one: (count,) from 0.

    No block has fewer than two rows, so there may be fewer blocks than asked for.
    """
    blocks = max(1, min(blocks, count // 2))
    return torch.arange(count) * blocks // max(1, count)


def blocks_by_prompt(prompts: Sequence[str], *, blocks: int = BLOCKS, seed: int = 0) -> Tensor:
    """Blocks of whole prompts, of about equal size: (N,) from 0, for N samples' prompt ids.

    Which prompts meet in a block depends on their ids and the seed, not on their order.
    """
    counts: dict[str, int] = {}
    for prompt in prompts:
        counts[prompt] = counts.get(prompt, 0) + 1
    order = sorted(counts, key=lambda prompt: (_hashed(seed, prompt), prompt))
    wanted = max(1, min(blocks, len(order), len(prompts) // 2))
    placed, before = dict[str, int](), 0
    for prompt in order:
        placed[prompt] = (2 * before + counts[prompt]) * wanted // (2 * len(prompts))
        before += counts[prompt]
    numbers = torch.tensor([placed[prompt] for prompt in prompts], dtype=torch.long)
    # A large prompt may leave a block empty.
    blocks_from_0: Tensor = torch.unique(numbers, return_inverse=True)[1]
    return blocks_from_0


def jackknife(value: float, replicates: Sequence[float], count: int) -> Estimate:
    """A statistic with its interval, from its values without one block each.

    Args:
        value: of all samples.
        replicates: one a block; with fewer than five, or one not finite, there is no interval.
        count: of samples.
    """
    without = torch.tensor(replicates, dtype=torch.float64)
    blocks = len(without)
    if blocks < LEAST_BLOCKS or not bool(without.isfinite().all()):
        return Estimate(value, count)
    squares = (without - without.mean()).square().sum()
    return _around(value, math.sqrt((blocks - 1) / blocks * float(squares)), blocks - 1, count)


def jackknife_of(statistic: Callable[[Tensor], float], blocks: Tensor) -> Estimate:
    """The jackknife of any statistic of rows, given as a function of the row numbers to keep.

    Args:
        statistic: of row numbers, rising; called once for all and once a block.
        blocks: (N,) from 0.
    """
    replicates = []
    if int(blocks.max()) > 0:
        every = range(int(blocks.max()) + 1)
        replicates = [statistic((blocks != block).nonzero()[:, 0]) for block in every]
    return jackknife(statistic(torch.arange(len(blocks))), replicates, len(blocks))


def clustered_mean(values: Sequence[float] | Tensor, clusters: Sequence[str]) -> Estimate:
    """The mean of values that come in clusters (of a prompt), as the ratio estimator has it.

    Args:
        values: N numbers.
        clusters: N names; with fewer than two different ones there is no interval.

    Raises:
        UsageError: there are no values, or not as many as names.
    """
    numbers = torch.as_tensor(values, dtype=torch.float64)
    if len(numbers) == 0 or len(numbers) != len(clusters):
        raise UsageError(
            f"got {len(numbers)} values of {len(clusters)} samples; expected one each, and some"
        )
    mean = float(numbers.mean())
    sums = _by_cluster(numbers - mean, clusters)
    if len(sums) < 2:
        return Estimate(mean, len(numbers))
    correction = len(sums) / (len(sums) - 1)
    error = math.sqrt(correction * float(sums.square().sum())) / len(numbers)
    return _around(mean, error, len(sums) - 1, len(numbers))


def clustered_fraction(hits: Sequence[bool] | Tensor, clusters: Sequence[str]) -> Estimate:
    """A fraction in [0, 1] of samples that come in clusters (of a prompt).

    The interval is Wilson's at the effective count of samples, so that it stays within [0, 1] and
    has a width where all of the samples, or none, hit; there the clusters are what counts.
    """
    plain = clustered_mean(torch.as_tensor(hits, dtype=torch.float64), clusters)
    if plain.standard_error is None:
        return plain
    names = len(set(clusters))
    p, variance = plain.value, plain.standard_error**2
    effective = min(p * (1 - p) / variance, plain.count) if variance > 0 else names
    square = _t_quantile(names - 1) ** 2 / effective
    middle = (p + square / 2) / (1 + square)
    half = math.sqrt(square * (p * (1 - p) + square / 4)) / (1 + square)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Estimate(p, plain.count, plain.standard_error, low, high)


def paired_difference(
    first: Mapping[Pair, float], second: Mapping[Pair, float], *, common: bool = False
) -> Estimate:
    """The mean of `first` minus `second`, paired by prompt and seed, clustered by prompt.

    Args:
        first: a value a sample.
        second: likewise.
        common: compare what both have; otherwise both must have the same samples.

    Raises:
        UsageError: the samples differ without `common`, or none is in both.
    """
    shared = sorted(first.keys() & second.keys())
    if not common and len(shared) < max(len(first), len(second)):
        lone = sorted(first.keys() ^ second.keys())[0]
        raise UsageError(
            f"got {len(first)} and {len(second)} samples, of which {len(shared)} have prompt and "
            f"seed in common (one set alone has {lone}); expected the same ones, or --common"
        )
    if not shared:
        raise UsageError("got two sets without a prompt and seed in common; expected some")
    differences = [first[pair] - second[pair] for pair in shared]
    return clustered_mean(differences, [prompt for prompt, _ in shared])


def _around(value: float, error: float, freedom: int, count: int) -> Estimate:
    half = _t_quantile(freedom) * error
    return Estimate(value, count, error, value - half, value + half)


def _t_quantile(freedom: int) -> float:
    try:
        from scipy import stats
    except ImportError as missing:
        raise MissingExtra("evaluate", "scipy") from missing
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))


def _by_cluster(values: Tensor, clusters: Sequence[str]) -> Tensor:
    """Sums by name, (C,), in the order the names come."""
    numbers: dict[str, int] = {}
    places = torch.tensor([numbers.setdefault(name, len(numbers)) for name in clusters])
    return torch.zeros(len(numbers), dtype=values.dtype).index_add_(0, places, values)


def _hashed(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()
