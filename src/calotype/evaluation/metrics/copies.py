"""Has the model copied training images? The nearest one of each sample, and equal looks.

Reference: Carlini et al. 2023, arXiv:2301.13188, section 4.2 (the distance of the nearest training
image over the mean distance of the 50 nearest).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.errors import UsageError
from calotype.evaluation.metrics.neighbours import nearest
from calotype.evaluation.metrics.rows import Features, check_rows, check_sets

TYPICAL = 50
Look = tuple[int, int]
"""Perceptual hash and colour hash, of `calotype.data.looks.looks`."""


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of N samples.

    Args:
        index: its row, (N,).
        distance: to it, (N,) float64; 0 = the features are equal.
        ratio: of that to the mean distance of the 50 nearest, (N,) in [0, 1]; far below those of
            held-out images = a copy. 1 where all 50 are equal to the sample.
    """

    index: Tensor
    distance: Tensor
    ratio: Tensor


def nearest_training(training: Features, sampled: Features, *, typical: int = TYPICAL) -> Nearest:
    """Find each sample's nearest training image.

    Args:
        training: features, (M, D).
        sampled: features, (N, D).
        typical: how many neighbours' mean distance is the typical one; at most M are taken.

    Raises:
        UsageError: a set is empty, widths differ, or a row is not finite.
    """
    check_sets(training, sampled, least=1)
    return _nearest(sampled, training, min(typical, len(training)), same=False)


def nearest_others(training: Features, *, typical: int = TYPICAL) -> Nearest:
    """Each training image's nearest other one: what the samples' distances are held against.

    Args:
        training: features, (M, D), M at least 2.
        typical: as for samples; at most M - 1 are taken.

    Raises:
        UsageError: there are fewer than two, or a row is not finite.
    """
    check_rows(training, "training")
    return _nearest(training, training, min(typical, len(training) - 1), same=True)


def equal_looks(training: Sequence[Look], sampled: Sequence[Look]) -> list[int | None]:
    """The first training image that looks the same as each sample, by perceptual and colour hash.

    Args:
        training: M looks.
        sampled: N looks.

    Returns:
        N places among the training images; None = none looks the same.
    """
    first: dict[Look, int] = {}
    for place, look in enumerate(training):
        first.setdefault(look, place)
    return [first.get(look) for look in sampled]


def _nearest(queries: Features, pool: Features, count: int, *, same: bool) -> Nearest:
    if count < 1:
        raise UsageError(f"got {count} typical neighbours; expected at least 1")
    found = nearest(queries, pool, count, same=same)
    distances = found.squared[:, :count].sqrt()
    mean = distances.mean(1)
    ratio = torch.where(mean > 0, distances[:, 0] / mean, 1.0)
    return Nearest(found.index[:, 0].clone(), distances[:, 0].clone(), ratio)
