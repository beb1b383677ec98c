"""Low-rank adapters: small matrices whose product is added to weights that stay as they are.

A layer with weight W and an adapter computes with W + scale * up @ down (Hu et al. 2021, section
4.1, arXiv:2106.09685). Of a convolution `down` is a convolution like it to `rank` channels, and
`up` one of 1x1. The weights themselves, and their names, are never touched: taking the adapters
away leaves the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.config.lora import LoraConfig
from calotype.networks.adm_blocks import AdmAttentionLayer
from calotype.networks.adm_text import MeanTokenPooling
from calotype.networks.blocks import Attention
from calotype.networks.text import AttentionPooling, TextProjection
from calotype.networks.transformer import TransformerLayer

Layer = nn.Linear | nn.Conv2d
ADAPTERS = ".adapters."
"""In the names of parameters: all of an adapter, none of the network."""

_ATTENTION = (
    Attention,
    AttentionPooling,
    TextProjection,
    AdmAttentionLayer,
    MeanTokenPooling,
    TransformerLayer,
)


class LowRank(nn.Module):
    """One adapter of one layer.

    Args:
        down: (rank, in) or (rank, in, kh, kw).
        up: (out, rank).
        scale: of their product.
    """

    def __init__(self, down: Tensor, up: Tensor, *, scale: float) -> None:
        super().__init__()
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale

    def delta(self) -> Tensor:
        """The change of the weight, shaped as the weight."""
        return self.scale * torch.einsum("or,r...->o...", self.up, self.down)


class AdaptedLinear(nn.Linear):
    """A linear layer with adapters; made of a plain one by `attach`."""

    adapters: nn.ModuleList

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        output = super().forward(input)
        for adapter in cast("Sequence[LowRank]", self.adapters):
            inner = F.linear(input, adapter.down)
            output = output + adapter.scale * F.linear(inner, adapter.up)
        return output


class AdaptedConv2d(nn.Conv2d):
    """A convolution with adapters; made of a plain one by `attach`."""

    adapters: nn.ModuleList

    def forward(self, input: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        output = super().forward(input)
        for adapter in cast("Sequence[LowRank]", self.adapters):
            inner = F.conv2d(input, adapter.down, None, self.stride, self.padding, self.dilation)
            output = output + adapter.scale * F.conv2d(inner, adapter.up[:, :, None, None])
        return output


def adaptable_layers(network: nn.Module) -> dict[str, Layer]:
    """The layers that can have adapters, by name."""
    return {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
        or (isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros")
    }


def targeted_layers(network: nn.Module, config: LoraConfig) -> dict[str, Layer]:
    """The layers that `config.targets` means, by name."""
    attention = {
        f"{name}.{child}"
        for name, module in network.named_modules()
        if isinstance(module, _ATTENTION)
        for child, _ in module.named_modules()
    }

    def kind(name: str, layer: Layer) -> str:
        if isinstance(layer, nn.Conv2d):
            return "convolution"
        return "attention" if name in attention else "linear"

    layers = adaptable_layers(network).items()
    return {name: layer for name, layer in layers if kind(name, layer) in config.targets}


def train_adapters(network: nn.Module, config: LoraConfig) -> None:
    """Freeze a network and give its targeted layers adapters that change nothing yet.

    `down` is initialised from torch's global generator as a layer's weights are, `up` is zero. The
    rank is no larger than the layer's own.
    """
    network.requires_grad_(False)
    for layer in targeted_layers(network, config).values():
        weight = layer.weight
        rank = min(config.rank, weight.shape[0], weight[0].numel())
        down = weight.new_empty(rank, *weight.shape[1:])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        up = weight.new_zeros(len(weight), rank)
        attach(layer, LowRank(down, up, scale=config.alpha / config.rank))


def attach(layer: Layer, adapter: LowRank) -> None:
    """Add an adapter to a layer, in place.

    The layer becomes one of the adapted classes and stays the same object under the same name (as
    `torch.nn.utils.parametrize` does it), so whoever holds it need not know.
    """
    if not isinstance(layer, AdaptedLinear | AdaptedConv2d):
        layer.adapters = nn.ModuleList()
        layer.__class__ = AdaptedLinear if isinstance(layer, nn.Linear) else AdaptedConv2d
    cast(nn.ModuleList, layer.adapters).append(adapter)


def detach(layer: Layer, adapter: LowRank) -> None:
    """Take an adapter off a layer; with the last one the layer becomes a plain one."""
    assert isinstance(layer, AdaptedLinear | AdaptedConv2d)
    rest = [other for other in layer.adapters if other is not adapter]
    layer.adapters = nn.ModuleList(rest)
    if not rest:
        del layer.adapters
        plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Conv2d
        layer.__class__ = plain  # type: ignore[assignment]


def adapters(network: nn.Module) -> Iterator[tuple[str, Layer, LowRank]]:
    """Every adapter of a network: its layer's name, the layer and itself."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, AdaptedLinear | AdaptedConv2d):
            for adapter in list(layer.adapters):
                yield name, layer, cast(LowRank, adapter)


@torch.no_grad()
def merge_adapters(network: nn.Module) -> None:
    """Add all adapters to the weights of their layers, and take them off."""
    for _, layer, adapter in adapters(network):
        layer.weight.add_(adapter.delta())
        detach(layer, adapter)
