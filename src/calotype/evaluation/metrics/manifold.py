"""Precision and recall, density and coverage: of what is sampled, how much is real, and inversely.

The k-th nearest row of its own set gives each image a ball. Precision is the fraction of samples
that lie in a ball of the reference, recall the fraction of the reference in a ball of the samples.
Density counts, over k, the reference's balls that a sample lies in; coverage is the fraction of the
reference's balls with a sample in them. "In" is strictly nearer, as in the package `prdc`.

Reference: Kynkäänniemi et al. 2019, arXiv:1904.06991 (k = 3); Naeem et al. 2020, arXiv:2002.09797
(k = 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.errors import UsageError
from calotype.evaluation.metrics.intervals import Estimate, blocks_in_order, jackknife
from calotype.evaluation.metrics.neighbours import Pairs, centre_of, load_tile, nearest
from calotype.evaluation.metrics.rows import AT_ONCE, Features, check_rows, check_sets, tiles

PRECISION_K = 3
COVERAGE_K = 5


@dataclass(frozen=True)
class ReferenceBalls:
    """A reference set, (M, D), with the squared radii of its balls, (M,) float64, for both k.

    `near` is for precision, `far` for density and coverage; recall's k is that of precision.
    """

    features: Features
    near: Tensor
    far: Tensor
    precision_k: int
    coverage_k: int


@dataclass(frozen=True)
class Manifold:
    """All four; precision, recall and coverage are in [0, 1], density is at least 0."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def reference_balls(
    reference: Features, *, precision_k: int = PRECISION_K, coverage_k: int = COVERAGE_K
) -> ReferenceBalls:
    """The balls of the reference: what many sampled sets are compared with.

    Args:
        reference: features, (M, D), M greater than both k.
        precision_k: of precision and recall, at least 1.
        coverage_k: of density and coverage, at least 1.

    Raises:
        UsageError: there are too few rows, one is not finite, or a k is below 1.
    """
    if min(precision_k, coverage_k) < 1:
        raise UsageError(f"got k = {precision_k} and {coverage_k}; expected at least 1")
    k = max(precision_k, coverage_k)
    check_rows(reference, "reference", least=k + 1)
    squared = nearest(reference, reference, k, same=True).squared
    near, far = squared[:, precision_k - 1].clone(), squared[:, coverage_k - 1].clone()
    return ReferenceBalls(reference, near, far, precision_k, coverage_k)


def manifold(
    reference: ReferenceBalls, sampled: Features, *, blocks: Tensor | None = None
) -> Manifold:
    """Precision, recall, density and coverage of sampled images, with jackknife intervals.

    Args:
        reference: of `reference_balls`.
        sampled: features, (N, D), N greater than precision's k.
        blocks: the block of each sample, (N,); None = `blocks_in_order`. Without a block the others
            have larger balls, which recall's interval takes into account.

    Raises:
        UsageError: there are too few samples, widths differ, or a row is not finite.
    """
    k = reference.precision_k
    check_sets(reference.features, sampled, least=k + 1)
    blocks = blocks_in_order(len(sampled)) if blocks is None else blocks
    hits = _count(reference, sampled, blocks, _sampled_balls(sampled, blocks, k))
    counts = torch.bincount(blocks)
    enough = len(counts) > 1 and int(len(sampled) - counts.max()) > k
    without = range(len(counts)) if enough else range(0)

    def estimate(value: Tensor, replicates: list[Tensor], most: float = 1) -> Estimate:
        found = jackknife(float(value), [float(one) for one in replicates], len(sampled))
        if found.low is None or found.high is None:
            return found
        return replace(found, low=max(0.0, found.low), high=min(most, found.high))

    def of_samples(values: Tensor, most: float = 1) -> Estimate:
        rest = [values[blocks != block].mean() for block in without]
        return estimate(values.mean(), rest, most)

    others = hits.covered.sum(1, keepdim=True) - hits.covered.long()  # blocks that cover, but one
    return Manifold(
        precision=of_samples(hits.precise.double()),
        recall=estimate(
            hits.recalled.double().mean(),
            [hits.recalled_without[:, block].double().mean() for block in without],
        ),
        density=of_samples(hits.balls.double() / reference.coverage_k, torch.inf),
        coverage=estimate(
            hits.covered.any(1).double().mean(),
            [(others[:, block] > 0).double().mean() for block in without],
        ),
    )


@dataclass(frozen=True)
class _SampledBalls:
    """Squared radii, (N,), and without one block each, (N, B)."""

    all: Tensor
    without: Tensor


@dataclass(frozen=True)
class _Hits:
    """What `_count` counts, for N samples in B blocks and M reference images.

    Args:
        precise: (N,) whether a sample lies in one of the reference's near balls.
        balls: (N,) how many of its far balls it lies in.
        covered: (M, B) whether a far ball holds a sample of the block.
        recalled: (M,) whether a reference image lies in a ball of the samples.
        recalled_without: (M, B) likewise, of the samples without the block.
    """

    precise: Tensor
    balls: Tensor
    covered: Tensor
    recalled: Tensor
    recalled_without: Tensor


def _sampled_balls(sampled: Features, blocks: Tensor, k: int) -> _SampledBalls:
    found = nearest(sampled, sampled, k, same=True)
    radii = found.squared[:, k - 1].clone()
    without = radii[:, None].repeat(1, int(blocks.max()) + 1)
    for block in range(without.shape[1]):
        rank = (blocks[found.index] != block).cumsum(1)  # among the neighbours that stay
        place = (rank >= k).int().argmax(1)
        # Where a block holds nearly all of them, the farthest known is a lower bound.
        place[rank[:, -1] < k] = rank.shape[1] - 1
        without[:, block] = found.squared.gather(1, place[:, None])[:, 0]
    return _SampledBalls(radii, without)


def _count(
    reference: ReferenceBalls, sampled: Features, blocks: Tensor, balls: _SampledBalls
) -> _Hits:
    counts = (len(reference.features), int(blocks.max()) + 1)
    hits = _Hits(
        precise=torch.zeros(len(sampled), dtype=torch.bool),
        balls=torch.zeros(len(sampled), dtype=torch.long),
        covered=torch.zeros(counts, dtype=torch.bool),
        recalled=torch.zeros(counts[0], dtype=torch.bool),
        recalled_without=torch.zeros(counts, dtype=torch.bool),
    )
    centre = centre_of(reference.features)
    for _, rows in tiles(counts[0]):
        real = load_tile(reference.features, rows, centre)
        for block, others in tiles(len(sampled), blocks):
            pairs = Pairs(real, load_tile(sampled, others, centre))
            hits.precise[others] |= pairs.nearer(reference.near[rows, None]).any(0)
            far = pairs.nearer(reference.far[rows, None])
            hits.balls[others] += far.sum(0)
            hits.covered[rows, block] |= far.any(1)
            back = pairs.nearer(balls.all[None, others]).any(1)
            hits.recalled[rows] |= back
            hits.recalled_without[rows] |= _without(pairs, back, block, balls, others)
    return hits


def _without(
    pairs: Pairs, back: Tensor, block: int, balls: _SampledBalls, others: Tensor
) -> Tensor:
    """Which reference images lie in a ball of these samples, without each block: (n, B)."""
    found = back[:, None].repeat(1, balls.without.shape[1])
    larger = balls.without[others] > balls.all[others, None]
    larger[:, block] = False
    columns, blocks = larger.nonzero(as_tuple=True)
    limits = balls.without[others][columns, blocks]
    for part in torch.split(torch.arange(len(columns)), AT_ONCE):
        inside = pairs.nearer(limits[None, part], columns[part]).float()
        found |= torch.zeros(found.shape).index_add_(1, blocks[part], inside) > 0
    found[:, block] = False  # these samples are the block
    return found
