"""Blocks that only imagen-pytorch's U-Net has: RMS-normed residual blocks, global context,
cross-embedding convolutions, pixel shuffling.

Feature maps are (B, C, h, w), the time embedding t is (B, E), tokens c are (B, L, D).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.interop.imagen_pytorch.attention import CrossAttention, LinearCrossAttention
from calotype.interop.imagen_pytorch.settings import Kind, UnetSettings


class ChannelRMSNorm(nn.Module):
    """Divides every pixel by the root mean square of its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w), same."""
        return F.normalize(x, dim=1) * (self.gamma * math.sqrt(x.shape[1]))


class NormedConvolution(nn.Module):
    """Norm, scale and shift, SiLU, 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = ChannelRMSNorm(in_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.project = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        h = self.norm(x)
        if scale_shift is not None:
            h = torch.addcmul(scale_shift[1], h, scale_shift[0] + 1)
        output: Tensor = self.project(self.dropout(F.silu(h)))
        return output


class GlobalContext(nn.Module):
    """Gates channels by an attention-weighted mean over the image.

    Reference: Cao et al. 2019 (GCNet), arXiv:1904.11492.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(3, channels // 2)
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 1, 1) in (0, 1)."""
        weights = self.to_k(x).flatten(2).softmax(dim=-1)  # (B, 1, hw)
        mean = (x.flatten(2) @ weights.transpose(1, 2))[..., None]
        output: Tensor = self.net(mean)
        return output


class ResidualBlock(nn.Module):
    """Two normed convolutions; the second is scaled and shifted by the time embedding.

    `cross` is attention to the tokens, of `heads` of `head_dim` channels, between the
    convolutions; `dropout` of the settings comes before the second. `gated` is by global context.
    """

    def __init__(
        self,
        settings: UnetSettings,
        in_channels: int,
        out_channels: int,
        *,
        cross: Kind = "none",
        heads: int = 8,
        head_dim: int = 64,
        gated: bool = False,
    ) -> None:
        super().__init__()
        width, dropout = settings.time_width, settings.dropout
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, out_channels * 2))
        self.cross_attn: CrossAttention | None = None
        if cross != "none":
            attention = CrossAttention if cross == "full" else LinearCrossAttention
            self.cross_attn = attention(
                out_channels, settings.cond_width, heads=heads, head_dim=head_dim
            )
        self.block1 = NormedConvolution(in_channels, out_channels)
        self.block2 = NormedConvolution(out_channels, out_channels, dropout=dropout)
        self.gca = GlobalContext(out_channels) if gated else None
        same = in_channels == out_channels
        self.res_conv = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """(B, C, h, w), (B, E), (B, L, D) -> (B, C', h, w)."""
        scale, shift = self.time_mlp(t)[:, :, None, None].chunk(2, dim=1)
        h = self.block1(x)
        if self.cross_attn is not None:
            tokens = h.flatten(2).transpose(1, 2)
            tokens = tokens + self.cross_attn(tokens, c)
            h = tokens.transpose(1, 2).reshape(h.shape)
        h = self.block2(h, (scale, shift))
        if self.gca is not None:
            h = h * self.gca(h)
        output: Tensor = h + self.res_conv(x)
        return output


class CrossEmbedding(nn.Module):
    """Convolutions with several kernel sizes side by side; the smallest gets most channels.

    Reference: Wang et al. 2021 (CrossFormer), arXiv:2108.00154.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, kernels: Sequence[int], stride: int
    ) -> None:
        super().__init__()
        widths = [out_channels // 2**i for i in range(1, len(kernels))]
        widths.append(out_channels - sum(widths))
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels, width, kernel, stride=stride, padding=(kernel - stride) // 2)
            for kernel, width in zip(sorted(kernels), widths, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h / stride, w / stride)."""
        return torch.cat([conv(x) for conv in self.convs], dim=1)


class SumOf(nn.Module):
    """The sum of several layers' outputs."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.fns = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Every layer sees `x`."""
        return torch.stack([layer(x) for layer in self.fns]).sum(0)


def pixel_shuffle_up(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, C', 2h, 2w) by a 1x1 convolution to four times the channels.

    It starts as a nearest-neighbour enlargement: the four copies have equal weights.
    Reference: Aitken et al. 2017, arXiv:1707.02937.
    """
    conv = nn.Conv2d(in_channels, out_channels * 4, 1)
    with torch.no_grad():
        start = nn.init.kaiming_uniform_(torch.empty(out_channels, in_channels, 1, 1))
        conv.weight.copy_(start.repeat_interleave(4, dim=0))
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    net = nn.Sequential(conv, nn.SiLU(), nn.PixelShuffle(2))
    return nn.Sequential(OrderedDict(net=net))


class UpsampleCombiner(nn.Module):
    """Joins the feature maps of all resolutions (channels: `sources`), enlarged, to the last."""

    def __init__(self, sources: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.fmap_convs = nn.ModuleList(
            NormedConvolution(source, out_channels) for source in sources
        )

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """(B, C, h, w) and smaller maps -> (B, C + ..., h, w)."""
        enlarged = [F.interpolate(m, x.shape[-2:], mode="nearest") for m in maps]
        parts = [conv(m) for m, conv in zip(enlarged, self.fmap_convs, strict=True)]
        return torch.cat((x, *parts), dim=1)


class FourierFeatures(nn.Module):
    """A number, and its sines and cosines at learned frequencies.

    Reference: as in crowsonkb/v-diffusion-jax.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(width // 2))

    def forward(self, values: Tensor) -> Tensor:
        """(B,) -> (B, width + 1)."""
        column = values[:, None]
        angles = column * self.weights[None] * (2 * math.pi)
        return torch.cat((column, angles.sin(), angles.cos()), dim=-1)
