"""The base U-Net of Imagen: ADM's, with text joined to self-attention and to the noise level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning
from calotype.config import LevelConfig, UNetConfig
from calotype.networks.blocks import Attention, Block, ResidualBlock, group_norm, zero_init
from calotype.networks.embedding import ConditionEmbedding
from calotype.networks.text import TextCanvas, TextFeatures


class UNet(nn.Module):
    """Predicts from noisy pictures at a coarse resolution (the base stage).

    Down: `blocks` residual blocks a level, halving between levels; a middle of block, attention,
    block; up: one block more a level, each with a skip from its mirror image.

    Reference: Dhariwal & Nichol 2021, section 3; Saharia et al. 2022, appendix F.1.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        levels = config.levels
        embed_dim = config.embed_dim if config.embed_dim > 0 else 4 * levels[0].channels
        self._embed_dim = embed_dim
        pixels = 3 * config.fold**2
        self.stem = nn.Conv2d(
            pixels * (2 if config.lowres else 1), levels[0].channels, 3, padding=1
        )
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips = self._build_down()
        deepest = levels[-1]
        self.middle = nn.ModuleList(
            (
                self._block(deepest.channels, deepest, attend=self._attends_in_middle()),
                self._block(deepest.channels, deepest, attend=False),
            )
        )
        self._build_up(skips)
        self.head = nn.Sequential(
            group_norm(levels[0].channels),
            nn.SiLU(),
            zero_init(nn.Conv2d(levels[0].channels, pixels, 3, padding=1)),
        )
        # Added where a level begins, so to as many channels as the level before has.
        entering = [levels[0].channels, *(level.channels for level in levels[:-1])]
        self.canvases = nn.ModuleList(
            nn.Conv2d(level.canvas_channels, channels, 1)
            if level.canvas_channels > 0
            else nn.Identity()
            for level, channels in zip(levels, entering, strict=True)
        )
        self.condition = ConditionEmbedding(
            config, embed_dim, blocks=self.modules(), canvas=_canvas(config)
        )

    def _attends_in_middle(self) -> bool:
        return any(level.self_attention for level in self.config.levels)

    def _block(self, in_channels: int, level: LevelConfig, *, attend: bool) -> Block:
        config = self.config
        attention = None
        if attend:
            own = level.self_attention or not level.cross_attention
            attention = Attention(level.channels, config.head_dim, self_attention=own)
        residual = ResidualBlock(
            in_channels, level.channels, self._embed_dim, dropout=config.dropout
        )
        return Block(residual, attention, recompute=level.checkpoint)

    def _build_down(self) -> list[int]:
        levels = self.config.levels
        channels = levels[0].channels
        skips = [channels]
        for index, level in enumerate(levels):
            blocks = nn.ModuleList()
            attend = level.self_attention or level.cross_attention
            for _ in range(level.blocks):
                blocks.append(self._block(channels, level, attend=attend))
                channels = level.channels
                skips.append(channels)
            if index + 1 < len(levels):
                blocks.append(self._resampler(channels, "down"))
                skips.append(channels)
            self.down.append(blocks)
        return skips

    def _build_up(self, skips: list[int]) -> None:
        levels = self.config.levels
        channels = levels[-1].channels
        for index, level in reversed(list(enumerate(levels))):
            blocks = nn.ModuleList()
            attend = level.self_attention or level.cross_attention
            for _ in range(level.blocks + 1):
                blocks.append(self._block(channels + skips.pop(), level, attend=attend))
                channels = level.channels
            if index > 0:
                blocks.append(self._resampler(channels, "up"))
            self.up.append(blocks)

    def _resampler(self, channels: int, kind: str) -> Block:
        resample = "down" if kind == "down" else "up"
        block = ResidualBlock(
            channels,
            channels,
            self._embed_dim,
            dropout=self.config.dropout,
            resample=resample,  # type: ignore[arg-type]
        )
        return Block(block, None)

    def set_text_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        """Statistics of the training captions' mean token states, (D,) and (D, D)."""
        self.condition.set_text_statistics(mean, covariance)

    def forward(self, z: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """(B, 3, H, W), (B,) -> (B, 3, H, W)."""
        return self.bind(cond)(z, logsnr)

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """Compute what only the captions decide; returns `(z, logsnr) -> prediction`."""
        text = self.condition.encode(cond.text)

        def predict(z: Tensor, logsnr: Tensor) -> Tensor:
            return self._predict(z, logsnr, cond, text)

        return predict

    def _predict(
        self, z: Tensor, logsnr: Tensor, cond: Conditioning, text: TextFeatures | None
    ) -> Tensor:
        embedding = self.condition(logsnr, cond.aug_level, text)
        pixels = z if cond.lowres is None else torch.cat((z, cond.lowres.to(z.dtype)), dim=1)
        x = self.stem(F.pixel_unshuffle(pixels, self.config.fold))
        skips = [x]
        for index, blocks in enumerate(self.down):
            x = self._add_canvas(x, index, text)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, embedding, text)
                skips.append(x)
        for block in self.middle:
            x = block(x, embedding, text)
        for level, blocks in zip(reversed(self.config.levels), self.up, strict=True):
            for number, block in enumerate(blocks):  # type: ignore[arg-type]
                if number <= level.blocks:
                    x = torch.cat((x, skips.pop()), dim=1)
                x = block(x, embedding, text)
        return F.pixel_shuffle(self.head(x), self.config.fold)

    def _add_canvas(self, x: Tensor, index: int, text: TextFeatures | None) -> Tensor:
        canvas = text.canvas[index] if text is not None and text.canvas else None
        if canvas is None:
            return x
        added: Tensor = self.canvases[index](canvas)
        if added.shape[-2:] != x.shape[-2:]:  # other picture sizes than it was trained for
            added = F.interpolate(added, x.shape[-2:], mode="bilinear", align_corners=False)
        return x + added


def _canvas(config: UNetConfig) -> TextCanvas | None:
    if all(level.canvas_channels == 0 for level in config.levels):
        return None
    side = config.canvas_resolution // config.fold
    shapes = [
        (level.canvas_channels, side >> index) if level.canvas_channels > 0 else None
        for index, level in enumerate(config.levels)
    ]
    return TextCanvas(config.text_dim, config.canvas_hidden, shapes)
