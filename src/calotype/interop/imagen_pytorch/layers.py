"""The resolutions of imagen-pytorch's U-Net: what happens at each on the way down and up."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.interop.imagen_pytorch.attention import PixelTransformer
from calotype.interop.imagen_pytorch.blocks import (
    CrossEmbedding,
    ResidualBlock,
    SumOf,
    pixel_shuffle_up,
)
from calotype.interop.imagen_pytorch.settings import LayerSettings, UnetSettings


class DownLayer(nn.Module):
    """Entry block, residual blocks, attention; halves the resolution before or after them."""

    def __init__(self, settings: UnetSettings, layer: LayerSettings, *, last: bool) -> None:
        super().__init__()
        self.width = layer.outer if settings.memory_efficient else layer.inner
        self.before: nn.Module | None = None
        self.after: nn.Module | None = None
        if settings.memory_efficient:
            self.before = _downsample(settings, layer)
        elif last:
            self.after = SumOf(
                nn.Conv2d(layer.inner, layer.outer, 3, padding=1),
                nn.Conv2d(layer.inner, layer.outer, 1),
            )
        else:
            self.after = _downsample(settings, layer)
        self.entry = _entry(settings, layer, self.width, self.width)
        self.blocks = _blocks(settings, layer, self.width, self.width)
        self.attention = _transformer(settings, layer, self.width)

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
    """The way back of a resolution; every block sees a map of the way down, of `skip` channels."""

    def __init__(
        self, settings: UnetSettings, layer: LayerSettings, *, skip: int, last: bool
    ) -> None:
        super().__init__()
        width = layer.outer
        self.skip_scale = 2**-0.5 if settings.scale_skip_connection else 1.0
        self.entry = _entry(settings, layer, width + skip, width)
        self.blocks = _blocks(settings, layer, width + skip, width)
        self.attention = _transformer(settings, layer, width)
        self.after: nn.Module | None = None
        self.out_width = width
        if settings.memory_efficient or not last:
            self.after = _upsample(settings, layer)
            self.out_width = layer.inner

    def forward(
        self, x: Tensor, t: Tensor, c: Tensor, skips: list[Tensor], maps: list[Tensor]
    ) -> Tensor:
        """The inverse of `DownLayer`; takes from `skips`, appends to `maps`."""
        x = self.entry(torch.cat((x, skips.pop() * self.skip_scale), dim=1), t, c)
        for block in self.blocks:
            x = block(torch.cat((x, skips.pop() * self.skip_scale), dim=1), t)
        if self.attention is not None:
            x = self.attention(x, c)
        maps.append(x)
        return x if self.after is None else self.after(x)


def _entry(s: UnetSettings, layer: LayerSettings, inputs: int, outputs: int) -> ResidualBlock:
    """The first block of a resolution: it may attend to time and text, and is not gated."""
    heads, head_dim = s.attn_heads, s.attn_dim_head
    return ResidualBlock(s, inputs, outputs, cross=layer.cross, heads=heads, head_dim=head_dim)


def _blocks(s: UnetSettings, layer: LayerSettings, inputs: int, outputs: int) -> nn.ModuleList:
    gated = s.use_global_context_attn
    return nn.ModuleList(
        ResidualBlock(s, inputs, outputs, gated=gated) for _ in range(layer.blocks)
    )


def _transformer(s: UnetSettings, layer: LayerSettings, width: int) -> PixelTransformer | None:
    if layer.attention == "none":
        return None
    return PixelTransformer(
        width,
        depth=layer.depth,
        heads=s.attn_heads,
        head_dim=s.attn_dim_head,
        ff_mult=s.ff_mult,
        cond_width=s.cond_width if s.layer_attns_add_text_cond else 0,
        linear=layer.attention == "linear",
    )


def _downsample(s: UnetSettings, layer: LayerSettings) -> nn.Module:
    if s.cross_embed_downsample:
        kernels = s.cross_embed_downsample_kernel_sizes
        return CrossEmbedding(layer.inner, layer.outer, kernels=kernels, stride=2)
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(layer.inner * 4, layer.outer, 1))


def _upsample(s: UnetSettings, layer: LayerSettings) -> nn.Module:
    if s.pixel_shuffle_upsample:
        return pixel_shuffle_up(layer.outer, layer.inner)
    conv = nn.Conv2d(layer.outer, layer.inner, 3, padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)


def resized(x: Tensor, size: int, mode: str) -> Tensor:
    """Images (B, C, h, w) at (B, C, size, size); unchanged where they have the size."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    return F.interpolate(x, (size, size), mode=mode)
