"""The ADM network in guided diffusion's formulation, in plain PyTorch, to measure ours against.

Layers, their order and their parameters are those of `AdmUNet`, so that the same weights give the
same answers; how they are computed is as guided diffusion and GLIDE do:

- attention by einsum over (heads, channels, positions), with a softmax in float32;
- 1x1 convolutions over positions where ours has linear layers;
- norms in float32 whatever comes in, x * sigmoid(x) written out;
- every block projects the embedding, and every attention layer the text, by itself;
- feature maps as they come, not in channels_last order.

Pixels are folded by the same rearrangement as ours, so that FLOPs are equal.

Reference: Dhariwal & Nichol 2021, arXiv:2105.05233; Nichol et al. 2021, arXiv:2112.10741.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning, token_ids
from calotype.config.adm import AdmConfig, AdmLevel, TokensText
from calotype.networks import AdmUNet


class SiLU(nn.Module):
    """Written out, as PyTorch did not always have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * torch.sigmoid(x)


class GroupNorm32(nn.GroupNorm):
    """In float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """In the number type of `x`."""
        return super().forward(x.float()).type(x.dtype)


class LayerNorm32(nn.LayerNorm):
    """In float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        """In the number type of `x`."""
        return super().forward(x.float()).type(x.dtype)


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """(B, C, T), (B, C, S), (B, C, S) -> (B, C, T)."""
    batch, channels, length = queries.shape
    width = channels // heads
    scale = 1 / math.sqrt(math.sqrt(width))
    split = [part.reshape(batch * heads, width, -1) for part in (queries, keys, values)]
    weight = torch.einsum("bct,bcs->bts", split[0] * scale, split[1] * scale)
    weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
    return torch.einsum("bts,bcs->bct", weight, split[2]).reshape(batch, -1, length)


class Residual(nn.Module):
    """As `AdmResidual`."""

    def __init__(
        self,
        config: AdmConfig,
        channels: tuple[int, int],
        embed_dim: int,
        resample: Literal["none", "down", "up"] = "none",
    ) -> None:
        super().__init__()
        before, after = channels
        self.resample = resample
        self.norm1 = GroupNorm32(config.norm_groups, before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.embedding = nn.Linear(embed_dim, 2 * after)
        self.norm2 = GroupNorm32(config.norm_groups, after)
        self.act = SiLU()
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None) -> Tensor:
        """(B, C, h, w), (B, E), (B, D, L) -> (B, C', h', w')."""
        h = self.act(self.norm1(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (F.interpolate(it, scale_factor=2, mode="nearest") for it in (h, x))
        h = self.conv1(h)
        projected = self.embedding(self.act(embedding))[..., None, None]
        scale, shift = torch.chunk(projected, 2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(self.act(h)))
        return cast(Tensor, self.skip(x) + h)


class Attention(nn.Module):
    """As `AdmAttentionLayer`, of pixels to text and pixels."""

    def __init__(self, config: AdmConfig, channels: int) -> None:
        super().__init__()
        self.heads = channels // config.head_dim
        self.norm = GroupNorm32(config.norm_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        width = 0 if config.text is None else config.text.width
        self.text = nn.Conv1d(width, 2 * channels, 1) if width > 0 else None
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None) -> Tensor:
        """(B, C, h, w), (B, E), (B, D, L) -> (B, C', h', w')."""
        flat = x.reshape(*x.shape[:2], -1)
        queries, keys, values = self.qkv(self.norm(flat)).chunk(3, dim=1)
        if self.text is not None:
            text_keys, text_values = self.text(text).chunk(2, dim=1)
            keys = torch.cat((text_keys, keys), dim=-1)
            values = torch.cat((text_values, values), dim=-1)
        h = self.out(attend(queries, keys, values, self.heads))
        return (flat + h).reshape(x.shape)


class Block(nn.Module):
    """As the block of all U-Nets here."""

    def __init__(self, residual: Residual, attention: Attention | None = None) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor, text: Tensor | None) -> Tensor:
        """(B, C, h, w), (B, E), (B, D, L) -> (B, C', h', w')."""
        x = self.residual(x, embedding, text)
        return x if self.attention is None else cast(Tensor, self.attention(x, embedding, text))


class TextLayer(nn.Module):
    """As `TransformerLayer`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = LayerNorm32(width), LayerNorm32(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, W) -> (B, L, W)."""
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        split = [part.view(batch, length, self.heads, -1) for part in parts]
        scale = 1 / math.sqrt(math.sqrt(width // self.heads))
        weight = torch.einsum("bthc,bshc->bhts", split[0] * scale, split[1] * scale)
        weight = torch.softmax(weight.float(), dim=-1).type(weight.dtype)
        h = torch.einsum("bhts,bshc->bthc", weight, split[2]).reshape(x.shape)
        x = x + self.out(h)
        return cast(Tensor, x + self.narrow(F.gelu(self.widen(self.norm2(x)))))


class Text(nn.Module):
    """As `TokensEncoder`."""

    def __init__(self, text: TokensText, embed_dim: int) -> None:
        super().__init__()
        self.context = text.context
        self.tokens = nn.Embedding(text.vocabulary, text.width)
        self.positions = nn.Parameter(torch.empty(text.context, text.width))
        self.padding = nn.Parameter(torch.empty(text.context, text.width))
        self.layers = nn.ModuleList(TextLayer(text.width, text.heads) for _ in range(text.layers))
        self.norm = LayerNorm32(text.width)
        self.to_embedding = nn.Linear(text.width, embed_dim)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, width, L), and what is added to the time embedding."""
        x = self.tokens(ids.long()) + self.positions[None]
        x = torch.where(mask[..., None], x, self.padding[None])
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return x.permute(0, 2, 1), self.to_embedding(x[:, -1])


class TimeEmbedding(nn.Module):
    """As `TimestepMLP`."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1, self.linear_2 = nn.Linear(width, embed_dim), nn.Linear(embed_dim, embed_dim)
        self.act = SiLU()

    def forward(self, timesteps: Tensor) -> Tensor:
        """(B,) -> (B, E)."""
        half = self.width // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
        angles = timesteps[:, None].float() * rates[None]
        features = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return cast(Tensor, self.linear_2(self.act(self.linear_1(features))))


class GuidedDiffusionUNet(nn.Module):
    """Answers as `AdmUNet(config)` does; of its options, those that GLIDE's base has."""

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        assert isinstance(config.text, TokensText | None) and config.extra_channels == 0
        self.config = config
        levels, first, square = config.levels, config.levels[0].channels, config.fold**2
        self.embed_dim = 4 * first
        self.time = TimeEmbedding(first, self.embed_dim)
        self.text = None if config.text is None else Text(config.text, self.embed_dim)
        self.stem = nn.Conv2d(3 * square, first, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, skips = first, [first]
        for index, level in enumerate(levels):
            blocks = nn.ModuleList()
            for _ in range(level.blocks):
                blocks.append(self._block(channels, level))
                channels = level.channels
                skips.append(channels)
            if index + 1 < len(levels):
                blocks.append(Block(Residual(config, (channels, channels), self.embed_dim, "down")))
                skips.append(channels)
            self.down.append(blocks)
        plain = Block(Residual(config, (channels, channels), self.embed_dim))
        attending = Residual(config, (channels, channels), self.embed_dim)
        self.middle = nn.ModuleList([Block(attending, Attention(config, channels)), plain])
        for index, level in reversed(list(enumerate(levels))):
            blocks = nn.ModuleList()
            for _ in range(level.blocks + 1):
                blocks.append(self._block(channels + skips.pop(), level))
                channels = level.channels
            if index > 0:
                blocks.append(Block(Residual(config, (channels, channels), self.embed_dim, "up")))
            self.up.append(blocks)
        outputs = (6 if config.learned_variance else 3) * square
        head = nn.Conv2d(first, outputs, 3, padding=1)
        self.head = nn.Sequential(GroupNorm32(config.norm_groups, first), SiLU(), head)

    def _block(self, before: int, level: AdmLevel) -> Block:
        residual = Residual(self.config, (before, level.channels), self.embed_dim)
        attends = level.attention != "none"
        return Block(residual, Attention(self.config, level.channels) if attends else None)

    def load(self, network: AdmUNet) -> None:
        """Take the weights of ours."""
        own = self.state_dict()
        given = network.state_dict()
        self.load_state_dict({name: given[name].reshape(own[name].shape) for name in own})

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """As networks here are called; nothing is computed ahead."""
        return lambda z, timesteps: self(z, timesteps, cond)

    def forward(self, z: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """As `AdmUNet`."""
        embedding, text = self.time(timesteps), None
        if self.text is not None:
            tokens = token_ids(cond.text).padded(self.text.context)
            text, pooled = self.text(tokens.ids, tokens.mask)
            embedding = embedding + pooled
        h = self.stem(F.pixel_unshuffle(z.contiguous(), self.config.fold))
        skips = [h]
        for blocks in self.down:
            for block in cast(nn.ModuleList, blocks):
                h = block(h, embedding, text)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding, text)
        for index, blocks in enumerate(self.up):
            for place, block in enumerate(cast(nn.ModuleList, blocks)):
                joins = place <= self.config.levels[-1 - index].blocks
                h = block(torch.cat((h, skips.pop()), dim=1) if joins else h, embedding, text)
        output = F.pixel_shuffle(self.head(h), self.config.fold)
        scale = self.config.output_scale
        return output if scale == 1 else torch.cat((output[:, :3] * scale, output[:, 3:]), dim=1)
