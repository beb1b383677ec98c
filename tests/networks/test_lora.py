import copy

import pytest
import torch
from torch import nn

from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.lora import LoraConfig
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.errors import ConfigError
from calotype.networks import build_network
from calotype.networks.lora import (
    AdaptedConv2d,
    AdaptedLinear,
    LowRank,
    adapters,
    attach,
    detach,
    merge_adapters,
    targeted_layers,
    train_adapters,
)

LEVELS = (
    LevelConfig(channels=8, blocks=1),
    LevelConfig(channels=16, blocks=1, self_attention=True),
)


def _network(kind=UNetConfig, **changes):
    torch.manual_seed(1)
    network = build_network(kind(levels=LEVELS, text_dim=8, head_dim=8, **changes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def _run(network, size=8):
    generator = torch.Generator().manual_seed(2)
    text = TextEmbedding(torch.randn(2, 3, 8, generator=generator), torch.ones(2, 3).bool())
    z = torch.randn(2, 3, size, size, generator=generator)
    cond = Conditioning(text)
    if network.config.lowres:
        cond = Conditioning(text, z.flip(0), torch.tensor([0.1, 0.7]))
    return network(z, torch.tensor([-1.0, 2.0]), cond)


def _randomise(network):
    torch.manual_seed(3)
    for _, _, adapter in adapters(network):
        nn.init.normal_(adapter.up, std=0.3)


@pytest.mark.parametrize("kind", [UNetConfig, EfficientUNetConfig])
def test_fresh_adapters_change_nothing_and_all_learn(kind):
    network = _network(kind)
    before = _run(network)
    names = {name for name, _ in network.named_parameters()}
    config = LoraConfig(rank=2, targets=("attention", "convolution", "linear"))
    train_adapters(network, config)
    torch.testing.assert_close(_run(network), before, rtol=1e-6, atol=1e-6)  # but for rounding
    _run(network).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in network.named_parameters()} - names
    # `down` gets no gradient while `up` is zero.
    for name, _, adapter in adapters(network):
        assert adapter.up.grad is not None and float(adapter.up.grad.abs().sum()) > 0, name
    assert all(p.grad is None for n, p in network.named_parameters() if n in names)


@pytest.mark.parametrize("kind", [UNetConfig, EfficientUNetConfig])
def test_merged_is_the_same_network(kind):
    network = _network(kind)
    plain = copy.deepcopy(network)
    train_adapters(network, LoraConfig(rank=3, alpha=6.0))
    _randomise(network)
    beside = _run(network)
    merged = copy.deepcopy(network)
    merge_adapters(merged)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert type(merged.stem) is nn.Conv2d
    torch.testing.assert_close(_run(merged), beside, rtol=1e-4, atol=1e-5)
    assert (beside - _run(plain)).abs().max() > 0.05
    assert torch.equal(_run(network), beside)  # merging a copy leaves the other alone


def test_targets():
    network = _network()
    named = {
        target: set(targeted_layers(network, LoraConfig(targets=(target,))))
        for target in ("attention", "convolution", "linear")
    }
    assert "stem" in named["convolution"] and "down.0.0.residual.conv1" in named["convolution"]
    assert "down.1.0.attention.qkv" in named["attention"]
    assert "condition.text.projections.0.key_value" in named["attention"]
    assert "condition.text.to_embedding.0" in named["linear"]
    assert "down.0.0.residual.embedding" in named["linear"]
    assert not named["attention"] & named["linear"]
    layers = {n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert set.union(*named.values()) == layers


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 5),
        nn.Conv2d(6, 5, 3, stride=2, padding=1),
        nn.Conv2d(6, 5, 1, bias=False),
        nn.Conv2d(6, 5, 3, padding="same", dilation=2),
    ],
    ids=str,
)
def test_several_adapters_add_up_and_come_off_in_any_order(layer):
    layer = layer.double()
    weight = layer.weight.detach().clone()
    x = torch.randn(2, 6, dtype=torch.float64)
    x = x if isinstance(layer, nn.Linear) else x[:, :, None, None] * torch.randn(7, 9)
    plain, before = type(layer), layer(x)
    parts = []
    for rank in (2, 3):
        down, up = torch.randn(rank, *weight.shape[1:]), torch.randn(5, rank)
        parts.append(LowRank(down.double(), up.double(), scale=0.5 * rank))
        attach(layer, parts[-1])
    assert type(layer) in (AdaptedLinear, AdaptedConv2d)
    both = layer(x)
    copied = copy.deepcopy(layer)
    merge_adapters(nn.Sequential(copied))
    torch.testing.assert_close(copied(x), both)
    detach(layer, parts[0])
    torch.testing.assert_close(layer(x) - before, both - before - _alone(copied, parts[0], x))
    detach(layer, parts[1])
    assert type(layer) is plain and torch.equal(layer(x), before)
    assert torch.equal(layer.weight, weight) and "adapters" not in dict(layer.named_modules())


def _alone(layer, adapter, x):
    """What one adapter adds to a layer's output."""
    empty = copy.deepcopy(layer)
    empty.weight.data.copy_(adapter.delta())
    if empty.bias is not None:
        empty.bias.data.zero_()
    return empty(x)


def test_the_rank_is_no_larger_than_the_layer():
    network = _network()
    train_adapters(network, LoraConfig(rank=64))
    for name, layer, adapter in adapters(network):
        limit = min(len(layer.weight), layer.weight[0].numel())
        assert adapter.down.shape[0] == min(64, limit), name


def test_wrong_settings_are_refused():
    for wrong in ({"rank": 0}, {"alpha": 0.0}, {"targets": ()}):
        with pytest.raises(ConfigError):
            LoraConfig(**wrong)
