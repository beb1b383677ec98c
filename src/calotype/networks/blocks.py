"""Building blocks the U-Nets share: embeddings, residual blocks, attention, resampling.

Feature maps are (B, C, h, w), kept in channels_last memory order by the caller; embeddings are
(B, E).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from calotype.networks.attention import attend
from calotype.networks.text import TextKeysValues, join_text, split_heads

Module = TypeVar("Module", bound=nn.Module)


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Initial values of a normal distribution.

    Weights of files replace them: networks are built without memory first. Scaled in place, for
    there `torch.randn(...) * std` and `normal_` would import torch's compiler, a second in which
    nothing is sampled.
    """
    return torch.randn(*shape).mul_(std)


def embedding(count: int, width: int, *, std: float = 1.0) -> nn.Embedding:
    """A table of `count` vectors with normal initial values, as `normal` makes them."""
    return nn.Embedding(count, width, _weight=normal(count, width, std=std))


def zero_init(module: Module) -> Module:
    """Start a layer at zero, so that its branch is the identity at first (ADM, section 3)."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class GroupNorm(nn.GroupNorm):
    """GroupNorm in the number type of its weights, whatever comes in.

    Autocast has it in float32 on GPUs; on CPUs it would leave it in bfloat16, where channels_last
    feature maps take it six to eight times as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, C, ...)."""
        return super().forward(x.to(self.weight.dtype))


def group_norm(channels: int) -> GroupNorm:
    """GroupNorm with 32 groups, or as many as divide the channels."""
    return GroupNorm(math.gcd(32, channels), channels)


def sinusoidal_embedding(values: Tensor, dim: int) -> Tensor:
    """Cosines and sines of values (B,) of about [0, 1000], at `dim` / 2 frequencies from 1 to 1e-4.

    In the order of operations of the published ADM networks: a frequency that is one rounding off
    makes an angle of 1000 times that. Returns (B, dim), float32.

    Reference: Vaswani et al. 2017, section 3.5, arXiv:1706.03762.
    """
    half = dim // 2
    numbers = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(-math.log(10_000.0) * numbers / half)
    return torch.cat((angles.cos(), angles.sin()), dim=1)


class ScalarEmbedding(nn.Module):
    """Embeds the noise level, or the noise of the low-resolution image.

    Values of [low, high] are spread over [0, 1000], where the sinusoids resolve them well.
    """

    def __init__(self, low: float, high: float, embed_dim: int) -> None:
        super().__init__()
        self.low = low
        self.high = high
        self.width = 256
        self.mlp = nn.Sequential(
            nn.Linear(self.width, embed_dim), nn.SiLU(), nn.Linear(embed_dim, embed_dim)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(B,) -> (B, E)."""
        spread = (values.clamp(self.low, self.high) - self.low) * (1000 / (self.high - self.low))
        features = sinusoidal_embedding(spread, self.width)
        return cast(Tensor, self.mlp(features.to(next(self.parameters()).dtype)))


nearest_up: Callable[[Tensor], Tensor] = partial(F.interpolate, scale_factor=2.0, mode="nearest")
"""Double the resolution by repetition."""


RESAMPLERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": nn.Identity(),  # no lambda: networks are pickled
    "down": partial(F.avg_pool2d, kernel_size=2),
    "up": nearest_up,
}


class ResidualBlock(nn.Module):
    """Residual block with scale-shift norm; may halve or double the resolution (BigGAN).

    h = conv(resample(silu(norm(x)))); h = conv(silu(norm(h) * (1 + scale) + shift)); the result
    is skip(resample(x)) + h.

    Reference: Dhariwal & Nichol 2021, section 3 and appendix A, arXiv:2105.05233.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embed_dim: int,
        *,
        dropout: float = 0.0,
        resample: Literal["none", "down", "up"] = "none",
    ) -> None:
        super().__init__()
        self.resample = RESAMPLERS[resample]
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embed_dim, 2 * out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, h, w), (B, E) -> (B, C', h', w')."""
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        scale, shift = self.embedding(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        h = self.conv2(self.dropout(F.silu(h)))
        return cast(Tensor, self.skip(self.resample(x)) + h)


class Attention(nn.Module):
    """Attention of pixels to pixels and text, or to text alone.

    Text keys and values, made once per image by `TextProjection`, are joined to those of the
    pixels (`self_attention`) or stand alone.

    Reference: Saharia et al. 2022, appendix D.3.1, arXiv:2205.11487.
    """

    def __init__(self, channels: int, head_dim: int, *, self_attention: bool) -> None:
        super().__init__()
        self.heads = channels // head_dim
        self.self_attention = self_attention
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels if self_attention else channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor, text: TextKeysValues | None) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, hw, C)
        heads = [split_heads(part, self.heads) for part in self.qkv(tokens).split(channels, 2)]
        keys, values, mask = join_text(heads[1:], text)
        attended = attend(heads[0], keys, values, mask)
        h = self.out(attended.transpose(1, 2).flatten(2))  # (B, hw, C)
        return cast(Tensor, x + h.transpose(1, 2).reshape(batch, channels, height, width))


class Block(nn.Module):
    """A residual block and, where the level says so, attention.

    Args:
        residual: `(x, embedding) -> x`.
        attention: `(x, text keys and values or None) -> x`; None = no attention.
        recompute: compute the block again in the backward pass instead of keeping what it made.
    """

    def __init__(
        self, residual: nn.Module, attention: nn.Module | None, *, recompute: bool = False
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention
        self.recompute = recompute
        self.text_layer: int | None = None  # which text keys and values are this block's

    def forward(self, x: Tensor, embedding: Tensor, text: tuple[TextKeysValues, ...]) -> Tensor:
        """(B, C, h, w), (B, E) -> (B, C', h', w'); `text` is that of all the network's layers."""
        if self.recompute and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(self._run, x, embedding, text, use_reentrant=False))
        return self._run(x, embedding, text)

    def _run(self, x: Tensor, embedding: Tensor, text: tuple[TextKeysValues, ...]) -> Tensor:
        x = self.residual(x, embedding)
        if self.attention is None:
            return x
        own = text[self.text_layer] if self.text_layer is not None else None
        return cast(Tensor, self.attention(x, own))


def number_text_layers(modules: Iterable[nn.Module], kind: type[Module]) -> list[Module]:
    """Give every block with this kind of attention its place among the text keys and values."""
    layers: list[Module] = []
    for module in modules:
        if isinstance(module, Block) and isinstance(module.attention, kind):
            module.text_layer = len(layers)
            layers.append(module.attention)
    return layers
