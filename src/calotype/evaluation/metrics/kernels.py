"""Distances by kernels: KID with the cubic polynomial, CMMD with a Gaussian on CLIP embeddings.

Both are squared maximum mean discrepancies of all pairs of rows. Sums of the kernel are kept block
by block, so that the jackknife costs nothing beside them, and tiles bound the memory.

Reference: Binkowski et al. 2018, arXiv:1801.01401 (KID); Jayasumana et al. 2024, arXiv:2401.09603
(CMMD).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calotype.errors import MissingExtra, UsageError
from calotype.evaluation.metrics.intervals import Estimate, blocks_in_order, jackknife
from calotype.evaluation.metrics.rows import Features, check_sets, take, take_unit, tiles

CMMD_SIGMA = 10
CMMD_SCALE = 1000
_Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class KidSubsets:
    """KID as published: the mean over subsets. `deviation`, over subsets, is no standard error."""

    value: float
    deviation: float
    subsets: int
    size: int


def kid(reference: Features, sampled: Features, *, blocks: Tensor | None = None) -> Estimate:
    """KID of all pairs, which any number of subsets tends to, with its jackknife interval.

    It is unbiased: about 0 for equal distributions, on either side of it.

    Args:
        reference: features, (M, D).
        sampled: features, (N, D); the counts may differ.
        blocks: the block of each sample, (N,); None = `blocks_in_order`.

    Raises:
        UsageError: there are fewer than two of one, widths differ, or a row is not finite.
        MissingExtra: torchmetrics is not installed.
    """
    return _discrepancy(_features(reference, sampled), _torchmetrics().poly_kernel, blocks)


def kid_by_subsets(
    reference: Features, sampled: Features, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> KidSubsets:
    """KID by torchmetrics' estimate, of subsets chosen by the seed; for comparison with papers.

    Args:
        reference: features, (M, D).
        sampled: features, (N, D); the counts may differ.
        subsets: how many.
        size: rows of a subset, from 2; no more than both sets have are taken.
        seed: of the choice.

    Raises:
        UsageError: as `kid` does, or a subset would have fewer than two rows.
        MissingExtra: torchmetrics is not installed.
    """
    check_sets(reference, sampled)
    size = min(size, len(reference), len(sampled))
    if size < 2 or subsets < 1:
        raise UsageError(f"got {subsets} subsets of {size} rows; expected 1 or more of 2 or more")
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        chosen = [
            take(rows, torch.randperm(len(rows), generator=generator)[:size].sort().values)
            for rows in (reference, sampled)
        ]
        values.append(float(_torchmetrics().poly_mmd(*chosen)))
    found = torch.tensor(values, dtype=torch.float64)
    return KidSubsets(float(found.mean()), float(found.std(correction=0)), subsets, size)


def cmmd(reference: Features, sampled: Features, *, blocks: Tensor | None = None) -> Estimate:
    """CMMD: 1000 times the *biased* discrepancy, pairs of a row with itself included, as published.

    Args:
        reference: CLIP embeddings, (M, D); they are scaled to length 1 here.
        sampled: likewise, (N, D).
        blocks: the block of each sample, (N,); None = `blocks_in_order`.

    Returns:
        At least 0; 0 for equal sets.

    Raises:
        UsageError: as `kid` does, or a row is zero.
    """
    return _discrepancy(_embeddings(reference, sampled), _gaussian, blocks, biased=True)


@dataclass(frozen=True)
class _Sets:
    reference: Features
    sampled: Features
    load: Callable[[Features, Tensor], Tensor]


def _features(reference: Features, sampled: Features) -> _Sets:
    check_sets(reference, sampled)
    return _Sets(reference, sampled, take)


def _embeddings(reference: Features, sampled: Features) -> _Sets:
    check_sets(reference, sampled)
    return _Sets(reference, sampled, take_unit)


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return (squares / (-2 * CMMD_SIGMA**2)).exp()


@dataclass(frozen=True)
class _Within:
    """Of pairs in one set: sums by blocks, (B, B), and of rows with themselves, (B,)."""

    sums: Tensor
    diagonal: Tensor
    counts: Tensor

    def mean(self, biased: bool, without: int | None = None) -> Tensor:
        sums, diagonal, count = self.sums.sum(), self.diagonal.sum(), self.counts.sum()
        if without is not None:
            sums = sums - 2 * self.sums[without].sum() + self.sums[without, without]
            diagonal = diagonal - self.diagonal[without]
            count = count - self.counts[without]
        return sums / count**2 if biased else (sums - diagonal) / (count * (count - 1))


def _discrepancy(
    sets: _Sets, kernel: _Kernel, blocks: Tensor | None, *, biased: bool = False
) -> Estimate:
    count = len(sets.sampled)
    blocks = blocks_in_order(count) if blocks is None else blocks
    own = _within(sets, sets.sampled, blocks, kernel)
    fixed = _within(sets, sets.reference, torch.zeros(len(sets.reference)).long(), kernel)
    across = torch.zeros(len(own.counts), dtype=torch.float64)
    for block, rows in tiles(count, blocks):
        x = sets.load(sets.sampled, rows)
        for _, others in tiles(len(sets.reference)):
            across[block] += kernel(x, sets.load(sets.reference, others)).sum()

    def value(without: int | None = None) -> float:
        kept = torch.ones(len(across), dtype=torch.bool)
        if without is not None:
            kept[without] = False
        pairs = across[kept].sum() / (own.counts[kept].sum() * len(sets.reference))
        found = own.mean(biased, without) + fixed.mean(biased) - 2 * pairs
        return float(CMMD_SCALE * found if biased else found)

    enough = bool((count - own.counts >= 2).all())
    replicates = [value(block) for block in range(len(across))] if enough else []
    return jackknife(value(), replicates, count)


def _within(sets: _Sets, features: Features, blocks: Tensor, kernel: _Kernel) -> _Within:
    counts = torch.bincount(blocks)
    sums = torch.zeros(len(counts), len(counts), dtype=torch.float64)
    diagonal = torch.zeros(len(counts), dtype=torch.float64)
    places = list(tiles(len(features), blocks))
    for number, (block, rows) in enumerate(places):
        x = sets.load(features, rows)
        square = kernel(x, x)
        sums[block, block] += square.sum()
        diagonal[block] += square.trace()
        for other, others in places[number + 1 :]:  # the kernel is symmetric
            found = kernel(x, sets.load(features, others)).sum()
            sums[block, other] += found
            sums[other, block] += found
    return _Within(sums, diagonal, counts)


def _torchmetrics() -> Any:
    try:
        from torchmetrics.image import kid as module
    except ImportError as error:
        raise MissingExtra("evaluate", "torchmetrics") from error
    return module
