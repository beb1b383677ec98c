"""The transformer against torch's own, causality and masks; state names stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calotype.networks.transformer import Transformer


def transformer(**settings: object) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**{"width": 16, "heads": 2, "layers": 2, **settings})  # type: ignore[arg-type]


def peer(net: Transformer) -> nn.TransformerEncoder:
    """Torch's layers with the same weights."""
    layer = nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    result = nn.TransformerEncoder(layer, len(net), enable_nested_tensor=False)
    names = {
        "norm1": "norm1", "norm2": "norm2", "out": "self_attn.out_proj", "widen": "linear1",
        "narrow": "linear2", "qkv": "self_attn.in_proj",
    }  # fmt: skip
    state = {}
    for name, tensor in net.state_dict().items():
        index, part, kind = name.split(".")
        mark = "_" if part == "qkv" else "."
        state[f"layers.{index}.{names[part]}{mark}{kind}"] = tensor
    result.load_state_dict(state)
    return result


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_it_is_the_known_transformer(causal: bool, padded: bool) -> None:
    net, x = transformer(causal=causal), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]]) if padded else None
    found = net(x, mask)
    before = nn.Transformer.generate_square_subsequent_mask(5) if causal else None
    padding = torch.zeros(2, 5).masked_fill(~mask, -torch.inf) if mask is not None else None
    expected = peer(net)(x, mask=before, src_key_padding_mask=padding)
    where = torch.ones(2, 5, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(found[where], expected[where])


@pytest.mark.parametrize("causal", [False, True])
def test_padding_is_never_seen_and_finite(causal: bool) -> None:
    net, x = transformer(causal=causal), torch.randn(2, 4, 16)
    mask = torch.tensor([[False] * 4, [True, True, False, False]])
    other = torch.where(mask[..., None], x, torch.randn(2, 4, 16))
    assert bool(net(x, mask).isfinite().all())
    torch.testing.assert_close(net(x, mask)[1, :2], net(other, mask)[1, :2])


def test_heads_may_be_of_another_width_and_the_activation_clips() -> None:
    net = transformer(head_dim=3, activation="quick_gelu")
    assert net.state_dict()["1.qkv.weight"].shape == (18, 16)
    layer = net[0]
    nn.init.zeros_(layer.out.weight), nn.init.zeros_(layer.out.bias)
    x = torch.randn(1, 3, 16)
    hidden = layer.widen(layer.norm2(x))
    expected = x + layer.narrow(hidden / (1 + torch.exp(-1.702 * hidden)))
    torch.testing.assert_close(layer(x, None, causal=False), expected)
    with pytest.raises(ValueError, match="multiple"):
        transformer(heads=3)


def test_initial_values_are_those_of_clip() -> None:
    """Its published code: standard deviations by width and depth, biases 0."""
    torch.manual_seed(0)
    width, layers = 256, 4
    net = Transformer(width, 4, layers)
    net.initialise()
    attention, projection = width**-0.5, width**-0.5 * (2 * layers) ** -0.5
    expected = {
        "qkv": attention, "out": projection, "widen": (2 * width) ** -0.5, "narrow": projection,
    }  # fmt: skip
    for layer in net:
        for name, std in expected.items():
            linear = layer.get_submodule(name)
            assert isinstance(linear, nn.Linear) and not linear.bias.any()
            assert float(linear.weight.detach().std()) == pytest.approx(std, rel=0.02)
            assert abs(float(linear.weight.detach().mean())) < 0.02 * std
            assert linear.weight.requires_grad


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_states_of_the_first_tokens_are_those_of_all(causal: bool, padded: bool) -> None:
    net, x = transformer(causal=causal), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]]) if padded else None
    torch.testing.assert_close(net(x, mask, first=2), net(x, mask)[:, :2])
