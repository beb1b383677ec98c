"""Losses that contrast the rows of a batch: matching images and captions against all others.

Rows of one concept match each other: their captions are positives, never negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.networks.clip import LARGEST_SCALE


def matching(labels: Tensor) -> Tensor:
    """Which rows match, (B, B) bool: those with any label alike.

    Args:
        labels: (B, K) int64; column by column, equal numbers say that rows belong together.
    """
    return (labels[:, None] == labels[None]).any(-1)


def info_nce(image: Tensor, text: Tensor, matches: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric softmax loss of each row, (B,): the mean over its matches, both ways.

    Without equal rows it is CLIP's; with them that of Yang et al. 2022, section 3.1,
    arXiv:2204.03610.

    Args:
        image: unit vectors, (B, E).
        text: unit vectors, (B, E).
        matches: (B, B) bool, True on the diagonal.
        log_scale: log of what similarities are multiplied by, (1,); clamped at `LARGEST_SCALE`.
    """
    logits = log_scale.exp().clamp_max(LARGEST_SCALE) * image @ text.T
    weights = matches.to(logits) / matches.sum(1, keepdim=True)
    to_text = (F.log_softmax(logits, 1) * weights).sum(1)
    to_image = (F.log_softmax(logits.T, 1) * weights).sum(1)
    return -(to_text + to_image) / 2


def siglip(image: Tensor, text: Tensor, matches: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """Sigmoid loss of each image's row of pairs, (B,).

    Reference: Zhai et al. 2023, section 3.2, arXiv:2303.15343.

    Args:
        image: unit vectors, (B, E).
        text: unit vectors, (B, E).
        matches: (B, B) bool.
        log_scale: log of what similarities are multiplied by, (1,).
        bias: added to them then, (1,).
    """
    logits = log_scale.exp() * image @ text.T + bias
    signs = torch.where(matches, 1.0, -1.0).to(logits)
    return -F.logsigmoid(signs * logits).sum(1)
