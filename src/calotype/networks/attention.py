"""Attention of heads to heads, in the form that is quickest where it runs."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Weights that are kept for the gradients, at most: 128 MB in bfloat16.
_MOST_WEIGHTS = 2**26
# Logits of a head, at most: where more are wanted, torch's kernel is as quick.
_MOST_LOGITS = 2**21
# Logits at a time, as far as whole heads allow: 256 KB in float32, which stays in a core's cache.
_CHUNK = 2**16


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
) -> Tensor:
    """(B, heads, T, d) and twice (B, heads, S, d) -> (B, heads, T, d).

    As `scaled_dot_product_attention` but for rounding, and that to within twice its error: logits
    and softmax are in float32. `mask` (True = attended to) and `causal` are as it takes them; a
    query that attends to nothing gets zeros. In bfloat16 on a CPU its kernel takes up to three
    times as long, with gradients, as the two products it is made of.
    """
    logits = queries.shape[-2] * keys.shape[-2]
    bfloat16 = queries.device.type == "cpu" and queries.dtype == torch.bfloat16
    many = logits > _MOST_LOGITS or queries.shape[:-2].numel() * logits > _MOST_WEIGHTS
    if not bfloat16 or causal or many:
        return F.scaled_dot_product_attention(queries, keys, values, mask, is_causal=causal)
    if mask is not None:
        mask = mask.expand(*queries.shape[:2], *mask.shape[-2:]).flatten(0, 1)
    # Without autocast, which would have the product of the logits in bfloat16.
    with torch.autocast("cpu", enabled=False):
        parts = (part.to(queries.dtype).flatten(0, 1) for part in (queries, keys, values))
        attended = cast(Tensor, _Products.apply(*parts, mask))  # type: ignore[no-untyped-call]
    return attended.view(*queries.shape[:2], *attended.shape[1:])


class _Products(torch.autograd.Function):
    """Attention in bfloat16 as its two products, with logits and softmax in float32."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """(N, T, d), twice (N, S, d) and (N, 1 or T, S) -> (N, T, d)."""
        heads, rows, dim = queries.shape
        weights = queries.new_empty(heads, rows, keys.shape[1])
        step = max(1, _CHUNK // max(1, weights[:1].numel()))
        for start in range(0, heads, step):
            part = slice(start, start + step)
            scaled = queries[part].float() * dim**-0.5
            logits = torch.bmm(scaled, keys[part].float().transpose(1, 2))
            if mask is not None:  # not infinity, which a softmax of nothing else makes NaN
                logits += (~mask[part]).float() * torch.finfo(torch.float32).min
            weights[part] = torch.softmax(logits, -1)
        if mask is not None and not (attends := mask.any(-1, keepdim=True)).all():
            weights *= attends
        ctx.save_for_backward(queries, keys, values, weights)
        return torch.bmm(weights, values)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients by queries, keys and values."""
        queries, keys, values, weights = ctx.saved_tensors
        by_weights = torch.bmm(gradient, values.transpose(1, 2))
        by_logits = torch._softmax_backward_data(by_weights, weights, -1, weights.dtype)
        by_logits *= queries.shape[-1] ** -0.5
        by_queries = torch.bmm(by_logits, keys)
        by_keys = torch.bmm(by_logits.transpose(1, 2), queries)
        return by_queries, by_keys, torch.bmm(weights.transpose(1, 2), gradient), None
