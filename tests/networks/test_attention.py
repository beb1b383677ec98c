"""Attention is the same in every form; norms do not lose precision to autocast."""

import pytest
import torch
from torch.nn import functional as F

from calotype.networks import attention
from calotype.networks.blocks import GroupNorm


@pytest.mark.parametrize("kind", ["plain", "masked", "causal", "large"])
def test_bfloat16_attends_as_float32_does(kind, monkeypatch):
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, n, 8).bfloat16() for n in (5, 7, 7))
    mask = None
    if kind == "masked":
        mask = torch.rand(2, 1, 5, 7) < 0.6
        mask[..., 0] = True
    if kind == "large":
        monkeypatch.setattr(attention, "_MOST_SCORES", 10)
    given = [part.float().requires_grad_() for part in (queries, keys, values)]
    ours = [part.requires_grad_() for part in (queries, keys, values)]
    expected = F.scaled_dot_product_attention(*given, mask, is_causal=kind == "causal")
    found = attention.attend(*ours, mask, causal=kind == "causal")
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    cotangent = torch.randn_like(expected)
    expected.backward(cotangent)
    found.backward(cotangent.bfloat16())
    for our, other in zip(ours, given, strict=True):
        torch.testing.assert_close(our.grad.float(), other.grad, atol=0.05, rtol=0.05)


def test_norms_answer_in_the_number_type_of_their_weights():
    norm = GroupNorm(2, 4)
    x = 100 + torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, norm(x.bfloat16().float()))
    assert norm.double()(x).dtype == torch.float64
