"""A classifier of noisy images: the half of an ADM network that goes down, and attention pooling.

Reference: Dhariwal & Nichol 2021, section 4 and appendix H, arXiv:2105.05233.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.config.classifier import ClassifierConfig
from calotype.networks.adm_blocks import AdmAttentionLayer, AdmResidual, TimestepMLP, activation
from calotype.networks.attention import attend
from calotype.networks.blocks import Block, GroupNorm, normal
from calotype.networks.text import split_heads


class Classifier(nn.Module):
    """Says of noisy images how likely they are of each class."""

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        adm, levels = config.adm, config.levels
        channels, last = levels[0].channels, levels[-1]
        embed_dim = config.embed_dim if config.embed_dim > 0 else 4 * channels
        self.level = TimestepMLP(channels, embed_dim, "silu")
        self.stem = nn.Conv2d(3 * config.fold**2, channels, 3, padding=1)
        blocks = list[Block]()
        middle = [replace(last, attention=kind, blocks=1) for kind in ("joined", "none")]
        for index, level in enumerate([*levels, *middle]):
            for _ in range(level.blocks):
                attention = None
                if level.attention != "none":
                    attention = AdmAttentionLayer(adm, level.channels, level.attention)
                residual = AdmResidual(adm, channels, level.channels, embed_dim)
                blocks.append(Block(residual, attention))
                channels = level.channels
            if index + 1 < len(levels):
                residual = AdmResidual(adm, channels, channels, embed_dim, resample="down")
                blocks.append(Block(residual, None))
        self.blocks = nn.ModuleList(blocks)
        self.norm = GroupNorm(config.norm_groups, channels)
        self.act = activation("silu")
        places = (config.resolution // config.fold >> (len(levels) - 1)) ** 2
        heads = channels // config.head_dim
        self.pool = AttentionPooling(channels, places, config.class_count, heads=heads)

    def forward(self, z: Tensor, level: Tensor) -> Tensor:
        """Logits, (B, K).

        Args:
            z: noisy images, (B, 3, R, R).
            level: their noise levels as numbers of [0, 1000] or so, (B,).
        """
        embedding = self.level(level)
        x = self.stem(F.pixel_unshuffle(z, self.config.fold))
        for block in self.blocks:
            x = block(x, embedding, ())
        return cast(Tensor, self.pool(self.act(self.norm(x))))


class AttentionPooling(nn.Module):
    """The mean of all places asks all places, and itself, what they hold.

    Reference: Radford et al. 2021, section 2.4, arXiv:2103.00020.
    """

    def __init__(self, channels: int, places: int, outputs: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(normal(1 + places, channels, std=channels**-0.5))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, outputs)."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, hw, C)
        tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), dim=1) + self.positions
        parts = self.qkv(tokens).chunk(3, dim=2)
        queries, keys, values = (split_heads(part, self.heads) for part in parts)
        attended = attend(queries[:, :, :1], keys, values)
        return cast(Tensor, self.out(attended.transpose(1, 2).flatten(1)))
