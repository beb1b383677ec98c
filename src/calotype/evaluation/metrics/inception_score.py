"""Inception Score: how sure a classifier is of each sample, and how evenly it uses its classes.

Reference: Salimans et al. 2016, arXiv:1606.03498.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.errors import UsageError
from calotype.evaluation.metrics.rows import Features, check_rows, take, tiles


@dataclass(frozen=True)
class InceptionScore:
    """The mean over splits, from 1 to the number of classes, and the deviation over them."""

    value: float
    deviation: float
    splits: int
    count: int


def inception_score(
    logits: Features,
    *,
    splits: int = 10,
    seed: int | None = 0,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> InceptionScore:
    """The score of each split, as torchmetrics has it, the splits chosen by the seed.

    Args:
        logits: of the classifier, (N, C), without its bias (as torch-fidelity's `logits_unbiased`).
        splits: how many, each of at least one sample.
        seed: of the order in which samples go to splits; None = as they come.
        classify: makes logits of a split's rows, (n, D), where those given are features: not all
            logits are held at once then.

    Raises:
        UsageError: there are fewer than two samples, or fewer than splits, or a row is not finite.
    """
    check_rows(logits, "sampled", least=max(2, splits))
    if splits < 1:
        raise UsageError(f"got {splits} splits; expected at least 1")
    order = torch.arange(len(logits))
    if seed is not None:
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    scores = [_score(logits, rows.sort().values, classify) for rows in order.chunk(splits)]
    found = torch.tensor(scores, dtype=torch.float64)
    deviation = float(found.std()) if len(found) > 1 else 0.0
    return InceptionScore(float(found.mean()), deviation, len(found), len(logits))


def _score(logits: Features, rows: Tensor, classify: Callable[[Tensor], Tensor] | None) -> float:
    """Of the mean divergence of p(class | image) from its mean: H(mean p) less the mean of H(p)."""
    classes, entropy = torch.zeros(1, dtype=torch.float64), 0.0
    for _, places in tiles(len(rows)):
        x = take(logits, rows[places])
        x = x if classify is None else classify(x.float()).double()
        logs = x.log_softmax(1)
        p = logs.exp()
        classes = classes + p.sum(0)
        entropy -= float((p * logs).sum())
    marginal = torch.special.entr(classes / len(rows)).sum()
    return math.exp(float(marginal) - entropy / len(rows))
