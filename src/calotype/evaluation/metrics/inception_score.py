"""Inception Score: how sure a classifier is of each sample, and how evenly it uses its classes.

Reference: Salimans et al. 2016, arXiv:1606.03498.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calotype.errors import MissingExtra, UsageError
from calotype.evaluation.metrics.rows import check_rows, take


@dataclass(frozen=True)
class InceptionScore:
    """The mean over splits, from 1 to the number of classes, and the deviation over them."""

    value: float
    deviation: float
    splits: int
    count: int


def inception_score(logits: Tensor, *, splits: int = 10, seed: int | None = 0) -> InceptionScore:
    """The score of each split by torchmetrics, the splits chosen by the seed.

    Args:
        logits: of the classifier, (N, C), without its bias (as torch-fidelity's `logits_unbiased`).
        splits: how many, each of at least one sample.
        seed: of the order in which samples go to splits; None = as they come.

    Raises:
        UsageError: there are fewer than two samples, or fewer than splits, or a row is not finite.
        MissingExtra: torchmetrics is not installed.
    """
    check_rows(logits, "sampled", least=max(2, splits))
    if splits < 1:
        raise UsageError(f"got {splits} splits; expected at least 1")
    order = torch.arange(len(logits))
    if seed is not None:
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
    scores = [_score(take(logits, rows.sort().values)) for rows in order.chunk(splits)]
    found = torch.tensor(scores, dtype=torch.float64)
    deviation = float(found.std()) if len(found) > 1 else 0.0
    return InceptionScore(float(found.mean()), deviation, len(found), len(logits))


def _score(logits: Tensor) -> float:
    try:
        from torchmetrics.image.inception import InceptionScore as Metric
    except ImportError as error:
        raise MissingExtra("evaluate", "torchmetrics") from error
    # It shuffles by the global generator; of a single split that changes but the rounding.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        metric = Metric(feature=nn.Identity(), splits=1, sync_on_compute=False)
        metric.update(logits)
        return float(metric.compute()[0])
