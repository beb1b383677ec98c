"""The base U-Net of Imagen: ADM's, with text joined to self-attention and to the noise level."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning, Text, TextEmbedding, token_states
from calotype.config.network import LevelConfig, UNetConfig
from calotype.networks.blocks import Attention, Block, ResidualBlock, group_norm, zero_init
from calotype.networks.draft import Draft
from calotype.networks.embedding import ConditionEmbedding, ExtraInput
from calotype.networks.text import TextFeatures
from calotype.networks.u_shape import UShape


class UNet(UShape):
    """Predicts from noisy images at a coarse resolution (the base stage).

    Down: `blocks` residual blocks a level, halving between levels; a middle of block, attention,
    block; up: one block more a level, each with a skip from its mirror image.

    Reference: Dhariwal & Nichol 2021, section 3; Saharia et al. 2022, appendix F.1.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        levels = config.levels
        self._embed_dim = config.embed_dim if config.embed_dim > 0 else 4 * levels[0].channels
        pixels = 3 * config.fold**2
        inputs = pixels * (2 if config.lowres else 1)
        self.stem = nn.Conv2d(inputs, levels[0].channels, 3, padding=1)
        deepest, attending = levels[-1], any(level.self_attention for level in levels)
        middle = (self._block(deepest.channels, deepest, attend=it) for it in (attending, False))
        self.build(levels, block=self._block, resampler=self._resampler, middle=middle)
        self.extra_in: ExtraInput | None = None
        if config.extra_channels > 0:
            self.extra_in = ExtraInput(config.extra_channels, levels[0].channels, fold=config.fold)
        self.head = nn.Sequential(
            group_norm(levels[0].channels),
            nn.SiLU(),
            zero_init(nn.Conv2d(levels[0].channels, pixels, 3, padding=1)),
        )
        self.condition = ConditionEmbedding(config, self._embed_dim, blocks=self.modules())
        self.draft: Draft | None = None
        if config.draft is not None:
            self.draft = Draft(config.draft, config.text_dim)
            # Added where a level begins, so to as many channels as the level before has.
            entering = [levels[0].channels, *(level.channels for level in levels[:-1])]
            self.draft_in = nn.ModuleList(
                nn.Conv2d(pixels * 4**index, channels, 1) for index, channels in enumerate(entering)
            )

    def _block(self, in_channels: int, level: LevelConfig, *, attend: bool | None = None) -> Block:
        """A block of a level; `attend` None = as the level does."""
        config, channels, attention = self.config, level.channels, None
        if level.attends if attend is None else attend:
            own = level.self_attention or not level.cross_attention
            attention = Attention(channels, config.head_dim, self_attention=own)
        residual = ResidualBlock(in_channels, channels, self._embed_dim, dropout=config.dropout)
        return Block(residual, attention, recompute=level.checkpoint)

    def _resampler(self, channels: int, *, kind: Literal["down", "up"]) -> Block:
        width, dropout = self._embed_dim, self.config.dropout
        block = ResidualBlock(channels, channels, width, dropout=dropout, resample=kind)
        return Block(block, None)

    def forward(self, z: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """(B, 3, H, W), (B,) -> (B, 3, H, W)."""
        return self.bind(cond)(z, logsnr)

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """Compute what only the captions decide; returns `(z, logsnr) -> prediction`."""
        folded = self._folded(cond)
        extra = None
        if self.extra_in is not None and cond.extra is not None:
            extra = self.extra_in(cond.extra)

        def predict(pixels: Tensor, embedding: Tensor, text: TextFeatures) -> Tensor:
            stem = self.stem(F.pixel_unshuffle(pixels, self.config.fold))
            x = self.through(
                stem if extra is None else stem + extra,
                lambda block, x: block(x, embedding, text.keys_values),
                enter=None if folded is None else lambda x, level: x + folded(x, level),
            )
            return F.pixel_shuffle(self.head(x), self.config.fold)

        return self.condition.bind(cond, predict)

    def make_draft(self, text: Text | None, known: Tensor | None = None) -> Tensor:
        """The draft of each caption, (B, 3, side, side); never autocast.

        `known` are pixels of the images, (B, 4, H, W): see `Conditioning.extra`.
        """
        text = token_states(text)
        conditioner, device = self.condition.text, text.tokens.device.type
        assert self.draft is not None and conditioner is not None  # the settings were checked
        # Autocast knows no meta device, where costs are counted.
        exact = torch.autocast(device, enabled=False) if device != "meta" else nullcontext()
        with exact:
            text = TextEmbedding(text.tokens.to(self.draft.mean.dtype), text.mask)
            return cast(Tensor, self.draft(conditioner.pooling(text), known))

    def _folded(self, cond: Conditioning) -> Callable[[Tensor, int], Tensor] | None:
        """`(feature maps, level) -> the draft as feature maps like them`; None without a draft."""
        if self.draft is None:
            return None
        draft = self.make_draft(cond.text) if cond.draft is None else cond.draft
        maps: dict[int, Tensor] = {}  # they depend on the level alone: made in the first step

        def folded(x: Tensor, level: int) -> Tensor:
            if level not in maps:
                side = self.config.fold << level
                size = [side * length for length in x.shape[2:]]
                image = draft
                if list(image.shape[2:]) != size:  # another image size than the draft's
                    image = F.interpolate(image, size, mode="bilinear", align_corners=False)
                maps[level] = self.draft_in[level](F.pixel_unshuffle(image, side))
            return maps[level]

        return folded
