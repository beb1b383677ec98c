"""The Efficient U-Net of the super-resolution stages: down first, up last, deep where coarse."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning
from calotype.config.network import EfficientUNetConfig, LevelConfig
from calotype.networks.blocks import Attention, Block, ResidualBlock, nearest_up, zero_init
from calotype.networks.embedding import ConditionEmbedding, ExtraInput
from calotype.networks.text import TextFeatures


class EfficientUNet(nn.Module):
    """Predicts from noisy images and an enlarged low-resolution image.

    A level down: strided convolution, residual blocks, attention at its end. A level up: the
    same blocks, each with the skip of its mirror image scaled by 1/sqrt(2), then nearest
    enlargement and a convolution.

    Reference: Saharia et al. 2022, appendix B and figures A.27 to A.30, arXiv:2205.11487.
    """

    def __init__(self, config: EfficientUNetConfig) -> None:
        super().__init__()
        self.config = config
        levels = config.levels
        self._embed_dim = config.embed_dim if config.embed_dim > 0 else 4 * levels[0].channels
        pixels = 3 * config.fold**2
        width = config.stem_channels if config.stem_channels > 0 else levels[0].channels
        self.stem = nn.Conv2d(pixels * (2 if config.lowres else 1), width, 3, padding=1)
        widths = [width] + [level.channels for level in levels]
        self.shrink = nn.ModuleList()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.enlarge = nn.ModuleList()
        for level, before in zip(levels, widths, strict=False):
            self.shrink.append(nn.Conv2d(before, level.channels, 3, stride=2, padding=1))
            self.down.append(self._blocks(level, level.channels))
        for index, level in reversed(list(enumerate(levels))):
            self.up.append(self._blocks(level, 2 * level.channels))
            self.enlarge.append(nn.Conv2d(level.channels, widths[index], 3, padding=1))
        self.extra_in: ExtraInput | None = None
        if config.extra_channels > 0:
            self.extra_in = ExtraInput(config.extra_channels, width, fold=config.fold)
        self.head = zero_init(nn.Conv2d(2 * width, pixels, 3, padding=1))
        self.condition = ConditionEmbedding(config, self._embed_dim, blocks=self.modules())

    def _blocks(self, level: LevelConfig, in_channels: int) -> nn.ModuleList:
        """The level's blocks; the last attends, if the level does."""
        blocks, config, channels = nn.ModuleList(), self.config, level.channels
        for number in range(level.blocks):
            attention, own = None, level.self_attention
            if level.attends and number == level.blocks - 1:
                attention = Attention(channels, config.head_dim, self_attention=own)
            residual = ResidualBlock(in_channels, channels, self._embed_dim, dropout=config.dropout)
            blocks.append(Block(residual, attention, recompute=level.checkpoint))
        return blocks

    def forward(self, z: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """(B, 3, H, W), (B,) -> (B, 3, H, W)."""
        return self.bind(cond)(z, logsnr)

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """Compute what only the captions decide; returns `(z, logsnr) -> prediction`."""
        extra = None
        if self.extra_in is not None and cond.extra is not None:
            extra = self.extra_in(cond.extra)

        def predict(pixels: Tensor, embedding: Tensor, text: TextFeatures) -> Tensor:
            stem = self.stem(F.pixel_unshuffle(pixels, self.config.fold))
            return self._predict(stem if extra is None else stem + extra, embedding, text)

        return self.condition.bind(cond, predict)

    def _predict(self, stem: Tensor, embedding: Tensor, text: TextFeatures) -> Tensor:
        """From the first convolution's feature maps, (B, C, H/fold, W/fold)."""
        x = stem
        skips = []
        for shrink, blocks in zip(self.shrink, self.down, strict=True):
            x = shrink(x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding, text.keys_values)
                skips.append(x)
        for blocks, enlarge in zip(self.up, self.enlarge, strict=True):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(_joined(x, skips.pop()), embedding, text.keys_values)
            x = enlarge(nearest_up(x))
        return F.pixel_shuffle(self.head(F.silu(_joined(x, stem))), self.config.fold)


def _joined(x: Tensor, skip: Tensor) -> Tensor:
    """Concatenate a skip, scaled by 1/sqrt(2)."""
    return torch.cat((x, skip * math.sqrt(0.5)), dim=1)
