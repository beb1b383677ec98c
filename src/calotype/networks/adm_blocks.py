"""Building blocks of ADM networks, with the numbers of the published models.

Feature maps are (B, C, h, w); embeddings (B, E).
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from calotype.config.adm import AdmAttention, AdmConfig, StatesText
from calotype.networks.attention import attend
from calotype.networks.blocks import RESAMPLERS, GroupNorm, sinusoidal_embedding, zero_init
from calotype.networks.text import TextKeysValues, join_text, split_heads


def activation(name: Literal["none", "silu", "gelu"]) -> nn.Module:
    """The module of that name."""
    modules: dict[str, type[nn.Module]] = {"none": nn.Identity, "silu": nn.SiLU, "gelu": nn.GELU}
    return modules[name]()


class TimestepMLP(nn.Module):
    """Embeds timesteps: of the image, or of its low-resolution image's noise."""

    def __init__(self, width: int, embed_dim: int, act: Literal["silu", "gelu"]) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, embed_dim)
        self.act = activation(act)
        self.linear_2 = nn.Linear(embed_dim, embed_dim)

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) -> (B, E)."""
        features = sinusoidal_embedding(timesteps, self.width).to(self.linear_1.weight.dtype)
        return cast(Tensor, self.linear_2(self.act(self.linear_1(features))))


class AdmResidual(nn.Module):
    """Residual block with scale-shift norm; may halve or double the resolution.

    Reference: Dhariwal & Nichol 2021, section 3 and appendix A, arXiv:2105.05233; activation,
    division and un-activated embedding as in DeepFloyd IF.
    """

    def __init__(
        self,
        config: AdmConfig,
        in_channels: int,
        out_channels: int,
        embed_dim: int,
        *,
        resample: Literal["none", "down", "up"] = "none",
        divisor: float | None = None,
    ) -> None:
        super().__init__()
        groups, eps = config.norm_groups, config.norm_eps
        self.resample = RESAMPLERS[resample]
        self.divisor = config.block_divisor if divisor is None else divisor
        self.act = activation(config.activation)
        skip = config.skip_embed_activation
        self.embed_act = nn.Identity() if skip else activation(config.activation)
        self.norm1 = GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embed_dim, 2 * out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, h, w), (B, E) -> (B, C', h', w')."""
        h = self.conv1(self.resample(self.act(self.norm1(x))))
        scale, shift = self.embedding(self.embed_act(embedding))[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        h = self.conv2(self.dropout(self.act(h)))
        total = self.skip(self.resample(x)) + h
        return cast(Tensor, total if self.divisor == 1 else total / self.divisor)


class TextNorm(GroupNorm):
    """Of text states. Called once a caption, outside of the block that holds it."""


class TextProjection(nn.Linear):
    """Of text states to keys and values. Called once a caption, outside of its block."""


class AdmAttentionLayer(nn.Module):
    """Attention of pixels to text and pixels ("joined") or to text alone ("cross").

    DeepFloyd IF has a GroupNorm over text states, too (`StatesText.norm`).
    """

    def __init__(self, config: AdmConfig, channels: int, kind: AdmAttention) -> None:
        super().__init__()
        text_width = 0 if config.text is None else config.text.width
        norm_text = isinstance(config.text, StatesText) and config.text.norm
        self.heads = channels // config.head_dim
        self.joined = kind == "joined"
        self.norm = GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels if self.joined else channels)
        self.norm_text = TextNorm(32, text_width) if norm_text and text_width > 0 else None
        self.text = TextProjection(text_width, 2 * channels) if text_width > 0 else None
        self.out = zero_init(nn.Linear(channels, channels))

    def project(self, states: Tensor, mask: Tensor | None) -> TextKeysValues:
        """Keys and values of text states (B, L, D); mask (B, L), None = all count."""
        assert self.text is not None
        if self.norm_text is not None:
            states = self.norm_text(states.transpose(1, 2)).transpose(1, 2)
        parts = self.text(states).chunk(2, dim=2)
        keys, values = (split_heads(part, self.heads) for part in parts)
        return TextKeysValues(keys, values, None if mask is None else mask[:, None, None])

    def forward(self, x: Tensor, text: TextKeysValues | None) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, hw, C)
        parts = self.qkv(tokens).split(channels, 2)
        queries, *own = (split_heads(part, self.heads) for part in parts)
        keys, values, mask = join_text(own, text, text_first=True)
        attended = attend(queries, keys, values, mask)
        h = self.out(attended.transpose(1, 2).flatten(2))
        return cast(Tensor, x + h.transpose(1, 2).reshape(batch, channels, height, width))
