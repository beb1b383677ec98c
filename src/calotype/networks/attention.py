"""Attention of heads to heads, in the form that is quickest where it runs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores that are kept at once, at most: 128 MB in bfloat16.
_MOST_SCORES = 2**26


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """(B, heads, T, d) and twice (B, heads, S, d) -> (B, heads, T, d).

    As `scaled_dot_product_attention` but for rounding; `mask` (True = attended to) and `causal` are
    as it takes them. In bfloat16 on a CPU its kernel takes two to twelve times as long as the two
    products it is made of.
    """
    scores = queries.shape[:-1].numel() * keys.shape[-2]
    bfloat16 = queries.device.type == "cpu" and queries.dtype == torch.bfloat16
    if not bfloat16 or causal or scores > _MOST_SCORES:
        return F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal)
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return torch.softmax(logits, -1) @ values
