"""Attention is the same in every form; norms do not lose precision to autocast."""

import pytest
import torch
from torch.nn import functional as F

from calotype.networks import attention
from calotype.networks.blocks import GroupNorm


@pytest.mark.parametrize("kind", ["plain", "masked", "chunks", "causal", "large"])
def test_bfloat16_attends_as_float32_does(kind, monkeypatch):
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 3, n, 8).bfloat16() for n in (5, 7, 7))
    mask = None
    if kind in ("masked", "chunks"):
        mask = torch.rand(2, 1, 5, 7) < 0.6
        mask[:, :, 1] = False
    if kind == "chunks":
        monkeypatch.setattr(attention, "_CHUNK", 4 * 5 * 7)
    if kind == "large":
        monkeypatch.setattr(attention, "_MOST_LOGITS", 10)
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


@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_as_exact_as_torchs_kernel_as_logits_grow(size, autocast):
    torch.manual_seed(0)
    queries, keys, values = (torch.randn(2, 4, n, 64).bfloat16() for n in (64, 96, 96))
    given = (size * queries, keys, values)
    cotangent = torch.randn(2, 4, 64, 64).bfloat16()

    def answers(form, dtype):
        inputs = [part.to(dtype).requires_grad_() for part in given]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
            found = form(*inputs)
        return [found, *torch.autograd.grad(found, inputs, cotangent.to(dtype))]

    kernel = F.scaled_dot_product_attention
    exact = answers(kernel, torch.float64)
    ours, theirs = (answers(form, torch.bfloat16) for form in (attention.attend, kernel))
    for our, their, right in zip(ours, theirs, exact, strict=True):
        assert (our - right).norm() < 2 * (their - right).norm()


def test_queries_that_attend_to_nothing_get_zeros():
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, n, 8).bfloat16().requires_grad_() for n in (5, 7, 7)]
    mask = torch.tensor([True, False])[:, None, None, None].expand(2, 1, 1, 7)
    found = attention.attend(*parts, mask)
    assert found[0].any()
    assert not found[1].any()
    found.sum().backward()
    for part in parts:
        assert part.grad[0].any()
        assert not part.grad[1].any()


def test_norms_answer_in_the_number_type_of_their_weights():
    norm = GroupNorm(2, 4)
    x = 100 + torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, norm(x.bfloat16().float()))
    assert norm.double()(x).dtype == torch.float64
