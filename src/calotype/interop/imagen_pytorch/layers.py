"""The resolutions of imagen-pytorch's U-Net: what happens at each on the way down and up."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from calotype.interop.imagen_pytorch.attention import PixelTransformer
from calotype.interop.imagen_pytorch.blocks import (
    CrossEmbedding,
    PixelShuffleUp,
    ResidualBlock,
    SumOf,
)
from calotype.interop.imagen_pytorch.settings import LayerSettings, UnetSettings


class DownLayer(nn.Module):
    """Entry block, residual blocks, attention; halves the resolution before or after them."""

    def __init__(self, settings: UnetSettings, layer: LayerSettings, *, last: bool) -> None:
        super().__init__()
        width = layer.outer if settings.memory_efficient else layer.inner
        self.width = width
        self.before: nn.Module | None = None
        self.after: nn.Module | None = None
        if settings.memory_efficient:
            self.before = _downsample(settings, layer.inner, layer.outer)
        elif last:
            self.after = SumOf(
                nn.Conv2d(layer.inner, layer.outer, 3, padding=1),
                nn.Conv2d(layer.inner, layer.outer, 1),
            )
        else:
            self.after = _downsample(settings, layer.inner, layer.outer)
        self.entry = entry_block(settings, layer, width, width)
        self.blocks = _blocks(settings, layer.blocks, width, width)
        self.attention = _transformer(settings, layer, width)

    def forward(self, x: Tensor, t: Tensor, c: Tensor, skips: list[Tensor]) -> Tensor:
        """(B, C, h, w) -> (B, C', h / 2, w / 2) or the same size; appends to `skips`."""
        if self.before is not None:
            x = self.before(x)
        x = self.entry(x, t, c)
        for block in self.blocks:
            x = block(x, t)
            skips.append(x)
        if self.attention is not None:
            x = self.attention(x, c)
        skips.append(x)
        return x if self.after is None else self.after(x)


class UpLayer(nn.Module):
    """The way back of a resolution; every block sees one map of the way down."""

    def __init__(
        self, settings: UnetSettings, layer: LayerSettings, *, skip: int, last: bool
    ) -> None:
        super().__init__()
        width = layer.outer
        self.entry = entry_block(settings, layer, width + skip, width)
        self.blocks = _blocks(settings, layer.blocks, width + skip, width)
        self.attention = _transformer(settings, layer, width)
        self.after: nn.Module | None = None
        self.out_width = width
        if settings.memory_efficient or not last:
            self.after = _upsample(settings, width, layer.inner)
            self.out_width = layer.inner


def entry_block(
    settings: UnetSettings, layer: LayerSettings, in_channels: int, out_channels: int
) -> ResidualBlock:
    """The first block of a resolution: it may attend to time and text, and is not gated."""
    return ResidualBlock(
        in_channels,
        out_channels,
        settings.time_width,
        cond_width=settings.cond_width,
        cross=layer.cross,
        heads=settings.attn_heads,
        head_dim=settings.attn_dim_head,
        dropout=settings.dropout,
    )


def plain_block(
    settings: UnetSettings, in_channels: int, out_channels: int, *, gated: bool
) -> ResidualBlock:
    """A residual block without attention."""
    return ResidualBlock(
        in_channels,
        out_channels,
        settings.time_width,
        global_context=gated,
        dropout=settings.dropout,
    )


def middle_block(settings: UnetSettings, width: int) -> ResidualBlock:
    """A block of the middle: it always attends, with 8 heads of 64 channels."""
    return ResidualBlock(
        width,
        width,
        settings.time_width,
        cond_width=settings.cond_width,
        cross="full",
        dropout=settings.dropout,
    )


def _blocks(
    settings: UnetSettings, count: int, in_channels: int, out_channels: int
) -> nn.ModuleList:
    gated = settings.use_global_context_attn
    return nn.ModuleList(
        plain_block(settings, in_channels, out_channels, gated=gated) for _ in range(count)
    )


def _transformer(
    settings: UnetSettings, layer: LayerSettings, width: int
) -> PixelTransformer | None:
    if layer.attention == "none":
        return None
    return PixelTransformer(
        width,
        depth=layer.depth,
        heads=settings.attn_heads,
        head_dim=settings.attn_dim_head,
        ff_mult=settings.ff_mult,
        cond_width=settings.cond_width if settings.layer_attns_add_text_cond else None,
        linear=layer.attention == "linear",
    )


def _downsample(settings: UnetSettings, in_channels: int, out_channels: int) -> nn.Module:
    if settings.cross_embed_downsample:
        kernels = settings.cross_embed_downsample_kernel_sizes
        return CrossEmbedding(in_channels, out_channels, kernels=kernels, stride=2)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(in_channels * 4, out_channels, 1))


def _upsample(settings: UnetSettings, in_channels: int, out_channels: int) -> nn.Module:
    if settings.pixel_shuffle_upsample:
        return PixelShuffleUp(in_channels, out_channels)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
    )


def resized(x: Tensor, size: int, mode: str) -> Tensor:
    """Images (B, C, h, w) at (B, C, size, size); unchanged where they have the size."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    return F.interpolate(x, (size, size), mode=mode)
